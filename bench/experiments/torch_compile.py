"""What does torch.compile make of a Keras model, and what where its graph is exported first?

    python bench/experiments/torch_compile.py FOLDER

torch.compile reads Python, and where it cannot follow it ends a graph, lets Python go on, and begins another;
the same function compiled more often than `recompile_limit` (8) runs as it stands from then on. And what it
compiles keeps a buffer that is done with for the next one of its size, unless it is told not to
(`allow_buffer_reuse`). Each way of compiling a Keras model, or that of transformers, which runs on torch too,
has processes of its own, in which it takes turns with both of them uncompiled. Told are the graphs, the
functions that were given up, the first call, the times, and from a process in which nothing is timed the peak
heap. Writes FOLDER/torch-compile.md.
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
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from hiddencost import backends, environment, measure, memory, peers, stats
from hiddencost.backends.torch import LEAN, exported
from hiddencost.formatting import piped, quantity
from hiddencost.grid import Time
from hiddencost.records import REFERENCE, Case
from hiddencost.room import with_room

BLOCKS = 3
PLACES = (("minilm_fused", 4, 512, 12.0), ("minilm_fused", 1, 16, 3.0))
"""Model, batch, length, and seconds of calls."""
WAYS = {
    "compile": "Keras: torch.compile",
    "reusing": "Keras: torch.export, then torch.compile",
    "export": "Keras: the same without reuse of buffers (`export`)",
    "theirs": "transformers: torch.compile",
    "theirs_lean": "transformers: the same without reuse of buffers",
}


class GivenUp(logging.Handler):
    """Counts the functions that torch says it will not compile again."""

    functions = 0

    def emit(self, record):
        self.functions += "hit config.recompile_limit" in record.getMessage()


def calls_of(way, place, process):
    """What is called, by name: both models uncompiled, the way's plain pass, and its middle where it has one;
    and their inputs."""
    import torch

    model, batch, length, _ = PLACES[place]
    case = Case(model=model, strategy=REFERENCE, points="output", backend="torch", batch=batch, length=length)
    middle = case.with_(strategy="functional_submodel", points="middle")
    placed = backends.place(process.inputs(case), "eager", batch)
    bert = peers.bert(process.of(case)[0].spec.tokenizer())
    named = {peers.NAMES[name]: tensor.long() for name, tensor in placed.items()}

    def theirs(_):
        return bert(**named)

    calls = {"eager": process.compiled(case)[1], "transformers": theirs}
    if way in ("compile", "export"):
        calls["plain"] = process.compiled(case.with_(mode=way))[1]
        if way == "export":
            calls["middle"] = process.compiled(middle.with_(mode=way))[1]
    elif way == "reusing":
        for name, one in (("plain", case), ("middle", middle)):
            weights_of = process.of(one)[0].model
            calls[name] = exported(process.built(one).run, weights_of, partial(torch.compile, dynamic=False))
    else:
        compiled = torch.compile(bert, dynamic=False, options=LEAN if way == "theirs_lean" else {})
        calls["plain"] = lambda _: compiled(**named)
    return calls, placed


def close(found, expected):
    """Whether all that both return is the same, to 2e-4."""
    pairs = zip(backends.tensors(found), backends.tensors(expected), strict=True)
    return all(float((mine - theirs).abs().max()) < 2e-4 for mine, theirs in pairs)


def started(number):
    """A process of the backend, within which nothing is recorded for gradients."""
    backends.start("torch", 1)
    import torch

    torch.set_grad_enabled(False)
    return measure.Process(number, 1, Time())


def heaps(way, place):
    """One process: the peak heap of the way's calls."""
    calls, placed = calls_of(way, place, started(0))
    found = {}
    for name in ("plain", "middle"):
        if name in calls:
            for _ in range(3):
                calls[name](placed)
            found[name] = memory.peak_heap(lambda name=name: calls[name](placed))[0]
    print(json.dumps(found))


