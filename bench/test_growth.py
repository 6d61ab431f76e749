"""Many calls in turn: does a way that builds at each call get slower or larger?"""

from hiddencost.growth import growth_call, growth_difference
from hiddencost.room import with_room
from hiddencost.suites import resident_bytes


def test_growth(task, measured, benchmark):
    process = measured.process
    call, traces = growth_call(process, task.case)
    resident = []
    many = with_room(benchmark.pedantic)
    result = many(call, rounds=task.calls, teardown=lambda: resident.append(resident_bytes()))
    growth_difference(process, task.case, result)
    if benchmark.stats:
        measured.keep(process.measurement(task.case, "growth_seconds", benchmark.stats.stats.data))
        measured.keep(process.measurement(task.case, "growth_bytes", resident))
        measured.keep(process.measurement(task.case, "growth_traces", [traces()]))
