"""How near do N nodes of a cluster come to an Nth of the time, what does supervising cost, and is what a node
measures what the same machine measures alone?

    python bench/experiments/cluster.py FOLDER

The nodes are those of Ray's own utility, all on this machine. For the first two questions their blocks are
measured by the tests' fake worker, which sleeps for a known time; for the third a real grid is measured by
one node and without a cluster. Writes FOLDER/cluster.md.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

from hiddencost import environment, grid, keeping, stats, store
from hiddencost.cluster import Cluster, connect
from hiddencost.formatting import percent, piped, quantity
from hiddencost.grid import planning
from hiddencost.records import REFERENCE, TWIN, Case, Environment
from hiddencost.supervise import Supervisor, Untold

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import fake_cluster

NODES, BLOCKS, TASKS, TASK_SECONDS = (2, 4, 8), 32, 8, 3.0
GOAL, GOAL_CORE = 1.15, 0.01
NOISE = "noise"


def planned():
    """Blocks that take the fake worker TASKS * TASK_SECONDS each, besides its start."""
    ways = (REFERENCE, TWIN, *(f"way_{number}" for number in range(TASKS - 2)))
    tasks = tuple(
        planning.Task(suite="forward", case=Case(model="fake", strategy=way, batch=1, length=8), seconds=1.0)
        for way in ways
    )
    return [planning.Job(block=block, seed=1, time=grid.Time(), tasks=tasks) for block in range(BLOCKS)]


def header(timed):
    return keeping.header("cluster", "make bench-cluster", 1, planning.planned(timed))


def cpu_seconds():
    """CPU seconds so far: of this process; of what supervises on nodes; of Ray's own processes."""
    mine = psutil.Process()
    spent = {"driver": sum(mine.cpu_times()[:2]), "node": 0.0, "ray": 0.0}
    for child in psutil.process_iter(["cmdline", "name"]):
        try:
            line = " ".join(child.info["cmdline"] or [])
            used = sum(child.cpu_times()[:2])
        except psutil.Error:
            continue
        if line.startswith("ray::"):
            spent["node"] += used
        elif "/ray/" in line:
            spent["ray"] += used
    return spent


class Watched(Supervisor):
    """Notes the time and the CPU seconds at which every node had told that it measures."""

    nodes: frozenset = frozenset()
    ready = None

    def keep(self, record, left):
        super().keep(record, left)
        if isinstance(record, Environment) and record.node not in self.nodes:
            self.nodes |= {record.node}
            self.ready = time.perf_counter(), cpu_seconds()


def spread(folder, timed):
    """A run on the cluster that this process is connected to: the run, its seconds, and the CPU seconds by
    who used them, until all nodes measured, and then a second."""
    writer = store.Writer(folder, header(timed))
    supervisor = Watched(writer, Untold())
    cluster = Cluster(connect(), supervisor, print)
    before, began = cpu_seconds(), time.perf_counter()
    ended, release = [], cluster._release

    def last(seat):  # before a node's process, and what is known of it, is gone
        ended.append((time.perf_counter(), cpu_seconds()))
        release(seat)

    cluster._release = last
    how = cluster.run(timed, [])
    seconds = time.perf_counter() - began
    writer.close()
    assert how == "complete"
    (at_ready, ready), (at_end, end) = supervisor.ready, ended[0]
    once = {who: ready[who] - before[who] for who in before}
    each = {who: (end[who] - ready[who]) / (at_end - at_ready) for who in before}
    return store.read(folder), seconds, once, each


def scaling():
    """nodes -> (seconds, CPU seconds by who used them: once, and each second)."""
    found = {}
    timed = planned()
    for nodes in NODES:
        with tempfile.TemporaryDirectory() as folder, fake_cluster.cluster(nodes, TASK_SECONDS):
            run, seconds, once, each = spread(Path(folder) / "run", timed)
            assert len(run.measurements) == BLOCKS * TASKS
            assert len({one.node for one in run.environments}) == nodes
            found[nodes] = seconds, once, each
        print(f"{nodes} nodes: {seconds:.1f} s, CPU {once} and each second {each}", flush=True)
    return found


def alike():
    """(case, its ratio to the reference without a cluster, and on a node), of the grid `noise`."""
    plan, _ = grid.read(grid.grid_path(NOISE))
    timed = planning.timed_jobs(plan)
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        writer = store.Writer(Path(folder) / "alone", header(timed))
        Supervisor(writer, Untold()).run(timed, [])
        writer.close()
        tables.append(stats.Table(store.read(Path(folder) / "alone")))
        with fake_cluster.cluster(1):
            run, *_ = spread(Path(folder) / "cluster", timed)
        tables.append(stats.Table(run))
    twins = tables[0].cases("seconds", strategy=TWIN)
    rows = []
    for twin in twins:
        centers = [table.center(twin.group, "seconds") for table in tables]
        ratios = [table.compare(twin) for table in tables]
        rows.append((twin, centers, ratios))
    return rows


def written(scaled, compared):
    one = BLOCKS * TASKS * TASK_SECONDS
    rows = []
    for nodes, (seconds, once, each) in scaled.items():
        share = seconds / (one / nodes)
        begun = (once["driver"] + once["node"]) / nodes
        mine, theirs = (each["driver"] + each["node"]) / nodes, each["ray"] / nodes
        rows.append(
            (
                str(nodes),
                quantity(seconds, unit="s"),
                f"{share:.3f} / {nodes}",
                "yes" if share <= GOAL else "no",
                quantity(begun, unit="s"),
                percent(mine),
                "yes" if mine <= GOAL_CORE else "no",
                percent(theirs),
            )
        )
    columns = ("nodes", "time", "of what one node works", f"at most {GOAL} / N")
    columns += ("CPU to begin, a node", "then of a core a node", f"at most {percent(GOAL_CORE)}", "Ray's own")
    same = []
    for twin, centers, ratios in compared:
        same.append(
            (
                f"{twin.mode}, {twin.batch}x{twin.length}",
                *(quantity(*center, unit="s") for center in centers),
                *(quantity(one.ratio, one.low, one.high) for one in ratios),
            )
        )
    compared_columns = ("minilm", "plain pass, alone", "on a node", "its twin / it, alone", "on a node")
    where = f"{environment.processor()}, {environment.cores()} cores"
    return "\n".join(
        [
            "# A grid on a cluster",
            "",
            f"Measured by `make bench-cluster` on {where}. All nodes are on this one machine (Ray's own "
            f"cluster utility). {BLOCKS} blocks of {TASKS} tasks that sleep for {TASK_SECONDS:g} s each are "
            f"{one:g} s of work; the time has in it that each block's process starts, and each node's.",
            "",
            *piped(columns, rows),
            "",
            "CPU is that of the process that stores and of the one on each node that starts and watches the "
            "workers; Ray's own is that of its servers, of which a real cluster has a set on each machine.",
            "",
            f"The grid `{NOISE}` without a cluster, then on a node of one; in brackets 95 % intervals:",
            "",
            *piped(compared_columns, same),
            "",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    scaled = scaling()
    text = written(scaled, alike())
    (folder / "cluster.md").write_text(text, encoding="utf-8")
    print(text)
