"""The instruments, tested on known quantities."""

import itertools
import time

import numpy as np
import pytest

from hiddencost import backends, grid, memory
from hiddencost.grid import planning
from hiddencost.records import REFERENCE, SINGLE_BLOCK, Case

MIB = 2**20
SIZES = [8, 64, 512]


def filled(mib):
    """An array of that size whose pages are all touched."""
    return np.ones(mib * MIB, dtype="uint8")


def spike():
    """64 MiB that live for about a millisecond."""
    held = np.zeros(64 * MIB, dtype="uint8")
    held[::4096] = 1
    time.sleep(0.001)
    del held


def big_call(mib):
    memory._state.call = lambda: filled(mib)


def spike_call():
    memory._state.call = spike


def run_call():
    memory._state.call()


@pytest.fixture
def warm(process):
    """The backend's own state is allocated at its first use, as a warm call does it."""
    backends.synchronize(None)


@pytest.mark.parametrize("mib", SIZES)
def test_peak_heap_reads_known_allocations(warm, mib):
    peak, result = memory.peak_heap(lambda: filled(mib))
    assert len(result) == mib * MIB
    assert abs(peak - mib * MIB) < max(MIB, 0.01 * mib * MIB)


def test_peak_heap_sees_a_spike_of_a_millisecond(warm):
    assert abs(memory.peak_heap(spike)[0] - 64 * MIB) < MIB


@pytest.mark.parametrize("mib", SIZES)
def test_both_resident_readings_read_known_allocations(mib):
    with memory.Child(memory.RESIDENT_SETTINGS) as child:
        child.call(big_call, 1)
        child.call(run_call)
        child.call(big_call, mib)
        kernel, sampled = memory.peak_resident(child.pid, lambda: child.call(run_call))
    assert abs(kernel - mib * MIB) < max(MIB, 0.01 * mib * MIB)
    assert sampled <= kernel + MIB


def test_the_kernel_sees_a_spike_of_a_millisecond():
    with memory.Child(memory.RESIDENT_SETTINGS) as child:
        child.call(spike_call)
        kernel, _ = memory.peak_resident(child.pid, lambda: child.call(run_call))
    assert abs(kernel - 64 * MIB) < MIB


def test_a_child_starts_with_the_allocators_settings_and_the_parent_keeps_its_own():
    import os

    with memory.Child(memory.RESIDENT_SETTINGS) as child:
        assert child.call(os.getenv, "TF_ENABLE_ONEDNN_OPTS") == "0"
        assert child.call(os.getenv, "MALLOC_TRIM_THRESHOLD_") == "0"
    assert os.getenv("MALLOC_TRIM_THRESHOLD_") is None


def job(*cases, suite="memory"):
    return planning.Job(
        block=100,
        seed=1,
        time=grid.Time(),
        tasks=tuple(planning.Task(suite=suite, case=case) for case in cases),
    )


CASE = Case(model="bert_tiny", strategy=REFERENCE, mode="eager", batch=4, length=64)


def test_a_job_reads_peaks_payload_and_the_working_set_of_a_block():
    states = CASE.with_(strategy="functional_submodel", points="all")
    skipped = CASE.with_(strategy="functional_submodel_per_call", points="all", mode="graph")
    found = list(memory.heap(job(CASE, CASE.with_(strategy=SINGLE_BLOCK), states, skipped)))
    environment, *measurements = found
    assert environment.settings["TF_ENABLE_ONEDNN_OPTS"] == "0"
    values = {(m.case.strategy, m.metric): m for m in measurements}
    payload = 3 * 4 * 64 * 128 * 4
    assert values["functional_submodel", "payload_bytes"].values == (payload,)
    assert values["functional_submodel", "output_bytes"].values == (payload,)
    assert values["functional_submodel", "peak_heap_bytes"].values[0] >= payload
    assert values[SINGLE_BLOCK, "peak_heap_bytes"].values[0] > 4 * 64 * 128 * 4
    assert values[REFERENCE, "weights_bytes"].values[0] > 15_000_000  # 30,522 x 128 x 4 for the tokens alone
    assert values["functional_submodel_per_call", "peak_heap_bytes"].state == "skipped"


def die():
    import os

    os._exit(9)


