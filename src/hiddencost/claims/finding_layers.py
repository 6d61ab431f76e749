"""Claims on finding a layer: in advance or at call time, by name, by index."""

from __future__ import annotations

import msgspec
import numpy as np

from hiddencost.claims.evidence import (
    BIG,
    Finding,
    at,
    figure,
    finding,
    in_order,
    named,
    over,
    scaled,
    settle,
    timed,
    to_way,
)
from hiddencost.formatting import listed
from hiddencost.records import REFERENCE, Answer, Case, Figure
from hiddencost.stats import FEW_BLOCKS, Table, fit_by_block, line_fit

FLAT = 1e-9
"""Seconds for each further layer up to which a look-up counts as not growing: at 1,000 layers, the most
that the grids ask for, it adds a microsecond. A scan in Python takes tens of nanoseconds for each."""

BESIDE_BLOCKS = 10
"""Layers of KerasHub's BERT that are no blocks: inputs, embeddings, pooling (22 layers with 12 blocks,
METHOD.md). Used only to choose which of the measured layer counts stands for a model."""

NAME, INDEX, DICT = "get_layer_name", "get_layer_index", "dict_in_advance"
LAYERS = "layers_property"
"""`model.layers`: a list that Keras (3.15) makes at each access; `get_layer` reads it once by name, and twice
by index."""
GROWTH = "growth with each layer"


def index_in_advance(table: Table) -> Answer:
    """There is a big gain in finding the layers in advance instead of at each call."""
    pulled = {"time by name": NAME, "time by index": INDEX}

    def against(other: str) -> dict[str, list[Finding]]:
        return {
            name: timed(table, to_way(table, way, other), 1 + BIG, "above") for name, way in pulled.items()
        }

    submodel = against("functional_submodel").items()
    extra = [one for name, found in submodel for one in named(f"{name} / sub-model", found)]
    share, facts = share_of_forward(table)
    rule = f"big is a time above {1 + BIG:g} times that of the same model with its layers listed in advance"
    return settle("index_in_advance", against("indexed_in_advance"), rule, [*extra, *share], facts)


def name_scan(table: Table) -> Answer:
    """`get_layer(name)` is a linear scan: its time grows with the number of layers."""
    found = [finding(slope, FLAT, "above", _too_few(slope)) for slope in growth(table, NAME)]
    share, facts = share_of_forward(table)
    extra = [*straightness(table, NAME), *growth_with_position(table, NAME), *share]
    extra += named("time of layers / name", looked_up(table, LAYERS, NAME))
    rule = f"holds where the slope's interval lies above {FLAT * 1e9:g} ns for each layer"
    return settle("name_scan", {GROWTH: found}, rule, extra, facts)


def index_fast(table: Table) -> Answer:
    """`get_layer(index)` is fast: not slower than by name, and the same for any number of layers."""
    aspects = {
        "time of index / name": looked_up(table, INDEX, NAME),
        GROWTH: [finding(slope, FLAT, "below", _too_few(slope)) for slope in growth(table, INDEX)],
    }
    rule = (
        f"holds where it takes at most {1 + BIG:g} times as long as by name, and {FLAT * 1e9:g} ns more "
        "with each layer"
    )
    each = [
        msgspec.structs.replace(figure("time of index", center, case, unit="s"), where=f"with {at(case)}")
        for case in last_positions(table, INDEX)
        if (center := table.center(case, "lookup_seconds"))
    ]
    beside = [
        *named("time of index / dict", looked_up(table, INDEX, DICT)),
        *named("time of layers / index", looked_up(table, LAYERS, INDEX)),
    ]
    return settle("index_fast", aspects, rule, [*beside, *each])


def _too_few(slope: Figure) -> str:
    return FEW_BLOCKS if slope.low is None else ""


# -- look-ups --


def looked_up(table: Table, way: str, other: str) -> list[Finding]:
    """The time of a way to look the last layer up over that of another, for each number of layers."""
    pairs = [(case, case.with_(strategy=other)) for case in last_positions(table, way)]
    return timed(table, pairs, 1 + BIG, "below", "lookup_seconds")


