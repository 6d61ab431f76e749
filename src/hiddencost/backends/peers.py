"""The peers' processes: torch, Keras on torch for the text's tokenizer, and the library itself."""

from __future__ import annotations

from hiddencost.backends.torch import Torch


class Transformers(Torch):
    name = "transformers"
    framework = "torch"
    extra = "peers"
    packages = (*Torch.packages, "transformers")

    def settings(self, threads: int, device: str) -> dict[str, str]:
        """The weights are here: nothing is asked of a hub."""
        return {**super().settings(threads, device), "HF_HUB_OFFLINE": "1"}


class NNsight(Transformers):
    name = "nnsight"
    packages = (*Transformers.packages, "nnsight")


class TransformerLens(Transformers):
    name = "transformer_lens"
    packages = (*Transformers.packages, "transformer_lens")
