"""Everything that a run knows of one case, as text for a terminal; and the case, found by words of its id."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from hiddencost.claims import table_of
from hiddencost.claims.evidence import Triple, over, ratio_of
from hiddencost.columns import columns_of
from hiddencost.errors import UserError, nearest
from hiddencost.formatting import NONE, aligned, one_line, percent, quantity, some
from hiddencost.page.grids import ratio
from hiddencost.page.tables import verdict
from hiddencost.records import METRICS, REFERENCE, TWIN, Case, Comparison, Measurement, Run
from hiddencost.stats import Table, growth_per_call

MOST_NAMED = 4
"""Of the cases that the words fit, as many are named."""
COLUMNS = 60
"""Of a histogram."""
FENCE = 3.0
"""Values further outside the quartiles than so many times their distance are counted beside the histogram:
Tukey's outer fence (Exploratory Data Analysis, 1977). One slow call in a thousand would else press the others
into one column."""
BARS = "▁▂▃▄▅▆▇█"


# -- finding --


def find(run: Run, words: Sequence[str], name: str) -> Case:
    """The case that the words mean: its whole id; else all the parts of it in any order; else the only one
    that has every word as a part (or field), or at least somewhere in its id. name: the run's, for the
    errors. Raises UserError where there is none, or more than one."""
    words = [word for text in words for word in text.split()]
    if not words:
        raise UserError("name a CASE: its id as the report prints it, or words of it")
    cases = list(dict.fromkeys([*run.header.planned, *columns_of(run).met()]))
    whole = "-".join(words)
    found: list[Case] = []
    rules: tuple[Callable[[Case], bool], ...] = (
        lambda case: str(case) == whole,
        lambda case: sorted(_parts(case)) == sorted(words),
        lambda case: {*words} <= _words(case),
        lambda case: all(word in str(case) for word in words),
    )
    for fits in rules:
        found = [case for case in cases if fits(case)]
        if found:
            break
    told = one_line(" ".join(words))
    if not found:
        raise UserError(f"no case of {name} fits '{told}'{_instead(words, cases)}")
    if len(found) > 1:
        names = some(map(_name, sorted(found, key=str)), MOST_NAMED)
        raise UserError(f"'{told}' fits {len(found)} cases of {name}: {names}; add words, or give a whole id")
    return found[0]


def _name(case: Case) -> str:
    return one_line(str(case))


def _parts(case: Case) -> list[str]:
    return str(case).split("-")


def _words(case: Case) -> set[str]:
    """What one may call it by: the parts of its id, and its fields, the usual ones too."""
    fields = (case.model, case.strategy, case.points, case.reduction, case.backend, case.device, case.dtype)
    return {*_parts(case), *fields}


def _instead(words: Sequence[str], cases: Sequence[Case]) -> str:
    """What to type instead: a word like the first that no case has, else the cases with the most words."""
    known = sorted({word for case in cases for word in _words(case)})
    for word in words:
        if not any(word in str(case) or word in _words(case) for case in cases):
            if difflib.get_close_matches(word, known, n=1):
                return one_line(nearest(word, known))
            return f": none has '{one_line(word)}' (the report names them all)"
    count = {case: sum(word in _words(case) or word in str(case) for word in words) for case in cases}
    most = max(count.values(), default=0)
    near = sorted(str(case) for case in cases if count[case] == most)
    return f": no case has all of these words; nearest: {one_line(some(near, MOST_NAMED))}" if near else ""


# -- telling --


def lines(run: Run, case: Case) -> list[str]:
    """All about a case: its fields, what it is held against, each metric, and its processes' warnings."""
    found = columns_of(run)
    mine = _latest(found.only(found.of_cases([case])))
    order = [metric.name for metric in METRICS]
    metrics = sorted(
        dict.fromkeys(m.metric for m in mine), key=lambda name: (name not in order, _place(name, order))
    )
    told = [str(case), "", *aligned(_fields(case))]
    if not mine:
        told += ["", "planned, and nothing was recorded"]
    wrong = [m for m in mine if m.state == "wrong"]
    if wrong:
        told += ["", f"WRONG in {_blocks(m.block for m in wrong)}: no report or verdict uses its values"]
    table = table_of(run)
    told += _against(table, case)
    for metric in metrics:
        told += ["", *_metric(run, table, case, metric, [m for m in mine if m.metric == metric])]
    told += ["", *_warnings(run, case, {m.block for m in mine})] if mine else []
    return [one_line(line).rstrip() for line in told]


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _latest(measurements: Iterable[Measurement]) -> list[Measurement]:
    """What was measured again in a block stands for what it replaces."""
    return list({(m.metric, m.block, m.state): m for m in measurements}.values())


