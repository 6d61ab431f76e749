"""A worker that measures nothing and is done in milliseconds, for tests of the supervisor and of the line.

    python fake_worker.py JOBS REPORT_FD LIFELINE_FD DOING SECONDS

Every task yields its metric after SECONDS, by a clock on which a call takes 1 s: on a side `after`, and in a
run that is no side, as many times longer as the variable FAKE says of its strategy (JSON; `STRATEGY again`
for what is measured again), or ends as it says; the bytes likewise, of 1 MiB. A case whose strategy is
`dies`, `hangs`, `eats` (as if killed for want of memory), `fails` (exits with code 3) or `fills` (reports
that a device's memory is full, and asks for a new worker) ends as its name says; `stumbles` dies once, when
part of its group is reported, and `falls` when it is itself. It prints the time when it begins and when it
ends, then the GPU that it is given, if any, and the backend, where it is named.
"""

import json
import math
import os
import signal
import sys
import time
from itertools import groupby
from pathlib import Path

import msgspec

from hiddencost import environment, store
from hiddencost.doing import START_ANEW, Doing, end_with
from hiddencost.grid.planning import METRIC_OF_SUITE, ROTATED, Job
from hiddencost.records import Measurement


def main(jobs_file, report, lifeline, doing_file, seconds):
    end_with(int(lifeline))
    doing = Doing(Path(doing_file), new=False)
    print(time.time(), flush=True)
    folder = Path(doing_file).parent.parent
    side, again = {"before": 0, "after": 1}.get(folder.name), "again" in folder.parts
    for job in msgspec.json.decode(Path(jobs_file).read_bytes(), type=list[Job]):
        where = environment.capture(job.block, {}, own_load=1e9)
        if job.tasks[0].suite == "memory":  # whose processes have settings of their own
            where = msgspec.structs.replace(where, settings={**where.settings, "PYTHONMALLOC": "malloc"})
        os.write(int(report), store.encode(where))
        for _, tasks in groupby(job.tasks, key=lambda t: t.case.group if t.suite in ROTATED else t.case):
            for task in (group := list(tasks)):
                doing.tell(task.case)
                time.sleep(float(seconds))
                ending(task.case.strategy)
                if side != 0:
                    ending(factor(task.case, again))
                if task.case.strategy == "fills":
                    full = Measurement(
                        case=task.case,
                        metric=METRIC_OF_SUITE[task.suite],
                        state="out_of_memory",
                        reason="RESOURCE_EXHAUSTED",
                        block=job.block,
                    )
                    os.write(int(report), store.encode(full))
                    os._exit(START_ANEW)
            for place, task in enumerate(group):
                unit = 2**20 if task.suite == "memory" else 1.0
                worse = 1.0 if side == 0 else factor(task.case, again)
                record = Measurement(
                    case=task.case,
                    metric=METRIC_OF_SUITE[task.suite],
                    values=(unit * worse,) * 2,
                    places=places(place, len(group), side, job.block % 2 == side),
                    effect=math.log(worse) if side is None and task.suite in ROTATED else None,
                    block=job.block,
                )
                stumbled = Path(doing_file).parent / "stumbled"
                if task.case.strategy == "stumbles" and not stumbled.exists():
                    stumbled.touch()
                    os.kill(os.getpid(), signal.SIGSEGV)
                os.write(int(report), store.encode(record))
                if task.case.strategy == "falls" and not stumbled.exists():
                    stumbled.touch()
                    os.kill(os.getpid(), signal.SIGSEGV)
    print(time.time(), flush=True)
    if given := os.environ.get("CUDA_VISIBLE_DEVICES"):
        print(f"GPU={given}", flush=True)
    if backend := os.environ.get("KERAS_BACKEND"):
        print(f"{backend=}", flush=True)


def factor(case, again):
    """By how much the case is worse than 1."""
    told = json.loads(os.environ.get("FAKE", "{}"))
    return told.get(f"{case.strategy} again", 1.0) if again else told.get(case.strategy, 1.0)


def places(place, count, side, leads):
    """Of two calls: in two rounds, or by turns with the other side, whoever leads first and last."""
    if side is None:
        return place, place + count
    return (4 * place, 4 * place + 3) if leads else (4 * place + 1, 4 * place + 2)


def ending(how):
    if how == "hangs":
        time.sleep(60)
    if how == "fails":
        os._exit(3)
    if how in ("dies", "eats"):
        os.kill(os.getpid(), signal.SIGKILL if how == "eats" else signal.SIGSEGV)


if __name__ == "__main__":
    main(*sys.argv[1:])
