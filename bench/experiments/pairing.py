"""How are calls best ordered, and ratios best computed, for the same machine time?

    python bench/experiments/pairing.py FOLDER

pytest-benchmark's public interface allows two orders. Pairs: `pedantic(candidate, setup=time_the_reference)`
calls the reference before each call of each candidate, 2 k calls a round for k candidates. Rotation: the
reference and all candidates are called once a round, k + 1 calls, and the `timer` option replays the
samples; a round's order may go back and forth, or be shuffled. A rotation's ratios may be those within
each round, or come from the differences of successive calls (`stats.effects`). Here all candidates are
the reference built again (A/A), so any ratio but 1 is noise. Each repetition gives every order the same
seconds, in turn. Writes FOLDER/pairing.json and FOLDER/pairing.md.
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
SECONDS = {CASE: 5.0, CASE.with_(mode="eager"): 16.0}
CANDIDATES = 10
REPETITIONS = 8


def pairs(count, number, generator):
    """Each candidate with a call of the reference before it."""
    return [place for candidate in range(1, count) for place in (0, candidate)]


def back_and_forth(count, number, generator):
    """Forwards and backwards in turn: a drift cancels, but who stands at an end is called twice in a row."""
    return list(range(count)[:: -1 if number % 2 else 1])


def shuffled(count, number, generator):
    """A new random order in each round."""
    return list(generator.permutation(count))


def by_round(calls, count):
    """The block mean of each candidate against the reference of its round (its pair)."""
    rounds = []
    for places, seconds in calls:
        logs = np.log(seconds)
        if len(places) > count:
            rounds.append(logs[1::2] - logs[0::2])
        else:
            by_place = dict(zip(places, logs, strict=True))
            rounds.append([by_place[place] - by_place[0] for place in range(1, count)])
    return [stats.block_mean(ratios) for ratios in np.transpose(rounds)]


def successive(calls, count):
    """The effect of each candidate, from the differences of successive calls."""
    names = [place for places, _ in calls for place in places]
    found, _ = stats.effects(names, np.log([taken for _, seconds in calls for taken in seconds]))
    return [found[place] - found[0] for place in range(1, count)]


DESIGNS = {
    "pairs": (pairs, by_round),
    "rotation back and forth, ratios of a round": (back_and_forth, by_round),
    "rotation shuffled, ratios of a round": (shuffled, by_round),
    "rotation shuffled, successive calls": (shuffled, successive),
}


def block(order, runs, placed, allowed):
    """[(places, seconds)] of the rounds that fit into the time."""
    began, rounds = time.perf_counter(), []
    generator = np.random.default_rng(0)
    while time.perf_counter() - began < allowed:
        places, seconds = order(len(runs), len(rounds), generator), []
        gc.disable()
        for place in places:
            called = time.perf_counter()
            backends.synchronize(runs[place](placed))
            seconds.append(time.perf_counter() - called)
        gc.enable()
        gc.collect(0)
        rounds.append((places, seconds))
    return rounds


def repeated(process, case, allowed):
    """{design: [log ratios of a repetition]} and {design: [rounds]}."""
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    runs = [process.compiled(case)[1] for _ in range(CANDIDATES + 1)]
    for run in runs:
        run(placed)
    gc.collect()
    gc.freeze()
    found = {design: [] for design in DESIGNS}
    rounds = {design: [] for design in DESIGNS}
    for _ in range(REPETITIONS):
        taken = {order: block(order, runs, placed, allowed) for order in (pairs, back_and_forth, shuffled)}
        for design, (order, ratios) in DESIGNS.items():
            found[design].append([float(ratio) for ratio in ratios(taken[order], len(runs))])
            rounds[design].append(len(taken[order]))
    return found, rounds


def main(folder):
    _, threads = backends.start("tensorflow", 1)
    process = measure.Process(0, 1, Time())
    captured = environment.capture(0, threads, own_load=1)
    lines = [
        "# How calls are best ordered, and ratios best computed",
        "",
        f"A/A: {CANDIDATES} candidates, each the reference built again; {REPETITIONS} repetitions of "
        f"the same seconds for each order in turn. {captured.processor}, {captured.cores} cores, "
        f"{threads['intra_op']} thread, load average {captured.load[0]:g}. "
        "Made by `make pairing` (bench/experiments/pairing.py).",
    ]
    raw = {"versions": captured.versions}
    for case, allowed in SECONDS.items():
        found, rounds = repeated(process, case, allowed)
        raw[str(case)] = {"log_ratios": found, "rounds": rounds}
        lines += ["", f"## {case}, {allowed:g} s", "", *table(found, rounds)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairing.md").write_text("\n".join(lines) + "\n")
    (folder / "pairing.json").write_text(json.dumps(raw, indent=1) + "\n")
    print("\n".join(lines))


def table(found, rounds):
    """A row for each design."""
    yield "| design | rounds in a repetition | sd of the ratio | worst | mean offset |"
    yield "| --- | --- | --- | --- | --- |"
    for design, means in found.items():
        ratios = np.exp(np.array(means))
        spread = np.sqrt(np.square(ratios - 1).mean())
        offset = np.abs(ratios.mean(axis=0) - 1).mean()
        yield (
            f"| {design} | {np.median(rounds[design]):.0f} | {spread:.2%} | {np.abs(ratios - 1).max():.2%} "
            f"| {offset:.2%} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
