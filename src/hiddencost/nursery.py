"""A process that has imported the packages and forks a worker for each request: it saves the import, some
ten seconds, for every block after the first.

    python -m hiddencost.nursery SOCKET_FD

Started by the interpreter whose packages are to be measured, with the source tree on its path.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from hiddencost.errors import NotComparableError, UserError
from hiddencost.records import SCHEMA_VERSION
from hiddencost.turns import PROTOCOL

MOST_BYTES = 2**16
NUMBER = struct.Struct("i")
SPOKEN = f"{SCHEMA_VERSION}.{PROTOCOL}"
"""What two sources have to have in common: the schema of records, the protocol of turns."""


class Forked:
    """A worker that a nursery has forked: what the supervisor asks of a process."""

    def __init__(self, pid: int, answer: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._answer = answer
        self._lock = threading.Lock()  # one thread waits, another polls, and the answer comes once

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with self._lock:
            if self.returncode is None:
                try:
                    answer = self._answer.recv(NUMBER.size, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    return None
                self.returncode = NUMBER.unpack(answer)[0] if answer else -signal.SIGKILL  # the nursery died
                self._answer.close()
            return self.returncode

    def wait(self) -> int:
        """The exit code, when it has ended."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return code


def worker_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What a process that measures is started with. pytest's own variables are the caller's: PYTEST_ADDOPTS
    would change how it is run, and under pytest-xdist pytest-benchmark writes no JSON. Plugins are loaded by
    name only: others that are installed would take time and memory. The current folder takes the place of no
    package, as `python -m` would have it: a gate that is run in `src` would compare that with itself."""
    kept = {name: value for name, value in variables.items() if not name.startswith("PYTEST_")}
    own = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {**kept, **own}


class Nursery:
    """The parent process's handle."""

    def __init__(self, python: str, environment: Mapping[str, str], log: IO[bytes]) -> None:
        """Raises UserError for a file that is no program."""
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [python, "-m", "hiddencost.nursery", str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno()],
                    env=worker_environment(environment),
                    start_new_session=True,
                )
            except OSError as error:
                self._socket.close()
                raise UserError(f"{python} cannot measure: {error.strerror}") from None
        self._python, self._log = python, Path(log.name)

    def await_ready(self) -> None:
        """Returns when everything is imported. Raises UserError when the interpreter cannot, and
        NotComparableError when its source writes other records."""
        spoken = self._socket.recv(MOST_BYTES).decode()
        if not spoken:
            raise self._ended()
        if spoken != SPOKEN:
            raise NotComparableError(f"the other source speaks {spoken}, this one {SPOKEN}: records, turns")

    def start(self, arguments: Sequence[str], descriptors: Mapping[str, int], log: IO[bytes]) -> Forked:
        """Forks a worker that runs pytest with the arguments, in a session of its own; each descriptor is
        handed over, and its number there given as the option it stands under. Raises UserError when the
        nursery has ended."""
        mine, theirs = socket.socketpair()
        request = json.dumps([list(arguments), list(descriptors)]).encode()
        pid = b""
        with theirs, suppress(ConnectionError):
            fds = [theirs.fileno(), log.fileno(), *descriptors.values()]
            socket.send_fds(self._socket, [request], fds)
        with suppress(ConnectionError):
            pid = mine.recv(NUMBER.size)
        if not pid:
            mine.close()
            raise self._ended()
        return Forked(NUMBER.unpack(pid)[0], mine)

    def _ended(self) -> UserError:
        last = self._log.read_text(errors="replace").strip().rpartition("\n")[2]
        return UserError(f"{self._python} cannot measure: {last or 'it was killed'} (see {self._log})")

    def close(self) -> None:
        """Ends the nursery, also one that still imports; a worker ends with its own lifeline."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def main(descriptor: int) -> None:
    """Imports, then serves requests until the other end of the socket is closed."""
    import pytest

    from hiddencost import backends, suites  # noqa: F401 (with NumPy and scipy)

    backends.import_packages(os.environ["KERAS_BACKEND"])
    server = socket.socket(fileno=descriptor)
    server.send(SPOKEN.encode())
    while True:
        request, fds, _, _ = socket.recv_fds(server, MOST_BYTES, 8)
        if not request:
            return
        answer, log, *given = fds
        arguments, options = json.loads(request)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            for mine in (descriptor, answer, log):
                os.close(mine)
            numbers = [f"{option}={number}" for option, number in zip(options, given, strict=True)]
            code = int(pytest.main([*arguments, *numbers]))
            sys.stdout.flush()
            os._exit(code)
        for fd in (log, *given):
            os.close(fd)
        os.write(answer, NUMBER.pack(pid))
        os.write(answer, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        os.close(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
