"""The time budget: rotations are shortened or lengthened to fit it, and what is optional may be left out."""

import pytest

from hiddencost import grid, suites, supervise
from hiddencost.records import OVER_BUDGET, REFERENCE, TWIN, Case, Measurement
from hiddencost.supervise import Supervisor

CASE = Case(model="bert_tiny", strategy=REFERENCE, batch=1, length=8)
WAY = CASE.with_(strategy="functional_submodel", points="all")


def job(block=0, optional=True, **time):
    tasks = tuple(
        grid.Task(suite="forward", case=case, seconds=0.05, optional=optional)
        for case in (CASE, CASE.with_(strategy=TWIN), WAY)
    )
    return grid.Job(block=block, seed=1, time=grid.Time(**time), tasks=tasks)


class Counted:
    """What a run's progress bar is told."""

    def __init__(self):
        self.told = []

    def done(self, label, count):
        self.told.append((label, count))


def scales(monkeypatch, budget, besides, rotation, left_out=()):
    """How much longer than planned the rotations of each of five blocks were asked to be, on a fake clock
    where a block takes `besides` seconds and its rotations, as planned, `rotation`; and the supervisor."""
    clock, asked = [0.0], []
    monkeypatch.setattr(supervise.time, "perf_counter", lambda: clock[0])
    supervisor = Supervisor(None, Counted())

    def work(self, jobs):
        (given,) = jobs
        asked.append(given.tasks[0].seconds / 0.05)
        rotated = rotation * asked[-1]
        clock[0] += besides + rotated
        self._rotated[given.block] = rotated
        self._left_out.update(left_out)

    monkeypatch.setattr(Supervisor, "_work", work)
    supervisor._work_in_turn([job(block, budget=budget) for block in range(5)])
    return asked, clock[0], supervisor


def test_rotations_fill_the_budget_once_the_first_block_has_shown_what_else_takes_time(monkeypatch):
    asked, took, _ = scales(monkeypatch, budget=500, besides=60, rotation=20)
    assert asked == pytest.approx([1, 2.25, 2.25, 2.25, 2.25])  # (500 - 80) / 4 = 105 a block, 45 of it calls
    assert took == pytest.approx(500)


def test_a_slow_machine_shortens_its_rotations_and_no_further_than_to_a_tenth(monkeypatch):
    asked, took, _ = scales(monkeypatch, budget=500, besides=80, rotation=40)
    assert asked[1:] == pytest.approx([0.375] * 4)
    assert took == pytest.approx(500)
    assert scales(monkeypatch, budget=100, besides=80, rotation=40)[0][1:] == pytest.approx([0.1] * 4)


def test_without_a_budget_every_block_is_as_planned(monkeypatch):
    assert scales(monkeypatch, budget=None, besides=80, rotation=40)[0] == [1] * 5


def test_what_the_first_block_left_out_the_others_leave_out_too(monkeypatch):
    *_, supervisor = scales(monkeypatch, budget=500, besides=60, rotation=20, left_out=[WAY])
    assert supervisor.progress.told == [("left out", 1)] * 4
    kept = supervise.paced(job(), 2.0, {WAY})
    assert [(task.case, task.seconds) for task in kept.tasks] == [
        (CASE, 0.1),
        (CASE.with_(strategy=TWIN), 0.1),
    ]


def measured(process, planned):
    """What a session of that job reports of the seconds of its cases."""
    session = suites.Measured([planned], lambda record: None)
    session._process = process
    session.timed(planned.tasks[0], lambda: planned.tasks)
    return {case: found for (case, metric), found in session._found.items() if metric == "seconds"}


def test_an_optional_group_is_left_out_with_the_reason_when_the_share_is_used_up(process, tiny):
    found = measured(process, job(budget=1e-9))
    assert set(found) == {CASE, CASE.with_(strategy=TWIN), WAY}
    for case, record in found.items():
        assert isinstance(record, Measurement), case
        assert record.state == "skipped"
        assert OVER_BUDGET in record.notes
        assert record.reason.startswith(
            "left out: this machine used up a block's share (0 s) of the time budget"
        )


@pytest.mark.parametrize(
    "planned", [job(budget=1e-9, optional=False), job(block=1, budget=1e-9), job(budget=1000), job()]
)
def test_what_is_needed_or_fits_is_measured_and_only_the_first_block_decides(process, tiny, planned):
    assert {record.state for record in measured(process, planned).values()} == {"ok"}
