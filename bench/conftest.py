"""The suites' plugin: options, parametrization and fixtures live in `hiddencost.suites`."""

from hiddencost.suites import (  # noqa: F401
    measured,
    peak,
    pytest_addoption,
    pytest_benchmark_generate_machine_info,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_generate_tests,
    pytest_runtest_call,
    times,
)
