"""How long does it take to find the hidden states of a deep model?

    python bench/experiments/resolving.py FOLDER

`hiddencost.hidden_states` on models of 96 blocks of each kind that needs no new trace, again and again in one
process (nothing is kept between calls). FOLDER gets resolving.md.
"""

import gc
import statistics
import sys
import time
from pathlib import Path

from hiddencost import backends, environment, hidden_states
from hiddencost.formatting import piped, quantity
from hiddencost.room import with_room

BLOCKS, TIMES = 96, 60
GOAL = 0.010
"""Seconds."""


def models():
    """(what it is, a model of BLOCKS blocks) of each kind."""
    import keras_hub

    from hiddencost.survey import handwritten

    sizes = {"num_layers": BLOCKS, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
    small = {**sizes, "vocabulary_size": 32, "max_sequence_length": 16}
    yield "KerasHub's BERT", keras_hub.models.BertBackbone(**small)
    yield "KerasHub's GPT-2", keras_hub.models.GPT2Backbone(**small)
    for told, make in (
        ("layers of one's own, one after the other", handwritten.custom),
        ("one layer, called again and again", handwritten.shared),
        ("each block a model", handwritten.models_as_blocks),
        ("Keras's own layers with Add, normed before", handwritten.flat_pre_norm),
        ("Keras's own layers with Add, normed after", handwritten.flat_post_norm),
        ("a model within a model", handwritten.nested),
    ):
        yield told, make(depth=BLOCKS)[0]


class Collecting:
    """Counts the seconds that Python's garbage collector takes."""

    seconds = began = 0.0

    def __call__(self, phase, _):
        if phase == "start":
            self.began = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self.began


@with_room
def calls(model):
    """(seconds, those of the collector) of each of TIMES calls, after one that warms up."""
    found, collecting = [], Collecting()
    gc.callbacks.append(collecting)
    for _ in range(TIMES + 1):
        began, before = time.perf_counter(), collecting.seconds
        states = hidden_states(model)
        found.append((time.perf_counter() - began, collecting.seconds - before))
    gc.callbacks.remove(collecting)
    assert len(states.blocks) == BLOCKS, len(states.blocks)
    return found[1:]


def main(folder):
    backends.start("tensorflow", 1)
    rows = []
    for told, model in models():
        taken = calls(model)
        middle = statistics.median(seconds for seconds, _ in taken)
        rows.append(
            (
                told,
                f"{len(model.layers):,}",
                *(quantity(value, unit="s") for value in (min(taken)[0], middle, *max(taken))),
                "yes" if middle <= GOAL else "no",
            )
        )
    header = (
        f"{BLOCKS} blocks",
        "layers",
        "fastest",
        "median",
        "slowest",
        "of it, the collector",
        f"median <= {GOAL * 1000:g} ms",
    )
    text = [
        "# Finding the hidden states of a deep model",
        "",
        f"`hiddencost.hidden_states(model)`, {TIMES} times in one process, on {environment.processor()}. "
        "Where one took far longer, Python's garbage collector looked through all that TensorFlow has "
        "loaded. Made by `make resolving`.",
        "",
        *piped(header, rows),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolving.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
