"""The page of a run: one file that opens from disk. Nothing here judges or measures.

Texts are escaped by the template; measurements go into it as JSON, which `page.js` shows as a table. Plots
are the SVG files that `plots` has written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiddencost.claims import table_of
from hiddencost.formatting import UNITS
from hiddencost.page import Question, opening, questions, sections
from hiddencost.page.choosing import chooser
from hiddencost.page.compared import Compared
from hiddencost.page.fastest import STATES
from hiddencost.page.grids import Section
from hiddencost.page.large import shown
from hiddencost.page.rows import PICKED, packed, rows_of
from hiddencost.page.strips import strips
from hiddencost.page.templates import TEMPLATES, html_template
from hiddencost.records import Case, Run

WORDS = {"holds": "yes", "does not hold": "no", "depends": "depends", "not measured": "unknown"}
"""The class of an answer's word."""


@dataclass(frozen=True)
class Drawing:
    """A plot in the page: its name, the question it answers, what it says, and its SVG."""

    name: str
    question: str
    title: str
    svg: str


def write_page(
    run: Run,
    folder: Path,
    plots: Sequence[str],
    compared: Compared | None = None,
    also: Sequence[Section] = (),
) -> Path:
    """Writes `index.html` into `folder`, with the plots of those names that lie in `folder/plots`. also: more
    sections."""
    path = folder / "index.html"
    path.write_text(html(run, drawings(folder / "plots", plots), compared, also), encoding="utf-8")
    return path


def drawings(folder: Path, names: Sequence[str]) -> list[Drawing]:
    """The SVG files of a folder as parts of a page."""
    from hiddencost.page.drawings import inline, title_of
    from hiddencost.plots import PLOTS

    asked = {plot.name: plot.question for plot in PLOTS}
    found = []
    for name in names:
        file = folder / f"{name}.svg"
        title = title_of(file)
        found.append(Drawing(name, asked.get(name, name), title, inline(file, name, title)))
    return found


def html(
    run: Run, drawn: Sequence[Drawing], compared: Compared | None = None, also: Sequence[Section] = ()
) -> str:
    """The page as text."""
    from hiddencost.page.drawings import palette, variable
    from hiddencost.plots.style import colour

    table = table_of(run)
    asked = questions(table)
    listed, left_out = table.once(shown)
    rows, every = rows_of(table, _behind(asked))
    ways = dict.fromkeys(row.case.strategy for row in rows)
    data = {
        **packed(rows),
        "picked": PICKED,
        "colours": {way: variable(colour(way)) for way in ways},
        "states": STATES,
        "units": UNITS,
        "chooser": chooser(listed),
    }
    text = html_template("page.html.j2").render(
        facts=opening(run, left_out),
        questions=[(q, WORDS[q.answer.word], strips(q.listed)) for q in asked],
        drawings=drawn,
        sections=[*also, *sections(listed, run, table)],
        warnings=list(
            dict.fromkeys([*run.header.warnings, *(w for e in run.environments for w in e.warnings)])
        ),
        compared=compared,
        counts=(len(rows), every),
        picked=PICKED,
        behind={id for row in rows for id in row.claims},  # not those of a run that is shipped
        data=_json(data),
        styles=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=(TEMPLATES / "page.js").read_text(encoding="utf-8"),
    )
    shades = palette([text, *(drawing.svg for drawing in drawn)])
    day = "".join(f"{name}:{light};" for name, light, _ in shades)
    night = "".join(f"{name}:{dark};" for name, _, dark in shades)
    return text.replace("/*day*/", day).replace("/*night*/", night)


def _behind(asked: Sequence[Question]) -> dict[Case, tuple[str, ...]]:
    """The questions whose answers rest on a case."""
    found: dict[Case, dict[str, None]] = defaultdict(dict)
    for question in asked:
        for figure in question.answer.figures:
            if figure.scope:
                found[figure.scope][question.claim.id] = None
    return {case: tuple(ids) for case, ids in found.items()}


def _json(data: Any) -> str:
    """JSON that no text in it can end the element of: `<` and `&` are escaped."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
