"""Did something get slower or larger? Two runs, or a run and a stored baseline -> changes -> exit code.

Pure functions of records: nothing is measured here, and no framework is imported.
"""

from hiddencost.gate.baseline import Baseline, against_baseline, keep, read, refuse_incomplete, write
from hiddencost.gate.judging import CONFIRMED, SURE, SUSPECT
from hiddencost.gate.outcome import Outcome, confirmed, suspects
from hiddencost.gate.sides import between_sides
from hiddencost.gate.told import as_json, as_lines, as_markdown

__all__ = [
    "CONFIRMED",
    "SURE",
    "SUSPECT",
    "Baseline",
    "Outcome",
    "against_baseline",
    "as_json",
    "as_lines",
    "as_markdown",
    "between_sides",
    "confirmed",
    "keep",
    "read",
    "refuse_incomplete",
    "suspects",
    "write",
]
