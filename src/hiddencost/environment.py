"""The machine and the versions, and what about them makes timings unreliable. Keras-free."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import quantiles

import psutil

from hiddencost.records import Environment

PACKAGES = (
    "hiddencost",
    "keras",
    "keras-hub",
    "keras-nlp",
    "tensorflow",
    "jax",
    "torch",
    "transformers",
    "nnsight",
    "transformer-lens",
    "numpy",
    "scipy",
    "memray",
    "memory-profiler",
    "pytest-benchmark",
)
SETTINGS = (
    "KERAS_BACKEND",
    "TF_ENABLE_ONEDNN_OPTS",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "PYTHONMALLOC",
    "OMP_NUM_THREADS",
    "PJRT_NPROC",
    "XLA_FLAGS",
    "TF_XLA_FLAGS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)
HIGH_LOAD = 0.5
"""A load average of more than half a core beside the benchmark's own is told: the noise grows with it."""
MUCH_SWAP = 64 * 2**20
UNEVEN = 1.15
"""The slowest tenth of equal pieces of work over the fastest, from which it is told."""
STOLEN = 0.02
"""Share of the time that another guest had the core, from which it is told."""


@dataclass(frozen=True)
class Check:
    """One thing about a machine that can make timings unreliable. figure: what was found. trouble: what
    it does, or '' where nothing is wrong. mend: the command that changes it, or what else helps. serious:
    a run warns of it; the rest is usual, and the interval between blocks covers it."""

    what: str
    figure: str
    trouble: str = ""
    mend: str = ""
    serious: bool = True


def capture(
    block: int, threads: dict[str, int], own_load: float, backend: str = "tensorflow", device: str = "cpu"
) -> Environment:
    """This process's environment, now. own_load: the load that the benchmark itself may have caused."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    settings = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    return Environment(
        block=block,
        backend=backend,
        device=device,
        gpu=gpu() if device == "gpu" else "",
        versions=versions,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=cores(),
        memory_bytes=psutil.virtual_memory().total,
        threads=threads,
        load=load(),
        settings=settings,
        warnings=tuple(warnings(own_load, threads.get("intra_op", 1))),
    )


def changes(before: Environment, now: Environment) -> Iterator[str]:
    """What makes timings of the two incomparable, each in words."""
    yield from changed_versions(before, now)
    for what in ("system", "processor", "cores", "memory_bytes", "gpu"):
        if getattr(before, what) != getattr(now, what):
            yield f"{what} was {getattr(before, what)} and is {getattr(now, what)}"


def changed_versions(before: Environment, now: Environment) -> Iterator[str]:
    """The packages that differ, and Python, each in words."""
    for name, old, new in before.versions_beside(now):
        yield f"{name} was {old or 'not installed'} and is {new or 'not installed'}"


def processor() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> tuple[float, float, float]:
    """The load averages over 1, 5 and 15 minutes."""
    one, five, fifteen = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    return round(one, 2), round(five, 2), round(fifteen, 2)


def warnings(own_load: float, threads: int = 1) -> Iterator[str]:
    """What makes timings here unreliable, each with its figure."""
    for check in checks(own_load, threads):
        if check.trouble and check.serious:
            yield f"{check.what} {check.figure}: {check.trouble}"


def checks(own_load: float, threads: int = 1) -> Iterator[Check]:
    """Everything that is looked at, in order. own_load: the load that the benchmark itself may have
    caused; threads: those that it will use. Nothing is changed."""
    now, available = load()[0], cores()
    yield Check(
        "load average",
        f"{now} on {available} cores",
        "other work runs beside the benchmark" * (now > own_load + HIGH_LOAD),
        "top -o %CPU   # end what you do not need, wait for the rest",
    )
    yield Check(
        "threads",
        f"{threads} on {available} cores",
        "threads wait for one another" * (threads > available),
        f"hiddencost run --threads {available}",
    )
    nice = os.nice(0)
    yield Check(
        "niceness",
        str(nice),
        "other work on the machine goes first" * (nice > 0),
        "start it without nice; nodes of Ray with RAY_worker_niceness=0 ray start",
    )
    quota = cpu_quota()
    yield Check(
        "CPU quota",
        "none" if quota is None else f"{quota:g} cores for {available} visible ones",
        "calls are throttled in bursts" * (quota is not None and quota < available),
        "start the container with whole cores: docker run --cpuset-cpus 0,1",
    )
    stolen = stolen_share()
    yield Check(
        "time stolen by other guests",
        f"{stolen:.1%} since start",
        "the host is shared and busy" * (stolen > STOLEN),
        "a machine of its own, or another hour",
    )
    swap = psutil.swap_memory().used
    yield Check(
        "swap in use",
        f"{swap // 2**20} MiB",
        "memory readings and times may include paging" * (swap > MUCH_SWAP),
        "sudo swapoff -a",
    )
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    yield Check(
        "frequency governor",
        governor or "not told",
        "the clock follows the load" * (governor not in ("", "performance")),
        "sudo cpupower frequency-set --governor performance",
    )
    yield from _usual()


def _usual() -> Iterator[Check]:
    """What most machines have on, and what the interval between processes covers."""
    turbo = {"0": "on", "1": "off"}.get(_text("/sys/devices/system/cpu/intel_pstate/no_turbo"), "") or {
        "1": "on",
        "0": "off",
    }.get(_text("/sys/devices/system/cpu/cpufreq/boost"), "")
    amd = "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
    intel = "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
    yield Check(
        "turbo",
        turbo or "not told",
        "the clock falls as the chip warms up" * (turbo == "on"),
        intel if Path("/sys/devices/system/cpu/intel_pstate").is_dir() else amd,
        serious=False,
    )
    siblings = _text("/sys/devices/system/cpu/smt/active") == "1"
    yield Check(
        "hyper-threading",
        "on" if siblings else "off or not told",
        "two cores may be halves of one" * siblings,
        "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        serious=False,
    )
    layout = _text("/proc/sys/kernel/randomize_va_space")
    yield Check(
        "address-space randomization",
        layout or "not told",
        "each process has its own memory layout; blocks average over it" * (layout not in ("", "0")),
        "setarch --addr-no-randomize hiddencost run",
        serious=False,
    )
    for pid, name in gpu_processes():
        yield Check(
            "on the GPU",
            f"process {pid} ({name})",
            "another process uses the device",
            f"kill {pid}   # if it is yours",
        )


def steadiness(seconds: float = 2.0) -> Check:
    """How evenly the same piece of work runs, one after the other for `seconds`. On a shared host it may
    flip between two speeds without anything that this machine's kernel could count."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or len(taken) < 10:
        sum(range(200_000))
        taken.append(time.perf_counter() - began)
    deciles = quantiles(taken, n=10)
    slower = deciles[-1] / deciles[0]
    return Check(
        "the same work, again and again",
        f"one in ten takes {slower:.2f} times as long as the fastest tenth",
        "the speed changes from call to call; more rounds are needed" * (slower > UNEVEN),
        "a machine of its own, or another hour; --budget for more rounds",
    )


