"""Whole models without hidden states: Keras's own run, and one that keeps nothing longer than needed."""

from __future__ import annotations

from hiddencost.claims.freed import freeings
from hiddencost.formatting import NONE, quantity
from hiddencost.page.grids import Grid, Section, ratio
from hiddencost.records import Case
from hiddencost.stats import Table


def freed(table: Table) -> Section:
    """A row for each model, backend, mode and dtype."""
    note = (
        "hiddencost.freed(model) runs the same graph and drops each tensor after its last use. A layer "
        "that holds all blocks (ViT's encoder) is one call, whose insides are its own. In eager at least "
        "what the running block was given, one hidden state, is held beyond the floor: those who call the "
        "block keep it until it returns. Of a model with several stacks no floor is told, as each takes "
        "another. Below 1 is faster."
    )
    header = (
        *("model", "backend", "mode", "dtype", "shape", "peak heap, Keras's own", "freed", "times less"),
        *("live-set floor", "freed / floor"),
        *("timed at", "time of the freed run / Keras's own"),
    )
    rows = tuple(
        (
            *(one.model, one.backend, one.mode, one.dtype, _shape(one.held)),
            quantity(one.own_bytes, unit="B") if one.own_bytes else NONE,
            quantity(one.freed_bytes, unit="B") if one.freed_bytes else NONE,
            quantity(one.times_less) if one.times_less else NONE,
            quantity(one.floor_bytes, unit="B") if one.floor_bytes else NONE,
            quantity(one.freed_bytes / one.floor_bytes) if one.freed_bytes and one.floor_bytes else NONE,
            *(_shape(one.timed), ratio(one.time)),
        )
        for one in freeings(table)
    )
    return Section("The freed run of whole models", note, (Grid(header, rows),) if rows else ())


def _shape(case: Case | None) -> str:
    return f"{case.batch} x {case.length}" if case else NONE
