"""`hiddencost forecast`: what reading hidden states would cost where it cannot be measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hiddencost import foretold, formatting, models, store
from hiddencost.claims import table_of
from hiddencost.cli.measuring import silent
from hiddencost.errors import UserError, nearest
from hiddencost.formatting import NONE, percent, quantity
from hiddencost.kinds import by_kind
from hiddencost.stats import Table

if TYPE_CHECKING:
    from hiddencost.forecast import Forecast, Way
    from hiddencost.forecast.pace import Pace

PLANNED = ("float32", "bfloat16")
"""Of the mixed one, what casting weights at each call holds is not planned."""


@click.command()
@click.option("--model", required=True, help="A model's name, llama3_8b, llama3_70b, or preset:FOLDER.")
@click.option("--batch", required=True, type=int, help="Texts in a call.")
@click.option("--seq", "length", required=True, type=int, help="Tokens of each.")
@click.option(
    "--points", default="last_four", show_default=True, help="Hidden states: last, all, block_3, -4:, block_*"
)
@click.option("--dtype", default="bfloat16", show_default=True, help="Number format of weights and states.")
@click.option("--device", help="An accelerator: its memory, and its link to the host (h100, h200, l4 ...).")
@click.option("--memory", help="How much memory there is, as 80GB or 24GiB [default: the device's].")
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="A run on a CPU with JAX's jit at three shapes or more, in the dtype: tells how long a call takes.",
)
@click.option(
    "--measure",
    is_flag=True,
    help="Run a few blocks here, for what a call takes of a CPU's memory beyond XLA's plan; with --dtype "
    "float32.",
)
def forecast(
    model: str,
    batch: int,
    length: int,
    points: str,
    dtype: str,
    device: str | None,
    memory: str | None,
    run_folder: Path | None,
    measure: bool,
) -> None:
    """What each way to read hidden states would take on a model that this machine cannot hold.

    Needs JAX, whose compiler plans programs of a few blocks without running them; the whole model follows
    from these, since blocks are alike. No weight is loaded or made (but for the few blocks of --measure): a
    preset's configuration is enough.

    \b
    hiddencost forecast --model llama3_70b --batch 32 --seq 4096 --points all --device h200
    """
    from hiddencost import backends
    from hiddencost.forecast import shapes

    if batch < 1 or length < 1:
        raise UserError(f"--batch {batch} --seq {length}: at least 1")
    if dtype not in PLANNED:
        raise UserError(f"--dtype {dtype}{nearest(dtype, PLANNED)}")
    if measure and (device or dtype != "float32"):
        given = f"--device {device}" if device else f"--dtype {dtype}"
        raise UserError(f"--measure {given}: what is run here is float32 on this CPU: --dtype float32 alone")
    if run_folder and device:
        raise UserError(
            f"--run {run_folder}: tells how long a call takes on a CPU: leave out --device {device}"
        )
    spec = shapes.find(model)
    _check_length(model, length, spec.max_length)
    if spec.is_preset:
        models.check(model, weights=False)
    on = shapes.device(device) if device else None
    known = _timed_run(run_folder, dtype) if run_folder else None
    room = shapes.size_bytes(memory) if memory else on.memory_bytes if on else None
    backends.check("jax")
    with silent():
        backends.start("jax", 1)
    from hiddencost.forecast import CHECKED, DEPTHS, NOTHING, forecast
    from hiddencost.forecast.beyond import RUN, RUN_CHECKED, beyond
    from hiddencost.forecast.lowering import Shapes

    with silent():
        built = Shapes(model, dtype, fused=bool(on))
        _check_length(model, length, built.max_length)
        found, taken = forecast(built, points, batch, length), NOTHING
        if measure:  # only now: it takes a minute, and the rest is known to be right
            taken = beyond(model, dtype, batch, length)
            found = forecast(built, points, batch, length, taken)
        pace = _pace(known, dtype) if known else None
    states = f"{found.points} hidden state{'s' * (found.points > 1)}"
    click.echo(
        f"{model}, {dtype}, {batch} x {length:,}: {states} of {found.blocks} blocks; weights "
        f"{quantity(found.weights_bytes, unit='B')}"
        + (f"; {quantity(room, unit='B')} of memory" if room else "")
    )
    header = ("way", "mode", "payload", "live-set floor", "peak", "expected error", "with weights", "passes")
    rows = [
        (
            *header,
            *(["fits"] if room else []),
            *(["to the host"] if on else []),
            *(["time there"] if pace else []),
        ),
        *(
            (
                *(way.strategy, way.mode, quantity(way.payload_bytes, unit="B")),
                *(quantity(size, unit="B") for size in (way.floor_bytes, way.peak_bytes)),
                _expected_error(way.mode, bool(on), measure),
                quantity(way.peak_bytes + found.weights_bytes, unit="B"),
                quantity(way.passes),
                *(["yes" if found.fits(way, room) else "no"] if room else []),
                *([_copied(way.payload_bytes, on.link_bytes)] if on else []),
                *([_taken(pace, way)] if pace else []),
            )
            for way in found.ways
        ),
    ]
    click.echo("\n".join(formatting.aligned(rows)))
    click.echo(f"\n{_recommended(found, room)}")
    click.echo(
        "\nWeights, payload and what eager calls keep are counted from shapes. Peaks under jit, and passes "
        "(operations, in plain forward passes), are XLA's plans for a CPU, "
        + "with attention as one operation where Keras leaves it to JAX, as a GPU has it, "
        * bool(on)
        + f"a line through {DEPTHS[0]} and {DEPTHS[1]} blocks, which misses {CHECKED} blocks by "
        f"{found.missed:.2%}"
        + f", and what {RUN[0]} and {RUN[1]} blocks took beyond theirs when they were run here, a line "
        f"that misses {RUN_CHECKED} blocks by {taken.missed:.2%} of their peak"
        * measure
        + ". In eager a block's working set is what its operations hold on JAX, one by one."
        f" Expected error: of such peaks where {'XLA planned them on a GPU' if on else 'they were measured'} "
        "(forecast / that - 1: median, and the largest size)."
        + " To the host: payload / the link's rate, at best." * bool(on)
        + (
            f" Time there: on the machine of {run_folder}, fitted to its shapes, which it misses by "
            f"{pace.median_error:.0%} (median) where they are left out of the fit."
            if pace
            else ""
        )
    )


def _recommended(found: Forecast, room: float | None) -> str:
    """The way with the lowest peak: compiled, and where calls are eager."""
    told = []
    for mode, when in (("jit", "compiled"), ("eager", "where calls are eager")):
        way = found.leanest(mode)
        peak = quantity(way.peak_bytes, unit="B")
        lack = " (which does not fit)" if room and not found.fits(way, room) else ""
        told.append(f"{when} `{way.strategy}`, {peak} beside the weights{lack}")
    return f"Recommended, as the lowest peak: {'; '.join(told)}."


def _check_length(model: str, length: int, most: int | None) -> None:
    """Raises UserError for more tokens than the model takes."""
    if most and length > most:
        raise UserError(f"--seq {length}: {model} takes at most {most} tokens")


def _timed_run(folder: Path, dtype: str) -> Table:
    """The table of a run to which a pace can be fitted. Raises UserError."""
    from hiddencost.forecast.pace import FEWEST

    run = store.read(folder)
    if len(kinds := by_kind(run)) > 1:
        raise UserError(f"--run {folder}: was measured on several kinds of machine: {'; '.join(kinds)}")
    table = table_of(run)
    timed = table.cases("seconds", backend="jax", mode="jit", device="cpu", dtype=dtype)
    shapes = {(case.model, case.batch, case.length) for case in timed}
    if len(shapes) < FEWEST:
        raise UserError(
            f"--run {folder}: times {len(shapes)} shapes in {dtype} with JAX's jit on a CPU, a fit needs "
            f"{FEWEST} (--dtype says which)"
        )
    return table


def _expected_error(mode: str, on_gpu: bool, with_run: bool) -> str:
    """Of peaks in this mode; on a GPU only XLA's plans were held against what it planned there."""
    known = mode == "jit" or not on_gpu
    found = foretold.shipped().of_peaks(mode, on_gpu, with_run) if known else None
    return f"{percent(found.median, signed=True)}, {percent(found.largest)}" if found else NONE


def _copied(payload_bytes: float, link_bytes: float) -> str:
    return quantity(payload_bytes / link_bytes, unit="s") if payload_bytes else NONE


def _pace(table: Table, dtype: str) -> Pace:
    """How fast the machine of a run computes, compiled by JAX."""
    from hiddencost.forecast.pace import pace, timed
    from hiddencost.forecast.works import Works

    return pace(timed(table, "jax", "jit", "cpu", Works().of, dtype=dtype))


def _taken(pace: Pace, way: Way) -> str:
    return quantity(*pace.interval(way.work), unit="s") if way.mode == "jit" else NONE
