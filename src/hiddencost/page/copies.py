"""What it takes to bring hidden states from a device to the host."""

from __future__ import annotations

from hiddencost.claims.copying import TO_NUMPY, TO_PINNED, copied
from hiddencost.claims.evidence import Triple
from hiddencost.formatting import NONE, quantity
from hiddencost.page.grids import Columns, Section, by_group, planned_order, reader, way
from hiddencost.records import Case
from hiddencost.stats import Table


def copies(table: Table) -> Section:
    """A table for each model, shape and mode that ran on a device other than the CPU."""
    found = {one.case: one for one in copied(table)}

    def passes(case: Case, of: str) -> str:
        triple: Triple | None = getattr(found[case], of)
        return quantity(*triple) if triple else NONE

    def rate(case: Case) -> str:
        taken, size = table.center(case, TO_NUMPY), table.center(case, "output_bytes")
        return f"{quantity(size[0] / taken[0], unit='B')}/s" if taken and size and taken[0] else NONE

    columns: Columns = {
        "way": way,
        "returned": reader(table, "output_bytes", "B"),
        "call / plain pass": lambda case: passes(case, "call"),
        "to NumPy / plain pass": lambda case: passes(case, "to_numpy"),
        "to NumPy": reader(table, TO_NUMPY, "s"),
        "rate": rate,
        "to page-locked memory": reader(table, TO_PINNED, "s"),
        "page-locked / plain pass": lambda case: passes(case, "to_pinned"),
    }
    note = (
        "What a call returns lies on the device. To NumPy: array by array, into ordinary memory, as "
        "np.asarray does on JAX and .cpu().numpy() on torch. Most of that time can go to new memory, which "
        "the system hands out page by page: a process that has some to use again is spared it, so that the "
        "rate differs by what ran before. To page-locked memory: all at once, into memory that the device "
        "writes to by itself and that was taken before; np.asarray and .numpy() of it copy nothing. Copies "
        "are timed once in each block."
    )
    return Section("From the device to the host", note, by_group(planned_order(table, found), columns))