def last_positions(table: Table, way: str) -> list[Case]:
    """The look-ups of the last layer measured, one for each number of layers, ascending."""
    last: dict[int, Case] = {}
    for case in in_order(table.cases("lookup_seconds", strategy=way)):
        last[case.layers or 0] = case
    return list(last.values())


def growth(table: Table, way: str) -> list[Figure]:
    """Seconds that each further layer adds to a look-up of the last one (least squares in each block)."""
    return _slope(table, GROWTH, [(case.layers or 0, case) for case in last_positions(table, way)])


def growth_with_position(table: Table, way: str) -> list[Figure]:
    """Seconds that each position adds, in the model that several positions were looked up in."""
    by_layers: dict[int, list[Case]] = {}
    for case in table.cases("lookup_seconds", strategy=way):
        by_layers.setdefault(case.layers or 0, []).append(case)
    swept = max(by_layers.values(), key=len, default=[])
    return _slope(table, "growth with each position", [(case.position or 0, case) for case in swept])


def _slope(table: Table, name: str, cases: list[tuple[int, Case]]) -> list[Figure]:
    """At most one figure: none where fewer than two distinct xs were measured."""
    points = [(float(x), table.block_medians(case, "lookup_seconds")) for x, case in cases]
    slope = fit_by_block(points)
    return [] if slope is None else [figure(name, slope, unit="s")]


def straightness(table: Table, way: str) -> list[Figure]:
    """The share of the variance of the look-ups' seconds that a straight line through them explains."""
    measured = [
        (float(case.layers or 0), found[0])
        for case in last_positions(table, way)
        for found in [table.center(case, "lookup_seconds")]
        if found is not None
    ]
    if len(measured) < 3:
        return []
    xs, ys = (np.asarray(axis) for axis in zip(*measured, strict=True))
    slope, intercept = line_fit(xs, ys)
    if not ys.var():
        return []
    explained = 1 - float((ys - slope * xs - intercept).var() / ys.var())
    return [Figure(name="straight line", value=explained, unit="%")]


def share_of_forward(table: Table) -> tuple[list[Figure], dict[str, str]]:
    """The share of an eager forward pass that looking up every layer by name takes, and how it is
    computed: seconds of one look-up x number of layers / seconds of the plain pass.

    The measured layer count next above the model's own stands for the model, and its last layer for
    every layer, so it is an upper bound. Compiled modes look layers up while they trace, not later.
    """
    looked_up = last_positions(table, NAME)
    if not looked_up:
        return [], {}
    figures, counts = [], set()
    for case in in_order(table.cases("seconds", strategy=REFERENCE, mode="eager")):
        states = hidden_states(table, case)
        long_enough = [one for one in looked_up if states and (one.layers or 0) >= states + BESIDE_BLOCKS]
        forward = table.center(case, "seconds")
        if not long_enough or forward is None:
            continue
        lookup, layers = table.center(long_enough[0], "lookup_seconds"), long_enough[0].layers or 0
        if lookup is not None:
            share = scaled(over(lookup, forward), layers)
            figures.append(figure("share of a forward pass", share, case, unit="%"))
            counts.add(layers)
    numbers = listed(f"{count:,}" for count in sorted(counts))
    how = f"one look-up by name among {numbers} layers x {numbers} look-ups / seconds of the plain pass"
    return figures, {"share of a forward pass": how} if figures else {}


def hidden_states(table: Table, case: Case) -> int:
    """The number of hidden states of the case's model, from the bytes of all of them and of one; 0 when
    these were not both measured."""
    sizes = table.once(_payloads).get((case.model, case.batch, case.length, case.examples), {})
    return round(sizes["all"] / sizes["one"]) if len(sizes) == 2 else 0


def _payloads(table: Table) -> dict[tuple[str, int, int, int | None], dict[str, float]]:
    """Bytes of all hidden states, and of one, by model, shape and number of examples."""
    found: dict[tuple[str, int, int, int | None], dict[str, float]] = {}
    kinds = {"all": "all", "last": "one", "middle": "one"}
    for case in table.cases("payload_bytes", reduction="none"):
        medians = table.medians(case, "payload_bytes") if case.points in kinds else []
        if any(medians):
            sizes = found.setdefault((case.model, case.batch, case.length, case.examples), {})
            sizes.setdefault(kinds[case.points], medians[0])
    return found
