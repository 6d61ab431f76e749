"""The exceptions that a person at the command line is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: one line that names the value and what to type instead. The command exits with 2."""


class SchemaError(UserError):
    """A run that another version of hiddencost has written. Asked to compare it, the command exits with 4."""


class NotComparableError(Exception):
    """The two cannot be compared, or were not measured under the same conditions; the message says why.
    The command exits with 4."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known name is close or begins so, else the list of known names."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1) or [one for one in names if one.startswith(name)]
    return f"; did you mean '{close[0]}'?" if close else f"; one of: {', '.join(names)}"
