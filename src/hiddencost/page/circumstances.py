"""What a run was: its models, machine and plan, what is not there and why, and where it ran."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

import numpy as np

from hiddencost.claims.evidence import in_order
from hiddencost.claims.probing import BOTH_NOUNS, CHANCE, HELD_OUT
from hiddencost.columns import columns_of
from hiddencost.formatting import listed, quantity
from hiddencost.page.grids import Grid, Section, scene
from hiddencost.records import KIND, REFERENCE, ROUNDS_WANTED, Case, Run

NO_TROUBLE = (KIND, CHANCE, BOTH_NOUNS, HELD_OUT)
"""Notes that qualify what was measured, and cost nothing."""
NOT_MODELS = ("lookup", "import")
"""Values of `Case.model` that name a suite instead of a model."""

MOST_CASES = 500
"""As many cases that fared alike are named."""
MOST_NAMED = 20
"""As many models a run's first line names."""


def opening(run: Run, listed_of_it: str = "") -> list[tuple[str, str]]:
    """Names and texts of the facts that the report opens with. listed_of_it: what a large run lists."""
    found = columns_of(run)
    cases = [case for case in found.met() if case.model not in NOT_MODELS]
    peaks = [name for name in found.metrics if name.startswith("peak_")]
    memory = found.blocks(found.of(peaks) & found.in_state("ok"))
    dtypes: dict[str, dict[str, None]] = defaultdict(dict)
    for case in cases:
        dtypes[f"{case.backend} on {case.device}"][case.dtype] = None
    backends = [f"{ground} ({listed(sorted(some))})" for ground, some in dtypes.items()]
    header = run.header
    ending = (
        f"{run.ending.how}, {run.ending.seconds:,.0f} s" if run.ending else "no ending: killed, or not over"
    )
    models = sorted({case.model for case in cases})
    named = listed(models) or "no models"
    return [
        ("models", named if len(models) <= MOST_NAMED else f"{len(models)} models"),
        ("backend", listed(backends) or "no backend"),
        ("machine", machine(run)),
        ("when", f"{header.started} ({ending})"),
        ("grid", f"{header.grid_name}, {len(header.planned)} planned cases"),
        ("blocks", f"{len(timing_blocks(run))} timing blocks, {len(memory)} memory processes"),
        *([("listed", listed_of_it)] if listed_of_it else []),
    ]


def timing_blocks(run: Run) -> set[int]:
    """The blocks in which calls were timed."""
    found = columns_of(run)
    return found.blocks(found.of(("seconds",)) & found.in_state("ok"))


def machine(run: Run) -> str:
    """The machine in one line, its GPUs first; all of them where processes ran on several."""
    machines = dict.fromkeys(
        f"{e.processor}, {e.cores} cores, {quantity(e.memory_bytes, unit='B')}, {e.system}, Python {e.python}"
        for e in run.environments
    )
    gpus = dict.fromkeys(e.gpu for e in run.environments if e.gpu)
    return "; ".join([*gpus, *([listed(machines)] if machines else [])]) or "not recorded"


def unmeasured(run: Run) -> list[Case]:
    """The planned cases of which the run has no measurement in any state."""
    met = set(columns_of(run).met())
    return [case for case in dict.fromkeys(run.header.planned) if case not in met]


def not_measured(run: Run, listed: Run) -> Section:
    """Everything that was skipped, failed, cut short or never came to pass, with the reason. listed: what of
    a large run is listed group by group."""
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    found = columns_of(run)
    trouble = found.with_note(lambda name: name not in (ROUNDS_WANTED, *NO_TROUBLE))
    for m in found.only((~found.in_state("ok")) | trouble):
        if m.state != "ok":
            groups[m.state.replace("_", " "), m.reason or "no reason was recorded"][str(m.case)] = None
        for name, text in m.notes.items() if m.state == "ok" else ():
            if name not in (ROUNDS_WANTED, *NO_TROUBLE):
                groups[f"note: {name}", text][str(m.case)] = None
    for case in unmeasured(run):
        groups["no measurement", "planned, and nothing was recorded"][str(case)] = None
    rows = tuple(
        (what, reason, str(len(cases)), ", ".join(_first(list(cases), MOST_CASES)))
        for (what, reason), cases in sorted(groups.items())
    )
    table = Grid(("what", "reason", "cases", "which"), rows)
    return Section("Skipped, failed, capped, missing", "", (table, capped(listed)))


def _first(names: list[str], most: int) -> list[str]:
    return names if len(names) <= most else [*names[:most], f"{len(names) - most:,} more"]


def capped(run: Run) -> Grid:
    """The groups whose rounds ended by time in some block, before the wanted precision."""
    wanted: dict[Case, list[int]] = defaultdict(list)
    taken: dict[Case, dict[int, int]] = defaultdict(dict)
    found = columns_of(run)
    cut = {case.group for case in found.met(found.with_note(ROUNDS_WANTED.__eq__))}
    alike = found.of_cases([case for case in found.cases if case.group in cut])
    timed = np.flatnonzero(alike & found.of(("seconds",)) & found.in_state("ok"))
    for row, block in zip(timed.tolist(), found.blocks_of(timed), strict=True):
        case, count = found.cases[found.case[row]], int(found.counts[row])
        rounds = taken[case.group]  # the reference may have several calls a round
        rounds[block] = min(count, rounds.get(block, count))
        if ROUNDS_WANTED in (notes := found.notes_of(row)) and case.strategy == REFERENCE:
            wanted[case].append(int(notes[ROUNDS_WANTED]))
    rows = tuple(
        (
            scene(group),
            f"{len(wanted[group])} of {len(taken[group])}",
            ", ".join(map(str, taken[group].values())),
            f"{median(wanted[group]):.0f}",
        )
        for group in in_order(wanted)
    )
    header = ("cut short by time", "blocks", "rounds in each block", "rounds wanted (median)")
    return Grid(header, rows, f"Groups that time cut short ({len(rows)})", folded=True)


def environments(run: Run) -> Section:
    """Where the processes ran, equal ones once, and how to run it again."""
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for e in run.environments:
        texts = (e.versions, e.threads, e.settings)
        paired = (", ".join(f"{key} {value}" for key, value in sorted(text.items())) for text in texts)
        alike[(e.backend, e.device, *paired, "; ".join(e.warnings) or "none")].append(e.block)
    rows = tuple(
        (backend, device, listed(map(str, sorted(set(blocks)))), *texts)
        for (backend, device, *texts), blocks in alike.items()
    )
    header = run.header
    again = (
        ("command", header.command),
        ("seed", str(header.seed)),
        ("git commit", header.git_commit),
        ("hiddencost", header.hiddencost_version),
        ("schema", str(header.schema_version)),
        *(("warned of at the start", warning) for warning in header.warnings),
    )
    header_of_rows = ("backend", "device", "blocks", "versions", "threads", "settings", "warnings")
    grids = (Grid(("run", ""), again), Grid(header_of_rows, rows))
    return Section("Environment", f"Ran on: {machine(run)}.", grids)
