"""Functional models as people write them by hand, each with the layers (or tensors) that are its blocks."""

import keras
import numpy as np

WIDTH, LENGTH = 8, 6


class Block(keras.layers.Layer):
    """A custom block: attention and a feed-forward part, each added to the stream."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.LayerNormalization()
        self.attention = keras.layers.MultiHeadAttention(2, 4)
        self.dense = keras.layers.Dense(WIDTH)

    def call(self, x, mask=None):
        y = self.norm(x)
        x = x + self.attention(y, y)
        return x + self.dense(x)


class Weights(keras.layers.Layer):
    """A custom block with nothing but a matrix of its own."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), name="kernel")

    def call(self, x):
        return x + keras.ops.matmul(x, self.kernel)


class Encoder(keras.layers.Layer):
    """Blocks inside the `call` of one layer, as ViT has them."""

    def __init__(self, depth, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(name=f"inner_{i}") for i in range(depth)]
        self.dropout = keras.layers.Dropout(0.1)  # returns, at inference, the very tensor that it is given
        self.norm = keras.layers.LayerNormalization()

    def call(self, x):
        for block in self.blocks:
            x = self.dropout(block(x))
        return self.norm(x)


def text(name="x"):
    return keras.Input((None, WIDTH), name=name)


def chain(layers, name=None):
    x = given = text()
    for layer in layers:
        x = layer(x)
    return keras.Model(given, x, name=name)


def custom(depth=3, name=None):
    blocks = [Block() for _ in range(depth)]
    return chain(blocks, name), blocks


def raw_weights(depth=3):
    blocks = [Weights() for _ in range(depth)]
    return chain(blocks), blocks


def shared(depth=3):
    block = Block()
    return chain([block] * depth), [block] * depth


def models_as_blocks(depth=3):
    blocks = [chain([keras.layers.Dense(WIDTH, "relu"), keras.layers.Dense(WIDTH)]) for _ in range(depth)]
    return chain(blocks), blocks


def lstms(depth=3):
    blocks = [keras.layers.LSTM(WIDTH, return_sequences=True) for _ in range(depth)]
    return chain(blocks), blocks


def bidirectional(depth=3):
    blocks = [
        keras.layers.Bidirectional(keras.layers.LSTM(WIDTH // 2, return_sequences=True)) for _ in range(depth)
    ]
    return chain(blocks), blocks


def adapters(depth=3):
    """Small layers between the blocks."""
    blocks = [Block() for _ in range(depth)]
    layers = [layer for block in blocks for layer in (block, keras.layers.Dense(WIDTH))]
    return chain(layers[:-1]), blocks


def hybrid(depth=4):
    blocks = [(Block if i % 2 else Weights)() for i in range(depth)]
    return chain(blocks), blocks


def sequential(depth=3):
    blocks = [Block() for _ in range(depth)]
    return keras.Sequential([text(), *blocks]), blocks


def opaque(depth=3):
    encoder = Encoder(depth)
    return chain([keras.layers.Dense(WIDTH), encoder]), encoder.blocks


def nested(depth=3):
    inner, blocks = custom(depth)
    return chain([keras.layers.Dense(WIDTH), inner, keras.layers.Dense(3)]), blocks


def nested_opaque(depth=3):
    inner, blocks = opaque(depth)
    return chain([inner, keras.layers.Dense(3)]), blocks


def deep(depth=3):
    inner, blocks = nested(depth)
    return chain([inner]), blocks


def flat(post=False, operators=False, depth=3):
    """A transformer written with plain layers; with it the tensors that are its states."""
    layers = keras.layers
    given = x = text()
    add = (lambda a, b: a + b) if operators else (lambda a, b: layers.Add()([a, b]))
    states = []
    for _ in range(depth):
        for part in ("attention", "dense"):
            y = x if post else layers.LayerNormalization()(x)
            y = layers.MultiHeadAttention(2, 4)(y, y) if part == "attention" else layers.Dense(WIDTH)(y)
            x = add(x, y)
            x = layers.LayerNormalization()(x) if post else x
        states.append(x)
    return keras.Model(given, x if post else layers.LayerNormalization()(x)), states


def inputs(rows=2):
    return np.random.default_rng(0).standard_normal((rows, LENGTH, WIDTH)).astype("float32")
