"""What a large run takes, by the experiment that tells it, with fewer cases."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENT = Path(__file__).parents[1] / "bench" / "experiments" / "scale.py"


@pytest.mark.slow
def test_a_run_is_killed_resumed_and_reported_and_nothing_of_it_is_lost(tmp_path):
    done = subprocess.run(
        [sys.executable, EXPERIMENT, tmp_path, "--cases", "300", "3000"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "scale.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and " MB | " in line]
    peaks = [int(re.findall(r"([\d,]+) MB", row)[0].replace(",", "")) for row in rows]
    assert len(peaks) == 6
    assert max(peaks) < 500, rows
    assert peaks[5] - peaks[2] < 40, rows  # reported: for 2,700 cases more, whose columns take 9 MB
    assert re.search(r"Of 3,150 cases, .* all 15,750 measurements are there", text), text
