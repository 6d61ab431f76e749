"""A run on the nodes of a Ray cluster, all of them on this machine."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil
import pytest
from test_supervise import CASE, HEADER, PLAN, WAY, Counted

from hiddencost import cluster as clusters
from hiddencost import grid, store
from hiddencost.cluster import Cluster, anew, connect
from hiddencost.errors import UserError
from hiddencost.grid import planning
from hiddencost.records import TWIN, Environment, Lost
from hiddencost.supervise import Supervisor, remaining

pytestmark = pytest.mark.slow
DEADLINE = 60.0


@pytest.fixture
def nodes():
    """Makes a cluster, which is ended with the test."""
    import fake_cluster

    made = []

    def make(count, seconds, gpus=0):
        made.append(fake_cluster.cluster(count, seconds, gpus))
        return made[-1].__enter__()

    yield make
    for one in made:
        one.__exit__(None, None, None)


def blocks(count, strategies=("functional_submodel",), lengths=(8,), device="cpu", **time):
    ways = [CASE.with_(strategy=name, points="all") for name in strategies]
    tasks = tuple(
        planning.Task(suite="forward", case=case.with_(length=length, device=device), seconds=0.05)
        for length in lengths
        for case in (CASE, CASE.with_(strategy=TWIN), *ways)
    )
    return [
        planning.Job(block=block, seed=1, time=grid.Time(**time), tasks=tasks, device=device)
        for block in range(count)
    ]


def memory(count):
    return [
        planning.Job(
            block=planning.FIRST_MEMORY_BLOCK + number,
            seed=1,
            time=grid.Time(),
            tasks=(planning.Task(suite="memory", case=WAY.with_(length=8 + number)),),
        )
        for number in range(count)
    ]


def run(folder, timed, others=(), meanwhile=lambda: None, header=HEADER, warned=None):
    """How the run ended, the run, and what the progress was told."""
    counted, told = Counted(), [] if warned is None else warned
    failed = []

    def helping():
        try:
            meanwhile()
        except BaseException as error:
            failed.append(error)

    helper = threading.Thread(target=helping, daemon=True)
    writer = store.Writer(folder, header)
    try:
        helper.start()
        how = Cluster(connect(), Supervisor(writer, counted), told.append).run(timed, list(others))
        helper.join(DEADLINE)
    finally:
        writer.close()
    assert failed == []
    assert warned is not None or told == []
    return how, store.read(folder), counted


def until(true):
    """What `true` returns, as soon as that is true."""
    end = time.monotonic() + DEADLINE
    while not (found := true()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)
    return found


def seen(folder):
    """The environments and measurements that have arrived so far."""
    path = folder / store.RESULTS
    if not path.exists() or b"\n" not in path.read_bytes():  # its first line is not whole yet
        return (), ()
    found = store.read(folder)
    return found.environments, found.measurements


def lose(cluster, name):
    """Kills a node by its name in the records."""
    (node,) = [one for one in cluster.worker_nodes if name.endswith(one.node_id[:8])]
    cluster.remove_node(node, allow_graceful=False)


def intervals(folder, found):
    """node -> when its timing blocks were measured, as their workers say, in order; where they were given a
    GPU, (node, the GPU) ->."""
    told = defaultdict(list)
    for one in found.environments:
        if one.block < planning.FIRST_MEMORY_BLOCK:
            (log,) = (folder / "logs").glob(f"block-{one.block}[.-]*log")
            began, ended, *gpu = log.read_text().split()
            told[(one.node, *gpu) if gpu else one.node].append((float(began), float(ended)))
    return {node: sorted(times) for node, times in told.items()}


def at_once(some, others):
    """Whether one of these intervals overlaps one of those."""
    return any(a < d and c < b for a, b in some for c, d in others)


def of_each_once(found, timed, others=()):
    """Whether every planned case of every block is measured, once."""
    planned = sorted(
        (str(task.case), planning.METRIC_OF_SUITE[task.suite], job.block)
        for job in [*timed, *others]
        for task in job.tasks
    )
    assert sorted((str(m.case), m.metric, m.block) for m in found.measurements) == planned
    assert {m.state for m in found.measurements} == {"ok"}


def lines(folder):
    """All records of the file, those that do not count among them."""
    text = (folder / store.RESULTS).read_bytes()
    return [msgspec.json.decode(line, type=store.Line) for line in text.splitlines()]


def temporary_in(folder, monkeypatch):
    """The temporary files of this process and of the nodes that it makes lie in the folder."""
    monkeypatch.setenv("RAY_TMPDIR", tempfile.gettempdir())  # its sockets' names have to be short
    monkeypatch.setenv("TMPDIR", str(folder))


def test_blocks_are_measured_on_all_nodes_and_each_has_its_node_to_itself(nodes, tmp_path, monkeypatch):
    temporary_in(tmp_path, monkeypatch)
    nodes(3, seconds=0.3)
    timed, others = blocks(9), memory(4)
    how, found, counted = run(tmp_path / "run", timed, others)
    assert how == "complete"
    assert list(tmp_path.glob("hiddencost-*")) == [], "left behind"
    of_each_once(found, timed, others)
    assert sum(count for _, count in counted.told) == 9 * 3 + 4
    told = intervals(tmp_path / "run", found)
    assert [len(told), sum(map(len, told.values()))] == [3, 9]
    for times in told.values():
        assert all(first[1] < second[0] for first, second in pairwise(times)), times
    one, two, _ = told.values()
    assert at_once(one, two), "never two nodes at the same time"


def test_each_gpu_of_a_node_has_one_block_at_a_time_and_no_block_without_a_gpu_beside_it(nodes, tmp_path):
    nodes(2, seconds=0.3, gpus=2)
    timed = [
        *blocks(6, device="gpu"),
        *(msgspec.structs.replace(job, block=6 + job.block) for job in blocks(3)),
    ]
    how, found, _ = run(tmp_path / "run", timed)
    assert how == "complete"
    of_each_once(found, timed)
    told = intervals(tmp_path / "run", found)
    gpus = {where: times for where, times in told.items() if isinstance(where, tuple)}
    assert {gpu for _, gpu in gpus} == {"GPU=0", "GPU=1"}
    assert len({node for node, _ in gpus}) == 1, "only one node has GPUs"
    assert sum(map(len, gpus.values())) == 6
    for times in told.values():
        assert all(first[1] < second[0] for first, second in pairwise(times)), times
    one, two = gpus.values()
    assert at_once(one, two), "never two GPUs at the same time"
    ((node, _), _) = gpus
    assert not at_once(told.get(node, []), [*one, *two]), "its CPUs were measured beside its GPUs"


def test_a_node_that_others_use_is_waited_for(nodes, tmp_path):
    """One of its two CPUs is held by other work for a while."""
    nodes(1, seconds=0.05)
    import ray

    @ray.remote(num_cpus=1)
    class Other:
        def there(self):
            return True

    other = Other.remote()
    assert ray.get(other.there.remote())

    def meanwhile():
        time.sleep(4)
        assert seen(tmp_path / "run") == ((), ())
        ray.kill(other)

    how, found, _ = run(tmp_path / "run", blocks(1), meanwhile=meanwhile)
    assert how == "complete"
    of_each_once(found, blocks(1))


def test_a_block_that_is_lost_with_its_node_is_measured_again_elsewhere_and_counted_once(nodes, tmp_path):
    made = nodes(2, seconds=0.3)
    folder, timed = tmp_path / "run", blocks(4, lengths=(8, 16, 32))
    lost = []

    def kill():
        """The node of the first block of which a part has arrived."""
        first = until(lambda: seen(folder)[1])[0]
        lost.extend(one.node for one in seen(folder)[0] if one.block == first.block)
        lose(made, lost[0])

    how, found, counted = run(folder, timed, meanwhile=kill)
    assert how == "complete"
    of_each_once(found, timed)
    assert sum(count for _, count in counted.told) == 4 * 9
    every = lines(folder)
    (mark,) = [line for line in every if isinstance(line, Lost)]
    assert mark.reason == f"lost with {lost[0]}"
    written = Counter((line.case, line.block) for line in every if hasattr(line, "case"))
    twice = {block for (_, block), count in written.items() if count == 2}
    assert twice == {mark.block}, "what had arrived of the lost block stays in the file"
    (told,) = [one for one in found.environments if one.block == mark.block]
    assert told.warnings[-1] == f"measured again here: lost with {lost[0]}"
    assert told.node != lost[0]


def test_after_two_more_tries_a_lost_block_has_the_reason(nodes, tmp_path):
    made = nodes(3, seconds=5.0)
    folder, timed = tmp_path / "run", blocks(1)

    def kill():
        for count in (1, 2, 3):
            name = until(
                lambda count=count: (
                    (folder / store.RESULTS).exists()
                    and [line.node for line in lines(folder) if isinstance(line, Environment)][count - 1 :]
                )
            )
            lose(made, name[0])

    how, found, counted = run(folder, timed, meanwhile=kill)
    assert how == "complete"
    assert [(m.state, m.case) for m in found.measurements] == [
        ("crashed", case) for case in planning.planned(timed)
    ]
    (reason,) = {m.reason for m in found.measurements}
    assert reason.startswith("block 0: its process was lost with ")
    assert reason.count("lost with ") == 3
    assert sum(count for _, count in counted.told) == 3


@pytest.mark.parametrize("together", [False, True])
def test_a_bad_case_costs_one_case_on_a_node_too(nodes, tmp_path, together):
    nodes(1, seconds=0.01)
    timed = [
        msgspec.structs.replace(job, together=together) for job in blocks(2, ["dies", "functional_submodel"])
    ]
    how, found, _ = run(tmp_path / "run", timed)
    assert how == "complete"
    states = {(m.case.strategy, m.block): m.state for m in found.measurements}
    assert [states["dies", block] for block in (0, 1)] == ["crashed"] * 2
    assert states["functional_submodel", 1] == "ok"
    assert (tmp_path / "run" / "logs" / "block-0-again-1.log").exists()


def test_what_runs_out_of_memory_is_tried_where_there_is_more(nodes, tmp_path, monkeypatch):
    """Nodes of one machine have the same memory: here the second that answers is taken to have twice as
    much, and the block is begun on the first."""
    nodes(2, seconds=0.01)
    decode, may, answered = msgspec.json.decode, Cluster._may, []

    def decoded(*given, **kinds):
        found = decode(*given, **kinds)
        if kinds.get("type") is Environment:
            answered.append(found)
            return msgspec.structs.replace(found, memory_bytes=found.memory_bytes * len(answered))
        return found

    def on_the_first(self, unit, seat):
        known = [place.memory_bytes or 0 for place in self._places.values() if place.seats["cpu"]]
        begins = all(known) and seat.place.memory_bytes == min(known)
        return bool(unit.tried or begins) and may(self, unit, seat)

    monkeypatch.setattr(msgspec.json, "decode", decoded)
    monkeypatch.setattr(Cluster, "_may", on_the_first)
    how, found, _ = run(tmp_path / "run", blocks(1, ["fills"]))
    assert how == "complete"
    told = [line for line in lines(tmp_path / "run") if isinstance(line, Environment)]
    first, second = dict.fromkeys(one.node for one in told)
    (mark,) = [line for line in lines(tmp_path / "run") if isinstance(line, Lost)]
    assert mark.reason == f"out of memory on {first}"
    assert {one.node for one in found.environments} == {second}
    assert {m.case.strategy: m.state for m in found.measurements}["fills"] == "out_of_memory"


def test_a_node_with_other_versions_is_not_used_and_told(nodes, tmp_path, monkeypatch):
    nodes(1, seconds=0.01)
    capture = clusters.environment.capture

    def newer(*given, **named):
        found = capture(*given, **named)
        return msgspec.structs.replace(found, versions={**found.versions, "keras": "99.0"})

    monkeypatch.setattr(clusters.environment, "capture", newer)
    monkeypatch.setattr(clusters, "WAIT_SECONDS", 2.0)
    warned = []
    with pytest.raises(UserError, match="run: no node of the cluster can measure what is left: go on with"):
        run(tmp_path / "run", blocks(1), warned=warned)
    (line,) = warned
    assert line.startswith("node ")
    assert "is not used: it has other versions than this machine: keras was 99.0 and is " in line


def test_a_node_without_hiddencost_is_not_used_and_told(nodes, tmp_path, monkeypatch):
    class Elsewhere:
        """An actor that fails as one does whose package is not there."""

        def environment(self):
            raise ModuleNotFoundError("No module named 'hiddencost'")

        clear = environment

    nodes(1, seconds=0.01)
    monkeypatch.setattr(clusters, "Node", Elsewhere)
    monkeypatch.setattr(clusters, "WAIT_SECONDS", 2.0)
    warned = []
    with pytest.raises(UserError, match="no node of the cluster can measure what is left"):
        run(tmp_path / "run", blocks(1), warned=warned)
    (line,) = warned
    assert "is not used: hiddencost does not run there: ModuleNotFoundError: No module named" in line


def test_with_a_time_budget_the_first_block_decides_for_the_others(nodes, tmp_path):
    nodes(2, seconds=0.2)
    folder, timed = tmp_path / "run", blocks(3, budget=30.0)
    _, found, _ = run(folder, timed)
    first, *others = sorted(times for times in intervals(folder, found).values() for times in times)
    assert all(first[1] < other[0] for other in others)


def test_a_run_that_lost_all_nodes_goes_on_with_whole_blocks(nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "WAIT_SECONDS", 2.0)
    made = nodes(1, seconds=0.5)
    folder, timed = tmp_path / "run", blocks(2, lengths=(8, 16))

    def kill():
        """When the first block is done and the first half of the second."""
        until(lambda: len(seen(folder)[1]) >= 9)
        lose(made, seen(folder)[0][0].node)

    with pytest.raises(UserError, match="no node of the cluster can measure what is left"):
        run(folder, timed, meanwhile=kill)
    found = store.read(folder)
    assert [m.block for m in found.measurements] == [0] * 6
    with_half = store.Writer(folder, None)
    with_half.write(found.environments[0])
    with_half.write(msgspec.structs.replace(found.measurements[0], block=1))
    half = store.read(folder)
    left = anew(with_half, timed, remaining(timed, half), half)
    lost = [line.block for line in lines(folder) if isinstance(line, Lost)]
    where = msgspec.structs.replace(found.environments[0], block=1)
    begun = msgspec.structs.replace(found, environments=(*found.environments, where))
    assert anew(with_half, timed, remaining(timed, begun), begun) == left  # it has only told where it runs
    assert [line.block for line in lines(folder) if isinstance(line, Lost)] == [*lost, 1]
    with_half.close()
    assert [(job.block, len(job.tasks)) for job in left] == [(1, 6)]
    made.add_node(num_cpus=2)
    made.wait_for_nodes()
    how, found, _ = run(folder, left, header=None)
    assert how == "complete"
    of_each_once(found, timed)


def test_ctrl_c_keeps_what_was_measured_and_leaves_nothing_behind(nodes, tmp_path, monkeypatch):
    temporary_in(tmp_path, monkeypatch)
    made = nodes(3, seconds=None)
    (tmp_path / "plan.toml").write_text(PLAN)
    folder = tmp_path / "run"
    command = [sys.executable, "-c", START.format(tests=str(Path(__file__).parent)), "run"]
    options = ["--executor", "ray", "--address", made.address]
    process = subprocess.Popen(
        [*command, "--grid", "plan.toml", "--out", "run", *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: seen(folder)[1])
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, output
    assert "Go on:                                   hiddencost run --resume run --executor ray" in output
    found = store.read(folder)
    assert found.ending.how == "interrupted"
    assert {m.state for m in found.measurements} == {"ok"}
    assert list(tmp_path.glob("hiddencost-*")) == [], "left behind"
    until(
        lambda: not [p for p in psutil.process_iter(["cmdline"]) if "fake_worker" in str(p.info["cmdline"])]
    )
    resumed = subprocess.run(
        [*command, "--resume", "run", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    found = store.read(folder)
    assert found.ending.how == "complete"
    planned = grid.planned_in(found.header, "run")
    of_each_once(found, planning.timed_jobs(planned), planning.memory_jobs(planned))


START = """
import sys
sys.path.insert(0, {tests!r})
import fake_cluster, ray
init = ray.init
fake = fake_cluster.fake(0.2)
ray.init = lambda *given, **named: init(*given, runtime_env=fake, **named)
from hiddencost.cli import main
main()
"""


@pytest.mark.alone  # another process's cluster would be found, and whoever finds it ends with it
def test_no_cluster_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "2")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"^--address auto: no Ray cluster can be used from here: "):
        connect()
    assert os.environ.get("RAY_ADDRESS") is None
