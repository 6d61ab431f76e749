"""The Markdown report of a run and the last lines on the terminal. Nothing here judges or measures.

A section is a title, a line on how to read it, and tables (`grids`); the templates hold the markup, and
every value that they are given is escaped. Add a section: write the function, name it in `sections`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiddencost.claims import CLAIMS, Claim, answers_from, sentence, table_of
from hiddencost.claims.evidence import at
from hiddencost.claims.sentences import plain
from hiddencost.formatting import NONE, aligned, evenly, one_line, quantity
from hiddencost.page.circumstances import environments, not_measured, opening, unmeasured
from hiddencost.page.copies import copies
from hiddencost.page.costs import growth, one_off
from hiddencost.page.fastest import fastest_lines
from hiddencost.page.foretold import foretold
from hiddencost.page.found import found
from hiddencost.page.freed import freed
from hiddencost.page.grids import Grid, Section
from hiddencost.page.large import shown
from hiddencost.page.probes import probes
from hiddencost.page.tables import data_sets, lookups, memory, times, twins
from hiddencost.page.templates import escaped, markdown_template
from hiddencost.page.together import best_ways_of_all, together
from hiddencost.records import Answer, Figure, Run
from hiddencost.stats import Table

__all__ = ["escaped", "markdown", "opening", "questions", "summary_lines", "together_lines", "write_report"]

MOST_FIGURES = 1_000
"""Of an answer, as many figures are listed."""
MOST_REASONS = 5
"""Of why cases failed, as many stand in the terminal."""


@dataclass(frozen=True)
class Question:
    """A claim and its answer in words: plain, without figures; short, and in full. listed: its figures, where
    they are many evenly chosen ones; figures: these as a table."""

    claim: Claim
    answer: Answer
    plain: str
    short: str
    sentence: str
    facts: tuple[tuple[str, str], ...]
    listed: Sequence[Figure]
    figures: Grid


def write_report(run: Run, folder: Path, plots: Sequence[str], also: Sequence[Section] = ()) -> Path:
    """Writes `report.md` into `folder`, with links to `plots/NAME.png` for the names in `plots`. also: more
    sections, after the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    path.write_text(markdown(run, plots, also), encoding="utf-8")
    return path


def markdown(run: Run, plots: Sequence[str], also: Sequence[Section] = ()) -> str:
    """The report as Markdown."""
    table = table_of(run)
    listed, left_out = table.once(shown)
    return markdown_template("report.md.j2").render(
        facts=opening(run, left_out),
        questions=questions(table),
        plots=plots,
        sections=[*also, *sections(listed, run, table)],
    )


def summary_lines(run: Run) -> list[str]:
    """What the run says, for a terminal: a line for each question that it answers, the fastest way for each
    kind of points, and what was not measured."""
    facts, table = dict(opening(run)), table_of(run)
    head = [f"{facts['models']}, {facts['backend']}, {facts['blocks']}"]
    told, silent = [], []
    for answer in answers_from(table):
        if answer.word == "not measured":
            silent.append(answer.id)
        else:
            told.append(f"{answer.id}: {answer.word}. {sentence(answer, short=True)}")
    if silent:
        told.append(f"not measured here: {', '.join(silent)}")
    bad = [m for m in table.not_ok if m.state != "skipped"]
    failed = {m.case for m in bad}
    reasons = list(dict.fromkeys(f"  {m.state}: {' '.join(one_line(m.reason).split())}"[:250] for m in bad))
    absent = unmeasured(run)
    problems = [
        text
        for count, text in (
            (len(failed), f"cases that failed: {len(failed)} (the report says which, and why)"),
            (len(absent), f"planned cases without any measurement: {len(absent)} (the report lists them)"),
        )
        if count
    ]
    if reasons:
        problems[1:1] = [*reasons[:MOST_REASONS], *["  ..."] * (len(reasons) > MOST_REASONS)]
    return list(map(one_line, [*head, *told, *fastest_lines(table), *problems]))


def together_lines(run: Run) -> list[str]:
    """For a terminal: the plain passes of the backends that took turns, where any did, and the fastest and
    leanest way of each to read one kind of points: that which the most of them read at the most shapes."""
    passes, *read = best_ways_of_all(table_of(run)) or ((),)

    def filled(grids: Sequence[Grid]) -> int:
        return sum(cell != NONE for row in grids[0].rows for cell in row)

    fullest = max(read, key=filled, default=())
    lines: list[str] = []
    for grid in (*passes, *fullest):
        rows = [tuple(map(one_line, row)) for row in (grid.header, *grid.rows)]
        lines += ["", one_line(grid.title), *aligned(rows)]
    return lines


def questions(table: Table) -> list[Question]:
    """The claims with their answers, from the table of a sound run."""
    found = []
    for claim, answer in zip(CLAIMS, answers_from(table), strict=True):
        figures = evenly(answer.figures, MOST_FIGURES)
        rows = tuple(figure_row(figure) for figure in figures)
        title = f"{len(rows):,} figures" + f" of {len(answer.figures):,}" * (len(rows) < len(answer.figures))
        grid = Grid(("figure", "of", "where", "value", "verdict"), rows, title, folded=True)
        named = {
            "rule": "Judged",
            "missing": "Not measured",
            "unresolved": "Does not tell",
            "formula": "Formula met",
        }
        facts = tuple((named.get(name, f"How: {name}"), text) for name, text in sorted(answer.facts.items()))
        short, full = sentence(answer, short=True), sentence(answer)
        found.append(Question(claim, answer, plain(answer), short, full, facts, figures, grid))
    return found


def figure_row(figure: Figure) -> tuple[str, ...]:
    """A figure's name, scope, value and verdict."""
    value = quantity(figure.value, figure.low, figure.high, figure.unit)
    scope = at(figure.scope) if figure.scope else NONE
    return figure.name, scope, figure.where or NONE, value, figure.word or NONE


def sections(table: Table, run: Run, every: Table) -> list[Section]:
    """All sections after the plots, in order. table: of what is listed; every: of the whole run."""
    beside, to_host = together(table), copies(table)
    return [
        *([beside] if beside.grids else []),
        times(table),
        *([to_host] if to_host.grids else []),
        twins(table, every),
        data_sets(table),
        one_off(table),
        growth(table),
        memory(table),
        freed(table),
        lookups(table),
        found(table),
        probes(table),
        foretold(table),
        not_measured(run, table.run),
        environments(run),
    ]
