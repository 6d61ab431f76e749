"""A Ray cluster of several nodes on this machine, whose workers may be the fake one."""

import os
from contextlib import contextmanager
from pathlib import Path

import fake_run

from hiddencost import supervise

TESTS = Path(__file__).parent
SETTINGS = {
    "RAY_worker_niceness": "0",  # else other work on the machine goes first
    "RAY_health_check_initial_delay_ms": "500",  # that a node is dead is seen in seconds
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "2",
}


def measure_nothing():
    """Done first in each process of a node: its blocks are measured by the fake worker."""
    supervise.Supervisor._start = fake_run.start_with(float(os.environ["FAKE_SECONDS"]))


def fake(seconds):
    """A runtime environment of Ray in whose processes the fake worker measures, a task in `seconds`."""
    return {
        "env_vars": {"PYTHONPATH": str(TESTS), "FAKE_SECONDS": str(seconds)},
        "worker_process_setup_hook": "fake_cluster.measure_nothing",
    }


@contextmanager
def cluster(nodes, seconds=None, gpus=0):
    """The cluster (Ray's own utility), to which this process is connected; each node has two CPUs, the head
    none. seconds: that a task takes the fake worker; without, nodes measure. gpus: that the last node has, as
    Ray counts them: nothing is there to compute on."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ |= SETTINGS
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for number in range(nodes):
        made.add_node(num_cpus=2, num_gpus=gpus * (number == nodes - 1))
    ray.init(made.address, log_to_driver=False, runtime_env=None if seconds is None else fake(seconds))
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
