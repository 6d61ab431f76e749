"""A worker that measures nothing and is done in milliseconds, for tests of the supervisor.

    python fake_worker.py JOBS REPORT_FD LIFELINE_FD DOING SECONDS

Every task yields its metric after SECONDS; a case whose strategy is `dies`, `hangs`, `eats` (as if killed
for want of memory) or `fails` (exits with code 3) ends as its name says; `stumbles` dies once, when part
of its group is reported.
"""

import os
import signal
import sys
import time
from itertools import groupby
from pathlib import Path

import msgspec

from hiddencost import environment, store
from hiddencost.doing import Doing, end_with
from hiddencost.grid import METRIC_OF_SUITE, ROTATED, Job
from hiddencost.records import Measurement


def main(jobs_file, report, lifeline, doing_file, seconds):
    end_with(int(lifeline))
    doing = Doing(Path(doing_file), new=False)
    for job in msgspec.json.decode(Path(jobs_file).read_bytes(), type=list[Job]):
        os.write(int(report), store.encode(environment.capture(job.block, {}, own_load=1e9)))
        for _, tasks in groupby(job.tasks, key=lambda t: t.case.group if t.suite in ROTATED else t.case):
            for task in (group := list(tasks)):
                doing.tell(task.case)
                time.sleep(float(seconds))
                ending(task.case.strategy)
            for place, task in enumerate(group):
                record = Measurement(
                    case=task.case,
                    metric=METRIC_OF_SUITE[task.suite],
                    values=(1.0, 1.0),
                    places=(place, place + len(group)),
                    block=job.block,
                )
                stumbled = Path(doing_file).parent / "stumbled"
                if task.case.strategy == "stumbles" and not stumbled.exists():
                    stumbled.touch()
                    os.kill(os.getpid(), signal.SIGSEGV)
                os.write(int(report), store.encode(record))


def ending(strategy):
    if strategy == "hangs":
        time.sleep(60)
    if strategy == "fails":
        os._exit(3)
    if strategy in ("dies", "eats"):
        os.kill(os.getpid(), signal.SIGKILL if strategy == "eats" else signal.SIGSEGV)


if __name__ == "__main__":
    main(*sys.argv[1:])