@with_room
def block(way, place, number):
    """One process: the graphs, the first call, and the effect of a way beside the uncompiled calls."""
    process = started(number)
    from torch._dynamo.utils import counters

    given_up = GivenUp()
    logging.getLogger("torch._dynamo.convert_frame").addHandler(given_up)
    calls, placed = calls_of(way, place, process)
    expected = calls["transformers" if way.startswith("theirs") else "eager"](placed)
    graphs = -counters["stats"]["unique_graphs"]
    began = time.perf_counter()
    calls["plain"](placed)
    first = time.perf_counter() - began
    for _ in range(3):  # it may compile for a second call once more
        found = calls["plain"](placed)
    graphs += counters["stats"]["unique_graphs"]
    assert close(found, expected), "values differ"
    del expected, found
    for call in calls.values():
        call(placed)
        call(placed)
    known = counters["stats"]["unique_graphs"]
    generator = np.random.default_rng(number)
    names, seconds = [], []
    gc.collect()
    gc.disable()
    end = time.perf_counter() + PLACES[place][3]
    while time.perf_counter() < end:
        for name in generator.permutation(list(calls)):
            began = time.perf_counter()
            calls[name](placed)
            seconds.append(time.perf_counter() - began)
            names.append(str(name))
    gc.enable()
    assert counters["stats"]["unique_graphs"] == known, "it compiled while it was timed"
    effects, _ = stats.effects(names, np.log(seconds))
    own = "transformers" if way.startswith("theirs") else "eager"
    print(
        json.dumps(
            {
                "graphs": graphs,
                "given_up": given_up.functions,
                "first": first,
                "effect": effects["plain"] - effects[own],
                "beside": effects["plain"] - effects["transformers"],
                "middle": effects["middle"] - effects["transformers"] if "middle" in effects else None,
            }
        )
    )


def row(way, place, blocks, heap):
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
        *(quantity(heap[name], unit="B") if name in heap else "–" for name in ("plain", "middle")),
    )  # fmt: skip


def told(folder, way, place, environment, *more):
    """What a process of this file prints last."""
    command = [sys.executable, __file__, str(folder), "--way", way, "--place", str(place), *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main(folder):
    header = ("model", "compiled by", "graphs", "functions given up", "first call",
              "time / the same, uncompiled", "time / transformers, eager", "middle / transformers, eager",
              "peak heap", "middle: peak heap")  # fmt: skip
    rows = []
    for place in range(len(PLACES)):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as cache:
                own = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
                blocks = [told(folder, way, place, own, "--block", str(n)) for n in range(BLOCKS)]
                heap = told(folder, way, place, {**own, **memory.HEAP_SETTINGS}, "--heap")
            rows.append(row(way, place, blocks, heap))
    captured = environment.capture(0, {}, own_load=1)
    versions = ", ".join(
        f"{name} {captured.versions[name]}" for name in ("torch", "transformers", "keras", "keras-hub")
    )
    lines = [
        "# What torch.compile makes of a Keras model",
        "",
        f"The plain forward pass, float32, without gradients, 1 thread on {captured.processor}, {versions}; "
        f"{BLOCKS} processes for each line; the median, in brackets the least and the largest. Peak heap: "
        "over one call, in a process of its own. Made by `make torch-compile` "
        "(bench/experiments/torch_compile.py).",
        "",
        *piped(header, rows),
        "",
        "A function given up runs as it stands, uncompiled, from the ninth variant on; Keras's layers share "
        "their functions, so a model of a few blocks gets there. Keras's users meet both: "
        "[keras#21851](https://github.com/keras-team/keras/issues/21851), "
        "[keras#23327](https://github.com/keras-team/keras/pull/23327).",
        "",
        'Without reuse of buffers is `torch.compile(..., options={"allow_buffer_reuse": False})`. Left to '
        "itself, inductor keeps a buffer that is done with for the next one of its size where it takes the "
        "peak to be no higher for that; but it counts twice what is worked on in place "
        "([pytorch#192578](https://github.com/pytorch/pytorch/pull/192578)), so that a block's widest buffer "
        "lives through the next block's attention.",
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
    parser.add_argument("--heap", action="store_true")
    given = parser.parse_args()
    if given.heap:
        heaps(given.way, given.place)
    elif given.block is not None:
        block(given.way, given.place, given.block)
    else:
        main(given.folder)
