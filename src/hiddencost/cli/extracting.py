"""`hiddencost extract`: the hidden states of a text, into a folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from hiddencost import __version__, formatting, grid
from hiddencost.cli.measuring import silent
from hiddencost.errors import UserError


@click.command()
@click.option("--model", required=True, help="A model's name (see `hiddencost models`), or preset:FOLDER.")
@click.option(
    "--input", "source", required=True, type=click.Path(path_type=Path), help="A text: a row per line."
)
@click.option(
    "--output", "folder", required=True, type=click.Path(path_type=Path), help="The folder to write."
)
@click.option(
    "--points", default="last", show_default=True, help="Hidden states: last, all, block_3, -4:, block_*"
)
@click.option("--stack", help="Which stack of blocks, where the model has several.")
@click.option("--reduce", help="mean, max, cls, last_token: one vector for each line instead of each token.")
@click.option("--dtype", help="What the states are stored as [default: as the model computes them].")
@click.option("--batch", default=32, show_default=True, help="Lines that the model runs at once.")
@click.option(
    "--max-length", type=int, help="Tokens after which a line is cut [default: what the model takes]."
)
@click.option(
    "--part-bytes", default=2**26, show_default=True, help="The most that the states of a file take."
)
@click.option("--backend", default="tensorflow", show_default=True, help="tensorflow, jax or torch")
@click.option("--mode", default="auto", show_default=True, help="How the backend runs the model.")
@click.option("--threads", type=int, help="Threads for one operation [default: all cores].")
def extract(
    model: str, source: Path, folder: Path, points: str, stack: str | None, reduce: str | None,
    dtype: str | None, batch: int, max_length: int | None, part_bytes: int, backend: str, mode: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Read the hidden states of every line of a text into a folder, in bounded memory.

    Each file of the folder holds successive lines (safetensors; with --reduce one row for each line, else one
    for each token, and where each line begins). Run again, it goes on after the last file. An empty line is a
    row too; a line that is too long is cut; bytes that are no UTF-8 are read as U+FFFD; both are counted.
    """
    from hiddencost import backends, models

    backends.check(grid.known_backend(backend))
    models.check(model)
    if not source.is_file():
        raise UserError(f"--input {source}: is no file")
    if not models.find(model).reads_text:
        raise UserError(f"--model {model}: has no tokenizer that a text could be read with; take a preset")
    longest = models.max_length(model)
    if batch < 1 or part_bytes < 1:
        raise UserError("--batch and --part-bytes: at least 1")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder}: is a file: give a folder")
    with silent():
        backends.start(backend, threads or os.cpu_count() or 1)
    from hiddencost.extracting import extractor
    from hiddencost.streaming import Settings, Stream, rate, text_digest, weights_digest

    loaded = models.LoadedModel(model)
    length = longest if max_length is None else max_length
    if length is None:
        raise UserError(
            f"--max-length: give one, as what {model} takes at most is only known of a local folder"
        )
    if length < loaded.text.around + 1 or (longest and length > longest):
        allowed = (
            f"{loaded.text.around + 1} to {longest}" if longest else f"at least {loaded.text.around + 1}"
        )
        raise UserError(f"--max-length {max_length}: {model} takes {allowed} tokens")
    reader = extractor(
        loaded.model, points, stack=stack or models.stack_of(model), reduce=reduce, dtype=dtype, mode=mode
    )
    loaded.taken(loaded.text.batch([[]], length))  # or it is told before the folder is made
    settings = Settings(
        model=model, stack=stack, points=points, reduce=reduce, dtype=dtype, max_length=length,
        part_bytes=part_bytes, source=source.name, source_bytes=source.stat().st_size, hiddencost=__version__,
        backend=backend, text=text_digest(source), weights=weights_digest(loaded.model),
    )  # fmt: skip
    stream = Stream(loaded, reader, settings, source, folder, batch)
    if stream.index.complete:
        click.echo(f"{folder}: nothing is missing")
    before, began = msgspec.structs.replace(stream.index), time.monotonic()
    columns = BarColumn(), TextColumn("{task.percentage:.0f} %  {task.description}")
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=settings.source_bytes, completed=before.bytes_read)
        for index in stream.parts():
            speed, left = rate(index, began, before)
            told = f"{index.rows:,} lines, {speed:,.0f} tokens/s, {left:,.0f} s left"
            bar.update(task, completed=index.bytes_read, description=told)
    done = stream.index
    size = sum(path.stat().st_size for path in folder.glob("part-*.safetensors"))
    click.echo(
        f"{done.rows:,} lines, {done.tokens:,} tokens: {done.parts} files, "
        f"{formatting.quantity(size, unit='B')} in {folder}; "
        f"{done.cut:,} lines cut at {length} tokens, {done.damaged:,} damaged"
    )
