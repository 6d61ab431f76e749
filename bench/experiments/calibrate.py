"""How often is the gate wrong? It is run on identical code and on code made worse by a known amount.

    python bench/experiments/calibrate.py FOLDER --minutes 60

Each trial is one whole decision, as `hiddencost gate --against` makes it: both sides in processes of their
own, side by side, what is suspected measured again. The kinds of trial take turns; every result is appended
to FOLDER/results.jsonl, so that trials may be collected in several sittings. Beside a sixth of them, the
same work is judged by pytest-benchmark's comparison of two runs, one after the other, in about the same time.
(pyperf's comparison is left out: it begins 20 processes for each benchmark, and each would import Keras: that
takes minutes.) Then FOLDER gets report.md and calibration.svg, from all results collected so far.

The machine may be used meanwhile: how much others computed beside each decision is measured, and a decision
beside whom more than a tenth of a core was busy is told among those beside other work.
"""

import argparse
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import msgspec
from scipy.stats import binomtest

from hiddencost import environment, gate, grid, trees
from hiddencost.cli.gate import decide
from hiddencost.formatting import piped, quantity
from hiddencost.gate.outcome import REGRESSIONS
from hiddencost.grid import planning

SLOWED = "always_return_all"
PLAIN = Path(__file__).parent / "plain"
BUSY = 0.1
"""Cores that others keep busy, from which on a decision was made beside other work."""
THRESHOLDS = (0.01, 0.03, 0.05, 0.10)
"""At which pytest-benchmark's medians are compared; the gate's threshold is 1 %."""
START_SECONDS = 8.0
"""What one of its runs takes besides its rounds."""


