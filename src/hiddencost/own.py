"""Models and ways of one's own, named as `package.module:function`.

They are looked for in the current folder and on PYTHONPATH. What goes wrong in their code is told as theirs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hiddencost.errors import UserError, nearest

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_folders: set[Path] = set()
"""Where the code lies of which something was loaded."""


def is_own(name: str) -> bool:
    """Whether a name is `package.module:function`."""
    return _NAME.fullmatch(name) is not None


def check(name: str) -> None:
    """Raises UserError where there is no such module or function, as far as can be told without running
    any of it."""
    if not is_own(name):
        raise UserError(f"'{name}': what is your own is named package.module:function")
    module, _, function = name.partition(":")
    path = _source(module)
    if path is None or path.suffix != ".py":
        return  # a package that makes its modules itself: importing it will tell
    try:
        defined = set(_defined(ast.parse(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise UserError(f"'{name}': {path} cannot be read: {error}") from None
    if function not in defined and "*" not in defined:
        raise UserError(f"'{name}': {path} has no '{function}'{nearest(function, sorted(defined))}")


@cache
def load(name: str) -> Callable[..., Any]:
    """The function of a name. Raises UserError where it is none, and what importing its module raises."""
    module, _, function = name.partition(":")
    path = _source(module)
    _folders.update({path.parent} if path else ())
    _look_here()
    found: Callable[..., Any] | None = getattr(importlib.import_module(module), function, None)
    if found is None or not callable(found):
        raise UserError(f"'{name}': {'there is no such function' if found is None else 'is no function'}")
    return found


def frames(error: BaseException) -> str:
    """Where in code of one's own an exception was raised, the outermost call first; empty where in none."""
    return " > ".join(
        f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}: {(frame.line or '').strip()}"
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_mine(Path(frame.filename))
    )


def _is_mine(path: Path) -> bool:
    """Whether a file lies beside what was loaded, and is neither an installed package's nor ours."""
    ours = "site-packages" in path.parts or path.is_relative_to(Path(__file__).parent)
    return not ours and any(path.is_relative_to(folder) for folder in _folders)


def _look_here() -> None:
    """The current folder is looked into last: a file there takes the place of no package."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def _source(module: str) -> Path | None:
    """The file of a module; None where it has none that could be read. Raises UserError where there is no
    such module. No package is imported to look into it."""
    _look_here()
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or (inner and not spec.submodule_search_locations):
        raise UserError(
            f"module '{module}' is not found: name it as seen from the current folder, {Path.cwd()}, "
            "or put its folder on PYTHONPATH"
        )
    if not inner:
        return Path(spec.origin).resolve() if spec.origin else None
    for folder in map(Path, spec.submodule_search_locations or ()):
        whole = folder.joinpath(*inner)
        for path in (whole.with_suffix(".py"), whole / "__init__.py"):
            if path.is_file():
                return path.resolve()
    raise UserError(f"module '{module}' is not found: package '{top}' has no such module")


def _defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module's own lines give to something; `*` where others may come in."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
