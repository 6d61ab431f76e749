"""From measurements to findings, and from findings to an answer: the shape that all claims share.

A claim is judged at each place that it was measured in (a `Finding`: a figure, and whether the claim
holds there), aspect by aspect (its time, its memory). `settle` folds the findings into one word.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from hiddencost.columns import columns_of, with_rows
from hiddencost.formatting import listed, quantity, some
from hiddencost.grid import ALL_MODES
from hiddencost.records import Answer, AnswerWord, Case, Figure, Run
from hiddencost.stats import FEW_BLOCKS, Table, judge, peak_metric

BIG = 0.05
"""A difference of time below 5 % is no reason to choose one way over another: it is about the gap
between two runs of one program on a shared machine (METHOD.md: 4 % between repetitions)."""

HEAVY = 1.25
"""From this ratio on memory counts as more. Up to it an allocator's rounding and the few small tensors
that every call keeps (masks, the pooled output) may lie; a graph that holds what it does not need holds
one hidden state for each block, which is far above it."""

NO_TWIN = "no interval of an A/A twin"

Side = Literal["above", "below"]
Triple = tuple[float, float | None, float | None]
Pair = tuple[Case, Case]


class Finding(msgspec.Struct, frozen=True):
    """A figure, and whether the claim holds where it was measured; None: the figure does not tell, `why`."""

    figure: Figure
    holds: bool | None
    why: str = ""


def sound(run: Run) -> Run:
    """The run without the values of cases that were wrong in any block: their times are never shown."""
    found = columns_of(run)
    wrong = set(found.met(found.in_state("wrong")))
    return with_rows(run, ~(found.in_state("ok") & found.of_cases(wrong)))


def table_of(run: Run) -> Table:
    """The table of what is sound of a run: made once, since all who read a run fit the same calls."""
    made: Table | None = run.__dict__.get("table")
    if made is None:
        made = run.__dict__["table"] = Table(sound(run))
    return made


# -- places --


def where(case: Case) -> str:
    """The mode, with backend, device and dtype where they are not the usual ones: `in graph (jax)`. A
    look-up is not run in a mode."""
    if case.layers is not None:
        return ""
    usual = {"backend": "tensorflow", "device": "cpu", "dtype": "float32"}
    unusual = [getattr(case, name) for name, value in usual.items() if getattr(case, name) != value]
    return f"in {case.mode}" + (f" ({', '.join(unusual)})" if unusual else "")


def at(case: Case) -> str:
    """Model and shape: `minilm 4x128`, `minilm 32x128 of 512 examples`, `12 layers`."""
    if case.layers is not None:
        return f"{case.layers:,} layers"
    shape = f" {case.batch}x{case.length}" if case.length else ""
    return f"{case.model}{shape}" + (f" of {case.examples} examples" if case.examples is not None else "")


def in_order(cases: Iterable[Case]) -> list[Case]:
    """By model, mode, length, batch, examples, layers and position; the order of measuring is shuffled.
    Cases that differ only in the way keep their order."""

    def key(case: Case) -> tuple[object, ...]:
        mode = ALL_MODES.index(case.mode) if case.mode in ALL_MODES else len(ALL_MODES)
        sizes = (case.length, case.batch, case.examples or 0, case.layers or 0, case.position or 0)
        return case.model, case.backend, case.device, case.dtype, mode, *sizes

    return sorted(cases, key=key)


def largest(cases: Iterable[Case]) -> list[Case]:
    """Of each model, mode, backend and device, the case with the most tokens."""
    found: dict[Case, Case] = {}
    for case in in_order(cases):
        key = case.with_(batch=0, length=0, examples=None)
        if key not in found or _tokens(case) >= _tokens(found[key]):
            found[key] = case
    return list(found.values())


def _tokens(case: Case) -> int:
    return (case.batch if case.examples is None else case.examples) * case.length


# -- figures --


def figure(name: str, triple: Triple, case: Case | None = None, *, unit: str = "") -> Figure:
    """A figure of one case."""
    value, low, high = triple
    place = where(case) if case is not None else ""
    return Figure(name=name, value=value, low=low, high=high, unit=unit, where=place, scope=case)


def over(mine: Triple, theirs: Triple) -> Triple:
    """The ratio of two positive unpaired figures. Its interval reaches from low/high to high/low, so it
    holds wherever both intervals do; one without an interval counts as exact; None when both do."""
    value = mine[0] / theirs[0]
    if mine[1] is None and theirs[1] is None:
        return value, None, None
    (low, high), (least, most) = _ends(mine), _ends(theirs)
    return value, low / most, high / least if least > 0 else math.inf


def ratio_of(table: Table, case: Case, against: Case, metric: str) -> Triple | None:
    """A metric's ratio to that of another case, unpaired (see `over`); None where one was not measured, or
    the other's is 0."""
    mine, theirs = table.center(case, metric), table.center(against, metric)
    return over(mine, theirs) if mine and theirs and theirs[0] else None


