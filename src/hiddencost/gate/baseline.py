"""A stored baseline, and a run judged against it: only what travels from machine to machine.

Overhead ratios (a way against the reference of the same run), ratios of look-up slopes, bytes and counts;
no seconds. The file is JSON, small enough to commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import exp, inf
from pathlib import Path

import msgspec

from hiddencost import grid
from hiddencost.errors import NotComparableError, UserError
from hiddencost.gate.judging import SURE, Evidence, judge
from hiddencost.gate.lookups import SLOPE_RATIO, SLOPED, slope_ratios
from hiddencost.gate.missing import GONE, Reasons, failed, missing, reasons
from hiddencost.gate.sides import exact
from hiddencost.grid import planning
from hiddencost.kinds import by_kind
from hiddencost.records import REFERENCE, SCHEMA_VERSION, TWIN, Case, Change, Environment, Run
from hiddencost.stats import Table

CONDITIONS = ("system", "threads", "settings")
"""What must be the same for two runs to be compared."""
ON_SEVERAL_KINDS = "was measured on several kinds of machine, and the gate compares one kind: {}"
NEW = "not in the baseline: `hiddencost baseline RUN` writes a new one"

LARGEST_LOG = 20.0
"""A ratio of more than half a billion is no ratio of times."""


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a baseline holds of one metric of one case: the logs of each block, or one exact value. Raises
    ValueError for a metric that is not gated, and for numbers that cannot have been measured."""

    case: Case
    metric: str
    logs: tuple[float, ...] = ()
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.metric not in grid.GATED:
            raise ValueError(f"{self.metric} is not a metric that a gate compares")
        if not all(abs(value) < LARGEST_LOG for value in self.logs) or not 0 <= self.value < inf:
            raise ValueError(f"{self.metric} of {self.case} cannot be {list(self.logs) or self.value}")


