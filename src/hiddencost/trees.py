"""The two sides of a side-by-side gate: an interpreter, and the source tree that it measures.

The other side is a git commit, checked out beside this one, with an environment of its own where its
packages differ; or another interpreter, say one with another Keras, that measures this source.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from hiddencost.errors import NotComparableError, UserError
from hiddencost.grid import bench_folder

PACKAGES_FILES = ("constraints.txt", "pyproject.toml")


@dataclass(frozen=True)
class Side:
    """An interpreter; the `src` folder that it imports from ('' for what is installed in it), the suites,
    and how the side is named."""

    name: str
    python: str
    source: str
    bench: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its processes are started with. Models and ways of one's own are looked for
        where they are without it."""
        folders = filter(None, (self.source, os.environ.get("PYTHONPATH")))
        return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def _checkout() -> Path | None:
    """The root of the checkout that runs, or None in an installed package."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "bench").is_dir() and (root / "pyproject.toml").is_file() else None


def current() -> Side:
    """What runs now."""
    root = _checkout()
    return Side("this tree", sys.executable, str(root / "src") if root else "", bench_folder())


def other(text: str, folder: Path) -> Side:
    """The side that `--against` names. A commit is checked out under `folder`, once. Raises UserError, and
    NotComparableError for a commit that cannot take turns yet."""
    if os.path.isfile(text) and os.access(text, os.X_OK):
        here = current()
        return Side(text, text, here.source, here.bench)
    root = _checkout()
    commit = git(root, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}") if root else b""
    if root is None or not commit:
        where = "a git commit of this checkout" if root else "a checkout (hiddencost is installed here)"
        raise UserError(f"--against '{text}': neither {where} nor a Python interpreter")
    short = commit.decode().strip()[:12]
    tree = folder.resolve() / short
    if not (tree / "pyproject.toml").is_file():
        _unpack(root, short, tree)
    if not (tree / "src" / "hiddencost" / "nursery.py").is_file():
        raise NotComparableError(f"commit {short} is older than measuring side by side")
    python = sys.executable
    if any(_text(tree / name) != _text(root / name) for name in PACKAGES_FILES):
        python = _own_environment(tree)
    return Side(f"commit {short}", python, str(tree / "src"), tree / "bench")


def _unpack(root: Path, commit: str, tree: Path) -> None:
    """All files of a commit. They appear under their name only when all are there."""
    archive = git(root, "archive", "--format=tar", commit)
    unfinished = tree.with_name(f"{tree.name}.{os.getpid()}")
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(unfinished, filter="data")
        unfinished.rename(tree)
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"commit {commit} cannot be checked out under {tree.parent}: {error}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _own_environment(tree: Path) -> str:
    """Sets up the packages that the tree's own files name (`make` does it once). Raises UserError."""
    try:
        making = subprocess.Popen(
            ["make", ".venv/.ready", f"PYTHON={sys.executable}"],
            cwd=tree,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        )
    except FileNotFoundError:
        raise UserError(f"the packages of {tree} cannot be set up: make is not installed") from None
    with making:
        try:
            output, errors = making.communicate()
        except BaseException:
            os.killpg(making.pid, signal.SIGKILL)  # with all that make has started
            making.wait()  # which leaving it does not, where it was interrupted
            raise
    if making.returncode:
        last = (errors or output).strip().rpartition("\n")[2]
        raise UserError(f"the packages of {tree} cannot be set up: {last}")
    return str(tree / ".venv" / "bin" / "python")


def _text(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def git(folder: Path, *arguments: str) -> bytes:
    """What git prints in the folder; nothing where it fails, or is not installed."""
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def git_commit() -> str:
    """The commit of the checkout that runs, with `+` and a digest of the changes where what measures has
    some; empty outside one."""
    here = Path(__file__)
    if not git(here.parent, "ls-files", here.name):
        return ""
    commit = git(here.parent, "rev-parse", "--short=12", "HEAD").decode().strip()
    changes = git(here.parent, "diff", "HEAD", "--binary", "--no-ext-diff", "--", ":/src", ":/bench")
    return f"{commit}+{hashlib.sha1(changes).hexdigest()[:8]}" if changes else commit
