"""MiniLM's hidden states by every mode of a backend: TEST_BACKEND=jax python minilm_values.py FILE"""

import sys

import numpy as np
from on_backend import BACKEND

from hiddencost import backends, grid, measure
from hiddencost.records import Case

backends.start(BACKEND, threads=1)
process = measure.Process(0, 1, grid.Time())
found = {}
for mode in grid.MODES[BACKEND]:
    if mode not in ("predict", "train"):
        case = Case(
            model="minilm",
            strategy="functional_submodel",
            points="all",
            backend=BACKEND,
            mode=mode,
            batch=4,
            length=32,
        )
        extraction, run, _ = process.compiled(case)
        states = extraction.states(run(backends.place(process.inputs(case), mode, case.batch)))
        found |= {f"{mode}-{number}": backends.to_numpy(state) for number, state in enumerate(states)}
np.savez(sys.argv[1], **found)