class Trial(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A kind of decision. slower: by how much one case is; load: other work beside it; states: hidden states
    that one case keeps alive more than it needs; batch, blocks: in place of the grid's own."""

    slower: float = 0.0
    load: bool = False
    states: int = 0
    batch: int = 0
    blocks: int = 0

    @property
    def worse(self) -> bool:
        """Whether the side after is made worse at all."""
        return bool(self.slower or self.states)

    def __str__(self):
        if self.states:
            return f"{self.states} hidden state kept in memory"
        what = f"{self.slower:.0%} slower" if self.slower else "identical"
        what += f", batch {self.batch}" if self.batch else ""
        what += f", {self.blocks} blocks" if self.blocks else ""
        return f"{what}, beside other work" if self.load else what


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided. alarms: (case, metric, word, ratio) of each regression told, and of what is missing.
    ratio, half_width: of the slowed case; call_seconds: what a call of it takes (decisions of before it was
    kept have none). plain: by how much pytest-benchmark's medians moved, by case. others: cores that other
    processes kept busy meanwhile, those of the trial's own load not counted. suspect: the gate's chance of a
    false suspicion then."""

    trial: Trial
    alarms: tuple[tuple[str, str, str, float], ...]
    ratio: float | None
    half_width: float | None
    call_seconds: float | None = None
    seconds: float
    plain: dict[str, float] = {}
    plain_seconds: float = 0.0
    others: float
    when: str
    processor: str
    commit: str
    suspect: float = 0.05

    @property
    def kind(self) -> Trial:
        """The trial as it came to pass. (Processes that read memory are their own parent's children: what
        they compute is not told from others' work.)"""
        others = self.others > BUSY and not self.trial.states
        return msgspec.structs.replace(self.trial, load=self.trial.load or others)

    @property
    def quiet(self) -> bool:
        """Whether times were judged, and nothing else ran beside."""
        return not self.kind.load and not self.trial.states


SAME, LOADED, THREE, TWO = Trial(), Trial(load=True), Trial(slower=0.03), Trial(slower=0.02)
LONGER = Trial(batch=16, blocks=24)
OFTEN = (SAME, THREE, LONGER, TWO, SAME, SAME, THREE, LOADED, TWO, SAME) * 2
RARE = (Trial(slower=0.05), Trial(slower=0.10), Trial(slower=0.01), Trial(states=1))
COMPARED = 6
"""Of so many turns of all kinds, one is compared with pytest-benchmark."""


def planned(number):
    """The kind of a trial, and whether it is compared: a turn is all of OFTEN and one of RARE."""
    turn, place = divmod(number, len(OFTEN) + 1)
    return (*OFTEN, RARE[turn % len(RARE)])[place], turn % COMPARED == 0


def busy(seconds):
    """Other work: a tenth of a second of computing, a tenth of rest, for so long."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work = time.perf_counter() + 0.1
        while time.perf_counter() < work:
            sum(range(1000))
        time.sleep(0.1)


def cpu_seconds():
    """Of the whole machine, and of this process with all that it has waited for."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    own = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / ticks, sum(one.ru_utime + one.ru_stime for one in own)


@contextmanager
def load(wanted):
    """Other work on the machine while the block runs, and never for more than ten minutes."""
    process = multiprocessing.Process(target=busy, args=(600,), daemon=True) if wanted else None
    if process:
        process.start()
    try:
        yield
    finally:
        if process:
            process.kill()  # SIGTERM would be told like Ctrl-C
            process.join()


def decided(trial, folder):
    """One decision of the gate: identical trees, the side after made worse as the trial says."""
    small, text = grid.read(grid.grid_path("calibrate"))
    for axes in small.forward if trial.batch else ():
        axes.batch = [trial.batch]
    if trial.blocks:
        small.time.blocks = trial.blocks
    if trial.states:
        small.forward.clear()
    else:
        small.memory.clear()
    fault = planning.Fault(strategy=SLOWED, slower=trial.slower, states=trial.states)
    sides = trees.current(), trees.current()
    began, (machine, own) = time.perf_counter(), cpu_seconds()
    with load(trial.load), redirect_stdout(StringIO()):
        changes = decide(sides, small, text, folder, {**grid.GATED, **small.gate}, fault)
    seconds = time.perf_counter() - began
    machine_then, own_then = cpu_seconds()
    others = max(0.0, machine_then - machine - (own_then - own)) / seconds
    slowed = next((c for c in changes if c.case.strategy == SLOWED and c.timed), None)
    return changes, slowed, seconds, others


def plain(trial, folder, seconds):
    """By how much the medians moved (ratios minus 1) between two plain pytest-benchmark runs, one after the
    other, that together take about as long as the decision did; and the seconds they took."""
    began = time.perf_counter()
    cases = 3
    each = max(0.5, (seconds / 2 - START_SECONDS) / cases)
    with load(trial.load):
        for name, slower in (("before", 0.0), ("after", trial.slower)):
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLAIN)]
            command += [
                f"--rootdir={PLAIN}",
                f"--confcutdir={PLAIN}",
                "-c",
                "/dev/null",
                f"--hiddencost-slower={slower}",
            ]
            command += [f"--benchmark-json={folder / name}.json", f"--benchmark-max-time={each}"]
            subprocess.run(command, check=True, capture_output=True)
    medians = [
        {
            one["name"]: one["stats"]["median"]
            for one in json.loads((folder / f"{name}.json").read_text())["benchmarks"]
        }
        for name in ("before", "after")
    ]
    return {name: medians[1][name] / medians[0][name] - 1 for name in medians[0]}, time.perf_counter() - began


def source():
    """The last commit that changed what decides."""
    root = Path(__file__).parents[2]
    return trees.git(root, "log", "-1", "--format=%h", "--", "src", "bench").decode().strip()


def run(trial, compared):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes, slowed, seconds, others = decided(trial, folder / "gate")
        alike = not (trial.states or trial.batch)  # what pytest-benchmark measures is of the grid's batch
        moved, took = plain(trial, folder, seconds) if compared and alike else ({}, 0.0)
    return Result(
        trial=trial,
        alarms=tuple(
            (str(c.case), c.metric, c.word, round(c.ratio or 0.0, 4))
            for c in changes
            if c.word in (*REGRESSIONS, "missing")
        ),
        ratio=slowed and slowed.ratio,
        half_width=slowed and slowed.high and (slowed.high - slowed.low) / 2,
        call_seconds=slowed and slowed.before,
        seconds=round(seconds, 1),
        plain=moved,
        plain_seconds=round(took, 1),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        others=round(others, 3),
        processor=environment.processor(),
        commit=source(),
        suspect=gate.SUSPECT,
    )


