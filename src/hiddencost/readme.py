"""README.md, made from its template and the committed reference runs, and the table of recommended ways, made
from one of them: `python -m hiddencost.readme`."""

from __future__ import annotations

from itertools import dropwhile, takewhile
from pathlib import Path

import msgspec

from hiddencost import recommended, store
from hiddencost.claims import table_of
from hiddencost.claims.copying import TO_NUMPY, TO_PINNED, copied
from hiddencost.claims.evidence import at
from hiddencost.claims.recommending import recommendations
from hiddencost.foretold import shipped
from hiddencost.formatting import NONE, listed, percent, quantity
from hiddencost.page import opening, questions
from hiddencost.page.circumstances import NOT_MODELS, timing_blocks
from hiddencost.page.foretold import section
from hiddencost.page.grids import Grid
from hiddencost.page.templates import markdown_template
from hiddencost.page.together import best_ways
from hiddencost.recommended import Recommendation
from hiddencost.records import OVER_BUDGET, REFERENCE, Case, Run
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
    table = table_of(run)
    met = shipped().of_peaks("jit", on_gpu=True)
    return markdown_template("readme.md.j2").render(
        facts=dict(opening(run)),
        questions=questions(table),
        timed=models_with(table, "seconds"),
        held=models_with(table, "peak_heap_bytes"),
        planned=len(run.header.planned),
        left_out=len({m.case for m in table.not_ok if OVER_BUDGET in m.notes}),
        blocks=len(timing_blocks(run)),
        minutes=round(seconds / 60),
        gpu=listed(gpu.gpus),
        brought=brought_to_host(table_of(gpu)),
        beside=best_ways(table_of(peers), PEERS_READ),
        ways=recommended_ways(ways),
        calibration=only(
            first_table(CALIBRATION),
            (
                "the side after",
                "gate",
                "seconds of a decision",
                "pytest-benchmark, median:5%",
                "seconds of its two runs",
            ),
        ),
        alarms=paragraph(CALIBRATION, "Identical code in all"),
        foretold=section(shipped()).grids[0],
        met=met and (met.of, met.cases, percent(met.median_size), percent(met.largest)),
        cluster=first_table(EXPERIMENTS / "cluster.md"),
        without_room=made_without_room(),
    )


def models_with(table: Table, metric: str) -> str:
    """The models whose calls have this metric."""
    return listed(sorted({case.model for case in table.cases(metric) if case.model not in NOT_MODELS}))


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


def paragraph(report: Path, start: str) -> str:
    """The first paragraph of a report that begins so."""
    lines = report.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(start))


def only(table: Grid, names: tuple[str, ...]) -> Grid:
    """The columns of a table that are named so."""
    kept = [table.header.index(name) for name in names]
    return Grid(names, tuple(tuple(row[place] for place in kept) for row in table.rows))


def is_row(line: str) -> bool:
    """Whether a line of Markdown is one of a table."""
    return line.startswith("|")


def brought_to_host(table: Table) -> Grid:
    """What a plain pass, the call that returns all hidden states, and bringing these to the host take on a
    device, a row for each backend and mode: of the most bytes that all backends returned."""
    found: dict[tuple[float, str], dict[str, list[Case]]] = {}
    for one in copied(table):
        size = table.center(one.case, "output_bytes")
        if one.case.points == "all" and size:
            place = f"{at(one.case)} in {one.case.dtype}"
            found.setdefault((size[0], place), {}).setdefault(one.case.backend, []).append(one.case)
    most = max(found, key=lambda place: (len(found[place]), place), default=(0.0, ""))

    def seconds(case: Case, metric: str) -> str:
        center = table.center(case, metric)
        return quantity(*center, unit="s") if center else NONE

    rows = tuple(
        (
            f"{case.backend}, {case.mode}",
            *(seconds(which, "seconds") for which in (case.group, case)),
            *(seconds(case, metric) for metric in (TO_NUMPY, TO_PINNED)),
        )
        for cases in found.get(most, {}).values()
        for case in cases
    )
    header = ("backend", "plain pass", "the call", "then to NumPy", "or to page-locked memory")
    return Grid(header, rows, f"{most[1]}, {quantity(most[0], unit='B')}")


def recommended_ways(ways: tuple[Recommendation, ...]) -> Grid:
    """A row for each backend and mode: the way to take, and for each kind of points its time over a plain
    forward pass and its peak heap, beside those of the other way."""
    kinds = list(dict.fromkeys(read.points for way in ways for read in way.reads))
    header = ["backend", "mode", "way"]
    for kind in kinds:
        header += [f"{kind}: time / plain pass (the other way's)", f"{kind}: peak heap (the other way's)"]
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
            taken = quantity(read.ratio, read.low, read.high)
            row += [f"{taken} ({quantity(read.other_ratio)})", f"{mine} ({theirs})"]
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
