"""What does torch.compile make of a Keras model, and what where its graph is exported first?

    python bench/experiments/torch_compile.py FOLDER

torch.compile reads Python, and where it cannot follow it ends a graph, lets Python go on, and begins another;
the same function compiled more often than `recompile_limit` (8) runs as it stands from then on. Each way of
compiling (as a user would; torch.export's graph) has processes of its own, in which it takes turns with the
eager call, and with the plain pass of transformers, which runs on torch too. Told are the graphs, the
functions that were given up, the first call, and the times. Writes FOLDER/torch-compile.md.
"""

import argparse
import gc
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from hiddencost import backends, environment, measure, peers, stats
from hiddencost.formatting import piped, quantity
from hiddencost.grid import Time
from hiddencost.records import REFERENCE, Case
from hiddencost.room import with_room

BLOCKS = 3
PLACES = (("minilm_fused", 4, 512, 12.0), ("minilm_fused", 1, 16, 3.0))
"""Model, batch, length, and seconds of calls."""
WAYS = {
    "compile": "torch.compile(model)",
    "export": "torch.export, then torch.compile",
}


class GivenUp(logging.Handler):
    """Counts the functions that torch says it will not compile again."""

    functions = 0

    def emit(self, record):
        self.functions += "hit config.recompile_limit" in record.getMessage()


@with_room
def block(way, place, number):
    """One process: the graphs, the first call, and the effect of a way beside the eager call."""
    backends.start("torch", 1)
    import torch

    given_up = GivenUp()
    logging.getLogger("torch._dynamo.convert_frame").addHandler(given_up)
    process = measure.Process(number, 1, Time())
    model, batch, length, enough = PLACES[place]
    case = Case(model=model, strategy=REFERENCE, points="output", backend="torch", batch=batch, length=length)
    placed = backends.place(process.inputs(case), "eager", batch)
    eager = process.compiled(case)[1]
    run = process.compiled(case.with_(mode=way))[1]
    half = process.compiled(case.with_(mode=way, strategy="functional_submodel", points="middle"))[1]
    bert = peers.bert(process.of(case)[0].spec.tokenizer())
    named = {peers.NAMES[name]: tensor.long() for name, tensor in placed.items()}
    expected = eager(placed)
    began = time.perf_counter()
    run(placed)
    first = time.perf_counter() - began
    for _ in range(3):  # it may compile for a second call once more
        found = run(placed)
    least = min(
        float((mine - theirs).abs().max() < 2e-4)
        for mine, theirs in zip(backends.tensors(found), backends.tensors(expected), strict=True)
    )
    assert least == 1.0, "values differ"
    del expected, found
    graphs = run.traces

    def theirs(_):
        with torch.no_grad():
            return bert(**named)

    calls = {"eager": eager, way: run, "transformers": theirs}
    if way == "export":
        calls["middle"] = half
    for call in calls.values():
        call(placed)
        call(placed)
    generator = np.random.default_rng(number)
    names, seconds = [], []
    gc.collect()
    gc.disable()
    end = time.perf_counter() + enough
    while time.perf_counter() < end:
        for name in generator.permutation(list(calls)):
            began = time.perf_counter()
            calls[name](placed)
            seconds.append(time.perf_counter() - began)
            names.append(str(name))
    gc.enable()
    assert run.traces == graphs, "it compiled while it was timed"
    effects, _ = stats.effects(names, np.log(seconds))
    eager_seconds = median(s for name, s in zip(names, seconds, strict=True) if name == "eager")
    print(
        json.dumps(
            {
                "graphs": graphs,
                "given_up": given_up.functions,
                "first": first,
                "effect": effects[way] - effects["eager"],
                "beside": effects[way] - effects["transformers"],
                "middle": effects["middle"] - effects["transformers"] if way == "export" else None,
                "eager": eager_seconds,
            }
        )
    )


def row(way, place, blocks):
    """A line of the table. The first process found nothing compiled on disk, the later ones did."""
    model, batch, length, _ = PLACES[place]

    def ratio(name):
        found = sorted(math.exp(b[name]) for b in blocks if b[name] is not None)
        return f"{median(found):.3f} ({found[0]:.3f} to {found[-1]:.3f})" if found else "–"

    return (
        f"{model} {batch}x{length}", WAYS[way],
        ", ".join(dict.fromkeys(str(b["graphs"]) for b in blocks)),
        ", ".join(dict.fromkeys(str(b["given_up"]) for b in blocks)),
        quantity(blocks[0]["first"], unit="s"),
        ratio("effect"), ratio("beside"), ratio("middle"),
        quantity(median(b["eager"] for b in blocks), unit="s"),
    )  # fmt: skip


def main(folder):
    header = ("model", "compiled by", "graphs", "functions given up", "first call", "time / eager",
              "time / transformers, eager", "middle / transformers, eager", "eager")  # fmt: skip
    rows = []
    for place in range(len(PLACES)):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, str(folder), "--way", way, "--place", str(place)]
                blocks = [
                    json.loads(
                        subprocess.run(
                            [*command, "--block", str(number)],
                            check=True,
                            stdout=subprocess.PIPE,
                            text=True,
                            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
                        ).stdout.splitlines()[-1]
                    )
                    for number in range(BLOCKS)
                ]
            rows.append(row(way, place, blocks))
    captured = environment.capture(0, {}, own_load=1)
    versions = ", ".join(f"{name} {captured.versions[name]}" for name in ("torch", "keras", "keras-hub"))
    lines = [
        "# What torch.compile makes of a Keras model",
        "",
        f"The plain forward pass, float32, without gradients, 1 thread on {captured.processor}, {versions}; "
        f"{BLOCKS} processes for each line; the median, in brackets the least and the largest. Made "
        "by `make torch-compile` (bench/experiments/torch_compile.py).",
        "",
        *piped(header, rows),
        "",
        "A function given up runs as it stands, uncompiled, from the ninth variant on; Keras's layers share "
        "their functions, so a model of a few blocks gets there. Keras's users meet both: "
        "[keras#21851](https://github.com/keras-team/keras/issues/21851), "
        "[keras#23327](https://github.com/keras-team/keras/pull/23327).",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "torch-compile.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--place", type=int)
    parser.add_argument("--block", type=int)
    given = parser.parse_args()
    if given.block is None:
        main(given.folder)
    else:
        block(given.way, given.place, given.block)