def share(hits, trials):
    """`3 of 40 (2 to 20 %)`: with Wilson's 95 % interval."""
    if not trials:
        return "–"
    low, high = binomtest(hits, trials).proportion_ci(method="wilson")
    return f"{hits} of {trials} ({low:.0%} to {high:.0%})"


def at_most(hits, trials):
    """The share that is not exceeded with 95 % confidence: Clopper and Pearson's exact bound, one-sided."""
    if not trials:
        return "–"
    return f"{binomtest(hits, trials, alternative='less').proportion_ci(0.95).high:.2%}"


def caught(result):
    """Whether the gate told of what was made worse (or, on identical code, of anything)."""
    if result.trial.worse:
        return any(SLOWED in case for case, *_ in result.alarms)
    return bool(result.alarms)


def elsewhere(result):
    """Whether the gate told of a case that was not made worse, beside one that was."""
    return any(SLOWED not in case for case, *_ in result.alarms)


def plainly(result, threshold):
    """The same by pytest-benchmark's `--benchmark-compare-fail=median:N%`."""
    if result.trial.slower:
        return any(SLOWED in case and shift > threshold for case, shift in result.plain.items())
    return any(shift > threshold for shift in result.plain.values())


def table(results, beside=()):
    """How often a regression was told, by the kind of decision. beside: the results whose comparisons by
    pytest-benchmark stand next to it: they are the same whatever the gate's rule."""
    thresholds = THRESHOLDS if beside else ()
    header = ["the side after", "gate", "measured by it (median)", "seconds of a decision"]
    header += [f"pytest-benchmark, median:{threshold:.0%}" for threshold in thresholds]
    header += ["seconds of its two runs"] * bool(beside)
    rows = []
    for kind in sorted(
        {r.kind for r in results}, key=lambda t: (t.states, t.slower, t.load, t.batch, t.blocks)
    ):
        mine = [result for result in results if result.kind == kind]
        with_plain = [r for r in beside if r.kind == kind and r.plain and not r.trial.batch]
        ratios = [result.ratio for result in mine if result.ratio]
        rows.append(
            (
                str(kind),
                share(sum(map(caught, mine)), len(mine)),
                f"{median(ratios) - 1:+.1%}" if ratios else "–",
                f"{median(r.seconds for r in mine):.0f}",
                *(share(sum(plainly(r, t) for r in with_plain), len(with_plain)) for t in thresholds),
                *(
                    [f"{median(r.plain_seconds for r in with_plain):.0f}" if with_plain else "–"]
                    * bool(beside)
                ),
            )
        )
    lines = piped(header, rows)
    worse = [result for result in results if result.trial.worse]
    same = [result for result in results if not result.trial.worse]
    alarms = sum(map(caught, same)), len(same)
    return [
        *lines,
        "",
        f"Identical code in all: {share(*alarms)} false alarms, at most {at_most(*alarms)} of decisions with "
        "95 % confidence (exact, one-sided). Beside a case made worse, of one that was not: "
        f"{share(sum(map(elsewhere, worse)), len(worse))}.",
    ]


def widths(results):
    """How narrow the intervals of quiet decisions were, by the length of a call, in all and by day."""
    quiet = [result for result in results if result.quiet and result.half_width]
    days = sorted({result.when[:10] for result in quiet})
    rows = []
    for batch, blocks in sorted({(result.trial.batch, result.trial.blocks) for result in quiet}):
        mine = [r for r in quiet if (r.trial.batch, r.trial.blocks) == (batch, blocks)]
        by_day = ([r.half_width for r in mine if r.when.startswith(day)] for day in ("", *days))
        cells = (f"{median(found):.2%} of {len(found)}" if found else "–" for found in by_day)
        known = [r.call_seconds for r in mine if r.call_seconds]
        rows.append(
            (
                (f"batch {batch}" if batch else "as the grid has it") + f", {blocks} blocks" * bool(blocks),
                quantity(median(known), unit="s") if known else "–",
                *cells,
            )
        )
    return [
        "",
        f"Half-width of the interval of `{SLOWED}`, in the median of so many quiet decisions, in all and by "
        "day (another day may be another host):",
        "",
        *piped(("decisions", "a call takes", "half-width", *days), rows),
    ]


