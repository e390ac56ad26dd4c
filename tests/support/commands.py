"""Run `python -m lcbench`: forked from a process that has imported everything, or afresh."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from command_server import TOLD_AGAIN
from filelock import FileLock

# What a command may be told by its environment and still be forked: nothing reads these before the
# command begins. For anything else, a library's for example, it gets an interpreter of its own.
READ_LATE = {
    "PYTEST_CURRENT_TEST",
    "LCBENCH_CACHE",
    "LCBENCH_GRACE",
    "COLUMNS",
    "LINES",
    "ODD",
    "FIGURES",
    "PYTHONIOENCODING",
}
# What libraries put into the environment of whoever imports them, here of the tests: a user's has
# none of it. With it no command would be forked any more.
LEFT_BY_LIBRARIES = {
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"),
    *("_RJEM_MALLOC_CONF", "HF_HUB_DISABLE_PROGRESS_BARS"),
}
PROGRAM = Path(__file__).with_name("command_server.py")
# Long enough for a machine that does other things as well.
SECONDS = 900.0

Done = subprocess.CompletedProcess[str]


class Commands:
    """Runs commands; the process that they are forked from starts when it is first needed.

    Processes that run tests at the same time share it: it ends with the last that uses it.
    """

    def __init__(self, environment: Mapping[str, str], shared: Path | None = None) -> None:
        """Prepare; nothing is started yet.

        Args:
            environment: that everything is imported in.
            shared: folder that other processes with this environment use as well; None: no others.
        """
        self._server: subprocess.Popen[bytes] | None = None
        self._own = tempfile.TemporaryDirectory(prefix="lcbench-commands-")
        self._folder = Path(self._own.name) if shared is None else shared
        self._folder.mkdir(exist_ok=True)
        self._address = str(self._folder / "socket")
        # Keeps it alive.
        self._held: int | None = None
        self._environment = _without_libraries(environment)

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        fresh: bool = False,
        program: Path | None = None,
    ) -> Done:
        """Run a command to its end.

        Args:
            arguments: after `python -m lcbench`.
            folder: where it runs.
            environment: all of it.
            fresh: in an interpreter of its own, whatever the environment.
            program: is run with these arguments in the place of lcbench.
        """
        environment = _without_libraries(environment)
        if fresh or not self.can_fork(environment):
            done = subprocess.run(
                [sys.executable, *_program(program), *arguments],
                capture_output=True,
                text=True,
                cwd=folder,
                env=dict(environment),
                timeout=SECONDS,
                check=False,
            )
            done.stderr = without_slow_steps(done.stderr)
            return done
        return self._ask(arguments, folder, environment, session=False, program=program).wait(
            SECONDS
        )

    def start(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        out: IO[bytes] | None = None,
        *,
        fresh: bool = False,
        program: Path | None = None,
    ) -> Started:
        """Begin a command in a session of its own, as a terminal or Slurm has it.

        Args:
            arguments: after `python -m lcbench`.
            folder: where it runs.
            environment: all of it.
            out: takes its standard output; None: `Started.wait` returns it.
            fresh: in an interpreter of its own, whatever the environment.
            program: is run with these arguments in the place of lcbench.
        """
        environment = _without_libraries(environment)
        words = [*_program(program), *arguments]
        if fresh or not self.can_fork(environment):
            return _Afresh(words, folder, environment, out)
        return self._ask(arguments, folder, environment, out, session=True, program=program)

    def can_fork(self, environment: Mapping[str, str]) -> bool:
        """Whether what was imported would be the same in this environment."""
        if not hasattr(os, "pidfd_open"):
            return False
        if self._held is None:
            self._start()
        environment = _without_libraries(environment)
        named = {**self._environment, **environment}
        differ = {key for key in named if self._environment.get(key) != environment.get(key)}
        # Where there is nothing to tell from, or to tell, a library has a default of its own.
        again = {key for key in TOLD_AGAIN if self._environment.get(key) and environment.get(key)}
        return differ <= READ_LATE | again

    def close(self) -> None:
        """End the process that commands are forked from, unless others use it."""
        if self._held is not None:
            with FileLock(self._folder / "lock"):
                others = self._users() - 1
                (self._folder / "users").write_text(str(others))
                os.close(self._held)
            if self._server is not None and not others:
                self._server.wait(60)
        self._own.cleanup()

    def _start(self) -> None:
        alive = self._folder / "alive"
        with FileLock(self._folder / "lock"):
            users = self._users()
            if users:
                self._held = os.open(alive, os.O_WRONLY)
            else:
                for old in (alive, Path(self._address)):
                    old.unlink(missing_ok=True)
                os.mkfifo(alive)
                # Its standard input ends when nobody has this open for writing any more.
                reading = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
                self._held = os.open(alive, os.O_WRONLY)
                self._server = subprocess.Popen(
                    [sys.executable, str(PROGRAM), self._address],
                    stdin=reading,
                    stdout=subprocess.DEVNULL,
                    env=self._environment,
                )
                os.close(reading)
                (self._folder / "process").write_text(str(self._server.pid))
            (self._folder / "users").write_text(str(users + 1))

    def _users(self) -> int:
        counted = self._folder / "users"
        return int(counted.read_text()) if counted.exists() else 0

    def _is_alive(self) -> bool:
        if self._server is not None:
            return self._server.poll() is None
        process = (self._folder / "process").read_text()
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in "ZX"

    def _ask(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        out: IO[bytes] | None = None,
        *,
        session: bool,
        program: Path | None = None,
    ) -> Started:
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "session": session,
            "program": None if program is None else str(program),
        }
        # Closed as soon as they have been read.
        err = tempfile.TemporaryFile()  # noqa: SIM115
        streams = (out or tempfile.TemporaryFile(), err)  # noqa: SIM115
        connection = self._connected()
        connection.settimeout(SECONDS)
        line = f"{json.dumps(request)}\n".encode()
        sent = socket.send_fds(connection, [line], [one.fileno() for one in streams])
        connection.sendall(line[sent:])
        return _Forked(arguments, connection, streams, given=out is not None)

    def _connected(self) -> socket.socket:
        """Return a connection, as soon as everything is imported."""
        until = time.monotonic() + SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._address)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                if not self._is_alive():
                    raise RuntimeError("the process that forks commands has ended") from None
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return connection


class Started(ABC):
    """A command that was begun, until it has ended.

    Attributes:
        pid: of its process, and of its session where it has one of its own.
    """

    pid: int

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether it has ended; `wait` then returns at once."""

    @abstractmethod
    def wait(self, seconds: float) -> Done:
        """Return how it ended, and what it said."""


