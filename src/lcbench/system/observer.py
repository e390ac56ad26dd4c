"""The interface for progress: lines, warnings, tables, and a line that is kept up to date.

Work tells an `Observer`, and does not know where that shows it: the command line has a terminal
(`cli.console`), a notebook or a script plain lines (`Printed`), anything else Python's log.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TextIO

from lcbench.system.log import LOGGER
from lcbench.system.printable import printable
from lcbench.system.words import clock

# Of a line that keeps up with work, where the width of what shows it is not known.
_WIDTH = 100
_REFRESH_SECONDS = 0.5


class Observer:
    """Receives progress and warnings, and writes them to Python's log.

    Attributes:
        is_live: whether a terminal is attached. Only then are `live` lines and progress bars shown.
    """

    is_live = False

    def say(self, text: str, *, dim: bool = False) -> None:
        """Take a line.

        Args:
            text: plain text; nothing in it is interpreted as markup.
            dim: whether the line is less important.
        """
        LOGGER.info("%s", text)

    def warn(self, text: str) -> None:
        """Report a problem that does not stop the work."""
        LOGGER.warning("%s", text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> None:
        """Take a table.

        Args:
            header: the names of its columns.
            rows: the text of each column.
            names: number of columns, from the left, that hold names; the others hold numbers.
        """
        for row in (header, *rows):
            self.say("  ".join(row))

    def live(self, line: Callable[[], str]) -> AbstractContextManager[object]:
        """Return a context in which a line is shown and kept up to date, if `is_live`.

        Args:
            line: returns the current text; called from another thread.
        """
        return nullcontext()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show, while this context lasts, what is being done and for how long, if `is_live`."""
        began = time.monotonic()
        with self.live(lambda: f"{what} … {clock(time.monotonic() - began)}"):
            yield


class Printed(Observer):
    """Prints lines to standard output, as a notebook or a script shows them; warnings to the other.

    A line that keeps up with the work is shown on a terminal and in a notebook, and is gone when
    the work is done.
    """

    def __init__(self, stream: TextIO | None = None, *, is_live: bool | None = None) -> None:
        """Print.

        Args:
            stream: where to; None: standard output, whatever that is when something is printed.
            is_live: whether lines can be written over; None: on a terminal, and in a notebook.
        """
        self._stream = stream
        self.is_live = _can_write_over() if is_live is None else is_live
        self._lock = threading.Lock()
        self._shown = 0

    def say(self, text: str, *, dim: bool = False) -> None:
        """Print a line."""
        self._print(f"{text}\n")

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        self._print("")
        print(printable(f"lcbench: warning: {text}"), file=sys.stderr, flush=True)

    @contextmanager
    def _kept_up(self, line: Callable[[], str]) -> Iterator[None]:
        ended = threading.Event()

        def keep_up() -> None:
            while not ended.wait(_REFRESH_SECONDS):
                self._print(line(), stays=False)

        thread = threading.Thread(target=keep_up, name="shows progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._print("")

    def live(self, line: Callable[[], str]) -> AbstractContextManager[object]:
        """Return a context while which a line is kept up to date, if `is_live`."""
        return self._kept_up(line) if self.is_live else nullcontext()

    def _print(self, text: str, *, stays: bool = True) -> None:
        """Print a text in the place of the line that does not stay."""
        stream = self._stream or sys.stdout
        with self._lock:
            if self._shown:
                stream.write(f"\r{' ' * self._shown}\r")
            self._shown = 0
            if not stays:
                text = text[:_WIDTH]
                self._shown = len(text)
            stream.write(printable(text))
            stream.flush()


def _can_write_over() -> bool:
    if "ipykernel" in sys.modules:
        return True
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def observer_of(progress: bool | Observer) -> Observer:
    """Return what is told of the progress of a function.

    Args:
        progress: True: lines are printed; False: only warnings are, as Python's log has them; or
            an observer.
    """
    if isinstance(progress, Observer):
        return progress
    return Printed() if progress else Observer()
