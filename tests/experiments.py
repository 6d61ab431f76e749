"""The experiments of bench/experiments as modules: they lie in no package."""

import importlib.util
from pathlib import Path


def experiment(name):
    """The module of an experiment."""
    path = Path(__file__).parents[1] / "bench" / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