class _Afresh(Started):
    """In an interpreter of its own."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        out: IO[bytes] | None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            stdout=out or subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )
        self.pid = self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self, seconds: float) -> Done:
        out, err = self._process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(
            self._process.args, self._process.returncode, out or "", without_slow_steps(err)
        )


class _Forked(Started):
    """Forked from a process that has imported everything."""

    def __init__(
        self,
        arguments: Sequence[str],
        connection: socket.socket,
        streams: tuple[IO[bytes], IO[bytes]],
        *,
        given: bool,
    ) -> None:
        """Wait until it has begun.

        Args:
            arguments: what was asked for.
            connection: to the process that forks it.
            streams: its standard output and error.
            given: whether the output is somebody else's to read.
        """
        self._arguments = arguments
        self._connection = connection
        self._streams = streams
        self._given = given
        self.pid = int(self._answer())

    def has_ended(self) -> bool:
        return bool(select.select([self._connection], [], [], 0)[0])

    def wait(self, seconds: float) -> Done:
        self._connection.settimeout(seconds)
        status = int(self._answer())
        self._connection.close()
        texts = []
        for file, given in zip(self._streams, (self._given, False), strict=True):
            if given:
                texts.append("")
                continue
            with file:
                file.seek(0)
                # As text=True has it.
                texts.append(file.read().decode().replace("\r\n", "\n").replace("\r", "\n"))
        command = ["python", "-m", "lcbench", *self._arguments]
        return subprocess.CompletedProcess(command, status, *texts)

    def _answer(self) -> str:
        line = b""
        # Not beyond its end: `has_ended` sees what is still to be read.
        while not line.endswith(b"\n"):
            byte = self._connection.recv(1)
            if not byte:
                raise RuntimeError(f"the process that forks commands has ended: {self._arguments}")
            line += byte
        return line.decode()


def without_slow_steps(errors: str) -> str:
    """Remove the lines that announce slow steps, which depend on the machine's speed."""
    return re.sub(r"^lcbench: (?!error|warning).* (…|\.\.\.)\n", "", errors, flags=re.MULTILINE)


def _program(program: Path | None) -> list[str]:
    return ["-m", "lcbench"] if program is None else [str(program)]


def _without_libraries(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key not in LEFT_BY_LIBRARIES}
