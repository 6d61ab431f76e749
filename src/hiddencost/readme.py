"""README.md, made from its template and the committed reference runs, and the table of recommended ways, made
from one of them: `python -m hiddencost.readme`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path

import msgspec

from hiddencost import recommended, store
from hiddencost.claims import table_of
from hiddencost.claims.copying import Copied, copied
from hiddencost.claims.evidence import Triple
from hiddencost.claims.recommending import recommendations
from hiddencost.foretold import shipped
from hiddencost.formatting import NONE, listed, quantity
from hiddencost.page import opening, questions
from hiddencost.page.circumstances import timing_blocks
from hiddencost.page.foretold import section
from hiddencost.page.grids import Grid
from hiddencost.page.templates import markdown_template
from hiddencost.page.together import best_ways
from hiddencost.recommended import Recommendation
from hiddencost.records import REFERENCE, Run
from hiddencost.stats import Table

ROOT = Path(__file__).parents[2]
REFERENCE_RUN = ROOT / "reports" / "reference"
REFERENCE_PEERS = ROOT / "reports" / "reference-peers"
REFERENCE_GPU = ROOT / "reports" / "reference-gpu"
REFERENCE_WAYS = ROOT / "reports" / "reference-ways"
EXPERIMENTS = ROOT / "reports" / "experiments"
CALIBRATION = ROOT / "reports" / "calibration" / "report.md"
SHIPPED = Path(__file__).parent / recommended.SHIPPED
ROOM_SINCE = "2026-11-27T08:10"
"""Runs that began earlier timed their calls without room on Python's stack (see `hiddencost.room`)."""
PEERS_READ = "middle"
"""The points for which README shows the fastest way of each library."""


def readme(run: Run, peers: Run, gpu: Run, ways: tuple[Recommendation, ...]) -> str:
    """The README with the figures of a run, of one with other libraries beside, the name of the GPU that one
    was made on, with recommended ways, with what is foretold, what a cluster was seen to take and how often
    the gate was wrong."""
    seconds = run.ending.seconds if run.ending else 0.0
    return markdown_template("readme.md.j2").render(
        facts=dict(opening(run)),
        questions=questions(table_of(run)),
        blocks=len(timing_blocks(run)),
        minutes=round(seconds / 60),
        gpu=listed(gpu.gpus),
        brought=brought_to_host(table_of(gpu)),
        beside=best_ways(table_of(peers), PEERS_READ),
        ways=recommended_ways(ways),
        calibration=only(
            first_table(CALIBRATION),
            ("the side after", "gate", "seconds of a decision", "pytest-benchmark, median:5%"),
        ),
        foretold=section(shipped()).grids[0],
        cluster=first_table(EXPERIMENTS / "cluster.md"),
        without_room=made_without_room(),
    )


def made_without_room() -> list[str]:
    """The names of the committed runs that timed eager calls without room on Python's stack."""
    older = []
    for folder in sorted((ROOT / "reports").glob("reference*")):
        header = store.header(folder)
        eager = any("eager" in case.mode and case.strategy == REFERENCE for case in header.planned)
        if eager and header.started < ROOM_SINCE:
            older.append(folder.name)
    return older


def first_table(report: Path) -> Grid:
    """The first table of a report in Markdown."""
    lines = report.read_text(encoding="utf-8").splitlines()
    table = takewhile(is_row, dropwhile(lambda line: not is_row(line), lines))
    header, _, *rows = (tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table)
    return Grid(header, tuple(rows))


def only(table: Grid, names: tuple[str, ...]) -> Grid:
    """The columns of a table that are named so."""
    kept = [table.header.index(name) for name in names]
    return Grid(names, tuple(tuple(row[place] for place in kept) for row in table.rows))


def is_row(line: str) -> bool:
    """Whether a line of Markdown is one of a table."""
    return line.startswith("|")


def brought_to_host(table: Table) -> str:
    """What all hidden states take on a device, and then to the host, by backend, in plain forward passes."""
    by_backend: dict[str, list[Copied]] = {}
    for one in copied(table):
        if one.case.points == "all":
            by_backend.setdefault(one.case.backend, []).append(one)

    def between(triples: Iterable[Triple | None], where: str) -> str:
        values = [triple[0] for triple in triples if triple]
        ends = (min(values), max(values)) if values else ()
        return " to ".join(dict.fromkeys(map(quantity, ends))) + f" {where}" * bool(values)

    def told(found: Sequence[Copied]) -> str:
        parts = (
            between((one.call for one in found), "for the call"),
            between((one.to_numpy for one in found), "to NumPy"),
            between((one.to_pinned for one in found), "to page-locked memory"),
        )
        return ", ".join(filter(None, parts))

    return "; ".join(f"{backend}: {told(found)}" for backend, found in by_backend.items())


def recommended_ways(ways: tuple[Recommendation, ...]) -> Grid:
    """A row for each backend and mode: the way to take, and for each kind of points its time over a plain
    forward pass, and its peak heap beside that of the other way."""
    kinds = list(dict.fromkeys(read.points for way in ways for read in way.reads))
    header = ["backend", "mode", "way"]
    for kind in kinds:
        header += [f"{kind}: time / plain pass", f"{kind}: peak heap (the other way's)"]
    rows = []
    for way in ways:
        reads = {read.points: read for read in way.reads}
        row = [way.backend, way.mode, way.strategy]
        for kind in kinds:
            if kind not in reads:
                row += [NONE, NONE]
                continue
            read = reads[kind]
            mine, theirs = (quantity(b, unit="B") for b in (read.peak_heap_bytes, read.other_peak_heap_bytes))
            row += [quantity(read.ratio, read.low, read.high), f"{mine} ({theirs})"]
        rows.append(tuple(row))
    times, heaps = (
        listed(dict.fromkeys(getattr(read, what) for way in ways for read in way.reads))
        for what in ("timed", "held")
    )
    return Grid(tuple(header), tuple(rows), f"time at {times}, heap at {heaps}")


def main() -> None:
    """Writes README.md and the table of recommended ways."""
    ways = recommendations(table_of(store.read(REFERENCE_WAYS)))
    SHIPPED.write_bytes(msgspec.json.format(msgspec.json.encode(ways)) + b"\n")
    run, peers, gpu = map(store.read, (REFERENCE_RUN, REFERENCE_PEERS, REFERENCE_GPU))
    (ROOT / "README.md").write_text(readme(run, peers, gpu, ways), encoding="utf-8")


if __name__ == "__main__":
    main()
