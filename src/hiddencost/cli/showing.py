"""`hiddencost show`: everything that a run knows of one case."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hiddencost import store
from hiddencost.formatting import one_line, readable


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
    text = "\n".join(one_case.lines(run, case))
    click.echo(readable(text, getattr(sys.stdout, "encoding", None) or "ascii"))
