"""The fastest way to read each kind of points, in words."""

from __future__ import annotations

from hiddencost.claims.fastest import Fastest, of_run
from hiddencost.formatting import quantity, some
from hiddencost.page.grids import scene
from hiddencost.records import Case
from hiddencost.stats import FEW_BLOCKS, Table

STATES = {
    "last": "the last hidden state",
    "middle": "the middle hidden state",
    "last_four": "the last four hidden states",
    "all": "all hidden states",
}
PASSES = {"train": "a full forward and backward pass"}
"""What the reference of a mode is, where it is more than a full forward pass."""


def fastest_lines(table: Table) -> list[str]:
    """For a terminal: a line for each kind of points, under the scene that it was read in."""
    lines: list[str] = []
    last = None
    for one in of_run(table):
        if one.scene != last:
            lines.append(f"Fastest at {scene(one.scene)}:")
            last = one.scene
        lines.append(f"  {fastest_sentence(one)}")
    return lines


def fastest_sentence(one: Fastest) -> str:
    """`functional_submodel` reads the middle hidden state in 0.53 [0.52, 0.54] of a full forward pass; no
    difference resolved to `indexed_in_advance`."""
    return f"`{one.case.strategy}` reads {states(one.case)} {_share(one)}; {_beside(one)}."


def states(case: Case) -> str:
    """What is read, in words: `the middle hidden state`, `the mean over tokens of all hidden states`."""
    what = STATES.get(case.points, case.points)
    if case.reduction == "mean":
        return f"the mean over tokens of {what}"
    return what if case.reduction == "none" else f"{what} ({case.reduction})"


def _share(one: Fastest) -> str:
    found = one.comparison
    whole = PASSES.get(one.case.mode, "a full forward pass")
    if found is None:
        return f"fastest ({whole} was not measured)"
    share = f"in {quantity(found.ratio, found.low, found.high)} of {whole}"
    return share if found.low is not None else f"{share} ({FEW_BLOCKS}: no interval)"


def _beside(one: Fastest) -> str:
    """How it stands to the other ways: the rivals by name, else how many are slower."""
    if one.rivals:
        names = some(f"`{case.strategy}`" for case in one.rivals)
        told = one.why if one.why != FEW_BLOCKS or (one.comparison and one.comparison.low is not None) else ""
        return f"no difference resolved to {names}" + f" ({told})" * bool(told)
    if not one.slower:
        return "no other way was measured"
    if len(one.slower) == 1:
        return f"`{one.slower[0].strategy}` is slower"
    return f"the other {len(one.slower)} ways are slower"
