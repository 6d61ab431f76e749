"""Many calls in turn of a way whose cost may grow from call to call."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from hiddencost import backends
from hiddencost.measure import Process, difference, expected_values
from hiddencost.records import Case


def growth_call(process: Process, case: Case) -> tuple[Callable[[], Any], Callable[[], int]]:
    """One call of a way whose cost may grow, and how often it has been traced since.

    `functional_submodel_per_call` in a compiled mode builds and compiles at each call; `on_request`
    calls one compiled function with the argument off and on in turn.
    """
    gc.collect()  # what earlier groups left behind would be freed in the middle of the calls
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    if case.strategy == "on_request":
        return _on_request_alternating(process, case, placed)
    if case.strategy == "functional_submodel_per_call" and case.mode != "eager":
        traces = 0

        def rebuilt() -> Any:
            nonlocal traces
            _, run, _ = process.compiled(case.with_(strategy="functional_submodel"))
            result = run(placed)
            backends.synchronize(result)
            traces += run.traces
            return result

        return rebuilt, lambda: traces
    _, run, _ = process.compiled(case)

    def call() -> Any:
        result = run(placed)
        backends.synchronize(result)
        return result

    return call, lambda: run.traces


def growth_difference(process: Process, case: Case, result: Any) -> float:
    """The largest difference of a growth case's last result to the layer-by-layer values. Raises
    WrongValuesError (see `difference`)."""
    like = case if case.strategy == "on_request" else case.with_(strategy="functional_submodel")
    expected = expected_values(process, case, process.inputs(case))
    return difference(case, result, process.built(like), process, expected)


def _on_request_alternating(
    process: Process, case: Case, placed: Any
) -> tuple[Callable[[], Any], Callable[[], int]]:
    model = process.built(case).model
    run = backends.Compiled(
        lambda inputs, on: model(inputs, output_hidden_states=on, training=False), case.mode, model
    )
    on = True

    def call() -> Any:
        nonlocal on
        on = not on
        result = run(placed, on)
        backends.synchronize(result)
        return result

    return call, lambda: run.traces
