"""`hiddencost show`: everything that a run knows of one case."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hiddencost import store
from hiddencost.formatting import one_line, readable
from hiddencost.kinds import by_kind


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("words", metavar="CASE...", nargs=-1)
def show(run_folder: Path, words: tuple[str, ...]) -> None:
    """Print everything that RUN knows of one CASE, with a histogram of its raw values.

    CASE is its id as the report prints it, or words that are enough to tell it from others:

    \b
    hiddencost show reports/latest functional_submodel middle 1x16 graph
    """
    from hiddencost.page import one_case

    run = store.read(run_folder)
    case = one_case.find(run, words, one_line(str(run_folder)))
    parts = by_kind(run)
    lines = []
    for kind, part in parts.items():
        lines += [f"On {kind}:"] * (len(parts) > 1) + one_case.lines(part, case)
    text = "\n".join(lines)
    click.echo(readable(text, getattr(sys.stdout, "encoding", None) or "ascii"))
