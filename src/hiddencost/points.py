"""Hidden states of a functional model: an ordered, labelled list of points in its graph.

A point is a symbolic tensor: `embeddings` (what the first block is given), `block_0` ... `block_{N-1}`
(what each block returns), `final_norm` (where a normalization follows the last block). Private
attributes of Keras that are read here: `Operation._inbound_nodes`, for a layer's place in the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiddencost.errors import UserError, nearest


@dataclass(frozen=True)
class Point:
    """A hidden state by name. tensor: symbolic, (batch, sequence, width). index: the block's number, -1
    for the embeddings. layer: the Keras layer that computes it."""

    name: str
    index: int
    layer: Any
    tensor: Any

    @property
    def width(self) -> int:
        return int(self.tensor.shape[-1])

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's state."""
        return int(self.width * np.dtype(self.tensor.dtype).itemsize)


def hidden_states(model: Any) -> tuple[Point, ...]:
    """The points of a model whose blocks are plainly listed (`model.transformer_layers`, one layer and
    one call for each block), in order. Raises UserError for any other model."""
    blocks = getattr(model, "transformer_layers", None)
    name = type(model).__name__
    if not isinstance(blocks, (list, tuple)) or not blocks:
        raise UserError(
            f"{name} does not list its blocks in `transformer_layers`: hidden states of such a model "
            "cannot be found yet"
        )
    if any(len(getattr(block, "_inbound_nodes", ())) != 1 for block in blocks):
        raise UserError(
            f"the blocks of {name} are not plainly listed: `transformer_layers` holds lists, or layers "
            "that are called more than once"
        )
    nodes = [block._inbound_nodes[0] for block in blocks]
    given = nodes[0].arguments.args[0]
    embedding_layer = given._keras_history.operation
    points = [Point("embeddings", -1, embedding_layer, given)]
    points += [
        Point(f"block_{i}", i, block, node.outputs[0])
        for i, (block, node) in enumerate(zip(blocks, nodes, strict=True))
    ]
    shapes = {tuple(point.tensor.shape) for point in points}
    if len(shapes) != 1:
        raise UserError(f"the blocks of {name} differ in shape ({sorted(map(str, shapes))})")
    return (*points, *_final_norm(model, points[-1]))


def _final_norm(model: Any, last: Point) -> list[Point]:
    """The normed final state, where an output of the model is a normalization of the last block."""
    for output in model.outputs:
        operation = output._keras_history.operation
        taken = operation._inbound_nodes[0].input_tensors
        if "Norm" in type(operation).__name__ and any(tensor is last.tensor for tensor in taken):
            return [Point("final_norm", last.index + 1, operation, output)]
    return []


def select(points: Sequence[Point], selection: str) -> tuple[Point, ...]:
    """The points of a selection: `last`, `middle` (block_{N//2-1}: half of the blocks run), `last_four`,
    `all` (embeddings and every block, N + 1 as transformers counts), or comma-joined names and indices
    (0 is the embeddings, -1 the last block). Raises UserError when the model has no such point."""
    counted = [point for point in points if point.name != "final_norm"]
    blocks = counted[1:]
    least = {"last": 1, "middle": 2, "last_four": 4, "all": 1}
    if selection in least and len(blocks) < least[selection]:
        raise UserError(f"points '{selection}' needs {least[selection]} blocks, the model has {len(blocks)}")
    match selection:
        case "last":
            return (blocks[-1],)
        case "middle":
            return (blocks[len(blocks) // 2 - 1],)
        case "last_four":
            return tuple(blocks[-4:])
        case "all":
            return tuple(counted)
    return tuple(_by_name_or_index(points, counted, name) for name in selection.split(","))


def _by_name_or_index(points: Sequence[Point], counted: Sequence[Point], name: str) -> Point:
    for point in points:
        if point.name == name:
            return point
    if name.lstrip("-").isdigit():
        if -len(counted) <= int(name) < len(counted):
            return counted[int(name)]
        raise UserError(f"point {name}: the model has {len(counted)} points, 0 to {len(counted) - 1}")
    raise UserError(f"unknown point '{name}'{nearest(name, [point.name for point in points])}")
