"""Run `python -m lcbench`: forked from a process that has imported everything, or afresh."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

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
}
# What libraries put into the environment of whoever imports them, here of the tests: a user's has
# none of it. With it no command would be forked any more.
LEFT_BY_LIBRARIES = {
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR"),
    *("_RJEM_MALLOC_CONF", "HF_HUB_DISABLE_PROGRESS_BARS"),
}
# Long enough for a machine that does other things as well.
SECONDS = 900.0

Done = subprocess.CompletedProcess[str]


class Commands:
    """Runs commands; the process that they are forked from starts when it is first needed."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="lcbench-commands-")
        self._address = str(Path(self._folder.name, "socket"))
        self._environment: dict[str, str] = {}

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        fresh: bool = False,
    ) -> Done:
        """Run a command to its end.

        Args:
            arguments: after `python -m lcbench`.
            folder: where it runs.
            environment: all of it.
            fresh: in an interpreter of its own, whatever the environment.
        """
        environment = _without_libraries(environment)
        if fresh or not self.can_fork(environment):
            return subprocess.run(
                [sys.executable, "-m", "lcbench", *arguments],
                capture_output=True,
                text=True,
                cwd=folder,
                env=dict(environment),
                timeout=SECONDS,
                check=False,
            )
        return self._forked(arguments, folder, environment)

    def can_fork(self, environment: Mapping[str, str]) -> bool:
        """Whether what was imported would be the same in this environment."""
        if not hasattr(os, "pidfd_open"):
            return False
        if self._server is None:
            self._start()
        environment = _without_libraries(environment)
        named = {**self._environment, **environment}
        differ = {key for key in named if self._environment.get(key) != environment.get(key)}
        return differ <= READ_LATE

    def close(self) -> None:
        """End the process that commands are forked from."""
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(60)
        self._folder.cleanup()

    def _start(self) -> None:
        self._environment = _without_libraries(os.environ)
        program = Path(__file__).with_name("command_server.py")
        self._server = subprocess.Popen(
            [sys.executable, str(program), self._address],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=self._environment,
        )

    def _forked(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> Done:
        request = {
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
        }
        with (
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            self._connected() as connection,
        ):
            connection.settimeout(SECONDS)
            line = f"{json.dumps(request)}\n".encode()
            sent = socket.send_fds(connection, [line], [out.fileno(), err.fileno()])
            connection.sendall(line[sent:])
            answer = connection.makefile().readline()
            if not answer:
                raise RuntimeError(f"the process that forks commands has ended: {request}")
            texts = []
            for file in (out, err):
                file.seek(0)
                # As text=True has it.
                texts.append(file.read().decode().replace("\r\n", "\n").replace("\r", "\n"))
        command = ["python", "-m", "lcbench", *arguments]
        return subprocess.CompletedProcess(command, json.loads(answer), *texts)

    def _connected(self) -> socket.socket:
        """Return a connection, as soon as everything is imported."""
        until = time.monotonic() + SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._address)
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                if self._server is None or self._server.poll() is not None:
                    raise RuntimeError("the process that forks commands has ended") from None
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                return connection


def _without_libraries(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key not in LEFT_BY_LIBRARIES}
