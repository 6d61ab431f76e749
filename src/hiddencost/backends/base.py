"""What every backend can do, in NumPy's terms where they agree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hiddencost.errors import UserError


class Backend(ABC):
    """A backend of Keras, or a peer that takes its place. name: as its package is called. framework: as
    KERAS_BACKEND is. extra: what installs it. packages: what is imported, in order. predicts_in: the mode in
    which Keras's `predict` runs a model. compiles_operations: an eager call compiles each operation at its
    first call with a shape. runs_ahead: an eager call hands its operations to another thread, and holds what
    they need for as long as that one is behind."""

    name: str
    framework: str
    extra: str
    packages: tuple[str, ...]
    predicts_in: str
    compiles_operations = False
    runs_ahead = False
    device = "cpu"

    def settings(self, threads: int, device: str) -> dict[str, str]:
        """What the environment must hold before the packages are imported. A CPU's process sees no GPU;
        a GPU's counts them as the driver's tool does."""
        return {
            "KERAS_BACKEND": self.framework,
            **({"CUDA_VISIBLE_DEVICES": "-1"} if device == "cpu" else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        }

    def keeping(self, folder: str) -> dict[str, str]:
        """What the environment must hold so that compiled programs are kept in the folder for other
        processes. Nothing where the backend cannot."""
        return {}

    @abstractmethod
    def use_gpu(self) -> None:
        """Multiplies float32 in full on the GPU, and takes its memory as it is needed. Raises UserError where
        the package sees none."""

    @abstractmethod
    def reset_peak(self) -> int | None:
        """Bytes of the device's memory in use; from here on, they are the peak. None where the peak cannot be
        set back: a call's memory is then told by the compiler's plan alone (see `analysis`)."""

    def peak_bytes(self) -> int:
        """The most bytes of the device's memory in use at one time since `reset_peak`, where it told some."""
        raise NotImplementedError

    def pinned_seconds(self, tensors: Sequence[Any]) -> float | None:
        """Seconds of copying tensors to page-locked memory of the host, where the backend can."""
        return None

    @abstractmethod
    def set_threads(self, threads: int) -> dict[str, int]:
        """Sets the threads of one operation, as far as `settings` have not, and tells all counts."""

    @abstractmethod
    def compiled(
        self, run: Callable[..., Any], mode: str, model: Any, traced: Callable[[], None]
    ) -> Callable[..., Any]:
        """`run` as the mode runs it; in the mode `train` its gradients, with respect to the trainable
        variables. model: whose variables it reads. traced: called at each trace. An argument that is a bool
        is no tensor: each value of it has its own trace."""

    def analysis(self, compiled: Callable[..., Any], arguments: Sequence[Any]) -> dict[str, float]:
        """What the compiler tells of what `compiled` returned, by metric."""
        return {}

    @abstractmethod
    def synchronize(self, tensors: Sequence[Any]) -> None:
        """Returns when the tensors are computed."""

    @abstractmethod
    def place(self, inputs: dict[str, Any]) -> Any:
        """NumPy inputs on the device."""

    def data_set(self, inputs: dict[str, Any], batch: int) -> Any:
        """What `predict` takes: batches of the inputs."""
        return inputs, batch

    def predict(self, model: Any, data: Any) -> Any:
        """Keras's predict over what `data_set` made."""
        inputs, batch = data
        return model.predict(inputs, batch_size=batch, verbose=0)

    def batches(self, data: Any) -> Iterator[Any]:
        """The batches of what `data_set` made, one after the other on the device."""
        inputs, batch = data
        for first in range(0, len(next(iter(inputs.values()))), batch):
            yield self.place({name: array[first : first + batch] for name, array in inputs.items()})

    @abstractmethod
    def to_numpy(self, tensor: Any) -> Any:
        """A tensor's values on the host."""


def no_gpu(name: str, command: str) -> UserError:
    """What a package that sees no GPU is told with, and the command that mends it."""
    return UserError(
        f"{name} sees no GPU: its CPU build is installed, or there is no CUDA driver ({command})"
    )