def stolen_share() -> float:
    """The share of CPU time since the machine started that other guests of its host had."""
    fields = _text("/proc/stat").partition("\n")[0].split()[1:9]
    times = [int(field) for field in fields]
    total = sum(times)
    return times[7] / total if len(times) == 8 and total else 0.0


def gpu() -> str:
    """The NVIDIA GPU that this process computes on: its name, memory and driver."""
    return next(iter(_of_gpu("--query-gpu=name,memory.total,driver_version")), "unknown")


def gpu_processes() -> list[tuple[str, str]]:
    """(pid, name) of the other processes that compute on this one's GPU; none where there is no such tool."""
    rows = [line.split(", ", 1) for line in _of_gpu("--query-compute-apps=pid,process_name") if ", " in line]
    return [(pid, name) for pid, name in rows if pid != str(os.getpid())]


def _of_gpu(query: str) -> list[str]:
    """The lines of the driver's answer on the GPU that this process is given. On all of them where it is
    given none by name, or by one that the driver's tool does not take, as a part of a GPU (MIG). None where
    it sees no GPU, or there is no such tool."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]  # a number or UUID: Ray's, SLURM's
    if given == "-1":
        return []
    return (given and _driver(query, f"--id={given}")) or _driver(query)


def _driver(*asked: str) -> list[str]:
    try:
        return subprocess.run(
            ["nvidia-smi", *asked, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def cpu_quota() -> float | None:
    """The tightest CPU quota, in cores, of this process's control group and of those it lies in (version 2,
    or 1), or None."""
    found = []
    for line in _text("/proc/self/cgroup").splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup", "cpu" if controllers else "")
        for group in (Path(path), *Path(path).parents):
            here = root / group.relative_to("/")
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            limit = " ".join(_text(str(here / name)) for name in names).split()
            if len(limit) == 2 and limit[0] not in ("max", "-1"):
                found.append(int(limit[0]) / int(limit[1]))
    return min(found, default=None)


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since the machine started."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
