"""How fast does a page of as many measurements as it holds open and filter, in a real browser?

    python bench/experiments/page.py FOLDER

A run of MOST measurements is written as a page and opened from disk in Debian's chromium, each time anew.
FOLDER gets page.md.
"""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import msgspec
from playwright.sync_api import sync_playwright

from hiddencost import environment, plots
from hiddencost.formatting import quantity
from hiddencost.page.html import write_page
from hiddencost.page.rows import MOST
from hiddencost.records import Measurement, Run
from hiddencost.store import read

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
TIMES = 15
OPEN_GOAL, FILTER_GOAL = 2.0, 0.1
"""Seconds."""
FILTERED = """
(value) => new Promise((done) => {
  const field = document.querySelector('#filters [name="mode"]');
  const begun = performance.now();
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done((performance.now() - begun) / 1000), 0));
})
"""
"""From the choice to the frame that shows its rows, in seconds."""


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as room, sync_playwright() as playwright:
        run = padded(read(REFERENCE))
        page = write_page(run, Path(room), plots.render(run, Path(room) / "plots"))
        size = page.stat().st_size
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened, filtered = [], []
        for _ in range(TIMES):
            tab = browser.new_page()
            tab.goto(page.as_uri())
            held = tab.evaluate("data.count")
            assert held == MOST, held
            opened.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
            filtered += [tab.evaluate(FILTERED, mode) for mode in ("graph", "eager", "")]
            tab.close()
        version = browser.version
        browser.close()
    rows = (("opened, with its table", opened, OPEN_GOAL), ("filtered", filtered, FILTER_GOAL))
    text = [
        "# How fast is the page?",
        "",
        f"`python bench/experiments/page.py reports/experiments`: a page of {MOST:,} measurements, "
        f"{quantity(size, unit='B')}, from disk, in Chromium {version} without a screen; "
        f"{environment.processor()}, {environment.cores()} cores.",
        "",
        "| | median | slowest | times | goal |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {what} | {quantity(statistics.median(taken), unit='s')} | {quantity(max(taken), unit='s')} | "
            f"{len(taken)} | {quantity(goal, unit='s')} |"
            for what, taken, goal in rows
        ),
        "",
    ]
    (folder / "page.md").write_text("\n".join(text), encoding="utf-8")


def padded(run: Run) -> Run:
    """The run with as many measurements more as it takes to fill a page: of models of other names."""
    first = run.measurements[0].case
    known = len({(m.case, m.metric) for m in run.measurements})
    more = [
        Measurement(case=first.with_(model=f"model_{number}"), metric="traces", values=(1.0,))
        for number in range(MOST - known)
    ]
    return msgspec.structs.replace(run, measurements=(*run.measurements, *more))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
