"""Does it help to give the last call's hidden states back to the next one? And when has a call's work ended?

    python bench/experiments/buffers.py FOLDER [--backend jax,torch,tensorflow] [--device gpu]

JAX can write a call's outputs where those of an earlier call lay, if these are given back ("donated");
neither torch nor TensorFlow has the like for a whole call. On JAX the plain pass, all hidden states in fresh
memory and all hidden states in donated memory are called in a shuffled order, in five processes, one by one.
On every backend it is noted how much of a call's time passes before it returns. Writes FOLDER/buffers.md.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from hiddencost import backends, environment, measure, stats
from hiddencost.formatting import percent, piped, quantity
from hiddencost.grid import Time
from hiddencost.records import REFERENCE, Case

BLOCKS, SECONDS = 5, 2.5
MODELS = {"cpu": "minilm", "gpu": "bert_base"}
SHAPES = {"cpu": ((1, 128), (4, 128), (16, 128), (4, 512)), "gpu": ((4, 128), (64, 512))}
MODES = {"jax": "jit", "torch": "eager", "tensorflow": "graph"}


def donating(run, placed):
    """A call that writes all hidden states where those that it is given lie: `old -> new`."""
    import jax

    whole, given = run.run.jitted.__wrapped__, run.run.given((placed,))[:3]
    jitted = jax.jit(lambda *a: whole(*a[:3], ()), donate_argnums=3, keep_unused=True)
    return lambda old: jitted(*given, old)


def places(result):
    return {tensor.unsafe_buffer_pointer() for tensor in backends.tensors(result)}


def calls_of(process, case):
    """{name: a call} and, where the backend can donate, what share of the memory was used again."""
    placed = backends.place(process.inputs(case), case.mode, case.batch)
    plain = process.compiled(case.with_(strategy=REFERENCE, points="output"))[1]
    fresh = process.compiled(case)[1]
    calls = {"plain pass": lambda: plain(placed), "all": lambda: fresh(placed)}
    if case.backend != "jax":
        return calls, None
    donated, held = donating(fresh, placed), {}
    expected = [backends.to_numpy(tensor) for tensor in backends.tensors(fresh(placed))]
    held["states"] = fresh(placed)
    backends.synchronize(held["states"])
    before = places(held["states"])
    held["states"] = donated(held["states"])
    found = [backends.to_numpy(tensor) for tensor in backends.tensors(held["states"])]
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    again = len(before & places(held["states"])) / len(before)

    def next_states():
        held["states"] = donated(held["states"])
        return held["states"]

    return {**calls, "all, donated": next_states}, again


def block(backend, device, number):
    """One process: for each shape the effects of the calls, and the share of time before they return."""
    backends.start(backend, environment.cores() if device == "gpu" else 1, device)
    process = measure.Process(number, 1, Time())
    generator = np.random.default_rng(number)
    told = []
    for batch, length in SHAPES[device]:
        case = Case(
            model=MODELS[device],
            strategy="functional_submodel",
            points="all",
            backend=backend,
            device=device,
            mode=MODES[backend],
            batch=batch,
            length=length,
        )
        calls, again = calls_of(process, case)
        names, seconds, returned = [], [], []
        for name in calls:
            backends.synchronize(calls[name]())
        gc.collect()
        gc.disable()
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            for name in generator.permutation(list(calls)):
                began = time.perf_counter()
                result = calls[name]()
                back = time.perf_counter()
                backends.synchronize(result)
                done = time.perf_counter()
                del result
                names.append(str(name))
                seconds.append(done - began)
                returned.append((back - began) / (done - began))
        gc.enable()
        found, _ = stats.effects(names, np.log(seconds))
        share = float(np.median([part for name, part in zip(names, returned, strict=True) if name == "all"]))
        median = float(np.median([s for name, s in zip(names, seconds, strict=True) if name == "plain pass"]))
        told.append(
            {
                "shape": f"{batch}x{length}",
                "effects": found,
                "again": again,
                "returns": share,
                "seconds": median,
            }
        )
    print(json.dumps(told))


def row(backend, shape, blocks):
    """A line of the table: each ratio with its interval between the processes."""

    def ratio(mine, theirs):
        if mine not in blocks[0]["effects"]:
            return "–"
        found = [b["effects"][mine] - b["effects"][theirs] for b in blocks]
        return quantity(*map(np.exp, stats.t_interval(found)))

    again = blocks[0]["again"]
    return (
        backend, shape, quantity(*stats.interval([b["seconds"] for b in blocks]), unit="s"),
        ratio("all", "plain pass"), ratio("all, donated", "plain pass"), ratio("all, donated", "all"),
        "–" if again is None else percent(again), percent(float(np.median([b["returns"] for b in blocks]))),
    )  # fmt: skip


def main(folder, names, device):
    header = ("backend", "shape", "plain pass", "all / plain", "donated / plain", "donated / all",
              "memory used again", "of a call's time before it returns")  # fmt: skip
    rows = []
    for backend in names:
        command = [sys.executable, __file__, str(folder), "--backend", backend, "--device", device, "--block"]
        blocks = [
            json.loads(subprocess.run([*command, str(n)], check=True, capture_output=True, text=True).stdout)
            for n in range(BLOCKS)
        ]
        rows += [row(backend, shape[0]["shape"], shape) for shape in zip(*blocks, strict=True)]
    captured = environment.capture(0, {}, own_load=1, device=device)
    lines = [
        "# Giving the last call's hidden states back to the next one",
        "",
        f"{MODELS[device]}, all hidden states, float32, {device} ({captured.gpu or captured.processor}), "
        f"{BLOCKS} processes of {SECONDS:g} s for each shape; in brackets 95 % intervals between them. Made "
        "by `make buffers` (bench/experiments/buffers.py).",
        "",
        *piped(header, rows),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("buffers.md" if device == "cpu" else f"buffers-{device}.md")).write_text(
        "\n".join(lines) + "\n"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", default="jax,torch,tensorflow")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--block", type=int)
    given = parser.parse_args()
    if given.block is None:
        main(given.folder, given.backend.split(","), given.device)
    else:
        block(given.backend, given.device, given.block)
