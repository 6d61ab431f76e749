"""The same models as they come to be used: in a task, quantized, adapted, cloned, saved and loaded."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiddencost.survey.known import Backbone, Known
from hiddencost.survey.seeing import SEEING
from hiddencost.survey.text import TEXT

BACKBONES = {known.name: known for known in (*TEXT, *SEEING)}


@dataclass(frozen=True)
class Variant(Known):
    """A backbone that something was done to. change: the backbone -> what it became. options: more arguments
    of the backbone's constructor. blocks: old and new model -> the truth; the old one's, if not given."""

    name: str
    base: Backbone
    change: Callable[[Any], Any] = lambda model: model
    options: Mapping[str, Any] | None = None
    blocks: Callable[[Backbone, Any, Any], Mapping[str, Sequence[Any]]] = lambda base, old, new: base.blocks(
        old
    )

    def made(self, depth: int) -> tuple[Any, Mapping[str, Sequence[Any]]]:
        model = self.base.model(depth, **self.options or {})
        changed = self.change(model)
        return changed, self.blocks(self.base, model, changed)


def _by_name(base: Backbone, old: Any, new: Any) -> Mapping[str, Sequence[Any]]:
    """A clone is no backbone, but its layers have their names."""
    return {
        stack: [new.get_layer(block.name) for block in blocks] for stack, blocks in base.blocks(old).items()
    }


def _anew(base: Backbone, old: Any, new: Any) -> Mapping[str, Sequence[Any]]:
    return base.blocks(new)


def _quantized(model: Any) -> Any:
    """For each kernel that it replaces Keras collects garbage, which takes a third of a second where
    TensorFlow is loaded: what lives already need not be looked at."""
    gc.freeze()
    try:
        model.quantize("int8")
    finally:
        gc.unfreeze()
    return model


def _adapted(model: Any) -> Any:
    model.enable_lora(4)
    return model


def _cloned(model: Any) -> Any:
    import keras

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def _reloaded(model: Any) -> Any:
    import keras

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return keras.models.load_model(Path(folder) / "model.keras")


def _task(name: str, **options: Any) -> Callable[[Any], Any]:
    def change(model: Any) -> Any:
        import keras_hub

        return getattr(keras_hub.models, name)(backbone=model, preprocessor=None, **options)

    return change


TASKS = {
    "BertTextClassifier": ("BertBackbone", {"num_classes": 2}),
    "RobertaTextClassifier": ("RobertaBackbone", {"num_classes": 2}),
    "AlbertTextClassifier": ("AlbertBackbone", {"num_classes": 2}),
    "BertMaskedLM": ("BertBackbone", {}),
    "DebertaV3MaskedLM": ("DebertaV3Backbone", {}),
    "GPT2CausalLM": ("GPT2Backbone", {}),
    "GemmaCausalLM": ("GemmaBackbone", {}),
    "LlamaCausalLM": ("LlamaBackbone", {}),
    "MistralCausalLM": ("MistralBackbone", {}),
    "BartSeq2SeqLM": ("BartBackbone", {}),
    "ViTImageClassifier": ("ViTBackbone", {"num_classes": 2}),
}
CHANGED = ("BertBackbone", "AlbertBackbone", "GPT2Backbone", "GemmaBackbone", "T5Backbone", "ViTBackbone")


def _changed(base: Backbone) -> tuple[Variant, ...]:
    def name(what: str) -> str:
        return f"{base.name}/{what}"

    return (
        Variant(name("mixed_bfloat16"), base, options={"dtype": "mixed_bfloat16"}),
        Variant(name("int8"), base, _quantized),
        Variant(name("lora"), base, _adapted),
        Variant(name("reloaded"), base, _reloaded, blocks=_anew),
        *(Variant(name("cloned"), base, _cloned, blocks=_by_name) for _ in range(base.name != "ViTBackbone")),
    )


VARIANTS = (
    *(Variant(task, BACKBONES[name], _task(task, **options)) for task, (name, options) in TASKS.items()),
    *(variant for name in CHANGED for variant in _changed(BACKBONES[name])),
)
