"""PEERS: other libraries that read hidden states out of the same weights on torch, each by its own ways.

A peer takes the place of Keras behind a backend of its name: the same text, points and checks, and for each
library the lines that its own documentation teaches. Add a way: write the function as a strategy's (see
`strategies`), add a line to its peer in PEERS. Their packages are imported when a model is loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hiddencost import strategies
from hiddencost.errors import UserError
from hiddencost.inputs import Text
from hiddencost.models import SPELLINGS, find
from hiddencost.points import HiddenStates, Point
from hiddencost.records import REFERENCE, TWIN, Case
from hiddencost.strategies import Extraction, Strategy

NAMES = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
"""What transformers calls the inputs that Keras's models take."""


@dataclass(frozen=True)
class Wrapped:
    """What a peer makes of transformers' model. model: what its ways are given. outputs: inputs -> what its
    plain forward pass should return."""

    model: Any
    outputs: Callable[[Any], list[Any]]


class LoadedPeer:
    """A model of a peer in this process, and its inputs. model: what the peer's ways are given."""

    def __init__(self, name: str, dtype: str, wrap: Callable[[Any], Wrapped]) -> None:
        import torch

        spec = find(name)
        if name != "minilm" and not name.startswith(SPELLINGS):
            raise UserError(f"model '{name}': other libraries have pretrained weights alone: take minilm")
        self.text = Text(spec.tokenizer(), spec.vocabulary)
        self.bert = bert(spec.tokenizer(), dtype=getattr(torch, dtype))
        self._wrapped = wrap(self.bert)
        self.model = self._wrapped.model

    @property
    def weights_bytes(self) -> int:
        """Bytes of the model's own weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.bert.parameters())

    def inputs(self, rows: int, length: int) -> dict[str, Any]:
        """NumPy inputs, each (rows, length), int64."""
        packed = self.text.packed(rows, length)
        return {NAMES[name]: array.astype("int64") for name, array in packed.items()}

    def values(self, inputs: Any) -> list[Any]:
        """Every hidden state, by transformers' own argument, then what the plain forward pass returns."""
        return [*self.bert(**inputs, output_hidden_states=True).hidden_states, *self._wrapped.outputs(inputs)]

    def points(self) -> HiddenStates:
        """`embeddings` and a point for each block."""
        layers = [self.bert.embeddings, *self.bert.encoder.layer]
        weight = next(self.bert.parameters())
        bytes_each = np.dtype("float32" if weight.element_size() == 4 else "float16")
        like = np.broadcast_to(np.zeros((), bytes_each), (1, 1, self.bert.config.hidden_size))
        names = ["embeddings", *(f"block_{i}" for i in range(len(layers) - 1))]
        return HiddenStates(
            Point(name, index, layer, like)
            for index, (name, layer) in enumerate(zip(names, layers, strict=True), start=-1)
        )


def bert(folder: str, kind: str = "AutoModel", **options: Any) -> Any:
    """transformers' model of a kind with the weights in the folder, for inference."""
    import transformers

    transformers.logging.set_verbosity_error()  # or it tells of layers that a truncated model leaves out
    transformers.logging.disable_progress_bar()
    return getattr(transformers, kind).from_pretrained(folder, local_files_only=True, **options).eval()


def _places(wanted: Sequence[Point]) -> list[int]:
    """Where transformers counts the points: the embeddings are 0."""
    return [point.index + 1 for point in wanted]


def _first(output: Any) -> Any:
    """A block returns its hidden state, or a tuple that begins with it."""
    return output[0] if isinstance(output, tuple) else output


# -- transformers --


