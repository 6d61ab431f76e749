"""Look-ups of a layer: by name, by index, the `layers` property, and a dict made in advance."""

from hiddencost.measure import lookup_call

ROUNDS = 15
LONGEST_ROUND_SECONDS = 0.001


def test_lookup(task, measured, benchmark):
    benchmark.group = f"{task.case.layers} layers, position {task.case.position}"
    process = measured.process
    call = lookup_call(task.case)
    benchmark.pedantic(call, rounds=ROUNDS, iterations=process.iterations(call, LONGEST_ROUND_SECONDS))
    if benchmark.stats:
        measured.keep(process.measurement(task.case, "lookup_seconds", benchmark.stats.stats.data))
