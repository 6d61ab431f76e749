"""What a GPU needs, with a backend that is none: what is called, in which order, and what it is told."""

import os
import sys

import pytest

from hiddencost import backends, environment, measure, memory, rotation
from hiddencost.backends.base import Backend
from hiddencost.errors import UserError
from hiddencost.grid.planning import Task
from hiddencost.records import REFERENCE, Case


class Fake(Backend):
    """A backend without a framework, whose device counts what it is asked for."""

    name = framework = extra = "fake"
    packages = ()
    predicts_in = "eager"

    def __init__(self, gpus=1):
        self.gpus, self.calls = gpus, []

    def set_threads(self, threads):
        return {"intra_op": threads}

    def use_gpu(self):
        self.calls.append("use")
        if not self.gpus:
            raise UserError("fake sees no GPU")

    def reset_peak(self):
        self.calls.append("reset")
        return 100

    def peak_bytes(self):
        self.calls.append("peak")
        return 350

    def synchronize(self, tensors):
        self.calls.append("synchronize")

    def compiled(self, run, mode, model, traced):
        return run

    def place(self, inputs):
        return inputs

    def to_numpy(self, tensor):
        return tensor


@pytest.fixture
def fake(monkeypatch):
    found = Fake()
    monkeypatch.setattr(backends, "BACKENDS", (found,))
    monkeypatch.setattr(backends, "_started", [])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])  # or nothing would be hidden from later tests
    return found


