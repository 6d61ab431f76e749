"""Look-ups of a layer: by name, by index, the `layers` property, and a dict made in advance."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hiddencost.measure import Process, state_of, told
from hiddencost.records import Case, Measurement
from hiddencost.room import with_room

LOOKUP_ROUNDS = 25
LOOKUP_SECONDS = 0.001


def lookups(process: Process, cases: Sequence[Case]) -> Iterator[Measurement]:
    """Seconds of one look-up, of every case in rotation: entry i of all cases is from round i, so that a
    slope over the number of layers is one of a single moment. An entry is the mean of as many look-ups as
    take LOOKUP_SECONDS."""
    calls: dict[Case, tuple[Callable[[], Any], int]] = {}
    for case in cases:
        process.tell(case)
        try:
            call = lookup_call(case)
            calls[case] = call, max(1, int(LOOKUP_SECONDS / (_looped(call, 10) / 10)))
        except Exception as error:
            yield process.failure(case, "lookup_seconds", state_of(error), told(error))
    seconds: dict[Case, list[float]] = {case: [] for case in calls}
    for number in range(LOOKUP_ROUNDS):
        for case in process.shuffled(list(calls), f"lookups/{number}"):
            process.tell(case)
            call, times = calls[case]
            seconds[case].append(_looped(call, times) / times)
    for case in calls:
        yield process.measurement(case, "lookup_seconds", seconds[case])


@with_room
def _looped(call: Callable[[], Any], times: int) -> float:
    began = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - began) / 1e9


def lookup_call(case: Case) -> Callable[[], Any]:
    """One look-up of a layer at `case.position` in a functional chain of `case.layers` layers."""
    model = _lookup_model(case.layers or 1)
    position = case.position or 0
    name = model.layers[position].name
    if case.strategy == "get_layer_name":
        return lambda: model.get_layer(name)
    if case.strategy == "get_layer_index":
        return lambda: model.get_layer(index=position)
    if case.strategy == "layers_property":
        return lambda: model.layers
    listed = {layer.name: layer for layer in model.layers}
    return lambda: listed[name]


_lookup_models: dict[int, Any] = {}


def _lookup_model(layers: int) -> Any:
    """A functional model of that many layers, its input layer counted."""
    import keras

    if layers not in _lookup_models:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))  # Keras walks the graph recursively
        tensor = first = keras.Input((1,))
        for _ in range(layers - 1):
            tensor = keras.layers.Identity()(tensor)
        _lookup_models[layers] = keras.Model(first, tensor)
    return _lookup_models[layers]
