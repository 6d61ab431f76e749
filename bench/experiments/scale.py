"""What do planning, storing, resuming and reporting a run of 100,000 cases take?

    python bench/experiments/scale.py FOLDER [--cases N ...]

A grid of so many cases is measured by the tests' fake worker, which answers at once; the supervisor is
killed in the middle, and the run resumed. Then a made-up run of so many cases is reported, in which every
case has what a timed case of a real run has: 15 calls in each of five blocks, what is paid once, bytes,
traces, a peak. Writes FOLDER/scale.md.
"""

import argparse
import math
import random
import re
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path

import msgspec

from hiddencost import environment, grid, store
from hiddencost.formatting import piped, quantity
from hiddencost.grid import checking, planning
from hiddencost.records import REFERENCE, ROUNDS_WANTED, TWIN, Case, Measurement
from hiddencost.suites import CATALOGUE

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import fake_run
import synthetic

CASES, BLOCKS, CALLS = (10_000, 100_000), 5, 15
GOAL_BYTES, GOAL_SECONDS = 500e6, 60.0
SHORTEST = 3
"""Tokens of a text: its start, a word, its end."""
POINTS = ("last", "middle", "last_four", "all")
LOOKUPS = ("functional_submodel", "get_layer_name", "get_layer_index", "indexed_in_advance")
WAYS = (
    *((REFERENCE, "output"), (TWIN, "output")),
    *product(LOOKUPS, POINTS),
    *(("always_return_all", "all"), ("always_return_stacked", "all"), ("on_request", "all")),
    ("functional_submodel_per_call", "middle"),
)
MODELS = [f"model_{number}" for number in range(13)]
PLACES = (
    *product(("tensorflow",), ("eager", "graph", "xla")),
    *(("jax", "eager"), ("jax", "jit"), ("torch", "eager"), ("torch", "compile")),
)
BATCHES, LENGTHS = (1, 2, 4, 8, 16, 32), (16, 32, 64, 128, 192, 256, 384, 512, 1024)

TOLD = """
import atexit, resource, runpy, sys
atexit.register(lambda: print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script, and tells in the end how many KiB it ever had resident, without its children."""


def started(*arguments):
    """`hiddencost ARGUMENTS`, with a fake worker."""
    command = [sys.executable, "-c", TOLD, fake_run.__file__, "0", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), **quiet)


