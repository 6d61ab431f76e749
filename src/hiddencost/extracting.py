"""The way that wins, as one call: `extractor(model, points)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiddencost import backends, recommended
from hiddencost.errors import UserError, nearest
from hiddencost.graph import input_names
from hiddencost.points import Point, hidden_states

AUTO = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}
"""The mode that each backend runs in when none is named."""


class Extractor:
    """Reads hidden states: `extractor(batch)` gives them by name.

    model: a Keras model that returns them as a list, to be used inside larger functional models, trained,
    or saved. points: those that it reads. strategy: how. mode: how calls are run.
    """

    def __init__(self, model: Any, names: Sequence[str], mode: str) -> None:
        import keras

        self.model = model
        self.points: tuple[Point, ...] = model.points
        self.strategy: str = model.strategy
        self.mode = mode
        self.names = tuple(names)
        self._inputs = input_names(model.model)
        backend = backends.find(keras.backend.backend())
        self.to_numpy: Callable[[Any], Any] = backend.to_numpy
        self._run = backend.compiled(lambda batch: model(batch, training=False), mode, model, lambda: None)

    def __call__(self, batch: Any) -> dict[str, Any]:
        """The hidden states of a batch, by the names of their points: each (batch, sequence, width), or as
        the reduction leaves it. Raises UserError for inputs that the model does not have, or that lack."""
        import keras

        return self._named(
            self._run(keras.tree.map_structure(keras.ops.convert_to_tensor, self.checked(batch)))
        )

    def predict(self, data: Any, **kwargs: Any) -> dict[str, Any]:
        """Keras's `predict` over a data set: NumPy arrays by the names of the points. All are collected in
        memory before they are returned."""
        return self._named(self.model.predict(self.checked(data), **kwargs))

    def _named(self, states: Any) -> dict[str, Any]:
        return dict(zip(self.names, states, strict=True))

    def checked(self, batch: Any) -> Any:
        """The batch, where its keys are the names of the model's inputs. Raises UserError: Keras only warns,
        and takes what sorts first for the first input."""
        if not isinstance(batch, Mapping):
            return batch
        unknown = [name for name in batch if name not in self._inputs]
        lacking = [name for name in self._inputs if name not in batch]
        if unknown or lacking:
            problems = [f"unknown {unknown}"] * bool(unknown) + [f"missing {lacking}"] * bool(lacking)
            raise UserError(f"inputs: {' and '.join(problems)}; the model takes {self._inputs}")
        return dict(batch)


def extractor(
    model: Any,
    points: str | Point | Sequence[Any] = "last",
    *,
    stack: str | None = None,
    reduce: str | Callable[[Any, Any], Any] | None = None,
    dtype: str | None = None,
    strategy: str = "auto",
    mode: str = "auto",
) -> Extractor:
    """A callable that reads hidden states out of a functional Keras model, which it leaves as it is.

    points: a selection (`last`, `middle`, `last_four`, `all`, `block_3`, `-4:`, `block_*`, joined by commas),
    a point, or a list of points. No block runs that none of them needs. stack: which, where the model has
    several. reduce: `mean`, `max`, `cls`, `last_token` over real tokens, `scalar_mix` of all points, or a
    function (state, mask) -> tensor: applied before anything is returned. dtype: what they are cast to.
    strategy: `functional_submodel`, Keras's own run of a sub-model that ends at the points;
    `functional_freed`, the same graph with each tensor dropped after its last use; `auto`: what the reference
    runs recommend for the backend and mode (`recommended.shipped()`). mode: how the backend runs it
    (`grid.MODES`); `auto`: compiled by TensorFlow and JAX, eager on torch, where `export` compiles the whole
    graph in one piece, some seconds for each shape.

    Raises UserError for a model without hidden states, and for points, a reduction, a strategy or a mode that
    are not known.
    """
    import keras

    from hiddencost.grid import MODES
    from hiddencost.layers import MIX, Reader

    name = keras.backend.backend()
    known = [one for one in MODES[name] if one not in ("predict", "train")]
    if mode not in ("auto", *known):
        raise UserError(f"mode '{mode}' is none of {name}'s: auto, {', '.join(known)}")
    ways = ["auto", *recommended.BETWEEN]
    if strategy not in ways:
        raise UserError(f"unknown strategy '{strategy}'{nearest(strategy, ways)}")
    if isinstance(points, str):
        chosen: Sequence[Point] = hidden_states(model, stack).select(points)
    else:
        chosen = [points] if isinstance(points, Point) else [*points]
    if not chosen or not all(isinstance(point, Point) for point in chosen):
        raise UserError(
            f"points {points!r}: give a selection, as 'last_four', or points of hidden_states(model)"
        )
    mode = AUTO[name] if mode == "auto" else mode
    if strategy == "auto":
        inside = any(point.inside for point in chosen)
        strategy = "functional_freed" if inside else recommended.strategy(name, mode)
    reader = Reader(model, chosen, reduce, dtype, strategy)
    names = [MIX] if reduce == MIX else _names(chosen)
    return Extractor(reader, names, mode)


def _names(points: Sequence[Point]) -> list[str]:
    """The points' names, with those of their stacks where one alone would stand for several. Raises UserError
    where these do not tell them apart."""
    names = [point.name for point in points]
    if len(set(names)) < len(names):
        names = [f"{point.stack}/{point.name}" for point in points]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"points {', '.join(twice)}: several of that name: read them one by one")
    return names
