"""Numbers, units and lists of words for people to read. Pure functions of numbers and strings."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TypeVar

UNITS: dict[str, tuple[tuple[str, float], ...]] = {
    "s": (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)),
    "B": (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("B", 1.0)),
    "%": (("%", 0.01),),
    "points": (("percentage points", 0.01),),
    "count": (("", 1.0),),
    "": (("", 1.0),),
}
"""Unit of a figure -> the units it may be shown in, largest first, each with its size."""

NONE = "–"
Item = TypeVar("Item")

EQUAL = 1e-9
"""An interval with a relative half-width up to this is rounding: its values were equal."""


def quantity(value: float, low: float | None = None, high: float | None = None, unit: str = "") -> str:
    """`1.05 [1.03, 1.07]`, `12.3 ms [12.1, 12.5]`, `84.5 MiB`: the unit fits the value, the digits fit
    the half-width of the interval (the value alone when there is no interval)."""
    name, size = next((u for u in UNITS[unit] if abs(value) >= u[1]), UNITS[unit][-1])
    half = (high - low) / 2 / size if low is not None and high is not None else 0.0
    half = half if half > EQUAL * abs(value) / size else 0.0
    digits = decimals(value / size, half, unit)
    text = " ".join(filter(None, (f"{value / size:z,.{digits}f}", name)))
    if low is None or high is None or half == 0:
        return text
    return f"{text} [{low / size:z,.{digits}f}, {high / size:z,.{digits}f}]"


def decimals(value: float, half: float, unit: str = "") -> int:
    """Decimals such that the last digit is at most half of the interval's half-width; without an
    interval three significant digits, four for bytes, none for counts. A ratio under 10 has two or more."""
    if unit == "count" or not math.isfinite(value):
        return 0
    if 0 < half < math.inf:
        wanted = -math.floor(math.log10(half / 2 * (1 + EQUAL)))
    elif value == 0:
        wanted = 0
    else:
        wanted = (3 if unit == "B" else 2) - math.floor(math.log10(abs(value) * (1 + EQUAL)))
    return min(max(wanted, 2 if unit == "" and abs(value) < 10 else 0), 4)


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def some(words: Iterable[str], most: int = 4) -> str:
    """The same, of the first `most` words and a count of the others."""
    every = list(words)
    return listed(every if len(every) <= most + 1 else [*every[:most], f"{len(every) - most} more"])


def one_line(text: str) -> str:
    """Text from a record as one line: what would move a terminal's cursor, change its colours or turn the
    direction of writing is a space, and so is every line break."""
    return "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text)


PLAIN_SIGNS = str.maketrans("▁▂▃▄▅▆▇█–…", ".:-=+*%#-.")
"""What stands for signs that a terminal's encoding lacks, bars from low to high."""


def readable(text: str, encoding: str) -> str:
    """The text, as far as an encoding can hold it: with plainer signs where it lacks some of them."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN_SIGNS).encode(encoding, "replace").decode(encoding)
    return text


def percent(share: float, signed: bool = False) -> str:
    """`1.4 %`, `0.32 %`, `-0.27 %`: one decimal from 1 % on, two below."""
    value = 100 * share
    return f"{value:{'+' if signed else ''},.{1 if abs(value) >= 1 else 2}f} %"


def piped(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        for cells in (header, ["---"] * len(header), *rows)
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table for a terminal: a line for each row, its columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most `most` of the items, evenly spaced: the first and the last among them, or the last alone."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
