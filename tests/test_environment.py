"""What makes timings unreliable: each thing with its figure and what mends it, on machines made up here."""

import msgspec
import pytest
from click.testing import CliRunner

from hiddencost import environment
from hiddencost.cli import main

QUIET = {
    "/sys/fs/cgroup/cpu.max": "max 100000",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "/sys/devices/system/cpu/intel_pstate/no_turbo": "1",
    "/sys/devices/system/cpu/cpufreq/boost": "",
    "/sys/devices/system/cpu/smt/active": "0",
    "/proc/sys/kernel/randomize_va_space": "0",
    "/proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3",
}


@pytest.fixture
def machine(monkeypatch):
    """Makes up a machine: files of the kernel by path, load average, cores, swap in bytes, GPU processes."""

    def make(files=(), load=0.1, cores=4, swap=0, gpu=()):
        texts = {**QUIET, **dict(files)}
        monkeypatch.setattr(environment, "_text", lambda path: texts.get(path, ""))
        monkeypatch.setattr(environment, "load", lambda: (load, load, load))
        monkeypatch.setattr(environment, "cores", lambda: cores)
        monkeypatch.setattr(environment, "gpu_processes", lambda: list(gpu))
        used = type("Swap", (), {"used": swap})
        monkeypatch.setattr(environment.psutil, "swap_memory", lambda: used)

    return make


def troubles(threads=1):
    return {
        check.what: (check.figure, check.serious) for check in environment.checks(0, threads) if check.trouble
    }


def test_a_quiet_machine_has_nothing_to_tell(machine):
    machine()
    assert troubles() == {}
    assert list(environment.warnings(0)) == []


@pytest.mark.parametrize(
    ("made_up", "threads", "found"),
    [
        ({"load": 1.3}, 1, {"load average": ("1.3 on 4 cores", True)}),
        ({"load": 0.5}, 1, {}),
        ({"cores": 2}, 4, {"threads": ("4 on 2 cores", True)}),
        ({"swap": 200 * 2**20}, 1, {"swap in use": ("200 MiB", True)}),
        ({"gpu": [("77", "trainer")]}, 1, {"on the GPU": ("process 77 (trainer)", True)}),
        (
            {"files": {"/sys/fs/cgroup/cpu.max": "150000 100000"}},
            1,
            {"CPU quota": ("1.5 cores for 4 visible ones", True)},
        ),
        (
            {
                "files": {
                    "/proc/self/cgroup": "0::/a.slice/b.scope",
                    "/sys/fs/cgroup/a.slice/cpu.max": "250000 100000",
                    "/sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000",
                }
            },
            1,
            {"CPU quota": ("2.5 cores for 4 visible ones", True)},
        ),
        (
            {
                "files": {
                    "/proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/docker/x\n0::/",
                    "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "50000",
                    "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
                    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                    "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                }
            },
            1,
            {"CPU quota": ("0.5 cores for 4 visible ones", True)},
        ),
        (
            {"files": {"/proc/stat": "cpu  100 0 100 700 0 0 0 100 0 0\n"}},
            1,
            {"time stolen by other guests": ("10.0% since start", True)},
        ),
        (
            {"files": {"/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave"}},
            1,
            {"frequency governor": ("powersave", True)},
        ),
        ({"files": {"/sys/devices/system/cpu/intel_pstate/no_turbo": "0"}}, 1, {"turbo": ("on", False)}),
        ({"files": {"/sys/devices/system/cpu/smt/active": "1"}}, 1, {"hyper-threading": ("on", False)}),
        (
            {"files": {"/proc/sys/kernel/randomize_va_space": "2"}},
            1,
            {"address-space randomization": ("2", False)},
        ),
    ],
)
def test_each_trouble_is_told_with_its_figure_and_what_mends_it(machine, made_up, threads, found):
    machine(**made_up)
    assert troubles(threads) == found
    assert all(check.mend for check in environment.checks(0, threads))
    serious = sum(serious for _, serious in found.values())
    assert len(list(environment.warnings(0, threads))) == serious


def test_the_benchmarks_own_load_is_not_held_against_the_machine(machine):
    machine(load=1.3)
    assert list(environment.warnings(0)) == [
        "load average 1.3 on 4 cores: other work runs beside the benchmark"
    ]
    assert list(environment.warnings(1)) == []


@pytest.mark.parametrize(("slow", "figure", "trouble"), [(1.0, "1.00", False), (1.7, "1.70", True)])
def test_a_speed_that_changes_from_call_to_call_is_told(monkeypatch, slow, figure, trouble):
    """Every third piece of work takes `slow` times as long, on a fake clock."""
    clock, calls = [0.0], [0]

    def now():
        calls[0] += 1
        if calls[0] % 2 == 1 and calls[0] > 1:  # the end of a piece of work
            clock[0] += 0.01 * (slow if calls[0] % 3 == 0 else 1.0)
        return clock[0]

    monkeypatch.setattr(environment.time, "perf_counter", now)
    check = environment.steadiness()
    assert check.figure == f"one in ten takes {figure} times as long as the fastest tenth"
    assert bool(check.trouble) is trouble


def test_doctor_prints_what_it_found_and_the_command_that_mends_it(machine, monkeypatch):
    machine(load=2.5, files={"/sys/devices/system/cpu/smt/active": "1"})
    uneven = environment.Check("the same work, again and again", "x", "uneven", "wait")
    monkeypatch.setattr(environment, "steadiness", lambda: uneven)
    done = CliRunner().invoke(main, ["doctor", "--look-only"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert "ok  threads: 1 on 4 cores" in lines
    place = lines.index("!!  load average: 2.5 on 4 cores: other work runs beside the benchmark")
    assert lines[place + 1].strip().startswith("top -o %CPU")
    assert "--  hyper-threading: on: two cores may be halves of one" in lines
    assert lines[-2:] == ["!!  the same work, again and again: x: uneven", "      wait"]


def test_what_changed_between_two_environments_is_told_in_words(machine):
    machine()
    now = environment.capture(0, {}, own_load=0)
    assert list(environment.changes(now, now)) == []
    versions = {**now.versions, "keras": "9", "new": "1"}
    other = msgspec.structs.replace(now, versions=versions, cores=64, load=(9.0, 9.0, 9.0))
    assert list(environment.changes(now, other)) == [
        f"keras was {now.versions['keras']} and is 9",
        "new was not installed and is 1",
        "cores was 4 and is 64",
    ]
