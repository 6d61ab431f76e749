"""What a run was: its models, machine and plan, what is not there and why, and where it ran."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from hiddencost.claims.evidence import in_order
from hiddencost.claims.probing import BOTH_NOUNS, CHANCE, HELD_OUT
from hiddencost.formatting import listed, quantity
from hiddencost.page.grids import Grid, Section, scene
from hiddencost.records import KIND, REFERENCE, ROUNDS_WANTED, Case, Run

NO_TROUBLE = (KIND, CHANCE, BOTH_NOUNS, HELD_OUT)
"""Notes that qualify what was measured, and cost nothing."""
NOT_MODELS = ("lookup", "import")
"""Values of `Case.model` that name a suite instead of a model."""

MOST_NAMED = 20
"""As many models a run's first line names."""


def opening(run: Run) -> list[tuple[str, str]]:
    """Names and texts of the facts that the report opens with."""
    cases = [m.case for m in run.measurements if m.case.model not in NOT_MODELS]
    timing = {m.block for m in run.measurements if m.metric == "seconds" and m.state == "ok"}
    memory = {m.block for m in run.measurements if m.metric.startswith("peak_") and m.state == "ok"}
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
        ("blocks", f"{len(timing)} timing blocks, {len(memory)} memory processes"),
    ]


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
    met = {measurement.case for measurement in run.measurements}
    return [case for case in dict.fromkeys(run.header.planned) if case not in met]


def not_measured(run: Run) -> Section:
    """Everything that was skipped, failed, cut short or never came to pass, with the reason."""
    groups: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for m in run.measurements:
        if m.state != "ok":
            groups[m.state.replace("_", " "), m.reason or "no reason was recorded"][str(m.case)] = None
        for name, text in m.notes.items() if m.state == "ok" else ():
            if name not in (ROUNDS_WANTED, *NO_TROUBLE):
                groups[f"note: {name}", text][str(m.case)] = None
    for case in unmeasured(run):
        groups["no measurement", "planned, and nothing was recorded"][str(case)] = None
    rows = tuple(
        (what, reason, str(len(cases)), ", ".join(cases)) for (what, reason), cases in sorted(groups.items())
    )
    table = Grid(("what", "reason", "cases", "which"), rows)
    return Section("Skipped, failed, capped, missing", "", (table, capped(run)))


def capped(run: Run) -> Grid:
    """The groups whose rounds ended by time in some block, before the wanted precision."""
    wanted: dict[Case, list[int]] = defaultdict(list)
    taken: dict[Case, dict[int, int]] = defaultdict(dict)
    for m in run.measurements:
        if m.metric == "seconds" and m.state == "ok":
            rounds = taken[m.case.group]  # the reference may have several calls a round
            rounds[m.block] = min(len(m.values), rounds.get(m.block, len(m.values)))
            if ROUNDS_WANTED in m.notes and m.case.strategy == REFERENCE:
                wanted[m.case].append(int(m.notes[ROUNDS_WANTED]))
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
        alike[(*paired, "; ".join(e.warnings) or "none")].append(e.block)
    rows = tuple((listed(map(str, sorted(blocks))), *texts) for texts, blocks in alike.items())
    header = run.header
    again = (
        ("command", header.command),
        ("seed", str(header.seed)),
        ("git commit", header.git_commit),
        ("hiddencost", header.hiddencost_version),
        ("schema", str(header.schema_version)),
    )
    grids = (Grid(("run", ""), again), Grid(("blocks", "versions", "threads", "settings", "warnings"), rows))
    return Section("Environment", f"Ran on: {machine(run)}.", grids)
