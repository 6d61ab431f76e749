"""torch: `eager`, `compile` (torch.compile with inductor, as it comes) and `export` (torch.export's graph,
compiled so that each buffer is given up after its last use) without gradients; `eager_grad`, the bare call,
which records the graph that a backward pass would need; `train`, with the backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from hiddencost.backends.base import Backend, no_gpu

LEAN = {"allow_buffer_reuse": False}
"""Options of torch.compile. Left to itself, inductor keeps a buffer that is done with for the next one of its
size where it takes the peak to be no higher for that; but it counts twice what is worked on in place
(pytorch#192578), so that a block's widest buffer lives through the next block's attention (see
bench/experiments/torch_compile.py)."""


class Torch(Backend):
    name = framework = extra = "torch"
    packages: tuple[str, ...] = ("torch", "keras", "keras_hub")
    predicts_in = "eager"
    compiles_operations = (
        True  # oneDNN makes a primitive for each shape, an exported graph is recorded for one
    )

    def settings(self, threads: int, device: str) -> dict[str, str]:
        """Keras asks for a GPU when it is imported. Asked of NVML, that leaves CUDA to be started by the
        processes that a gate forks afterwards, which could not start it once more."""
        asked = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"} if device == "gpu" else {}
        return {**super().settings(threads, device), **asked, "OMP_NUM_THREADS": str(threads)}

    def use_gpu(self) -> None:
        import torch

        if not torch.cuda.is_available():
            raise no_gpu(self.name, "pip install torch, a CUDA build")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def reset_peak(self) -> int:
        import torch

        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())

    def peak_bytes(self) -> int:
        import torch

        return int(torch.cuda.max_memory_allocated())

    def pinned_seconds(self, tensors: Sequence[Any]) -> float | None:
        if self.device == "cpu":
            return None
        import torch

        pinned = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
        torch.cuda.synchronize()
        began = time.perf_counter()
        for theirs, mine in zip(tensors, pinned, strict=True):
            mine.copy_(theirs, non_blocking=True)
        torch.cuda.synchronize()
        return time.perf_counter() - began

    def set_threads(self, threads: int) -> dict[str, int]:
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        return {"intra_op": threads, "inter_op": 1}

    def compiled(
        self, run: Callable[..., Any], mode: str, model: Any, traced: Callable[[], None]
    ) -> Callable[..., Any]:
        import torch

        if mode == "eager_grad":
            return run
        if mode == "train":
            variables = [variable.value for variable in model.trainable_variables]
            return lambda *arguments: torch.autograd.grad(run(*arguments), variables, materialize_grads=True)
        inner = run
        if mode != "eager":
            inductor = torch._dynamo.lookup_backend("inductor")

            changes = LEAN if mode == "export" else {}

            def counted(graph: Any, examples: Any) -> Any:
                traced()
                return inductor(graph, examples, config_patches=changes)

            def compiled(what: Callable[..., Any]) -> Any:
                return torch.compile(what, backend=counted, dynamic=False)

            inner = compiled(run) if mode == "compile" else exported(run, model, compiled)

        def without_gradients(*arguments: Any) -> Any:
            with torch.no_grad():
                return inner(*arguments)

        return without_gradients

    def synchronize(self, tensors: Sequence[Any]) -> None:
        """Calls on a CPU return when they are done."""
        if self.device == "gpu":
            import torch

            torch.cuda.synchronize()

    def place(self, inputs: dict[str, Any]) -> Any:
        import torch

        place = "cuda" if self.device == "gpu" else "cpu"
        return {name: torch.from_numpy(array).to(place) for name, array in inputs.items()}

    def to_numpy(self, tensor: Any) -> Any:
        import ml_dtypes
        import torch

        host = tensor.detach().cpu()
        if host.dtype == torch.bfloat16:  # which NumPy has from elsewhere
            return host.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return host.numpy()


def exported(
    run: Callable[..., Any], model: Any, compiled: Callable[[Callable[..., Any]], Any]
) -> Callable[..., Any]:
    """The same function with its whole graph recorded first, once for each structure, shape and flag of its
    arguments, then compiled in one piece. (torch.compile by itself takes a Keras model apart into dozens of
    graphs, with Python between them: see bench/experiments/torch_compile.py.)"""
    import torch
    from torch.utils import _pytree

    class Whole(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model = model  # whose weights are the program's

        def forward(self, *arguments: Any) -> Any:
            return run(*arguments)

    programs: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        leaves, structure = _pytree.tree_flatten(arguments)
        kinds = (leaf if isinstance(leaf, bool) else (leaf.shape, leaf.dtype) for leaf in leaves)
        key = (structure, *kinds)
        if key not in programs:
            program = torch.export.export(Whole(), arguments, strict=False)
            programs[key] = compiled(program.module())
        return programs[key](*arguments)

    return call
