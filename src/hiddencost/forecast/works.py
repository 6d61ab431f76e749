"""The work of cases that were measured: forecast like that of any model, and kept."""

from __future__ import annotations

from hiddencost.errors import UserError
from hiddencost.forecast import Forecast, Way, Work, forecast
from hiddencost.forecast.lowering import Shapes
from hiddencost.records import OUTPUT, Case


class Works:
    """Forecasts of measured cases, each made once."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, str, bool], Shapes] = {}
        self._found: dict[tuple[Shapes, str, int, int], Forecast] = {}

    def forecast(self, case: Case) -> Forecast:
        """Of the case's model and shape, for its points. Raises UserError."""
        which = case.model, case.dtype, case.device == "gpu"
        shapes = self._shapes.get(which) or self._shapes.setdefault(which, Shapes(*which))
        points = "last" if case.points == OUTPUT else case.points
        key = shapes, points, case.batch, case.length
        if key not in self._found:
            self._found[key] = forecast(*key)
        return self._found[key]

    def way(self, case: Case, mode: str) -> Way:
        """The way of a case, in that mode. Raises UserError."""
        ways = self.forecast(case).ways
        return next(way for way in ways if (way.strategy, way.mode) == (case.strategy, mode))

    def of(self, case: Case) -> Work | None:
        """What a compiled call of the case does; None where there is no forecast."""
        try:
            return self.way(case, "jit").work
        except UserError:
            return None
