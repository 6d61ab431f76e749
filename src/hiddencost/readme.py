"""README.md, made from its template and the committed reference run: `python -m hiddencost.readme`."""

from __future__ import annotations

from pathlib import Path

from hiddencost import store
from hiddencost.page import opening, questions, template
from hiddencost.records import Run

ROOT = Path(__file__).parents[2]
REFERENCE_RUN = ROOT / "reports" / "reference"


def readme(run: Run) -> str:
    """The README with the figures of a run."""
    timing = {m.block for m in run.measurements if m.metric == "seconds"}
    seconds = run.ending.seconds if run.ending else 0.0
    return template("readme.md.j2").render(
        facts=dict(opening(run)),
        questions=questions(run),
        blocks=len(timing),
        minutes=round(seconds / 60),
    )


def main() -> None:
    """Writes README.md."""
    (ROOT / "README.md").write_text(readme(store.read(REFERENCE_RUN)), encoding="utf-8")


if __name__ == "__main__":
    main()
