"""How far is a forecast from what was measured? And what would the largest models take?

    python bench/experiments/forecast.py FOLDER

Every peak that the committed reference runs measured on JAX, of a way that is forecast, beside its forecast:
the peak heap of a CPU, and what XLA planned on a GPU. Then models too large for most machines. Writes
FOLDER/forecast.md and its plot, what the package ships of it (src/hiddencost/data), and FOLDER/forecast.json:
what JAX and Keras told of the models, from which a test makes the same forecasts without them.
"""

import argparse
import math
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import msgspec

import hiddencost
from hiddencost import backends, store
from hiddencost.claims import table_of
from hiddencost.errors import UserError
from hiddencost.forecast import CHECKED, DEPTHS, Line, covers, forecast
from hiddencost.forecast.beyond import RUN, beyond
from hiddencost.forecast.lowering import Program, Shapes
from hiddencost.forecast.pace import FEWEST, pace, timed
from hiddencost.forecast.shapes import DEVICES
from hiddencost.forecast.works import Works
from hiddencost.foretold import DEVICE, HEAP, RUN_HEAP, SHIPPED, WORK, Foretold, Held, Large, Timed
from hiddencost.formatting import percent, piped, quantity
from hiddencost.grid import COMPILED_MODES
from hiddencost.page.foretold import section
from hiddencost.plots.foretold import draw
from hiddencost.plots.style import save

REPORTS = Path(__file__).parents[2] / "reports"
TIMED = ("reference", "reference-backends", "reference-peers")
RUNS = ("reference-backends", "reference-ways", "reference-freed", "reference-peers", "reference-gpu")
WHAT = {"compiled_temp_bytes": WORK, "peak_heap_bytes": HEAP, "peak_device_bytes": DEVICE}
METRICS = tuple(WHAT)
LARGE = (
    ("llama3_8b", 1, 4096), ("llama3_8b", 32, 4096), ("llama3_8b", 1, 131_072),
    ("llama3_70b", 1, 4096), ("llama3_70b", 32, 4096), ("llama3_70b", 1, 131_072),
)  # fmt: skip
DTYPE, READ = "bfloat16", "last_four"


class Noted:
    """What is told of models, noted in a dict of texts and numbers as it is asked for; what stands there is
    not asked again."""

    def __init__(self, notes, shapes=Shapes, taken=beyond):
        self.notes, self._shapes, self._taken = notes, shapes, taken

    def works(self):
        return Works(self.shapes, self.beyond)

    def ask(self, make, *key):
        """What is noted under a key, or what make returns now. A UserError is noted too, and raised again."""
        name = " ".join(map(str, key))
        if name not in self.notes:
            try:
                self.notes[name] = msgspec.to_builtins(make())
            except UserError as error:
                self.notes[name] = {"refused": str(error)}
        found = self.notes[name]
        if isinstance(found, dict) and "refused" in found:
            raise UserError(found["refused"])
        return found

    def beyond(self, *key):
        return Line(**self.ask(lambda: self._taken(*key), "beyond", *key))

    def shapes(self, name, dtype, fused):
        return NotedShapes(self, name, dtype, fused)


class NotedShapes:
    """What a forecast asks of `Shapes`."""

    def __init__(self, noted, *which):
        self._noted, self._which, self.name = noted, which, which[0]
        self._shapes = cache(lambda: noted._shapes(*which))
        self.weights_bytes = self._ask("weights_bytes", lambda shapes: shapes.weights_bytes)

    def _ask(self, what, tell, *key):
        return self._noted.ask(lambda: tell(self._shapes()), *self._which, what, *key)

    def of(self):
        return None, SimpleNamespace(blocks=range(self._ask("blocks", lambda s: len(s.of()[1].blocks))))

    def selected(self, selection):
        points = self._ask("points", lambda s: [(p.name, p.index) for p in s.selected(selection)], selection)
        return [SimpleNamespace(name=name, index=index) for name, index in points]

    def payload_bytes(self, *key):
        return self._ask("payload_bytes", lambda shapes: shapes.payload_bytes(*key), *key)

    def kept_bytes(self, *key):
        return self._ask("kept_bytes", lambda shapes: shapes.kept_bytes(*key), *key)

    def program(self, *key):
        return Program(**self._ask("program", lambda shapes: shapes.program(*key), *key))

    def block(self, *key):
        planned, live = self._ask("block", lambda shapes: shapes.block(*key), *key)
        return Program(**planned), live


def measured(works):
    """(run, case, of what, measured, forecast) of every case of a way that is forecast, by the first run that
    has it; in place of the forecast the reason why there is none."""
    seen = set()
    for name in RUNS:
        table = table_of(store.read(REPORTS / name))
        for metric in METRICS:
            for case in table.cases(metric, backend="jax"):
                if not covers(case, case.mode) or (case, metric) in seen:
                    continue
                seen.add((case, metric))
                real = table.center(case, metric)[0]
                yield name, case, WHAT[metric], real, told(works, case, metric)
                if metric == "peak_heap_bytes" and case.mode == "jit":
                    yield name, case, RUN_HEAP, real, told(works, case, metric, run=True)


def told(works, case, metric, run=False):
    """The forecast of a metric, or the reason why there is none."""
    try:
        way = works.way(case, case.mode, run)
    except UserError as error:
        return str(error)
    return way.peak_bytes - (way.payload_bytes if metric == "compiled_temp_bytes" else 0)


