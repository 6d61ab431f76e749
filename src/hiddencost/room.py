"""Room on Python's own stack for what is timed.

CPython keeps the frames of Python functions in chunks of 16 KiB since 3.11. A call that does not fit into the
chunk maps a new one, which is unmapped when it returns: where a model's many calls happen to begin at the end
of a chunk, each of them does so (CPython issue 142183; releases of 3.13 and 3.14 from March 2026 on keep one
chunk for the next, 3.11 and 3.12 do not). How deep the caller stands then decides what an eager call takes:
see reports/experiments/stack-depth.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

WORDS = 9000
"""Of the frame that makes room: with it a chunk of 128 KiB is mapped, of which 57 KiB are left for the calls
within. A call of a Keras model takes some 20."""
_P = ParamSpec("_P")
_T = TypeVar("_T")


def with_room(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function, called at the beginning of a chunk of Python's stack with room for deep calls."""

    @wraps(function)
    def roomy(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return function(*args, **kwargs)

    function_itself: Any = roomy
    function_itself.__code__ = function_itself.__code__.replace(co_stacksize=WORDS)
    return roomy
