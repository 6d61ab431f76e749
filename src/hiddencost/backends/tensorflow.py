"""TensorFlow: `eager`, `graph` (tf.function), `xla` (jit_compile=True), `train` (a graph)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hiddencost.backends.base import Backend, no_gpu


class TensorFlow(Backend):
    name = framework = extra = "tensorflow"
    packages = ("tensorflow", "keras", "keras_hub")
    predicts_in = "graph"

    def settings(self, threads: int, device: str) -> dict[str, str]:
        return {**super().settings(threads, device), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def use_gpu(self) -> None:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        if not found:
            raise no_gpu(self.name, "pip install 'tensorflow[and-cuda]'")
        for gpu in found:
            tf.config.experimental.set_memory_growth(gpu, True)
        tf.config.experimental.enable_tensor_float_32_execution(False)

    def reset_peak(self) -> int:
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")
        return int(tf.config.experimental.get_memory_info("GPU:0")["current"])

    def peak_bytes(self) -> int:
        import tensorflow as tf

        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])

    def set_threads(self, threads: int) -> dict[str, int]:
        """One inter-op thread costs no time and makes ratios three times steadier than the default."""
        import tensorflow as tf

        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        return {"intra_op": threads, "inter_op": 1}

    def compiled(
        self, run: Callable[..., Any], mode: str, model: Any, traced: Callable[[], None]
    ) -> Callable[..., Any]:
        import tensorflow as tf

        def counted(*arguments: Any) -> Any:
            traced()
            return run(*arguments)

        def differentiated(*arguments: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = counted(*arguments)
            variables = [variable.value for variable in model.trainable_variables]
            return tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        if mode == "eager":
            return run
        # AutoGraph would rewrite this package's own functions, half a second for each process: layers it
        # never reaches, as it leaves out whatever Keras calls (and Keras's own `predict` does without it).
        compiled: Callable[..., Any] = tf.function(
            differentiated if mode == "train" else counted, autograph=False, jit_compile=mode == "xla"
        )
        return compiled

    def analysis(self, compiled: Callable[..., Any], arguments: Sequence[Any]) -> dict[str, float]:
        """The operations of the traced graph, before it is optimized."""
        if not hasattr(compiled, "get_concrete_function"):
            return {}
        return {"compiled_operations": len(compiled.get_concrete_function(*arguments).graph.get_operations())}

    def synchronize(self, tensors: Sequence[Any]) -> None:
        """Eager and tf.function calls on a CPU return when they are done; all devices are waited for all
        the same."""
        import tensorflow as tf

        tf.test.experimental.sync_devices()

    def place(self, inputs: dict[str, Any]) -> Any:
        import tensorflow as tf

        with tf.device(f"/{self.device}:0"):
            return {name: tf.identity(tf.constant(array)) for name, array in inputs.items()}

    def data_set(self, inputs: dict[str, Any], batch: int) -> Any:
        """It is not tuned while it runs: a third of the calls of 64 ms would take 143 ms, as its iterator
        cannot be dropped before the tuner wakes up."""
        import tensorflow as tf

        untuned = tf.data.Options()
        untuned.autotune.enabled = False
        return tf.data.Dataset.from_tensor_slices(inputs).batch(batch).with_options(untuned)

    def predict(self, model: Any, data: Any) -> Any:
        return model.predict(data, verbose=0)

    def batches(self, data: Any) -> Iterator[Any]:
        yield from data

    def to_numpy(self, tensor: Any) -> Any:
        """The gradient of an embedding is sparse: its rows and their places."""
        import tensorflow as tf

        return tf.convert_to_tensor(tensor).numpy()
