"""Functional models as people write them by hand, each with the layers (or tensors) that are its blocks, or
with those of each of its stacks by name. Imported at first use, with Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

WIDTH, LENGTH = 8, 6


class Block(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """A custom block: attention and a feed-forward part, each added to the stream."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization()
        self.attention = keras.layers.MultiHeadAttention(2, 4)
        self.dense = keras.layers.Dense(WIDTH)

    def call(self, x: Any, mask: Any = None) -> Any:
        y = self.norm(x)
        x = x + self.attention(y, y)
        return x + self.dense(x)


class Weights(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """A custom block with nothing but a matrix of its own."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x: Any) -> Any:
        return x + keras.ops.matmul(x, self.kernel)


class Encoder(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
    """Blocks inside the `call` of one layer, as ViT has them."""

    def __init__(self, depth: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = [Block(name=f"inner_{i}") for i in range(depth)]
        self.dropout = keras.layers.Dropout(0.1)  # returns, at inference, the very tensor that it is given
        self.norm = keras.layers.LayerNormalization()

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.norm(x)


def text(name: str = "x") -> Any:
    return keras.Input((None, WIDTH), name=name)


def chain(layers: Sequence[Any], name: str | None = None) -> Any:
    x = given = text()
    for layer in layers:
        x = layer(x)
    return keras.Model(given, x, name=name)


def custom(depth: int = 3, name: str | None = None) -> tuple[Any, list[Any]]:
    blocks = [Block() for _ in range(depth)]
    return chain(blocks, name), blocks


def raw_weights(depth: int = 3) -> tuple[Any, list[Any]]:
    blocks = [Weights() for _ in range(depth)]
    return chain(blocks), blocks


def shared(depth: int = 3) -> tuple[Any, list[Any]]:
    block = Block()
    return chain([block] * depth), [block] * depth


def models_as_blocks(depth: int = 3) -> tuple[Any, list[Any]]:
    blocks = [chain([keras.layers.Dense(WIDTH, "relu"), keras.layers.Dense(WIDTH)]) for _ in range(depth)]
    return chain(blocks), blocks


def lstms(depth: int = 3) -> tuple[Any, list[Any]]:
    blocks = [keras.layers.LSTM(WIDTH, return_sequences=True) for _ in range(depth)]
    return chain(blocks), blocks


def bidirectional(depth: int = 3) -> tuple[Any, list[Any]]:
    blocks = [
        keras.layers.Bidirectional(keras.layers.LSTM(WIDTH // 2, return_sequences=True)) for _ in range(depth)
    ]
    return chain(blocks), blocks


def adapters(depth: int = 3) -> tuple[Any, list[Any]]:
    """Small layers between the blocks."""
    blocks = [Block() for _ in range(depth)]
    layers = [layer for block in blocks for layer in (block, keras.layers.Dense(WIDTH))]
    return chain(layers[:-1]), blocks


def hybrid(depth: int = 4) -> tuple[Any, list[Any]]:
    blocks = [(Block if i % 2 else Weights)() for i in range(depth)]
    return chain(blocks), blocks


def sequential(depth: int = 3) -> tuple[Any, list[Any]]:
    blocks = [Block() for _ in range(depth)]
    return keras.Sequential([text(), *blocks]), blocks


def opaque(depth: int = 3) -> tuple[Any, list[Any]]:
    encoder = Encoder(depth)
    return chain([keras.layers.Dense(WIDTH), encoder]), encoder.blocks


def nested(depth: int = 3) -> tuple[Any, list[Any]]:
    inner, blocks = custom(depth)
    return chain([keras.layers.Dense(WIDTH), inner, keras.layers.Dense(3)]), blocks


def nested_opaque(depth: int = 3) -> tuple[Any, list[Any]]:
    inner, blocks = opaque(depth)
    return chain([inner, keras.layers.Dense(3)]), blocks


def deep(depth: int = 3) -> tuple[Any, list[Any]]:
    inner, blocks = nested(depth)
    return chain([inner]), blocks


def flat(post: bool = False, operators: bool = False, depth: int = 3) -> tuple[Any, list[Any]]:
    """A transformer written with plain layers; with it the tensors that are its states."""
    layers = keras.layers
    given = x = text()

    def add(a: Any, b: Any) -> Any:
        return a + b if operators else layers.Add()([a, b])

    states = []
    for _ in range(depth):
        for part in ("attention", "dense"):
            y = x if post else layers.LayerNormalization()(x)
            y = layers.MultiHeadAttention(2, 4)(y, y) if part == "attention" else layers.Dense(WIDTH)(y)
            x = add(x, y)
            x = layers.LayerNormalization()(x) if post else x
        states.append(x)
    return keras.Model(given, x if post else layers.LayerNormalization()(x)), states


def flat_pre_norm(depth: int = 3) -> tuple[Any, list[Any]]:
    return flat(depth=depth)


def flat_post_norm(depth: int = 3) -> tuple[Any, list[Any]]:
    return flat(post=True, operators=True, depth=depth)


def siamese(depth: int = 3) -> tuple[Any, dict[str, list[Any]]]:
    """One encoder called twice: a stack for each call."""
    encoder, blocks = custom(depth, "tower")
    x, y = text(), text("y")
    model = keras.Model([x, y], keras.layers.Concatenate()([encoder(x), encoder(y)]))
    return model, {"tower/block_0": blocks, "tower/block_1": blocks}


def towers(depth: int = 3) -> tuple[Any, dict[str, list[Any]]]:
    one, left = custom(depth, "left_tower")
    other, right = custom(depth + 1, "right_tower")
    x, y = text(), text("y")
    model = keras.Model([x, y], keras.layers.Add()([one(x), other(y)]))
    return model, {"left_tower": left, "right_tower": right}


def branching(depth: int = 3) -> tuple[Any, list[Any]]:
    """Two blocks side by side in the middle of the stack, each adding to the stream."""
    blocks = [Block() for _ in range(2 * depth)]
    x = given = text()
    for block in blocks[:depth]:
        x = block(x)
    x = keras.layers.Add()([Block()(x), Block()(x)])
    for block in blocks[depth:]:
        x = block(x)
    return keras.Model(given, x), blocks


def inputs(rows: int = 2) -> Any:
    return np.random.default_rng(0).standard_normal((rows, LENGTH, WIDTH)).astype("float32")
