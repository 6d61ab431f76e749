"""An outcome for people: lines for a terminal, Markdown for a pull request, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from hiddencost.formatting import NONE, aligned, one_line, percent, piped, quantity
from hiddencost.gate.outcome import MISSING, REGRESSION, REGRESSIONS, SENTENCES, Outcome
from hiddencost.records import UNIT_OF, Change, Word

ORDER: tuple[Word, ...] = ("slower", "larger", "missing", "faster", "smaller", "unclear", "same")
COLUMNS = ("case", "metric", "before", "after", "after / before", "verdict")


def as_json(outcome: Outcome) -> bytes:
    """Every change, with the exit code and the notes."""
    found = {
        "exit_code": outcome.exit_code,
        "verdict": verdict(outcome),
        "notes": list(outcome.notes),
        "changes": list(outcome.changes),
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def verdict(outcome: Outcome) -> str:
    """The outcome in one sentence, with the counts behind it."""
    counts = Counter(change.word for change in outcome.changes)
    told = ", ".join(f"{counts[word]} {word}" for word in ORDER if counts[word])
    sentence = SENTENCES[outcome.exit_code]
    if outcome.exit_code == REGRESSION and not any(
        change.word in REGRESSIONS and outcome.enforced(change) for change in outcome.changes
    ):
        sentence = "Unclear, which --strict does not pass."
    return f"{sentence} {told[:1].upper()}{told[1:]}." if told else sentence


def as_lines(outcome: Outcome) -> list[str]:
    """The verdict, what moved, and the notes."""
    rows = [COLUMNS, *map(tuple, _rows(outcome))]
    lines = [verdict(outcome)]
    if len(rows) > 1:
        lines += ["", *aligned(rows)]
    return [*lines, *([""] if outcome.notes else []), *(f"note: {note}" for note in outcome.notes)]


def as_markdown(outcome: Outcome) -> str:
    """The same, as fits the summary of a CI step."""
    sign = {REGRESSION: "❌", MISSING: "⚠️"}.get(outcome.exit_code, "✅" if outcome.exit_code == 0 else "❌")
    lines = [f"### {sign} hiddencost gate", "", verdict(outcome), ""]
    rows = list(_rows(outcome))
    if rows:
        lines += [*piped(COLUMNS, rows), ""]
    lines += [f"- {note}" for note in outcome.notes]
    return "\n".join(lines).rstrip() + "\n"


def _rows(outcome: Outcome) -> Iterator[Sequence[str]]:
    """What moved, is missing or unclear: the worst first."""
    for change in worst_first(outcome.changes):
        if change.word != "same" or change.reason:
            yield row(change, outcome)


def worst_first(changes: Iterable[Change]) -> list[Change]:
    """The changes by how bad they are, then by name."""
    return sorted(changes, key=lambda change: (ORDER.index(change.word), str(change.case)))


def row(change: Change, outcome: Outcome) -> tuple[str, ...]:
    """The change as COLUMNS tell it."""
    unit = UNIT_OF.get(change.metric, "")
    return (
        str(change.case),
        change.metric,
        _value(change.before, unit),
        _value(change.after, unit),
        _ratio(change),
        _word(change, outcome),
    )


def _value(value: float | None, unit: str) -> str:
    return NONE if value is None else quantity(value, unit=unit)


def _ratio(change: Change) -> str:
    if change.ratio is None:
        return NONE
    if change.low is None or change.high is None:
        return percent(change.ratio - 1, signed=True)
    return quantity(change.ratio, change.low, change.high)


def _word(change: Change, outcome: Outcome) -> str:
    word: str = change.word
    if word in REGRESSIONS and not outcome.enforced(change):
        word = f"{word} (advisory)"
    return f"{word}: {' '.join(one_line(change.reason).split())}" if change.reason else word
