"""The log of one run, or of one array element: who did what when, with the cell in every line.

Each process that runs cells has a file of its own; the processes that score for it write what they
say into pipes, and it is put into that file line by line (`Relay`). So no two lines are mixed, and
the warnings and last words of a library stand beside the cell that they belong to.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from multiprocessing.connection import Connection
from pathlib import Path

from lcbench.system.files import without_links
from lcbench.system.printable import printable

LOGGER = logging.getLogger("lcbench")

# What is being worked on in this thread.
_CELL: ContextVar[str] = ContextVar("cell", default="-")
# Of what a process has said: enough for a traceback, few enough to be shown.
_LAST_LINES = 40


class _Formatter(logging.Formatter):
    """`2026-01-31T12:00:00Z INFO  [MiniLM, τ = 0.8, STS13] text`: each line of a text like that."""

    def format(self, record: logging.LogRecord) -> str:
        cell = getattr(record, "cell", None) or _CELL.get()
        moment = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        head = f"{moment} {record.levelname:<7} [{' '.join(cell.splitlines())}]"
        lines = text.rstrip().splitlines() or [""]
        # A terminal that shows the file would obey an ESC of a name or an error.
        return "\n".join(printable(f"{head} {line}") for line in lines)


class _Handler(logging.FileHandler):
    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding=self.encoding,
            errors=self.errors,
            opener=without_links,
        )

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: a full disk stops the run where it cannot write a result."""

    def close(self) -> None:
        # What could not be written is lost here as well.
        with suppress(OSError):
            super().close()


@contextmanager
def logged(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Write what is logged meanwhile into a file of a folder.

    Libraries' warnings are among it, and are not on the screen then.

    Args:
        folder: where logs are kept.
        name: of the file; None: one of this process's own. An older one is added to.

    Yields:
        where it is; where nothing can be written there, nothing is.
    """
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path = folder / (name or f"{moment}-{socket.gethostname()}-{os.getpid()}.log")
    handler: logging.Handler
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _Handler(path, encoding="utf-8", errors="backslashreplace")
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(_Formatter())
    root, level = logging.getLogger(), LOGGER.level
    root.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield path
    finally:
        logging.captureWarnings(False)
        LOGGER.setLevel(level)
        root.removeHandler(handler)
        handler.close()


@contextmanager
def about(cell: object) -> Iterator[None]:
    """Let what this thread logs meanwhile be about a cell."""
    token = _CELL.set(str(cell))
    try:
        yield
    finally:
        _CELL.reset(token)


class Relay:
    """Logs what a process writes to its standard output and error, line by line."""

    def __init__(self, connection: Connection, cell: Callable[[], object]) -> None:
        """Begin.

        Args:
            connection: the readable end of a pipe; it is closed when the process has ended.
            cell: tells what the process works on.
        """
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._cell = cell
        self._thread = threading.Thread(
            target=self._read, args=(connection,), name="relay", daemon=True
        )
        self._thread.start()

    def last_words(self, patience: float) -> str:
        """Return the last that was written, once the process has ended; at most so many seconds."""
        self._thread.join(patience)
        return "".join(self._lines)

    def _read(self, connection: Connection) -> None:
        # The descriptor is the file's from here on.
        with (
            suppress(OSError),
            os.fdopen(os.dup(connection.fileno()), encoding="utf-8", errors="replace") as lines,
        ):
            connection.close()
            for line in lines:
                self._lines.append(line)
                LOGGER.warning("%s", line.rstrip(), extra={"cell": str(self._cell() or "-")})