def _fields(case: Case) -> list[tuple[str, str]]:
    sizes = {"batch", "length"}
    values = {name: value for name, value in msgspec.structs.asdict(case).items() if value not in (None, "")}
    return [(name, one_line(str(value))) for name, value in values.items() if value or name not in sizes]


def _against(table: Table, case: Case) -> list[str]:
    """The time against the reference's and the verdict; the A/A twin of the group."""
    if not table.blocks(case, "seconds"):
        return []
    told = [""]
    if case.strategy == REFERENCE:
        told += ["time against the reference: this is the reference of its group"]
    elif (found := table.compare(case)) is None:
        told += ["time against the reference: none was measured in the same block"]
    else:
        told += [f"time against the reference: {_compared(found)}", f"verdict: {verdict(table, case)}"]
    twin = table.compare(case.group.with_(strategy=TWIN))
    told += [f"A/A twin of its group: {_compared(twin) if twin else 'none was measured'}"]
    if band := table.band(case):
        told += [f"noise band: {band[0]:.4f} to {band[1]:.4f}"]
    return told


def _compared(found: Comparison) -> str:
    smallest = found.smallest_detectable
    return (
        f"{ratio(found)}, {found.pairs} pairs, {_count(found.blocks, 'block')}, smallest detectable effect "
        f"{NONE if smallest is None else percent(smallest)}"
    )


def _metric(run: Run, table: Table, case: Case, metric: str, mine: Sequence[Measurement]) -> list[str]:
    """A metric: what it is, how it went block by block, its centre and values."""
    about = next((one for one in METRICS if one.name == metric), None)
    unit = about.unit if about else ""
    unit = unit or "count" * metric.endswith(("traces", "operations", "flops", "stacks"))
    told = [metric + (f": {about.what}" if about else ""), *_states(mine)]
    values = {m.block: m.values for m in mine if m.state == "ok" and m.values}
    if not values:
        return told
    center = Table(msgspec.structs.replace(run, measurements=tuple(mine))).center(case, metric)
    if max(map(len, values.values())) == 1:
        return [*told, *_singles(values, unit, center), *_held(table, case, metric)]
    return [*told, *_many(metric, values, unit, center)]


def _states(mine: Sequence[Measurement]) -> list[str]:
    """How the blocks went and what is noted of them, equal words once."""
    states: dict[tuple[str, str], list[int]] = defaultdict(list)
    notes: dict[str, list[int]] = defaultdict(list)
    for m in mine:
        states[m.state, m.reason].append(m.block)
        for name, text in m.notes.items():
            if text != m.reason:
                notes[f"{name}: {text}"].append(m.block)
    return [
        *(
            f"  {state.replace('_', ' ')} in {_blocks(blocks)}" + f": {reason}" * bool(reason)
            for (state, reason), blocks in states.items()
        ),
        *(f"  note, {_blocks(blocks)}: {note}" for note, blocks in notes.items()),
    ]


def _many(metric: str, values: dict[int, tuple[float, ...]], unit: str, center: Triple | None) -> list[str]:
    """Several values in a block: how many, their middle and ends, and how they lie."""
    counts = [str(len(block)) for _, block in sorted(values.items())]
    alike = f"  {counts[0]} values" + " in each block" * (len(counts) > 1)
    told = [alike if len({*counts}) == 1 else f"  values by block: {', '.join(counts)}"]
    if center:
        told.append(f"  centre of the blocks' medians {quantity(*center, unit)}")
    every = [value for block in values.values() for value in block]
    least, middle, most = (quantity(float(f(every)), unit=unit) for f in (min, np.median, max))
    told.append(f"  min {least}, median {middle}, max {most}")
    if metric == "growth_bytes":
        slopes = [quantity(growth_per_call(block), unit=unit) for _, block in sorted(values.items())]
        told.append(f"  growth with each call, block by block: {', '.join(slopes)}")
    return [*told, *(f"  {line}" for line in histogram(values, unit))]


