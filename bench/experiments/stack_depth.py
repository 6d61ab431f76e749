"""What does it matter how deep in Python's stack a model is called?

    python bench/experiments/stack_depth.py FOLDER

Keras's own eager call of MiniLM, and the one that frees tensors, from deeper and deeper callers; each beside
the same call with room on the stack (`hiddencost.room`), in turn. A process for each backend. Writes
FOLDER/stack-depth.md and its plot.
"""

import argparse
import gc
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import msgspec

from hiddencost import backends
from hiddencost.formatting import piped
from hiddencost.grid import Time
from hiddencost.measure import Process
from hiddencost.nursery import worker_environment
from hiddencost.plots.style import LABELS, colour, save, styled
from hiddencost.records import REFERENCE, Case
from hiddencost.room import with_room

BACKENDS = ("tensorflow", "jax", "torch")
WAYS = (REFERENCE, "functional_freed")
DEPTHS = tuple(range(0, 132, 4))
TURNS = 9
BATCH, LENGTH = 1, 64
MANY = 300
"""Pages mapped in a call, from which on it is the stack's doing."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """From one depth: seconds over those with room (a ratio for each turn), and pages mapped in a call."""

    backend: str
    way: str
    depth: int
    ratios: tuple[float, ...]
    faults: float


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measured(backend):
    backends.start(backend, 1)
    process = Process(block=0, seed=1, settings=Time())
    base = Case(model="minilm", strategy=REFERENCE, backend=backend, batch=BATCH, length=LENGTH)
    runs = {way: process.compiled(base.with_(strategy=way))[1] for way in WAYS}
    placed = backends.place(process.inputs(base), "eager", BATCH)

    def call(way):
        mapped, began = faults(), time.perf_counter()
        backends.synchronize(runs[way](placed))
        return time.perf_counter() - began, faults() - mapped

    def deep(depth, function, way):
        return deep(depth - 1, function, way) if depth else function(way)

    roomy = with_room(call)
    for way in WAYS * 3:
        call(way)
    gc.collect()
    gc.freeze()
    gc.disable()
    found = {(way, depth): [] for way in WAYS for depth in DEPTHS}
    for _ in range(TURNS):
        for key in random.sample(list(found), len(found)):
            way, depth = key
            first, second = random.sample((call, roomy), 2)
            taken = {function: deep(depth, function, way) for function in (first, second)}
            found[key].append((taken[call][0] / taken[roomy][0], taken[call][1]))
        gc.collect(0)
    for (way, depth), seen in found.items():
        ratios, pages = zip(*seen, strict=True)
        point = Point(backend=backend, way=way, depth=depth, ratios=ratios, faults=median(pages))
        print(msgspec.json.encode(point).decode(), flush=True)


def of(points, backend, way):
    return [point for point in points if (point.backend, point.way) == (backend, way)]


@styled
def draw(points):
    figure, axes = plt.subplots(1, len(BACKENDS), figsize=(9, 3.2), sharey=True, layout="constrained")
    for ax, backend in zip(axes, BACKENDS, strict=True):
        for way in WAYS:
            mine = of(points, backend, way)
            depths, ratios = [p.depth for p in mine], [median(p.ratios) for p in mine]
            ax.plot(depths, ratios, marker=".", color=colour(way), label=LABELS[way])
        ax.set_title(backend, loc="left", fontsize=10)
        ax.axhline(1, color="#888888", linewidth=0.8)
        ax.spines[["top", "right"]].set_visible(False)
    most = max(median(point.ratios) for point in points)
    figure.suptitle(
        f"From some depths of its caller an eager call takes up to {most:.2f} times as long",
        x=0.01,
        ha="left",
    )
    figure.supxlabel("depth of the caller, in frames", fontsize=10)
    axes[0].set_ylabel("time / with room on the stack")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def report(points, folder):
    rows = []
    for backend in BACKENDS:
        for way in WAYS:
            mine = of(points, backend, way)
            worst = max(mine, key=lambda point: median(point.ratios))
            best = min(median(point.ratios) for point in mine)
            rows.append(
                (backend, way, f"{best:.2f}", f"{median(worst.ratios):.2f}", str(worst.depth),
                 f"{worst.faults:.0f}", f"{max(point.faults for point in mine):.0f}")
            )  # fmt: skip
    version = sys.version.partition(" ")[0]
    text = [
        "# How deep in Python's stack a model is called",
        "",
        f"An eager call of MiniLM at {BATCH}x{LENGTH} from callers of {len(DEPTHS)} depths (0 to "
        f"{DEPTHS[-1]} frames), each over the same call with room on the stack, in turn: medians of {TURNS} "
        f"turns, Python {version}. Made by `make stack-depth` (bench/experiments/stack_depth.py).",
        "",
        *piped(
            (
                "backend",
                "way",
                "least ratio",
                "largest ratio",
                "from depth",
                "pages mapped there",
                "most pages",
            ),
            rows,
        ),
        "",
        "CPython keeps the frames of Python functions in chunks of 16 KiB. Where the many calls that an "
        "eager model makes happen to begin at the end of a chunk, each of them maps a new one and unmaps it "
        "again ([CPython issue 142183](https://github.com/python/cpython/issues/142183); releases of "
        "3.13 and 3.14 from March 2026 on keep one, 3.11 and 3.12 do not). So the same call takes longer "
        "from some depths of the caller than from others, and two ways that differ by a few frames seem to "
        "differ in time. What hiddencost times has room on the stack (hiddencost.room); a program of your "
        "own may be at any depth."
        if max(point.faults for point in points) > MANY
        else "No call mapped many pages: this Python keeps a chunk of its stack for the next call.",
        "",
        "![Time of an eager call from deeper and deeper callers](stack-depth.png)",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    save(draw(points), folder / "stack-depth")
    (folder / "stack-depth.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="measure one backend, and print what was found")
    given = parser.parse_args()
    if given.only:
        return measured(given.only)
    points = []
    for backend in BACKENDS:
        command = [sys.executable, __file__, str(given.folder), "--only", backend]
        told = subprocess.run(
            command, env=worker_environment(os.environ), check=True, stdout=subprocess.PIPE
        ).stdout
        points += [msgspec.json.decode(line, type=Point) for line in told.splitlines()]
    report(points, given.folder)


if __name__ == "__main__":
    main()
