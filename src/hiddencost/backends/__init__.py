"""The one place that knows TensorFlow, JAX and torch apart: start one, compile, wait for the end of the work.
The peers, other libraries on torch, are backends of their own here.

Keras fixes its backend when it is imported, so a process has one: `start` chooses it, and imports Keras
first in the process, so that threads are set before it starts.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from hiddencost.backends.base import Backend
from hiddencost.backends.jax import Jax
from hiddencost.backends.peers import NNsight, TransformerLens, Transformers
from hiddencost.backends.tensorflow import TensorFlow
from hiddencost.backends.torch import Torch
from hiddencost.errors import UserError
from hiddencost.strategies import Extraction

BACKENDS: tuple[Backend, ...] = (
    TensorFlow(),
    Jax(),
    Torch(),
    Transformers(),
    NNsight(),
    TransformerLens(),
)
_started: list[Backend] = []
FIRST_GPU = Path("/dev/nvidia0")
"""As the driver shows it."""


def find(name: str) -> Backend:
    """The backend of a name that the grid has checked."""
    return next(backend for backend in BACKENDS if backend.name == name)


def check(name: str) -> None:
    """Raises UserError when the backend's packages are not installed."""
    backend = find(name)
    if any(importlib.util.find_spec(package) is None for package in (backend.framework, name)):
        raise UserError(f"backend '{name}' is not installed: pip install 'hiddencost[{backend.extra}]'")


def check_device(name: str) -> None:
    """Raises UserError when the machine does not show the device."""
    if name == "gpu" and not FIRST_GPU.exists():
        raise UserError(
            f"device 'gpu': this machine shows no NVIDIA GPU ({FIRST_GPU}); leave it out, or --device cpu"
        )


def current() -> Backend:
    """The backend of this process."""
    return _started[0]


def _hide(packages: set[str]) -> None:
    """Makes packages look as if they were not installed, once for the process. (None in `sys.modules` would
    do it too, but scipy looks there for torch, and takes what it finds for the package.)"""

    class Others(PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, *where: Any, **named: Any) -> Any:
            return None if fullname in packages else super().find_spec(fullname, *where, **named)

    sys.meta_path[:] = [Others if finder is PathFinder else finder for finder in sys.meta_path]


def import_packages(name: str) -> dict[str, float]:
    """Imports what is not imported yet; the seconds that each took. The environment holds the backend's
    settings. KerasHub would import any other framework that it finds, and two in a process get in each
    other's way: they are hidden from it."""
    backend = find(name)
    _hide({other.framework for other in BACKENDS} - {backend.framework})
    seconds: dict[str, float] = {}
    for package in backend.packages:
        if package in sys.modules:
            continue
        began = time.perf_counter()
        __import__(package)
        seconds[package] = time.perf_counter() - began
    return seconds


def start(name: str, threads: int, device: str = "cpu") -> tuple[dict[str, float], dict[str, int]]:
    """Imports the packages in this process with `threads` threads for one operation, on the device. Raises
    UserError where the backend does not see it.

    Returns the seconds that each import took, on top of what was loaded before it (TensorFlow imports
    Keras), and the thread counts.
    """
    backend = find(name)
    os.environ.update(backend.settings(threads, device))
    seconds = import_packages(name)
    _started[:] = [backend]
    backend.device = device
    if device == "gpu":
        backend.use_gpu()
    return seconds, backend.set_threads(threads)


class Compiled:
    """A callable as its mode runs it. `traces` counts how often the backend traced it. model: the Keras
    model whose variables it reads."""

    def __init__(self, run: Callable[..., Any], mode: str, model: Any) -> None:
        self.traces = 0
        self.run = current().compiled(run, mode, model, self._traced)

    def _traced(self) -> None:
        self.traces += 1

    def __call__(self, *arguments: Any) -> Any:
        return self.run(*arguments)

    def analysis(self, *arguments: Any) -> dict[str, float]:
        """What the compiler tells of the program for these arguments, by metric; nothing of a mode that is
        not compiled. It may compile once more."""
        return current().analysis(self.run, arguments)


def compile_(extraction: Extraction, mode: str, model: Any) -> Compiled:
    """The extraction in one of the backend's modes, or `predict`."""
    if mode == "predict":
        if extraction.model is None:
            raise UserError("predict needs a Keras model, and this way is a function")
        if extraction.over is not None:
            over, run = extraction.over, Compiled(extraction.run, current().predicts_in, model)
            return Compiled(lambda data: over(run, current().batches(data)), "eager", model)
        return Compiled(lambda data: current().predict(extraction.model, data), "eager", model)
    if mode == "train":
        return gradients(lambda inputs: loss_values(extraction, extraction(inputs)), model)
    return Compiled(extraction.run, mode, model)


def loss_values(extraction: Extraction, result: Any) -> list[Any]:
    """What a loss is taken of: the hidden states asked for, or the model's own outputs where none are."""
    return extraction.states(result) or tensors(result)


def gradients(values: Callable[[Any], list[Any]], model: Any) -> Compiled:
    """inputs -> the gradients of a loss with respect to the model's trainable variables, compiled as the
    backend's training is. The loss is the sum of the means of the squares of all values."""

    def loss(inputs: Any) -> Any:
        import keras

        return sum(keras.ops.mean(keras.ops.square(value)) for value in values(inputs))

    return Compiled(loss, "train", model)


def compiled_with_xla(extraction: Extraction) -> bool:
    """Whether Keras compiles this model's `predict` with XLA."""
    return bool(extraction.model.jit_compile)


def synchronize(result: Any) -> None:
    """Returns when the work behind `result` has ended."""
    current().synchronize(tensors(result))


def place(inputs: dict[str, Any], mode: str, batch: int) -> Any:
    """NumPy inputs on the device, or for `predict` a data set of batches of them."""
    return current().data_set(inputs, batch) if mode == "predict" else current().place(inputs)


def to_numpy(tensor: Any) -> Any:
    """A tensor's values on the host."""
    return tensor if type(tensor).__module__ == "numpy" else current().to_numpy(tensor)


def pinned_seconds(result: Any) -> float | None:
    """Seconds of copying a result to page-locked memory of the host; None where the backend cannot."""
    return current().pinned_seconds(tensors(result))


def tensors(result: Any) -> list[Any]:
    """All tensors of a result, whatever its structure; what is none, as a file, is left out."""
    import keras

    return [leaf for leaf in keras.tree.flatten(result) if hasattr(leaf, "shape")]


def size_bytes(tensor: Any) -> int:
    """Bytes of a tensor's values, from its shape and dtype."""
    import keras
    import numpy as np

    dtype = np.dtype(keras.backend.standardize_dtype(tensor.dtype))
    return int(math.prod(tensor.shape)) * int(dtype.itemsize)


def returned_bytes(result: Any) -> int:
    """Bytes of all tensors of a result."""
    return sum(map(size_bytes, tensors(result)))