def scaled(triple: Triple, factor: float) -> Triple:
    """A figure and its interval, times an exact factor."""
    value, low, high = triple
    return value * factor, None if low is None else low * factor, None if high is None else high * factor


def _ends(triple: Triple) -> tuple[float, float]:
    value, low, high = triple
    return value if low is None else low, value if high is None else high


# -- findings --


def finding(
    found: Figure, limit: float, side: Side, why: str = "", band: tuple[float, float] | None = None
) -> Finding:
    """The claim that a figure lies above or below a limit. It does where its whole interval does, and
    lies outside the noise band too; it does not where the whole interval lies on the limit's other side;
    else the figure does not tell. A figure without an interval counts as exact, unless `why` says that
    it does not tell."""
    low, high = _ends((found.value, found.low, found.high))
    floor, ceiling = (limit, limit) if band is None else (min(limit, band[0]), max(limit, band[1]))
    lies = low > ceiling if side == "above" else high <= floor
    lies_not = high <= limit if side == "above" else low > limit
    if why or not (lies or lies_not):
        spans = f"the interval spans {quantity(limit, unit=found.unit)}"
        return Finding(found, None, why or (spans if low <= limit <= high else "it lies in the noise band"))
    return Finding(found, lies)


def timed(
    table: Table, pairs: Iterable[Pair], limit: float, side: Side, metric: str = "seconds"
) -> list[Finding]:
    """Paired ratios of times against a limit, and against the band of the group's A/A twin where they
    are to lie on the limit's far side from 1. Without an interval, or without a twin (look-ups have none
    and need none), a ratio does not tell."""
    found = []
    for case, against in pairs:
        comparison = table.compare(case, against, metric)
        if comparison is None:
            continue
        band = table.band(case) if metric == "seconds" else (1.0, 1.0)
        triple = (comparison.ratio, comparison.low, comparison.high)
        ratio = figure("", triple, case)
        ratio = msgspec.structs.replace(ratio, word=judge(comparison, band).word)
        why = FEW_BLOCKS if comparison.low is None else NO_TWIN if band is None else ""
        far = (limit > 1) == (side == "above")
        found.append(finding(ratio, limit, side, why, band if far else None))
    return found


def weighed(table: Table, pairs: Iterable[Pair], limit: float, side: Side) -> list[Finding]:
    """Ratios of peak memory (see `peak_metric`) against a limit. One reading is exact enough: memray and the
    backends count, they do not sample."""
    found = []
    for case, against in pairs:
        ratio = ratio_of(table, case, against, peak_metric(case))
        if ratio and ratio[0] > 0:
            found.append(finding(figure("", ratio, case), limit, side))
    return found


def to_reference(table: Table, metric: str, strategy: str, points: str) -> list[Pair]:
    """The cases of a way that have the metric, each with the reference of its group."""
    cases = table.cases(metric, strategy=strategy, points=points, reduction="none")
    return [(case, case.group) for case in in_order(cases)]


def to_way(table: Table, strategy: str, against: str, **fields: object) -> list[Pair]:
    """The timed cases of a way, each with the same case done another way."""
    cases = table.cases("seconds", strategy=strategy, reduction="none", **fields)
    return [(case, case.with_(strategy=against)) for case in in_order(cases)]


def named(name: str, findings: Iterable[Finding]) -> list[Figure]:
    """The figures of the findings, under this name."""
    return [msgspec.structs.replace(found.figure, name=name) for found in findings]