def ended(*arguments):
    """(seconds, peak resident bytes) of a `hiddencost` that has to end well."""
    began = time.perf_counter()
    process = started(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.perf_counter() - began, int(re.findall(r"PEAK (\d+)", errors)[-1]) * 1024


def high_water(pid):
    """Peak resident bytes so far of a process that runs."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def written_grid(folder, count):
    """A grid of at least that many cases, over shapes; how many they are."""
    ways = [way for way in dict.fromkeys(way for way, _ in WAYS) if way not in (REFERENCE, TWIN)]
    path = folder / "large.toml"
    for lengths in range(1, 10_000):
        text = (
            f'name = "large"\n[time]\nblocks = {BLOCKS}\n[[forward]]\nmodel = ["minilm"]\n'
            f"strategy = {ways}\npoints = {list(POINTS)}\nmode = ['eager', 'graph', 'xla']\n"
            f"batch = {list(BATCHES)}\nlength = {list(range(SHORTEST, SHORTEST + lengths))}\n"
        )
        if lengths == 1:
            each = len(planning.planned(planning.timed_jobs(grid.parse(text, "large"))))
        if lengths * each >= count:
            break
    path.write_text(text)
    plan, _ = grid.read(path)
    checking.check(plan, CATALOGUE, "large")
    return path, len(planning.planned(planning.timed_jobs(plan)))


def measured(folder, count):
    """(cases, of the run that is killed, of the one that goes on): their seconds and peaks."""
    path, cases = written_grid(folder, count)
    run = folder / "run"
    began = time.perf_counter()
    process = started("run", "--grid", path, "--out", run)
    results, wanted = run / store.RESULTS, 0.5 * cases * BLOCKS
    while not results.exists() or lines(results) < wanted:
        assert process.poll() is None, process.communicate()
        time.sleep(min(1.0, cases / 1e4))
    killed = time.perf_counter() - began, high_water(process.pid)
    process.kill()
    process.communicate()
    before = lines(results)
    resumed = ended("run", "--resume", run)
    found = store.read(run)
    seen = {(m.case, m.metric, m.block) for m in found.measurements}
    assert len(seen) == cases * BLOCKS, len(seen)
    assert all(m.state == "ok" for m in found.measurements[:1000])
    again = len(found.measurements) - len(seen)
    return cases, killed, resumed, before, again


def lines(path):
    """How many lines a file has."""
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 24), b""))


def made_up(folder, count):
    """A run of at least that many cases; how many, and how many records."""
    every = (
        Case(model=model, strategy=REFERENCE, backend=backend, mode=mode, batch=batch, length=length)
        for model, (backend, mode), batch, length in product(MODELS, PLACES, BATCHES, LENGTHS)
    )
    groups = [
        [group.with_(strategy=strategy, points=points) for strategy, points in WAYS]
        for group in islice(every, math.ceil(count / len(WAYS)))
    ]
    cases = [case for group in groups for case in group]
    plain = synthetic.synthetic_run()
    rng, records = random.Random(0), 0
    with open(folder / store.RESULTS, "wb", buffering=1 << 20) as file:
        file.write(store.encode(msgspec.structs.replace(plain.header, planned=tuple(cases))))
        for block in range(BLOCKS):
            for backend in dict.fromkeys(backend for backend, _ in PLACES):
                file.write(
                    store.encode(msgspec.structs.replace(plain.environments[0], block=block, backend=backend))
                )
            for group in groups:
                for place, case in enumerate(group):
                    for record in of_one(case, block, place, rng):
                        file.write(store.encode(record))
                        records += 1
        for record in once(cases, rng):
            file.write(store.encode(record))
            records += 1
        file.write(store.encode(plain.ending))
    return len(cases), records


def once(cases, rng):
    """Peaks, and what is told of each model; look-ups, which have cases of their own."""
    for case in cases:
        yield Measurement(case=case, metric="peak_heap_bytes", values=(2e6 + rng.random(),), block=100)
    for case in dict.fromkeys(case.model_alone for case in cases):
        yield Measurement(case=case, metric="weights_bytes", values=(9e7,), block=0)
    for way, layers, block in product(("get_layer_name", "get_layer_index"), (12, 100, 1000), range(BLOCKS)):
        case = Case(model="lookup", strategy=way, layers=layers, position=layers - 1)
        seconds = tuple(1e-8 * layers * (1 + rng.random() / 50) for _ in range(CALLS))
        yield Measurement(case=case, metric="lookup_seconds", values=seconds, block=block)


def of_one(case, block, place, rng):
    """What a timed case has of one block."""
    payload = case.batch * case.length * 1536.0
    effect = math.log(0.52 if case.points == "middle" else 1.0) + rng.gauss(0, 0.003)
    one_call = 1e-3 + 1e-6 * case.batch * case.length
    once = {
        "build_seconds": 0.01,
        "first_call_seconds": 1 + rng.random(),
        "host_copy_seconds": 1e-4,
        "max_abs_difference": 1e-6,
        "output_bytes": payload,
        "payload_bytes": payload if case.points != "output" else None,
        "traces": 1.0 if case.mode in grid.COMPILED_MODES else None,
    }
    for metric, value in once.items():
        if value is not None:
            yield Measurement(case=case, metric=metric, values=(value,), block=block)
    if case.strategy == "on_request" and case.length == 1024:
        yield Measurement(case=case, metric="seconds", state="out_of_memory", reason="no memory", block=block)
        return
    notes = {ROUNDS_WANTED: str(CALLS + block)} if case.batch == 32 else {}  # time cut these groups short
    times = tuple(one_call * math.exp(effect + rng.gauss(0, 0.02)) for _ in range(CALLS))
    places = tuple(range(place, place + len(WAYS) * CALLS, len(WAYS)))
    yield Measurement(
        case=case, metric="seconds", values=times, places=places, effect=effect, block=block, notes=notes
    )


def row(what, cases, seconds, peak, most=math.inf):
    """most: seconds that it may take."""
    met = "yes" if peak <= GOAL_BYTES and seconds <= most else "no"
    return what, f"{cases:,}", quantity(seconds, unit="s"), f"{peak / 1e6:,.0f} MB", met


def written(wanted):
    rows, told = [], []
    for count in wanted:
        with tempfile.TemporaryDirectory() as name:
            cases, killed, resumed, before, again = measured(Path(name), count)
        with tempfile.TemporaryDirectory() as name:
            made, records = made_up(Path(name), count)
            size = (Path(name) / store.RESULTS).stat().st_size
            reported = ended("report", name)
            page = sum(path.stat().st_size for path in Path(name).glob("*.*")) - size
        rows += [
            row("measured, until it was killed", cases, *killed),
            row("resumed to its end, and reported", cases, *resumed),
            row("reported", made, *reported, GOAL_SECONDS),
        ]
        told += [
            f"Of {cases:,} cases, killed after {before:,} lines: all {cases * BLOCKS:,} measurements are "
            f"there, {again:,} of them made twice. The made-up run of {made:,} cases has {records:,} records "
            f"({quantity(size, unit='B')}); its page and report have {quantity(page, unit='B')}.",
            "",
        ]
        print(*rows[-3:], told[-2], sep="\n", flush=True)
    goal = f"at most {GOAL_BYTES / 1e6:.0f} MB, a report in {GOAL_SECONDS:.0f} s"
    return "\n".join(
        [
            "# A run of 100,000 cases",
            "",
            f"Measured by `make scale` on {environment.processor()}, {environment.cores()} cores. Time and "
            "memory are those of `hiddencost` itself: what measured is the tests' fake worker, which answers "
            "at once. In the run that is reported every case has what a timed case of a real run has: "
            f"{CALLS} calls in each of {BLOCKS} blocks, what is paid once, bytes, traces, a peak.",
            "",
            *piped(("", "cases", "time", "peak resident set", goal), rows),
            "",
            *told,
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, nargs="*", default=CASES)
    chosen = parser.parse_args()
    (chosen.folder / "scale.md").write_text(written(chosen.cases), encoding="utf-8")