def _singles(values: dict[int, tuple[float, ...]], unit: str, center: Triple | None) -> Iterator[str]:
    """One value in each block: equal ones once."""
    every = [value for _, (value,) in sorted(values.items())]
    if len(set(every)) == 1:
        yield f"  {quantity(every[0], unit=unit)}" + f" in each of {len(every)} blocks" * (len(every) > 1)
        return
    if center:
        yield f"  centre {quantity(*center, unit)}"
    yield f"  by block: {', '.join(quantity(value, unit=unit) for value in every)}"


def _held(table: Table, case: Case, metric: str) -> Iterator[str]:
    """A peak against that of the reference, and against its floor."""
    if not metric.startswith("peak_"):
        return
    to_reference = ratio_of(table, case, case.group, metric)
    if to_reference and case != case.group:
        yield f"  ratio to the reference's: {quantity(*to_reference)}"
    mine, floor = table.center(case, metric), table.live_set_floor(case)
    if mine and floor and metric in ("peak_heap_bytes", "peak_device_bytes"):
        to_floor = quantity(*over(mine, (floor, None, None)))
        yield f"  live-set floor {quantity(floor, unit='B')}: ratio {to_floor}"


def histogram(values: dict[int, tuple[float, ...]], unit: str) -> list[str]:
    """A line for each block on one scale, and the scale's ends below. Every bar counts alike; what lies
    beyond Tukey's outer fences of all values is counted beside its line."""
    every = np.array([value for block in values.values() for value in block])
    quarter, three = np.quantile(every, [0.25, 0.75])
    reach = FENCE * (three - quarter)
    inside = every[(every >= quarter - reach) & (every <= three + reach)]
    low, high = float(inside.min()), float(inside.max())
    edges = np.linspace(low, high, COLUMNS + 1) if high > low else np.array([low * 0.99, low * 1.01 or 1.0])
    counts = {
        block: np.histogram([v for v in taken if low <= v <= high], edges)[0]
        for block, taken in values.items()
    }
    tallest = max(1, *(int(count.max()) for count in counts.values()))
    wide = max(len(f"block {block}") for block in values)
    told = []
    for block, taken in sorted(values.items()):
        bars = "".join(_bar(int(count), tallest) for count in counts[block])
        beyond = [(sum(v < low for v in taken), "below"), (sum(v > high for v in taken), "above")]
        aside = ", ".join(f"{count} {where}" for count, where in beyond if count)
        told.append(f"{f'block {block}':<{wide}} |{bars}|" + f" {aside}" * bool(aside))
    left, right = quantity(low, unit=unit), quantity(high, unit=unit)
    gap = max(2, len(edges) + 1 - len(left) - len(right))
    told.append(" " * (wide + 1) + (left + " " * gap + right if high > low else left))
    return told


def _bar(count: int, tallest: int) -> str:
    return BARS[max(0, -(-len(BARS) * count // tallest) - 1)] if count else " "


def _warnings(run: Run, case: Case, blocks: set[int]) -> list[str]:
    """What made the timings of the case's processes unreliable, equal words once. Those of several backends
    share a block."""
    found: dict[str, list[int]] = defaultdict(list)
    for e in run.environments:
        if e.block in blocks and (e.backend, e.device) == (case.backend, case.device):
            for warning in e.warnings:
                found[warning].append(e.block)
    told = [f"  before the run began: {warning}" for warning in run.header.warnings]
    told += [f"  {_blocks(where)}: {warning}" for warning, where in found.items()]
    return ["warnings:" + " none" * (not told), *told]


def _blocks(blocks: Iterable[int]) -> str:
    """`block 3`, `blocks 0-4 and 100`."""
    runs: list[list[int]] = []
    for block in sorted(set(blocks)):
        if runs and block == runs[-1][-1] + 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    names = [str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in runs]
    return f"block{'s' * (sum(map(len, runs)) > 1)} {some(names, 8)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
