"""The gate on real models: what is made worse by a known amount is found, what is not is not."""

from pathlib import Path

import pytest
from gate_runs import PLAN

from hiddencost import gate, grid, trees
from hiddencost.cli.gate import decide
from hiddencost.grid import planning

PLANNED = grid.parse(
    PLAN.replace("length = [8]", "length = [64]").replace("blocks = 6", "blocks = 5"), "plan"
)
PLANNED.time.seconds = 2.0
WORSE = "always_return_all"
ROOT = Path(__file__).parents[1]


def decided(folder, planned, **fault):
    sides = trees.current(), trees.current()
    made_worse = planning.Fault(strategy=fault.pop("strategy", WORSE), **fault)
    return decide(sides, planned, PLAN, folder, {**grid.GATED, "seconds": 0.1}, made_worse)


def test_the_stored_baseline_holds_each_metric_that_its_grid_yields():
    known = gate.read(ROOT / "reports" / "baseline.json")
    assert {kept.metric for kept in known.kept} == {
        "overhead_ratio",
        "lookup_slope_ratio",
        "peak_heap_bytes",
        "payload_bytes",
        "traces",
        "compiled_operations",
    }


@pytest.mark.slow
@pytest.mark.alone
def test_a_way_that_is_a_third_slower_is_found_and_nothing_else(tmp_path):
    found = decided(tmp_path, PLANNED, slower=0.35)
    told = {(change.case.strategy, change.metric) for change in found if change.word in ("slower", "larger")}
    assert told == {(WORSE, "seconds")}
    (change,) = [change for change in found if change.word == "slower"]
    assert 1.25 < change.ratio < 1.45
    assert (tmp_path / "again" / "after" / "results.jsonl").exists()
    assert not [change for change in found if change.word == "missing"]
    assert gate.Outcome(found).exit_code == 1


@pytest.mark.slow
def test_one_hidden_state_kept_alive_is_found_exactly(tmp_path):
    shape = PLAN.replace("length = [8]", "length = [64]").replace("batch = [1]", "batch = [16]")
    memory = grid.parse(shape, "plan")
    memory.forward.clear()
    memory.lookup = None
    found = decided(tmp_path / "kept", memory, strategy="functional_submodel", states=1)
    (larger,) = [change for change in found if change.word != "same"]
    assert (larger.case.strategy, larger.metric, larger.word) == (
        "functional_submodel",
        "peak_heap_bytes",
        "larger",
    )
    state = 16 * 64 * 128 * 4
    assert larger.after - larger.before == pytest.approx(state, rel=0.05)
    assert {change.word for change in decided(tmp_path / "same", memory)} == {"same"}