@pytest.mark.parametrize(
    ("kills", "state", "reason"),
    [
        (lambda: 3, "crashed", "the measuring process died"),
        (itertools.count().__next__, "out_of_memory", memory.KILLED_FOR_MEMORY),  # the kernel's: one more
    ],
)
def test_a_process_that_dies_is_a_record_for_each_case_left(monkeypatch, kills, state, reason):
    monkeypatch.setattr(memory.environment, "out_of_memory_kills", kills)
    monkeypatch.setattr(memory, "child_start", lambda job: die())
    monkeypatch.setattr(memory.Child, "call", lambda self, function, *args: self._pool.submit(die).result())
    cases = [CASE, CASE.with_(batch=8)]
    found = list(memory.heap(job(*cases)))
    assert [(m.case, m.state, m.reason) for m in found] == [(case, state, reason) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_one_process_for_ascending_shapes_agrees_with_a_fresh_process_per_case(mode):
    """The rule that the memory suite rests on: one forked process for all shapes and a fresh interpreter
    for each agree within 1 %, or the quarter of a MiB that a process's own small objects may weigh."""
    shapes = [(1, 16), (4, 64), (8, 128)]
    cases = [
        CASE.with_(
            model="minilm",
            strategy="functional_submodel",
            points="all",
            mode=mode,
            batch=batch,
            length=length,
        )
        for batch, length in shapes
    ]

    def peaks(measurements):
        return {m.case: m.values[0] for m in measurements if getattr(m, "metric", "") == "peak_heap_bytes"}

    together = peaks(memory.heap(job(*cases)))
    for case in cases:
        alone = peaks(memory.heap(job(case), forked=False))[case]
        assert together[case] == pytest.approx(alone, rel=0.01, abs=MIB / 4), case


def host_copies(count):
    """Peak heap of the graph-mode sub-model with `count` last points, without and with NumPy copies."""
    from hiddencost import strategies

    process = memory._state.process
    case = METHOD_CASE.with_(strategy="functional_submodel", mode="graph", points="all")
    loaded, every = process.of(case)
    run = backends.compile_(
        strategies.functional_submodel(loaded.model, every, every[-count:]), case.mode, loaded.model
    )
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    run(placed)
    without = memory.peak_heap(lambda: run(placed))[0]
    copied = memory.peak_heap(lambda: [state.numpy() for state in run(placed)])[0]
    return without, copied


METHOD_CASE = Case(model="bert_24x256", strategy=REFERENCE, mode="eager", batch=16, length=256)


@pytest.mark.slow
def test_the_instrument_reads_what_was_read_before():
    """METHOD's figures of the 24-block model: 192.6 MiB eager, 52.4 in graph for the final output. Its
    192.0 for all 24 blocks in graph is with the copies to NumPy, as `predict_on_batch` makes them: the
    states themselves are 24 x 4 = 96 MiB beside the 48 that a block needs."""
    graph = METHOD_CASE.with_(mode="graph")
    with memory.Child(memory.HEAP_SETTINGS) as child:
        child.call(memory.child_start, job(METHOD_CASE))
        (eager, *_) = child.call(memory.child_peak_heap, METHOD_CASE)
        (compiled, *_) = child.call(memory.child_peak_heap, graph)
        without, copied = child.call(host_copies, 24)
    assert eager.values[0] / MIB == pytest.approx(192.6, rel=0.01)
    assert compiled.values[0] / MIB == pytest.approx(52.4, rel=0.01)
    assert without / MIB == pytest.approx(144.4, rel=0.01)
    assert copied / MIB == pytest.approx(192.0, rel=0.01)


# T5 itself tells at each call that masks end at its layers.
@pytest.mark.filterwarnings("ignore:.*with a mask attached to it", "ignore:.*looks like it has unbuilt state")
def test_a_block_alone_takes_whatever_the_graph_gives_it(process, monkeypatch):
    """T5's blocks take masks that are computed on the way; those of ViT lie inside a layer."""
    monkeypatch.setattr(memory._state, "process", process, raising=False)
    case = Case(model="t5_small#encoder", strategy=SINGLE_BLOCK, batch=1, length=8)
    call, _, given = memory._single_block(case, case)
    assert len(given) > 1
    assert tuple(call()[0].shape) == (1, 8, 512)
    inside = Case(model="vit_small", strategy=SINGLE_BLOCK, batch=1, length=224)
    with pytest.raises(memory.SkippedError, match="the model's blocks lie inside a nested model or a layer"):
        memory._single_block(inside, inside)
