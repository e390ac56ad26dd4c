"""The log of one run or array task, with time, level and cell in every line.

Each process that runs cells has its own file. The output of its scoring processes comes through
pipes and is logged line by line (`Relay`), so that lines are never mixed and a library's warnings
and last output are next to the cell that they belong to.
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

# The cell that this thread works on.
_CELL: ContextVar[str] = ContextVar("cell", default="-")
# Lines kept of a process's output: enough for a traceback, few enough to be shown.
_LAST_LINES = 40


class _Formatter(logging.Formatter):
    """Formats each line of a text as `2026-01-31T12:00:00Z INFO  [MiniLM, τ = 0.8, STS13] text`."""

    def format(self, record: logging.LogRecord) -> str:
        cell = getattr(record, "cell", None) or _CELL.get()
        moment = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        head = f"{moment} {record.levelname:<7} [{' '.join(cell.splitlines())}]"
        lines = text.rstrip().splitlines() or [""]
        # A terminal that shows the file would interpret an ESC in a name or an error.
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
        """Drop the line: on a full disk the run stops when it cannot write a result."""

    def close(self) -> None:
        # Buffered lines that cannot be written are dropped as well.
        with suppress(OSError):
            super().close()


@contextmanager
def logged(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Write everything logged within this context to a file in a folder.

    Libraries' warnings go there too, instead of to the screen.

    Args:
        folder: where logs are kept.
        name: name of the file; None: one for this process alone. An existing file is appended to.

    Yields:
        the file's path; nothing is logged if it cannot be written.
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
    """Mark everything that this thread logs within this context with a cell."""
    token = _CELL.set(str(cell))
    try:
        yield
    finally:
        _CELL.reset(token)


class Relay:
    """Logs a process's standard output and error, line by line."""

    def __init__(self, connection: Connection, cell: Callable[[], object]) -> None:
        """Begin.

        Args:
            connection: the readable end of a pipe; it is closed when the process has ended.
            cell: returns the cell that the process works on.
        """
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._cell = cell
        self._thread = threading.Thread(
            target=self._read, args=(connection,), name="relay", daemon=True
        )
        self._thread.start()

    def output_tail(self, patience: float) -> str:
        """Return the last lines of output, once the process has ended or the timeout is over."""
        self._thread.join(patience)
        return "".join(self._lines)

    def _read(self, connection: Connection) -> None:
        # From here on the file owns the descriptor.
        with (
            suppress(OSError),
            os.fdopen(os.dup(connection.fileno()), encoding="utf-8", errors="replace") as lines,
        ):
            connection.close()
            for line in lines:
                self._lines.append(line)
                LOGGER.warning("%s", line.rstrip(), extra={"cell": str(self._cell() or "-")})