def test_a_gpu_is_made_ready_when_its_backend_starts_and_hidden_from_a_cpus(fake):
    assert fake.settings(1, "cpu") == {"KERAS_BACKEND": "fake", "CUDA_VISIBLE_DEVICES": "-1"}
    assert fake.settings(1, "gpu") == {"KERAS_BACKEND": "fake", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    backends.start("fake", 1)
    assert (fake.device, fake.calls) == ("cpu", [])
    backends.start("fake", 1, "gpu")
    assert (fake.device, fake.calls) == ("gpu", ["use"])
    fake.gpus = 0
    with pytest.raises(UserError, match="fake sees no GPU"):
        backends.start("fake", 1, "gpu")


@pytest.mark.parametrize("backend", backends.BACKENDS, ids=lambda backend: backend.name)
def test_every_backend_hides_the_gpu_from_a_cpus_process_alone(backend):
    assert backend.settings(1, "cpu")["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "CUDA_VISIBLE_DEVICES" not in backend.settings(1, "gpu")
    assert "JAX_PLATFORMS" not in backend.settings(1, "gpu")


def test_torch_asks_for_a_gpu_without_starting_it_where_it_may_use_one():
    """A gate forks its workers after Keras has asked."""
    torch = backends.find("torch")
    assert torch.settings(1, "gpu")["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in torch.settings(1, "cpu")


def test_the_devices_peak_is_reset_before_the_call_and_read_when_its_work_has_ended(
    fake, process, monkeypatch
):
    monkeypatch.setattr(backends, "_started", [fake])
    peak, result = memory.peak_device(lambda: fake.calls.append("call"))
    assert (peak, result) == (250, None)
    assert fake.calls == ["reset", "call", "synchronize", "peak"]


def test_where_the_peak_cannot_be_set_back_the_compilers_plan_tells_it(fake, process, monkeypatch):
    monkeypatch.setattr(backends, "_started", [fake])
    monkeypatch.setattr(fake, "reset_peak", lambda: None)
    assert memory.peak_device(lambda: "result")[0] is None
    planned = {"compiled_temp_bytes": 200, "compiled_output_bytes": 50, "compiled_flops": 7}
    assert memory._planned_bytes(planned) == 250
    with pytest.raises(memory.SkippedError, match="fake cannot tell the peak of a call that is not compiled"):
        memory._planned_bytes({})


def test_a_devices_peak_that_is_not_told_is_read_from_the_plan(process, tiny, monkeypatch):
    """Of the same program that was called, and beside what it returned."""
    case = Case(model="bert_tiny", strategy=REFERENCE, batch=1, length=8, mode="graph", device="gpu")
    monkeypatch.setattr(memory._state, "process", process, raising=False)
    monkeypatch.setattr(memory._state, "told", {"weights"}, raising=False)
    monkeypatch.setattr(memory, "peak_device", lambda call: (None, call()))
    plan = {"compiled_temp_bytes": 4096.0, "compiled_output_bytes": 1024.0}
    monkeypatch.setattr(backends.Compiled, "analysis", lambda self, *arguments: plan)
    found = {m.metric: m.values for m in memory.child_peak_device(case)}
    assert found["peak_device_bytes"] == (5120.0,)
    assert found["compiled_temp_bytes"] == (4096.0,)
    assert found["output_bytes"] == (4 * (8 * 128 + 128),)  # the last hidden state and the pooled output


@pytest.mark.parametrize(("device", "pinned"), [("cpu", True), ("gpu", False)])
def test_a_gpus_process_is_not_held_to_one_core(process, tiny, monkeypatch, device, pinned):
    """Compiling and handing work to the device take threads of their own."""
    seen = []
    monkeypatch.setattr(rotation, "_run_on", lambda cores: seen.append(len(cores)))
    monkeypatch.setattr(backends.current(), "device", device)
    case = Case(model="bert_tiny", strategy=REFERENCE, mode="graph", batch=1, length=8)
    list(rotation.rotation(process, [Task(suite="forward", case=case, seconds=0.05)]))
    assert (seen[:1] == [1]) is pinned


@pytest.mark.parametrize(("keeps", "told"), [({"FOLDER": "programs"}, False), ({}, True)])
def test_a_first_call_that_may_have_loaded_its_program_is_not_told(process, tiny, monkeypatch, keeps, told):
    """A backend that keeps none compiles in each process, and building is the same anywhere."""
    monkeypatch.setattr(process.settings, "keep_programs", True)
    monkeypatch.setattr(backends.current(), "keeping", lambda folder: keeps)
    case = Case(model="bert_tiny", strategy=REFERENCE, batch=1, length=8)
    found = {m.metric for m in rotation.rotation(process, [Task(suite="forward", case=case, seconds=0.05)])}
    assert {"seconds", "build_seconds"} <= found
    assert ("first_call_seconds" in found) is told


def test_jax_is_told_where_programs_are_kept_and_others_nothing():
    kept = {backend.name: backend.keeping("/folder") for backend in backends.BACKENDS}
    assert kept.pop("jax")["JAX_COMPILATION_CACHE_DIR"] == "/folder"
    assert not any(kept.values())


def test_a_copy_to_page_locked_memory_is_recorded_where_the_backend_can(process, tiny, monkeypatch):
    monkeypatch.setattr(backends, "pinned_seconds", lambda result: 0.125)
    case = Case(model="bert_tiny", strategy=REFERENCE, batch=1, length=8)
    tasks = [Task(suite="forward", case=case, seconds=0.05)]
    found = {m.metric: m.values for m in rotation.rotation(process, tasks)}
    assert found["host_copy_pinned_seconds"] == (0.125,)


def test_predict_has_brought_its_result_to_the_host_itself(process, tiny, monkeypatch):
    def never(result):
        raise AssertionError("NumPy arrays are not on the device")

    monkeypatch.setattr(backends, "pinned_seconds", never)
    case = Case(model="bert_tiny", strategy=REFERENCE, mode="predict", batch=1, length=8, examples=2)
    found = list(rotation.rotation(process, [Task(suite="forward", case=case, seconds=0.05)]))
    assert {m.state for m in found} == {"ok"}
    assert not [m for m in found if m.metric.startswith("host_copy")]


class ResourceExhaustedError(Exception):
    """As TensorFlow calls it."""


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (MemoryError(), "out_of_memory"),
        (ResourceExhaustedError("OOM when allocating"), "out_of_memory"),
        (OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"), "out_of_memory"),
        (RuntimeError("another"), "crashed"),
    ],
)
def test_out_of_memory_is_a_state_of_its_own_in_the_words_of_every_backend(error, state):
    assert measure.state_of(error) == state


def test_the_gpu_stands_in_the_environment_of_its_processes_alone(monkeypatch):
    monkeypatch.setattr(environment, "_of_gpu", lambda query: ["NVIDIA H100, 81559 MiB, 580.1"])
    assert environment.capture(0, {}, 0, "jax", "gpu").gpu == "NVIDIA H100, 81559 MiB, 580.1"
    assert environment.capture(0, {}, 0, "jax", "cpu").gpu == ""
    other = environment.capture(0, {}, 0, "jax", "gpu")
    monkeypatch.setattr(environment, "_of_gpu", lambda query: [])
    told = list(environment.changes(other, environment.capture(0, {}, 0, "jax", "gpu")))
    assert told == ["gpu was NVIDIA H100, 81559 MiB, 580.1 and is unknown"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "first"),
        ("", "first"),
        ("1", "second"),
        ("1,0", "second"),
        ("-1", "unknown"),
        ("MIG-c7384736", "first"),  # the driver's tool takes no name of a part: any GPU's is better than none
    ],
)
def test_of_several_gpus_the_one_that_the_process_is_given_is_named(given, name, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        'case "$* " in *"--id=1 "*) echo second;; *--id=*) echo No devices were found; exit 6;;'
        " *) echo first; echo second;; esac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert environment.gpu() == name
