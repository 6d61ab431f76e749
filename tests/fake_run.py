"""`hiddencost` with the fake worker in place of the measuring one: python fake_run.py SECONDS ARGUMENTS...

What makes timings unreliable on the machine is what the variable FAKE has as `warning`, if anything.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from hiddencost import backends, environment, nursery, supervise

WORKER = Path(__file__).parent / "fake_worker.py"


def start_with(seconds):
    """A stand-in for `Supervisor._start`."""

    def start(self, jobs, name, pipes, log_file):
        logs = self.writer.folder / "logs"
        (logs / f"{name}.jobs.json").write_bytes(msgspec.json.encode(jobs))
        report, lifeline = pipes["--report-fd"], pipes["--lifeline-fd"]
        arguments = [logs / f"{name}.jobs.json", report, lifeline, logs / f"{name}.doing", seconds]
        return subprocess.Popen(
            [sys.executable, str(WORKER), *map(str, arguments)],
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=[report, lifeline],
            start_new_session=True,
            env=self.nurseries[jobs[0].ground].environment if self.nurseries else None,
        )

    return start


class NoNursery:
    """In place of a process that imports the packages. environment: which the workers it forks would have."""

    def __init__(self, python, environment, log):
        self.environment = environment

    def await_ready(self):
        pass

    def close(self):
        pass


if __name__ == "__main__":
    supervise.Supervisor._start = start_with(float(sys.argv[1]))
    nursery.Nursery = NoNursery
    warning = json.loads(os.environ.get("FAKE", "{}")).get("warning")
    environment.warnings = lambda own_load, threads=1: filter(None, [warning])
    backends.check = lambda name: None  # none is needed
    from hiddencost.cli import main

    sys.argv = ["hiddencost", *sys.argv[2:]]
    main()