def report(results, folder):
    now = [result for result in results if result.suspect == gate.SUSPECT]
    before = [result for result in results if result.suspect != gate.SUSPECT]
    lines = [
        "# How often is the gate wrong?",
        "",
        f"{len(results)} whole decisions on {', '.join(sorted({r.processor for r in results}))}, from "
        f"{min(r.when for r in results)[:10]} to {max(r.when for r in results)[:10]}, by `make calibrate` at "
        f"{', '.join(dict.fromkeys(r.commit for r in results))}. Each cell: how often a regression was told, "
        "with the 95 % interval (Wilson). Identical code: false alarms, of any case. Else: the share caught. "
        "The gate counts from 1 % on, in several cases at once; pytest-benchmark compares the medians of two "
        "runs. Beside other work: a load of the trial's own, or others kept more than "
        f"{BUSY:g} cores busy meanwhile.",
        "",
        *(table(now, results) if now else ()),
        *widths(now),
        "",
        "How narrow an interval the machine itself allows: [steadiness](../experiments/steadiness.md); and "
        "how narrow the gate's becomes in a longer decision: [narrowing](../experiments/narrowing.md).",
    ]
    if any(result.quiet for result in now):
        picture = "The share of slowdowns told, by the gate and by pytest-benchmark"
        lines += ["", f"![{picture}](calibration.svg)"]
        draw(now, results, folder / "calibration.svg")
    if before:
        lines += [
            "",
            "## Before the gate suspected more",
            "",
            f"{len(before)} of the decisions are older: the gate measured again only what was slower with a "
            f"chance of {before[0].suspect:.0%} of any false suspicion, where it is {gate.SUSPECT:.0%} now.",
            "",
            *table(before),
            *widths(before),
        ]
    (folder / "report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def draw(results, beside, path):
    """The share of decisions that told of the slowed case, against how much slower it was. beside: as in
    `table`."""
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    judges = [("gate", caught, "#0072B2", [r for r in results if r.quiet and not r.trial.batch])]
    compared = [r for r in beside if r.quiet and r.plain and not r.trial.batch]
    judges += [
        (f"pytest-benchmark, median:{t:.0%}", lambda r, t=t: plainly(r, t), colour, compared)
        for t, colour in zip((0.03, 0.05), ("#D55E00", "#E69F00"), strict=True)
    ]
    for number, (name, told, colour, judged) in enumerate(judges):
        rows = []
        for value in sorted({result.trial.slower for result in judged}):
            mine = [told(r) for r in judged if r.trial.slower == value]
            low, high = binomtest(sum(mine), len(mine)).proportion_ci(method="wilson")
            rows.append((value * 100 + 0.12 * (number - 1), sum(mine) / len(mine), low, high))
        if not rows:
            continue
        xs, ys, lows, highs = zip(*rows, strict=True)
        errors = [
            [y - low for y, low in zip(ys, lows, strict=True)],
            [h - y for y, h in zip(ys, highs, strict=True)],
        ]
        ax.errorbar(xs, [100 * y for y in ys], [[100 * e for e in side] for side in errors],
                    marker="o", capsize=2, color=colour, label=name)  # fmt: skip
    ax.set(xlabel="one way made slower by, %", ylabel="decisions that told of it, %", ylim=(-3, 103))
    title = "How often a slowdown is told: at 0 % every alarm is false (bars: 95 % intervals)"
    ax.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=len(judges), frameon=False, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no trial after this long")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends what it has begun
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "results.jsonl"
    results = (
        [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines()]
        if path.exists()
        else []
    )
    end = time.monotonic() + 60 * given.minutes
    while time.monotonic() < end:
        trial, compared = planned(len(results))
        results.append(run(trial, compared))
        with open(path, "ab") as file:
            file.write(msgspec.json.encode(results[-1]) + b"\n")
        print(
            f"{len(results)}: {trial}: {results[-1].alarms or 'no alarm'} ({results[-1].seconds:.0f} s)",
            flush=True,
        )
    report(results, given.folder)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