def plain(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """transformers' forward pass as it is: the last hidden state, and what its pooler makes of it."""
    return Extraction(lambda inputs: _outputs(model, inputs), lambda result: [])


def _outputs(model: Any, inputs: Any) -> list[Any]:
    found = model(**inputs)
    return [found.last_hidden_state, found.pooler_output]


def _itself(model: Any) -> Wrapped:
    return Wrapped(model, lambda inputs: _outputs(model, inputs))


def output_hidden_states(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """transformers' own argument: every hidden state beside its usual outputs; the caller keeps some."""

    def run(inputs: Any) -> list[Any]:
        found = model(**inputs, output_hidden_states=True)
        return [found.last_hidden_state, found.pooler_output, *found.hidden_states]

    return Extraction(run, lambda result: [result[2 + place] for place in _places(wanted)])


class _Enough(Exception):  # noqa: N818 (no error: it ends a forward pass early)
    pass


def _with_hooks(model: Any, wanted: Sequence[Point], stop: bool) -> Extraction:
    last = max(wanted, key=lambda point: point.index)

    def run(inputs: Any) -> list[Any]:
        kept: dict[str, Any] = {}

        def keep(point: Point) -> Callable[..., None]:
            def hook(module: Any, given: Any, output: Any) -> None:
                kept[point.name] = _first(output)
                if stop and point is last:
                    raise _Enough

            return hook

        handles = [point.layer.register_forward_hook(keep(point)) for point in wanted]
        try:
            model(**inputs)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [kept[point.name] for point in wanted]

    return Extraction(run)


def forward_hooks(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """torch's forward hooks on the blocks asked for, placed for a call and removed after it."""
    return _with_hooks(model, wanted, stop=False)


def forward_hooks_stopping(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The same; the hook on the last block asked for ends the forward pass by an exception."""
    return _with_hooks(model, wanted, stop=True)


def truncated_model(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The same weights loaded with as many blocks as are needed, and without the pooler."""
    places = _places(wanted)
    short = bert(
        model.config._name_or_path,
        dtype=model.dtype,
        num_hidden_layers=max(places),
        add_pooling_layer=False,
    )
    if places == [max(places)]:
        return Extraction(lambda inputs: [short(**inputs).last_hidden_state])

    def run(inputs: Any) -> list[Any]:
        return list(short(**inputs, output_hidden_states=True).hidden_states)

    return Extraction(run, lambda result: [result[place] for place in places])


def fx_graph(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The graph that torch.export records with every hidden state as an output, cut to those asked for: what
    only the others need is deleted. Recorded at the first call with a shape."""
    recorded: dict[Any, Any] = {}

    class Every(_module()):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, **inputs: Any) -> tuple[Any, ...]:
            return tuple(self.bert(**inputs, output_hidden_states=True).hidden_states)

    def run(inputs: Any) -> list[Any]:
        import torch

        shape = inputs["input_ids"].shape
        if shape not in recorded:
            cut = torch.export.export(Every(), (), kwargs=dict(inputs)).module()
            end = next(node for node in cut.graph.nodes if node.op == "output")
            every = end.args[0]
            end.args = ([every[place] for place in _places(wanted)],)
            cut.graph.set_codegen(torch.fx.graph.CodeGen())
            cut.graph.eliminate_dead_code(is_impure_node=_is_input)
            cut.recompile()
            recorded[shape] = cut
        return list(recorded[shape](**inputs))

    return Extraction(run)


def _is_input(node: Any) -> bool:
    """What is kept though nothing uses it. (Left to itself, torch keeps attention too: it could draw random
    numbers, for dropout.)"""
    return bool(node.op in ("placeholder", "output"))


def _module() -> Any:
    import torch

    return torch.nn.Module


# -- nnsight --


def nnsight_plain(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The model inside nnsight's wrapper, called as it is."""
    return plain(model._module, points, wanted)


def _traced(model: Any, wanted: Sequence[Point], stop: bool) -> Extraction:
    envoys = [model.embeddings if point.index < 0 else model.encoder.layer[point.index] for point in wanted]

    def run(inputs: Any) -> list[Any]:
        import nnsight

        with model.trace(**inputs) as tracer:
            found = nnsight.save([])
            for envoy in envoys:
                found.append(_first(envoy.output))
            if stop:
                tracer.stop()
        return list(found)

    return Extraction(run)


def trace(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """nnsight: what is asked for is saved in a trace of the model."""
    return _traced(model, wanted, stop=False)


def trace_stopped(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The same; the trace stops the model after the last of them."""
    return _traced(model, wanted, stop=True)


def _nnsight(model: Any) -> Wrapped:
    from nnsight import NNsight

    return Wrapped(NNsight(model), lambda inputs: _outputs(model, inputs))


# -- TransformerLens --


def lens_plain(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """TransformerLens's forward pass. Its BERT has to have a head; here the smallest, two numbers computed
    from what the pooler makes of the last hidden state."""
    return Extraction(lambda inputs: [model(inputs["input_ids"], **_named(inputs))], lambda result: [])


def _named(inputs: Any) -> dict[str, Any]:
    """What TransformerLens takes by name: all but the tokens."""
    return {name: value for name, value in inputs.items() if name != "input_ids"}


def _cached(model: Any, wanted: Sequence[Point], **options: Any) -> Extraction:
    names = ["embed_ln.hook_out" if point.index < 0 else f"blocks.{point.index}.hook_out" for point in wanted]

    def run(inputs: Any) -> list[Any]:
        _, cache = model.run_with_cache(inputs["input_ids"], names_filter=names, **_named(inputs), **options)
        return [cache[name] for name in names]

    return Extraction(run)


def run_with_cache(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """TransformerLens: the hook points asked for are cached in a run of the model."""
    return _cached(model, wanted)


def stop_at_layer(model: Any, points: Sequence[Point], wanted: Sequence[Point]) -> Extraction:
    """The same; the run stops before the block after the last one asked for."""
    return _cached(model, wanted, stop_at_layer=max(point.index for point in wanted) + 1)


def _lens(model: Any) -> Wrapped:
    from transformer_lens.model_bridge import TransformerBridge

    folder = model.config._name_or_path
    headed = bert(folder, "BertForNextSentencePrediction", dtype=model.dtype)
    bridge = TransformerBridge.boot_transformers(folder, hf_model=copy.deepcopy(headed), device=model.device)
    return Wrapped(bridge.eval(), lambda inputs: [headed(**inputs).logits])


@dataclass(frozen=True)
class Peer:
    """A library. wrap: transformers' model -> what the library makes of it. plain: its own forward pass, with
    which its ways are compared."""

    name: str
    wrap: Callable[[Any], Wrapped]
    plain: Callable[..., Extraction]
    ways: tuple[Strategy, ...]

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Its ways, and the plain forward pass of its own that they are compared with."""
        reference = "the plain forward pass of the same library: its reference"
        twin = "the reference once more: the A/A twin"
        return (
            Strategy(REFERENCE, reference, self.plain),
            Strategy(TWIN, twin, self.plain),
            *self.ways,
        )


def _eager_alone(case: Case) -> str:
    return "hooks are Python code, which torch.compile leaves out or stops at" * (case.mode == "compile")


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "transformers",
            _itself,
            plain,
            (
                Strategy("output_hidden_states", "transformers' own argument", output_hidden_states),
                Strategy("forward_hooks", "torch's forward hooks on the blocks", forward_hooks, _eager_alone),
                Strategy(
                    "forward_hooks_stopping",
                    "the same, ended by an exception after the last block asked for",
                    forward_hooks_stopping,
                    _eager_alone,
                ),
                Strategy("truncated_model", "loaded with as many blocks as are needed", truncated_model),
                Strategy("fx_graph", "the exported graph, cut to what is asked for", fx_graph),
            ),
        ),
        Peer(
            "nnsight",
            _nnsight,
            nnsight_plain,
            (
                Strategy("trace", "saved in a trace of nnsight", trace),
                Strategy("trace_stopped", "the same, stopped after the last one", trace_stopped),
            ),
        ),
        Peer(
            "transformer_lens",
            _lens,
            lens_plain,
            (
                Strategy("run_with_cache", "cached in a run of TransformerLens", run_with_cache),
                Strategy("stop_at_layer", "the same, stopped after the last block asked for", stop_at_layer),
            ),
        ),
    )
}


def strategy(case: Case) -> Strategy:
    """The strategy of a case that the grid has checked: of its peer, or of Keras."""
    return strategies.find(case.strategy, PEERS[case.backend].strategies if case.backend in PEERS else ())


def load(case: Case) -> tuple[LoadedPeer, HiddenStates]:
    """The model of a peer's case, and its points. Raises UserError."""
    loaded = LoadedPeer(case.model, case.dtype, PEERS[case.backend].wrap)
    return loaded, loaded.points()
