"""The one place that knows the backend: start it, compile, wait for the end of the work.

TensorFlow today. Keras is imported here first in a process, so that threads are set before it starts.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from hiddencost.strategies import Extraction

SETTINGS = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
"""What the environment must hold before the packages are imported."""
PACKAGES = ("tensorflow", "keras", "keras_hub")


def import_packages() -> dict[str, float]:
    """Imports what is not imported yet, under SETTINGS; the seconds that each took."""
    os.environ.update(SETTINGS)
    seconds: dict[str, float] = {}
    for package in PACKAGES:
        if package in sys.modules:
            continue
        began = time.perf_counter()
        __import__(package)
        seconds[package] = time.perf_counter() - began
    return seconds


def start(threads: int) -> tuple[dict[str, float], dict[str, int]]:
    """Imports the packages in this process with `threads` intra-op threads and one inter-op thread.

    Returns the seconds that each import took, on top of what was loaded before it (TensorFlow imports
    Keras), and the thread counts.
    One inter-op thread costs no time and makes ratios three times steadier than TensorFlow's default.
    """
    seconds = import_packages()
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return seconds, {"intra_op": threads, "inter_op": 1}


class Compiled:
    """An extraction as its mode runs it. `traces` counts how often the backend traced it."""

    def __init__(self, run: Callable[..., Any], mode: str) -> None:
        import tensorflow as tf

        self.traces = 0

        def counted(*arguments: Any, **named: Any) -> Any:
            self.traces += 1
            return run(*arguments, **named)

        self.run = run if mode in ("eager", "predict") else tf.function(counted, jit_compile=mode == "xla")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.run(*arguments, **named)


def compile_(extraction: Extraction, mode: str) -> Compiled:
    """The extraction in mode `eager`, `graph` (tf.function), `xla` (jit_compile=True) or `predict`."""
    if mode == "predict":
        return Compiled(lambda dataset: extraction.model.predict(dataset, verbose=0), mode)
    return Compiled(extraction.run, mode)


def compiled_with_xla(extraction: Extraction) -> bool:
    """Whether Keras compiles this model's `predict` with XLA."""
    return bool(extraction.model.jit_compile)


def synchronize(result: Any) -> None:
    """Returns when the work behind `result` has ended. Eager and tf.function calls on a CPU return when
    they are done; `sync_devices` waits for every device all the same."""
    import tensorflow as tf

    tf.test.experimental.sync_devices()


def place(inputs: dict[str, Any], mode: str, batch: int) -> Any:
    """NumPy inputs on the device, or for `predict` a data set of batches of them. The data set is not tuned
    while it runs: a third of the calls of 64 ms would take 143 ms, as its iterator cannot be dropped before
    the tuner wakes up."""
    import tensorflow as tf

    if mode == "predict":
        untuned = tf.data.Options()
        untuned.autotune.enabled = False
        return tf.data.Dataset.from_tensor_slices(inputs).batch(batch).with_options(untuned)
    return {name: tf.constant(array) for name, array in inputs.items()}


def to_numpy(tensor: Any) -> Any:
    """A tensor's values on the host."""
    return tensor if type(tensor).__module__ == "numpy" else tensor.numpy()


def tensors(result: Any) -> list[Any]:
    """All tensors of a result, whatever its structure."""
    import keras

    return list(keras.tree.flatten(result))


def size_bytes(tensor: Any) -> int:
    """Bytes of a tensor's values, from its shape and dtype."""
    import numpy as np

    return (
        int(np.prod(tuple(tensor.shape)))
        * np.dtype(str(getattr(tensor.dtype, "name", tensor.dtype))).itemsize
    )
