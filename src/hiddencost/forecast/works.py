"""The work of cases that were measured: forecast like that of any model, and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from hiddencost.errors import UserError
from hiddencost.forecast import NOTHING, Forecast, Line, Way, Work, forecast
from hiddencost.forecast.beyond import beyond
from hiddencost.forecast.lowering import Shapes
from hiddencost.records import OUTPUT, Case


class Works:
    """Forecasts of measured cases, each made once. shapes, taken: what tells of a model, and what its blocks
    take beyond the plan."""

    def __init__(
        self,
        shapes: Callable[[str, str, bool], Shapes] = Shapes,
        taken: Callable[[str, str, int, int], Line] = beyond,
    ) -> None:
        self._make = shapes
        self._shapes: dict[tuple[str, str, bool], Shapes] = {}
        self._found: dict[tuple[Shapes, str, int, int, Line], Forecast] = {}
        self._beyond = cache(taken)

    def forecast(self, case: Case, run: bool = False) -> Forecast:
        """Of the case's model and shape, for its points. run: with what few blocks took beyond their plan
        when they were run here. Raises UserError."""
        which = case.model, case.dtype, case.device == "gpu"
        shapes = self._shapes.get(which) or self._shapes.setdefault(which, self._make(*which))
        points = "last" if case.points == OUTPUT else case.points
        taken = self._beyond(case.model, case.dtype, case.batch, case.length) if run else NOTHING
        key = shapes, points, case.batch, case.length, taken
        if key not in self._found:
            self._found[key] = forecast(*key)
        return self._found[key]

    def way(self, case: Case, mode: str, run: bool = False) -> Way:
        """The way of a case, in that mode. Raises UserError."""
        ways = self.forecast(case, run).ways
        return next(way for way in ways if (way.strategy, way.mode) == (case.strategy, mode))

    def of(self, case: Case) -> Work | None:
        """What a compiled call of the case does; None where there is no forecast."""
        try:
            return self.way(case, "jit").work
        except UserError:
            return None
