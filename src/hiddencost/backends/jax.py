"""JAX: `eager`, `jit`, `train` (jitted)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from hiddencost.backends.base import Backend, no_gpu


class _Jitted:
    """A jitted function of trainable and other variables, tensors and flags, called with the last two.

    Each call reads the variables' arrays, which are others after training, loading, or Keras's predict. What
    Keras keeps private, `Variable._value`, is the array itself: by `.value` it would be a tenth of a
    millisecond of Python a call.
    """

    def __init__(self, jitted: Any, variables: Sequence[Sequence[Any]]) -> None:
        self.jitted = jitted
        self._variables = variables

    def given(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        values = tuple([variable._value for variable in some] for some in self._variables)
        flags = tuple(argument for argument in arguments if isinstance(argument, bool))
        return *values, tuple(arguments[: len(arguments) - len(flags)]), flags

    def __call__(self, *arguments: Any) -> Any:
        return self.jitted(*self.given(arguments))


class Jax(Backend):
    name = framework = extra = "jax"
    packages = ("jax", "keras", "keras_hub")
    predicts_in = "jit"
    compiles_operations = runs_ahead = True

    def settings(self, threads: int, device: str) -> dict[str, str]:
        """XLA's pool for a CPU has as many threads as PJRT_NPROC says when JAX starts."""
        if device == "gpu":
            whole = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
            return {**super().settings(threads, device), **whole}
        one = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"} if threads == 1 else {}
        return {
            **super().settings(threads, device),
            **one,
            "JAX_PLATFORMS": "cpu",
            "PJRT_NPROC": str(threads),
        }

    def keeping(self, folder: str) -> dict[str, str]:
        return {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def use_gpu(self) -> None:
        """What a GPU needs is in the settings: JAX reads it when it starts."""
        import jax

        if jax.default_backend() != "gpu":
            raise no_gpu(self.name, "pip install 'jax[cuda12]'")

    def reset_peak(self) -> None:
        """JAX keeps one peak for the whole process, which making the weights, compiling and its trials of
        kernels may have raised."""

    def pinned_seconds(self, tensors: Sequence[Any]) -> float | None:
        """Of the second copy: the first takes page-locked memory from the system, later ones from a pool."""
        if self.device == "cpu":
            return None
        import jax

        host = jax.sharding.SingleDeviceSharding(jax.local_devices()[0], memory_kind="pinned_host")
        jax.block_until_ready(jax.device_put(list(tensors), host))
        began = time.perf_counter()
        jax.block_until_ready(jax.device_put(list(tensors), host))
        return time.perf_counter() - began

    def set_threads(self, threads: int) -> dict[str, int]:
        return {"intra_op": threads}

    def compiled(
        self, run: Callable[..., Any], mode: str, model: Any, traced: Callable[[], None]
    ) -> Callable[..., Any]:
        """Under `jit` the variables are arguments, as Keras's own training and prediction give them: what a
        function closes over becomes part of the program."""
        if mode == "eager":
            return run
        import jax
        import keras

        variables = model.trainable_variables, model.non_trainable_variables

        def pure(trainable: Any, others: Any, tensors: Any, flags: tuple[bool, ...]) -> Any:
            traced()
            mapping = zip([*variables[0], *variables[1]], [*trainable, *others], strict=True)
            with keras.StatelessScope(state_mapping=list(mapping)):
                return run(*tensors, *flags)

        whole = jax.grad(pure) if mode == "train" else pure
        return _Jitted(jax.jit(whole, static_argnums=3), variables)

    def analysis(self, compiled: Callable[..., Any], arguments: Sequence[Any]) -> dict[str, float]:
        """XLA's plan: exact, and the same at each compilation."""
        if not isinstance(compiled, _Jitted):
            return {}
        return planned(compiled.jitted.lower(*compiled.given(arguments)).compile())

    def synchronize(self, tensors: Sequence[Any]) -> None:
        """Calls return before their work is done: dispatch is asynchronous."""
        import jax

        jax.block_until_ready(tensors)

    def place(self, inputs: dict[str, Any]) -> Any:
        import jax

        return jax.device_put(inputs)

    def to_numpy(self, tensor: Any) -> Any:
        import numpy as np

        return np.asarray(tensor)


def planned(program: Any) -> dict[str, float]:
    """What XLA has planned for a compiled program, by metric."""
    memory, cost = program.memory_analysis(), program.cost_analysis()
    return {
        "compiled_temp_bytes": memory.temp_size_in_bytes,
        "compiled_output_bytes": memory.output_size_in_bytes,
        "compiled_flops": cost["flops"],
    }
