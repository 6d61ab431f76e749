"""The machine and the versions, and what about them makes timings unreliable. Keras-free."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from hiddencost.records import Environment

PACKAGES = (
    "hiddencost",
    "keras",
    "keras-hub",
    "keras-nlp",
    "tensorflow",
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
    "XLA_FLAGS",
    "TF_XLA_FLAGS",
)
HIGH_LOAD = 0.5
"""A load average of more than half a core beside the benchmark's own is told: the noise grows with it."""


def capture(block: int, threads: dict[str, int], own_load: float) -> Environment:
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
        versions=versions,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=cores(),
        memory_bytes=psutil.virtual_memory().total,
        threads=threads,
        load=load(),
        settings=settings,
        warnings=tuple(warnings(own_load)),
    )


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


def warnings(own_load: float) -> Iterator[str]:
    """What makes timings here unreliable, each with its figure."""
    now = load()[0]
    if now > own_load + HIGH_LOAD:
        yield f"load average {now} on {cores()} cores: other work runs beside the benchmark"
    swap = psutil.swap_memory().used
    if swap > 64 * 2**20:
        yield f"{swap // 2**20} MiB of swap in use: memory readings and times may include paging"
    quota = cpu_quota()
    if quota is not None and quota < cores():
        yield f"a CPU quota of {quota:g} cores for {cores()} visible ones: calls are throttled in bursts"
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor and governor != "performance":
        yield f"frequency governor '{governor}': the clock follows the load"


def cpu_quota() -> float | None:
    """The container's CPU quota in cores (cgroup v2), or None."""
    limit = _text("/sys/fs/cgroup/cpu.max").split()
    if len(limit) == 2 and limit[0] != "max":
        return int(limit[0]) / int(limit[1])
    return None


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