class Absent(msgspec.Struct, frozen=True, kw_only=True):
    """A case that was planned and has no values of a metric, and why."""

    case: Case
    metric: str
    reason: str


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The file. plan: the grid as JSON, to measure the same again. measured: what was measured or failed,
    by (case, metric), with the reason."""

    schema_version: int
    hiddencost_version: str
    git_commit: str
    started: str
    plan: str
    environment: Environment
    kept: tuple[Kept, ...]
    measured: tuple[Absent, ...]

    @property
    def reasons(self) -> Reasons:
        """See `missing.reasons`."""
        return {(one.case, one.metric): one.reason for one in self.measured}


def keep(run: Run, source: str) -> Baseline:
    """The baseline of a run. Raises UserError where it is not complete, or a case failed."""
    refuse_incomplete(run, source)
    if len(kinds := by_kind(run)) > 1:
        raise UserError(f"{source}: {ON_SEVERAL_KINDS.format('; '.join(kinds))}")
    bad = [f"{case} ({why})" for (case, _), why in reasons(run).items() if failed(why)]
    if bad:
        raise UserError(f"{source}: {len(bad)} failed, and no later run could be compared: {bad[0]}")
    kept = tuple(_travelling(run))
    if not kept:
        raise UserError(f"{source}: measured nothing that a gate compares")
    return Baseline(
        schema_version=SCHEMA_VERSION,
        hiddencost_version=run.header.hiddencost_version,
        git_commit=run.header.git_commit,
        started=run.header.started,
        plan=run.header.plan,
        environment=run.environments[0],
        kept=kept,
        measured=tuple(
            Absent(case=case, metric=metric, reason=reason) for (case, metric), reason in reasons(run).items()
        ),
    )


def refuse_incomplete(run: Run, source: str) -> None:
    """Raises UserError for a run that ended early, or does not tell where it was measured: what it lacks
    would not be missed in every block."""
    if run.ending is None or run.ending.how != "complete":
        raise UserError(
            f"{source}: not complete: `hiddencost run --resume {source}` measures what is missing"
        )
    if not run.environments:
        raise UserError(f"{source}: does not tell where it was measured: it is damaged")


def _travelling(run: Run) -> Iterator[Kept]:
    table = Table(run)
    for case in table.cases("seconds"):
        if case.strategy not in (REFERENCE, TWIN):
            logs, _ = table.log_ratios(case, case.group)
            if logs:
                rounded = tuple(round(value, 6) for value in logs)
                yield Kept(case=case, metric="overhead_ratio", logs=rounded)
    for way in SLOPED:
        slopes = slope_ratios(table, way)
        if slopes:
            case = Case(model="lookup", strategy=way)
            yield Kept(case=case, metric=SLOPE_RATIO, logs=tuple(round(value, 6) for value in slopes))
    for evidence in exact(table, table):
        yield Kept(case=evidence.case, metric=evidence.metric, value=evidence.after)


def against_baseline(
    baseline: Baseline, run: Run, thresholds: Mapping[str, float], alpha: float, part: bool = False
) -> list[Change]:
    """What moved since the baseline. part: the run measured only some of the cases again of one that was
    compared, and the others are not missed. A figure that the baseline lacks is unclear. Raises
    NotComparableError."""
    differences = [] if part else list(_differences(baseline, run))
    if differences:
        raise NotComparableError("; ".join(differences))
    now = {(kept.case, kept.metric): kept for kept in _travelling(run)}
    gone = [] if part else list(missing(baseline.reasons, reasons(run)))
    told = {(change.case, change.metric) for change in gone}
    found = []
    for kept in baseline.kept:
        later = now.get((kept.case, kept.metric))
        if later is not None:
            evidence = Evidence(kept.case, kept.metric, _shown(kept), _shown(later))
            if kept.logs:
                evidence = replace(evidence, earlier=kept.logs, later=later.logs)
            found.append(evidence)
        elif not part and not {(kept.case, kept.metric), (kept.case, "seconds")} & told:
            gone.append(Change(case=kept.case, metric=kept.metric, word="missing", reason=GONE))
    known = {(kept.case, kept.metric) for kept in baseline.kept}
    new = [
        Change(case=case, metric=metric, word="unclear", reason=NEW, after=_shown(later))
        for (case, metric), later in now.items()
        if not part and (case, metric) not in known
    ]
    return [*judge(found, thresholds, alpha, SURE), *new, *gone]


def _shown(kept: Kept) -> float:
    return exp(sum(kept.logs) / len(kept.logs)) if kept.logs else kept.value


def _differences(baseline: Baseline, run: Run) -> Iterator[str]:
    """What makes the run another measurement than the baseline's, in words."""
    if not run.environments:
        return
    if len(kinds := by_kind(run)) > 1:
        yield f"this run {ON_SEVERAL_KINDS.format('; '.join(kinds))}"
    now = run.environments[0]
    for what in CONDITIONS:
        before, after = getattr(baseline.environment, what), getattr(now, what)
        if before != after:
            yield f"{what} were {before} in the baseline and are {after}"
    try:
        before, after = (_cases(plan) for plan in (baseline.plan, run.header.plan))
    except ValueError:  # of which msgspec's DecodeError is one
        yield "this run does not hold its plan: an older hiddencost measured it, or it is damaged"
        return
    if before != after:
        yield (
            f"the baseline's grid plans {len(before)} cases, this run's {len(after)}, and they share "
            f"{len(before & after)}: measure the baseline's grid, or make a new baseline"
        )


def _cases(plan: str) -> frozenset[Case]:
    """What a grid as JSON plans. Raises ValueError where it is none."""
    planned = msgspec.json.decode(plan, type=grid.Grid)
    return frozenset(planning.planned([*planning.timed_jobs(planned), *planning.memory_jobs(planned)]))


def changed_versions(baseline: Baseline, run: Run) -> list[str]:
    """Packages and Python that differ, in words: told, since they may be what is looked for."""
    now = run.environments[0] if run.environments else baseline.environment
    return [
        f"{'Python' if name == 'python' else name} {old or 'none'} before, {new or 'none'} after"
        for name, old, new in baseline.environment.versions_beside(now)
    ]


def write(baseline: Baseline, path: Path) -> None:
    """Writes the file, a sample a line so that a diff can be read. Raises UserError."""
    text = msgspec.json.format(msgspec.json.encode(baseline), indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise UserError(f"baseline {path}: cannot be written ({error.strerror})") from None


def read(path: Path) -> Baseline:
    """The file. Raises UserError where it is none, and NotComparableError for another schema."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        hint = "`hiddencost baseline RUN` writes one"
        raise UserError(f"baseline {path}: cannot be read ({error.strerror}): {hint}") from None
    try:
        version = msgspec.json.decode(raw)["schema_version"]
        if version != SCHEMA_VERSION:
            raise NotComparableError(
                f"baseline {path} has schema {version}, this hiddencost {SCHEMA_VERSION}"
            )
        found = msgspec.json.decode(raw, type=Baseline)
        _cases(found.plan)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"baseline {path}: damaged: {error}") from None
    return found
