"""README.md, made from its template and the committed reference runs: `python -m hiddencost.readme`."""

from __future__ import annotations

from pathlib import Path

from hiddencost import store
from hiddencost.claims import sound
from hiddencost.page import opening, questions, template
from hiddencost.page.together import best_ways
from hiddencost.records import Run
from hiddencost.stats import Table

ROOT = Path(__file__).parents[2]
REFERENCE_RUN = ROOT / "reports" / "reference"
REFERENCE_PEERS = ROOT / "reports" / "reference-peers"
PEERS_READ = "middle"
"""The points for which README shows the fastest way of each library."""


def readme(run: Run, peers: Run) -> str:
    """The README with the figures of a run, and of one with other libraries beside."""
    timing = {m.block for m in run.measurements if m.metric == "seconds"}
    seconds = run.ending.seconds if run.ending else 0.0
    return template("readme.md.j2").render(
        facts=dict(opening(run)),
        questions=questions(run),
        blocks=len(timing),
        minutes=round(seconds / 60),
        beside=best_ways(Table(sound(peers)), PEERS_READ),
    )


def main() -> None:
    """Writes README.md."""
    (ROOT / "README.md").write_text(
        readme(store.read(REFERENCE_RUN), store.read(REFERENCE_PEERS)), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
