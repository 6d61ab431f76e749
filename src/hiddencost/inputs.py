"""What a model is given: text through its tokenizer, random numbers where it reads none, or what came with a
model of one's own.

Keras and KerasHub are imported when inputs are made, not when this file is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any

from hiddencost.errors import UserError
from hiddencost.graph import calls, graph_of, input_names, sub_layers


def sentences() -> list[str]:
    """The project's own English sentences (CC0, src/hiddencost/data)."""
    text = files("hiddencost").joinpath("data/sentences.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


class Text:
    """Inputs from text, made with a model's own tokenizer. tokenizer: its preset or folder; vocabulary: token
    ids are folded into this size."""

    def __init__(self, tokenizer: str, vocabulary: int | None = None) -> None:
        self._preset, self._vocabulary = tokenizer, vocabulary
        self._own: list[list[int]] | None = None

    @cached_property
    def tokenizer(self) -> Any:
        import keras_hub

        return keras_hub.models.Tokenizer.from_preset(self._preset)

    def tokens(self, lines: Sequence[str]) -> list[list[int]]:
        """Token ids of each line, without special tokens."""
        import numpy as np

        ids = [np.asarray(row).tolist() for row in self.tokenizer(list(lines))]
        size = self._vocabulary
        return [[i % size for i in row] for row in ids] if size else ids

    @property
    def around(self) -> int:
        """How many special tokens stand around a line's own."""
        return len(self._before) + len(self._after)

    @property
    def _before(self) -> list[int]:
        return self._special("start_token_id", "cls_token_id")

    @property
    def _after(self) -> list[int]:
        return self._special("end_token_id", "sep_token_id")

    def batch(self, lines: Sequence[Sequence[int]], length: int) -> dict[str, Any]:
        """NumPy inputs, each (lines, length), int32: each line's tokens between the start and the end token,
        cut to what fits, then padding (padding_mask 0)."""
        import numpy as np

        ids = np.full((len(lines), length), next(iter(self._special("pad_token_id")), 0), dtype="int32")
        mask = np.zeros((len(lines), length), dtype="int32")
        for row, tokens in enumerate(lines):
            whole = [*self._before, *tokens[: length - self.around], *self._after]
            ids[row, : len(whole)] = whole
            mask[row, : len(whole)] = 1
        return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}

    def packed(self, rows: int, length: int) -> dict[str, Any]:
        """NumPy inputs of `rows` rows, each (rows, length), int32: as many whole sentences of the project's
        own as fit into each row, the last one cut where none does."""
        if self._own is None:
            self._own = self.tokens(sentences())
        room, position = length - self.around, 0
        lines = []
        for _ in range(rows):
            line: list[int] = []
            while len(line) < room:
                sentence = self._own[position % len(self._own)]
                if line and len(line) + len(sentence) > room:
                    break
                line += sentence[: room - len(line)]
                position += 1
            lines.append(line)
        return self.batch(lines, length)

    def _special(self, *names: str) -> list[int]:
        """The id of the first of these special tokens that the tokenizer has, folded into the vocabulary."""
        for name in names:
            found = getattr(self.tokenizer, name, None)
            if found is not None:
                return [int(found) % self._vocabulary if self._vocabulary else int(found)]
        return []


def random_inputs(model: Any, rows: int, length: Callable[[Any], int]) -> dict[str, Any]:
    """NumPy inputs of the shapes and types that a model states, by name, the same each time: numbers within
    an embedding's vocabulary, masks of ones, else normal ones. length: of a symbolic input, for each size
    that it leaves open."""
    import numpy as np

    random = np.random.default_rng(358)
    found = {}
    for name, tensor in zip(input_names(model), graph_of(model).inputs, strict=True):
        shape = (rows, *(size or length(tensor) for size in tensor.shape[1:]))
        if "mask" in name:
            found[name] = np.ones(shape, tensor.dtype)
        elif (size := _vocabulary(model, tensor)) or "int" in tensor.dtype:
            found[name] = random.integers(0, size or 2, shape).astype(tensor.dtype)
        else:
            found[name] = random.standard_normal(shape).astype(tensor.dtype)
    return found


def _vocabulary(model: Any, tensor: Any) -> int | None:
    """The smallest number of vectors of the embeddings in the layers that take an input; None without any."""
    import keras

    takers = [call.operation for call in calls(model) if any(taken is tensor for _, taken in call.arguments)]
    layers = [layer for taker in takers for layer in (taker, *sub_layers(taker))]
    return min((one.input_dim for one in layers if isinstance(one, keras.layers.Embedding)), default=None)


def given_inputs(model: Any, given: Any, rows: int, length: int) -> dict[str, Any]:
    """The inputs that came with a model of one's own, as NumPy arrays by the names of its input layers: a
    function (rows, length) -> inputs, or an array or a dict of arrays, whose rows are repeated to as many as
    are wanted and whose open sizes are cut to the length. Raises UserError where they do not fit."""
    import keras
    import numpy as np

    wanted = input_names(model)
    structure = given(rows, length) if callable(given) else given
    if not isinstance(structure, dict):
        flat = keras.tree.flatten(structure)
        structure = dict(zip(wanted, flat, strict=True)) if len(flat) == len(wanted) else {}
    if set(structure) != set(wanted):
        raise UserError(f"model '{model.name}' takes inputs {wanted}, and came with {sorted(structure)}")
    found = {}
    for name, tensor in zip(wanted, graph_of(model).inputs, strict=True):
        array = np.asarray(structure[name])
        shape = [rows, *(size or length for size in tensor.shape[1:])]
        short = array.ndim != len(shape) or not len(array)
        if short or any(have < want for have, want in zip(array.shape[1:], shape[1:], strict=True)):
            raise UserError(f"input '{name}' came with shape {array.shape}: {tuple(shape)} was asked for")
        array = array[(slice(None), *map(slice, shape[1:]))]
        found[name] = array[np.arange(rows) % len(array)]
    return found
