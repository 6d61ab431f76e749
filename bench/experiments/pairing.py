"""Which pairing is steadier for the same machine time: pairs, or a rotation?

    python bench/experiments/pairing.py FOLDER

pytest-benchmark's public interface allows both. Pairs: `pedantic(candidate, setup=time_the_reference)`
calls the reference before each call of each candidate, 2 k calls a round for k candidates. Rotation: the
reference and all candidates are called once a round, k + 1 calls, and the `timer` option replays the
samples; its order may go back and forth, or be shuffled. Here all candidates are the reference built
again (A/A), so any ratio but 1 is noise. Each repetition gives every design the same seconds, in turn.
Writes FOLDER/pairing.json and FOLDER/pairing.md.
"""

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np

from hiddencost import backends, environment, measure, stats
from hiddencost.grid import Time
from hiddencost.records import REFERENCE, Case

CASE = Case(model="minilm", strategy=REFERENCE, mode="graph", batch=1, length=16)
CANDIDATES = 10
REPETITIONS = 12
SECONDS = 2.5


def timed(run, placed):
    """Seconds of one call, its result dropped."""
    began = time.perf_counter()
    backends.synchronize(run(placed))
    return time.perf_counter() - began


def pairs(reference, candidates, placed):
    """One round: each candidate with a call of the reference before it."""
    return [-np.log(timed(reference, placed) / timed(run, placed)) for run in candidates]


def rotation(reference, candidates, placed, order):
    """One round: the reference and each candidate once, in this order of their places."""
    runs = [reference, *candidates]
    seconds = {place: timed(runs[place], placed) for place in order}
    return [np.log(seconds[place] / seconds[0]) for place in range(1, len(runs))]


def back_and_forth(count, number, generator):
    """Forwards and backwards in turn: a drift cancels, but who stands at an end is called twice in a row."""
    return range(count)[:: -1 if number % 2 else 1]


def shuffled(count, number, generator):
    """A new random order in each round."""
    return generator.permutation(count)


ORDERS = {"rotation, back and forth": back_and_forth, "rotation, shuffled": shuffled}


def block(design, reference, candidates, placed):
    """The mean log ratio of each candidate over the rounds that fit into the time, and their number."""
    began, rounds = time.perf_counter(), []
    generator = np.random.default_rng(0)
    while time.perf_counter() - began < SECONDS:
        gc.disable()
        if design == "pairs":
            rounds.append(pairs(reference, candidates, placed))
        else:
            order = ORDERS[design](len(candidates) + 1, len(rounds), generator)
            rounds.append(rotation(reference, candidates, placed, order))
        gc.enable()
        gc.collect(0)
    return [stats.block_mean(ratios) for ratios in np.transpose(rounds)], len(rounds)


def main(folder):
    _, threads = backends.start(1)
    process = measure.Process(0, 1, Time())
    placed = backends.place(process.inputs(CASE), CASE.mode, CASE.batch)
    reference, *candidates = (
        backends.compile_(process.built(CASE), CASE.mode) for _ in range(CANDIDATES + 1)
    )
    for run in (reference, *candidates):
        run(placed)
    gc.collect()
    gc.freeze()
    found = {design: [] for design in ("pairs", *ORDERS)}
    rounds = {design: [] for design in found}
    for _ in range(REPETITIONS):
        for design in found:
            means, count = block(design, reference, candidates, placed)
            found[design].append(means)
            rounds[design].append(count)
    write(folder, found, rounds, threads)


def write(folder, found, rounds, threads):
    """The raw means and a table of them."""
    folder.mkdir(parents=True, exist_ok=True)
    captured = environment.capture(0, threads, own_load=1)
    lines = [
        "# Pairs or a rotation: which is steadier for the same machine time?",
        "",
        f"A/A: {CANDIDATES} candidates, each the reference built again ({CASE}); {REPETITIONS} repetitions "
        f"of {SECONDS:g} s for each design in turn. {captured.processor}, {captured.cores} cores, "
        f"{threads['intra_op']} thread, load average {captured.load[0]:g}. "
        "Made by `make pairing` (bench/experiments/pairing.py).",
        "",
        "| design | rounds in a repetition | sd of the ratio between repetitions | worst | mean offset |",
        "| --- | --- | --- | --- | --- |",
    ]
    for design, means in found.items():
        ratios = np.exp(np.array(means))
        spread = np.sqrt(ratios.var(axis=0, ddof=1).mean())
        worst = np.abs(ratios - 1).max()
        lines.append(
            f"| {design} | {np.median(rounds[design]):.0f} | {spread:.2%} | {worst:.2%} "
            f"| {np.abs(ratios.mean(axis=0) - 1).mean():.2%} |"
        )
    (folder / "pairing.md").write_text("\n".join(lines) + "\n")
    raw = {"log_ratios": found, "rounds": rounds, "versions": captured.versions}
    (folder / "pairing.json").write_text(json.dumps(raw, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
