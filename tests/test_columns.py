"""The columns of a run's measurements: nothing is lost in them, and they are small."""

import msgspec
import numpy as np
import pytest
from synthetic import synthetic_run

from hiddencost import columns, store
from hiddencost.columns import Columns, columns_of, with_rows
from hiddencost.errors import UserError
from hiddencost.records import Case, Measurement

A = Case(model="minilm", strategy="final_only", batch=1, length=16)
B = A.with_(strategy="functional_submodel", points="all", backend="jax")
FOUND = (
    Measurement(case=A, metric="seconds", values=(0.5, 0.25), places=(1, 0), effect=-0.5, block=1),
    Measurement(case=A, metric="traces", values=(3.0,), block=1),
    Measurement(case=B, metric="seconds", state="crashed", reason="it fell", block=2),
    Measurement(case=B, metric="seconds", values=(1.0,), notes={"rounds_wanted": "9"}, block=3),
    Measurement(case=B, metric="traces", values=(1.0, 2.0, 7.0), block=3),
)


def test_every_measurement_comes_back_as_it_went_in():
    assert tuple(Columns(FOUND)) == FOUND
    run = synthetic_run()
    assert tuple(Columns(run.measurements)) == run.measurements
    found = Columns(FOUND)
    assert found == FOUND
    assert found != FOUND[::-1]
    assert (len(found), found[-1], found[1:3]) == (5, FOUND[-1], FOUND[1:3])
    assert Columns() == ()


def test_rows_are_chosen_by_what_they_are_of():
    found = Columns(FOUND)
    assert tuple(found.only(found.of(("traces",)))) == (FOUND[1], FOUND[4])
    assert tuple(found.only(found.in_state("crashed"))) == (FOUND[2],)
    assert tuple(found.only(found.with_note("rounds_wanted".__eq__))) == (FOUND[3],)
    assert tuple(found.only(found.of_cases({B}))) == FOUND[2:]
    assert tuple(found.only(found.from_origins({(2, "jax", "cpu"), (1, "jax", "cpu")}))) == (FOUND[2],)
    assert found.origins_of() == {(1, "tensorflow", "cpu"), (2, "jax", "cpu"), (3, "jax", "cpu")}
    assert found.origins_of(found.of(("traces",))) == {(1, "tensorflow", "cpu"), (3, "jax", "cpu")}
    assert found.met(found.in_state("crashed")) == [B]
    assert found.met() == [A, B]
    assert found.blocks(found.of_cases({B})) == {2, 3}
    assert list(found.keys(found.of(("seconds",))))[1:] == [(B, "seconds", 2), (B, "seconds", 3)]
    few = found.only(found.of_cases({A}))
    assert (few.met(), few.origins_of()) == ([A], {(1, "tensorflow", "cpu")})
    assert found.medians[found.of(("traces",))].tolist() == [3.0, 2.0]
    assert found.effects(np.arange(2)).tolist()[0] == -0.5
    assert np.isnan(found.effects(np.arange(1, 5))).all()


def test_a_row_takes_30_bytes_and_a_value_12():
    def size(count: int) -> int:
        one = Columns(Measurement(case=A, metric="traces", values=(1.0,) * 3, block=i) for i in range(count))
        return sum(column.nbytes for column in vars(one).values() if hasattr(column, "nbytes"))

    assert size(1000) - size(500) == 500 * (30 + 3 * 12)


def test_many_values_are_in_a_file_and_read_all_the_same(monkeypatch):
    monkeypatch.setattr(columns, "IN_MEMORY", 4)
    found = Columns(FOUND)
    assert isinstance(found._values, np.memmap)
    assert tuple(found) == FOUND
    run = synthetic_run()
    assert tuple(Columns(run.measurements)) == run.measurements


def test_a_run_keeps_its_columns():
    run = synthetic_run()
    assert columns_of(run) is columns_of(run)
    alone = with_rows(run, columns_of(run).of(("traces",)))
    assert {m.metric for m in alone.measurements} == {"traces"}
    assert columns_of(alone) is alone.measurements


@pytest.mark.parametrize("changes", [{"block": 2**40}, {"places": (2**40, 1)}])
def test_a_number_beyond_the_columns_is_damage(tmp_path, changes):
    run = synthetic_run()
    lines = [run.header, msgspec.structs.replace(FOUND[0], **changes)]
    (tmp_path / store.RESULTS).write_bytes(b"".join(map(store.encode, lines)))
    with pytest.raises(UserError, match="damaged: a block, a place or a count is too large"):
        store.read(tmp_path)
