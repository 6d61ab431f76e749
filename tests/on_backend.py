"""The backend that the tests of this process use: TEST_BACKEND=jax pytest tests/test_strategies.py"""

import os

from hiddencost import grid

BACKEND = os.environ.get("TEST_BACKEND", "tensorflow")
MODES = tuple(mode for mode in grid.MODES[BACKEND] if mode not in ("eager_grad", "train"))
COMPILED = next(mode for mode in MODES if mode in grid.COMPILED_MODES)
