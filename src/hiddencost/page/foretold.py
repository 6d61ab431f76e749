"""Models too large for most machines: what reading their hidden states would take, and how near forecasts
came to what was measured."""

from __future__ import annotations

from hiddencost.foretold import Foretold, concerning
from hiddencost.formatting import percent, quantity
from hiddencost.page.grids import Grid, Section
from hiddencost.records import REFERENCE
from hiddencost.stats import Table

TITLE = "Models too large for most machines"


def foretold(table: Table) -> Section:
    """Forecasts, for a run that they concern."""
    found = concerning(table)
    return section(found) if found else Section(TITLE, "", ())


def section(found: Foretold) -> Section:
    """What was foretold, as tables."""
    ways = {REFERENCE: "plain pass", "functional_submodel": found.points, "always_return_all": "all"}
    note = (
        f"Forecasts by hiddencost forecast, not measurements: {found.dtype}, compiled by JAX. Programs of a "
        "few blocks are planned and not run; the whole model follows, since blocks are alike. Peaks are "
        "beside the weights. How near such forecasts came to what was measured stands below."
    )
    large = Grid(
        ("model", "weights", *(f"peak: {way}" for way in ways.values()), "all hidden states", "all fit on"),
        tuple(
            (
                f"{one.model} {one.batch}x{one.length:,}",
                quantity(one.weights_bytes, unit="B"),
                *(quantity(one.peaks[way], unit="B") for way in ways),
                quantity(one.all_bytes, unit="B"),
                ", ".join(one.fits["always_return_all"]) or "none",
            )
            for one in found.large
        ),
    )
    held = Grid(
        ("device", "mode", "of", "cases", "median error", "median size", "largest size"),
        tuple(
            (
                *(one.device, one.mode, one.of, str(one.cases)),
                percent(one.median, signed=True),
                percent(one.median_size),
                percent(one.largest),
            )
            for one in found.held
        ),
        "Forecast against measured bytes",
    )
    timed = Grid(
        ("run", "backend", "mode", "device", "shapes", "cases", "median size", "largest size"),
        tuple(
            (
                *(one.run, one.backend, one.mode, one.device, str(one.shapes), str(one.cases)),
                percent(one.median_size),
                percent(one.largest),
            )
            for one in found.timed
        ),
        "Forecast against measured seconds, of shapes left out of the fit",
    )
    return Section(TITLE, note, tuple(one for one in (large, held, timed) if one.rows))
