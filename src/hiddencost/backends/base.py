"""What every backend can do, in NumPy's terms where they agree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any


class Backend(ABC):
    """A backend of Keras. name: as KERAS_BACKEND and its package are called. packages: what is imported, in
    order. predicts_in: the mode in which Keras's `predict` runs a model. compiles_operations: an eager call
    compiles each operation at its first call with a shape."""

    name: str
    packages: tuple[str, ...]
    predicts_in: str
    compiles_operations = False

    def settings(self, threads: int) -> dict[str, str]:
        """What the environment must hold before the packages are imported."""
        return {"KERAS_BACKEND": self.name, "CUDA_VISIBLE_DEVICES": "-1"}

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

    @abstractmethod
    def to_numpy(self, tensor: Any) -> Any:
        """A tensor's values on the host."""