def validation(works):
    """How far forecasts were off, and a line for each single case."""
    errors, lines = defaultdict(list), []
    for run, case, of, real, told in measured(works):
        if isinstance(told, str):
            end = ("–", told)
        else:
            errors[(case.device, case.mode, of)].append(told / real - 1)
            end = (quantity(told, unit="B"), percent(told / real - 1, signed=True))
        lines.append(
            (run, f"{case.model} {case.batch}x{case.length} {case.dtype}", case.device, case.mode,
             f"{case.strategy} {case.points}", of, quantity(real, unit="B"), *end)
        )  # fmt: skip
    held = tuple(
        Held(
            device=device,
            mode=mode,
            of=of,
            cases=len(found),
            median=median(found),
            median_size=median(map(abs, found)),
            largest=max(map(abs, found)),
        )
        for (device, mode, of), found in errors.items()
    )
    return held, lines


def paces(works):
    """How far shapes are from a fit to the others, of every run and mode, with the log of each error."""
    for name in TIMED:
        table = table_of(store.read(REPORTS / name))
        places = dict.fromkeys(
            (c.backend, c.mode, c.device) for c in table.cases("seconds") if c.mode in COMPILED_MODES
        )
        for backend, mode, device in places:
            samples = timed(table, backend, mode, device, works.of)
            if len(samples) < FEWEST:
                continue
            found = pace(samples)
            one = Timed(
                run=name,
                backend=backend,
                mode=mode,
                device=device,
                shapes=len(samples),
                cases=len(found.errors),
                median_size=found.median_error,
                largest=math.expm1(max(map(abs, found.errors))),
            )
            yield one, found.errors


def large(noted):
    """What the largest models would take."""
    for model, batch, length in LARGE:
        found = forecast(noted.shapes(model, DTYPE, True), READ, batch, length)
        jit = {way.strategy: way for way in found.ways if way.mode == "jit"}
        yield Large(
            model=model,
            batch=batch,
            length=length,
            weights_bytes=found.weights_bytes,
            all_bytes=jit["always_return_all"].payload_bytes,
            peaks={name: way.peak_bytes for name, way in jit.items()},
            fits={
                name: tuple(d.name for d in DEVICES if found.fits(way, d.memory_bytes))
                for name, way in jit.items()
            },
        )


def foretell(noted):
    """What the package ships, a line for each single case, and how far each timed one was missed."""
    works = noted.works()
    held, cases = validation(works)
    timings, errors = zip(*paces(works), strict=True)
    missed = [math.expm1(abs(error)) for some in errors for error in some]
    found = Foretold(
        held=held,
        timed=timings,
        large=tuple(large(noted)),
        dtype=DTYPE,
        points=READ,
        devices=tuple((device.name, device.memory_bytes) for device in DEVICES),
    )
    return found, cases, missed


def main(folder):
    backends.start("jax", 1)
    noted = Noted({})
    found, cases, missed = foretell(noted)
    data = Path(hiddencost.__file__).parent / SHIPPED
    data.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "forecast.json").write_bytes(msgspec.json.format(msgspec.json.encode(noted.notes), indent=0))
    save(draw(found), folder / "forecast")
    large_models, bytes_held, seconds_held = section(found).grids
    text = [
        "# Forecasts beside measurements",
        "",
        f"What the reference runs measured on JAX, against `hiddencost forecast`: programs of {DEPTHS[0]}, "
        f"{DEPTHS[1]} and {CHECKED} blocks, planned by XLA for a CPU and not run (for a GPU with attention "
        "as one operation where Keras leaves it to JAX). Errors: forecast / measured - 1. Made by `make "
        "forecast` (bench/experiments/forecast.py).",
        "",
        *piped(bytes_held.header, bytes_held.rows),
        "",
        "A process's heap under jit on a CPU holds more than XLA plans: what operations take from libraries "
        "while they work is not in the plan. It grows evenly with the number of blocks, so that --measure "
        f"learns it from models of {RUN[0]} and {RUN[1]} blocks that are run here. On a GPU the "
        "decoder's plan is not met: there XLA joins the two products of a feed-forward layer that read the "
        "same input into one, which copies their weights together at each call, and gives each product of "
        "cuBLAS 32 MiB to work in (read from its buffer assignment on an H200; both depend on the kernels "
        "it tries, which nothing tells without a GPU).",
        "",
        "Seconds of a compiled call, `at rest + blocks x a + operations x b + bytes x c`, fitted to all "
        "shapes of a run but one, and held against that one (the form was chosen on these runs):",
        "",
        *piped(seconds_held.header, seconds_held.rows),
        "",
        f"Median size over all {len(missed)} cases: {percent(median(missed))}.",
        "",
        "## Models too large for most machines",
        "",
        f"{DTYPE}, compiled (jit). Peaks are beside the weights. Fits: of "
        + ", ".join(device.name for device in DEVICES)
        + ".",
        "",
        *piped(large_models.header, large_models.rows),
        "",
        "![Weights and peak memory of the largest models](forecast.png)",
        "",
        "## Every case",
        "",
        *piped(("run", "model", "device", "mode", "way", "of", "measured", "forecast", "error"), cases),
    ]
    (folder / "forecast.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
