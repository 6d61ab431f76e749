"""Does `hiddencost extract` hold more the longer the text is? Beside it, the same by Keras's `predict`.

    python bench/experiments/streaming.py FOLDER --lines 1000,10000,100000

Both read all hidden states of every token of the project's own sentences, numbered so that no two are alike,
each in a process of its own. `extract` writes them part after part; `predict` collects them, then joins them.
FOLDER gets streaming.json, streaming.md and streaming.svg.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hiddencost import environment
from hiddencost.formatting import quantity
from hiddencost.inputs import sentences

MODEL = "bert_tiny"
LENGTH = 32
"""Tokens that a line is cut and, by `predict`, padded to."""
PART_BYTES = 2**23
"""Of the states in a file that `extract` writes."""
MOST_PREDICTED = 20_000
"""Lines from which on `predict` would need more memory than many machines have."""
PREDICT = f"""
import sys
from hiddencost import backends
backends.start("tensorflow", 1)
from hiddencost import extractor
from hiddencost.models import LoadedModel
loaded = LoadedModel("{MODEL}")
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
inputs = loaded.text.batch(loaded.text.tokens(lines), {LENGTH})
extractor(loaded.model, "all").predict(inputs, batch_size=32, verbose=0)
"""


def measured(command):
    """Seconds, and the most bytes that were resident, of a process with all that it imports."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process.stdout:
        process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here, for its usage
    if process.returncode:
        raise SystemExit(f"{command[1]}: ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_maxrss * 1024


def text(path, count):
    """Writes so many lines."""
    own = cycle(sentences())
    path.write_text("".join(f"{number}: {line}\n" for number, line in enumerate(islice(own, count))))


def rows(counts):
    command = str(Path(sys.executable).parent / "hiddencost")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            text(folder / "text.txt", count)
            extract = [command, "extract", "--model", MODEL, "--points", "all", "--threads", "1"]
            extract += ["--max-length", str(LENGTH), "--part-bytes", str(PART_BYTES)]
            extract += ["--input", str(folder / "text.txt"), "--output", str(folder / "out")]
            seconds, peak = measured(extract)
            index = json.loads((folder / "out" / "index.json").read_text())
            size = sum(path.stat().st_size for path in (folder / "out").glob("*.safetensors"))
            if (index["rows"], index["complete"]) != (count, True):
                raise SystemExit(f"{index['rows']} of {count} lines were written")
            yield {"way": "extract", "lines": count, "seconds": seconds, "peak_rss_bytes": peak,
                   "tokens": index["tokens"], "written_bytes": size}  # fmt: skip
            if count <= MOST_PREDICTED:
                seconds, peak = measured([sys.executable, "-c", PREDICT, str(folder / "text.txt")])
                yield {"way": "predict", "lines": count, "seconds": seconds, "peak_rss_bytes": peak}


def report(found, folder):
    lines = [
        "# Does `hiddencost extract` hold more the longer the text is?",
        "",
        f"All hidden states of {MODEL}, TensorFlow, one thread, on {environment.processor()}, by `make "
        f"streaming`. A process with all that it imports; `predict` pads every line to {LENGTH} tokens, "
        f"`extract` closes a file at {quantity(PART_BYTES, unit='B')}. `predict` is left out from "
        f"{MOST_PREDICTED:,} lines on.",
        "",
        "| way | lines | time | peak resident set | written |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in found:
        written = quantity(one["written_bytes"], unit="B") if "written_bytes" in one else "–"
        peak = quantity(one["peak_rss_bytes"], unit="B")
        lines.append(f"| {one['way']} | {one['lines']:,} | {one['seconds']:.0f} s | {peak} | {written} |")
    lines += ["", "![Peak resident set against the number of lines](streaming.svg)"]
    (folder / "streaming.md").write_text("\n".join(lines) + "\n")
    (folder / "streaming.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(lines))


def draw(found, path):
    figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for way, colour in (("extract", "#0072B2"), ("predict", "#D55E00")):
        mine = [one for one in found if one["way"] == way]
        xs, ys = [one["lines"] for one in mine], [one["peak_rss_bytes"] / 2**20 for one in mine]
        ax.plot(xs, ys, marker="o", color=colour)
        ax.annotate(f" {way}", (xs[-1], ys[-1]), color=colour, va="center")
    written = [(one["lines"], one["written_bytes"] / 2**20) for one in found if "written_bytes" in one]
    ax.plot(*zip(*written, strict=True), color="#777777", linestyle=":")
    ax.annotate(" what it writes", written[-1], color="#777777", va="center")
    ax.set(xscale="log", yscale="log", xlabel="lines of text", ylabel="peak resident set, MiB")
    ax.margins(x=0.2)
    first, last = (next(iter(found)), [one for one in found if one["way"] == "extract"][-1])
    grown = last["peak_rss_bytes"] / first["peak_rss_bytes"]
    ax.set_title(
        f"{last['lines'] // first['lines']} times the text takes extract {grown:.2f} times the memory",
        loc="left",
    )
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", default="1000,10000,100000", help="how long the texts are")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = list(rows([int(count) for count in given.lines.split(",")]))
    draw(found, given.folder / "streaming.svg")
    report(found, given.folder)


if __name__ == "__main__":
    main()