# -- answers --


def settle(
    id: str,
    aspects: Mapping[str, Sequence[Finding]],
    rule: str = "",
    extra: Iterable[Figure] = (),
    facts: Mapping[str, str] | None = None,
    said: str = "holds",
) -> Answer:
    """One word for the findings of all aspects. The names of the aspects become those of their figures;
    those without findings are told in the fact `missing`, those whose findings do not tell in `unresolved`.
    `extra`: figures that decide nothing. said: what
    the conditions say where the claim holds, as `difficult`."""
    measured = {name: list(found) for name, found in aspects.items() if found}
    words = {name: fold(found) for name, found in measured.items()}
    told = dict(facts or {})
    if rule and measured:
        told["rule"] = rule
    for what, names in (
        ("missing", [name for name in aspects if name not in measured]),
        ("unresolved", [name for name, word in words.items() if word == "not measured"]),
    ):
        if names:
            told[what] = listed(names)
    conditions = [
        (f"{name}: " if len(aspects) > 1 else "") + reach(found, said) for name, found in measured.items()
    ]
    figures = [one for name, found in measured.items() for one in named(name, found)]
    return Answer(
        id=id,
        word=overall(list(words.values())),
        facts=told,
        figures=(*figures, *extra),
        conditions="; ".join(conditions) if conditions not in (["holds"], ["does not hold"]) else "",
    )


def fold(findings: Sequence[Finding]) -> AnswerWord:
    """The word of one aspect. Findings that do not tell decide nothing, but where they are more than
    half the aspect is `not measured`: too little of it was resolved."""
    decided = {found.holds for found in findings} - {None}
    unclear = sum(found.holds is None for found in findings)
    if 2 * unclear > len(findings) or not decided:
        return "not measured"
    if len(decided) > 1:
        return "depends"
    return "holds" if True in decided else "does not hold"


def overall(words: Sequence[AnswerWord]) -> AnswerWord:
    """The word of all aspects that tell: theirs, where they agree."""
    decided = set(words) - {"not measured"}
    if not decided:
        return "not measured"
    return decided.pop() if len(decided) == 1 else "depends"


def reach(findings: Sequence[Finding], said: str = "holds") -> str:
    """Where a claim holds: `holds in graph and xla, not in eager, unclear in predict (why)`."""
    by_place: dict[str, list[Finding]] = defaultdict(list)
    for found in findings:
        by_place[found.figure.where].append(found)
    alike: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    mixed = []
    for place, here in by_place.items():
        if len({found.holds for found in here}) == 1:
            alike[here[0].holds].append(place)
        else:
            mixed.append(f"in part {place}".strip() + f" ({_split(here)})")
    parts = [_told(holds, _joined(places), findings, said) for holds, places in alike.items() if places]
    return ", ".join([*parts, *mixed])


def _told(holds: bool | None, places: str, findings: Iterable[Finding], said: str = "holds") -> str:
    """`holds in graph`, `not in graph`, `unclear in graph (why)`; `not difficult in graph`."""
    why = listed(dict.fromkeys(found.why for found in findings if found.holds is holds))
    not_ = f"not {said}" if said != "holds" else "not" if places else "does not hold"
    words = {True: said, False: not_, None: "unclear"}
    return f"{words[holds]} {places}".strip() + (f" ({why})" if why else "")


def _joined(places: Sequence[str]) -> str:
    """`in graph and xla`: the preposition once."""
    preposition = places[0].partition(" ")[0] + " "
    return listed([places[0], *(place.removeprefix(preposition) for place in places[1:])])


def _split(findings: Sequence[Finding]) -> str:
    """Where inside one place: `holds at minilm 1x16; not at minilm 4x512`."""
    scopes = {found.figure.scope for found in findings}
    with_points = len({scope.points for scope in scopes if scope is not None}) > 1
    parts = []
    for holds in (True, False, None):
        here = [found.figure.scope for found in findings if found.holds is holds]
        names = [at(case) + (f" {case.points}" if with_points else "") for case in here if case is not None]
        if names:
            parts.append(_told(holds, f"at {some(dict.fromkeys(names))}", ()))
    return "; ".join(parts)
