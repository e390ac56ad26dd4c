"""The interface for progress: lines, warnings, tables, and a live line on a terminal.

Code that does the work calls an `Observer` and does not know where its messages appear: in a
terminal (`cli.console`), as plain lines in a notebook or script (`Printed`), or in Python's log.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Self, TextIO

from lcbench.errors import RequestError
from lcbench.system.log import LOGGER
from lcbench.system.printable import printable
from lcbench.system.words import clock

# Width of a live line, used where the width of the screen is not known.
_WIDTH = 100
_REFRESH_SECONDS = 0.5
SLOW_SECONDS = 3.0
"""A step that takes longer is announced in one line if there is no live line."""


class Observer:
    """Receives progress and warnings, and writes them to Python's log.

    Attributes:
        is_live: whether lines can be overwritten, as on a terminal. Only then are live lines and
            progress bars shown.
    """

    is_live = False

    def say(self, text: str, *, dim: bool = False) -> None:
        """Report a line of progress.

        Args:
            text: plain text; nothing in it is interpreted as markup.
            dim: whether the line is less important.
        """
        LOGGER.info("%s", text)

    def warn(self, text: str) -> None:
        """Report a problem that does not stop the work."""
        LOGGER.warning("%s", text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> None:
        """Report a table.

        Args:
            header: names of the columns.
            rows: texts of each row.
            names: number of leading columns that hold names; the others hold numbers.
        """
        for row in (header, *rows):
            self.say("  ".join(row))

    def live(self, line: Callable[[], str]) -> AbstractContextManager[object]:
        """Return a context in which a line is shown and kept up to date, if `is_live`.

        Args:
            line: returns the current text; called from another thread.
        """
        return nullcontext()

    def announce(self, what: str) -> None:
        """Report a step that takes long and is still running, where there is no live line."""
        LOGGER.info("%s", what)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what is being done while the context lasts.

        A live line shows it with the time that it has taken. Where there is none, as in the log of
        a Slurm job, the step is announced in one line if it takes longer than `SLOW_SECONDS`.
        """
        if self.is_live:
            began = time.monotonic()
            with self.live(lambda: f"{what} … {clock(time.monotonic() - began)}"):
                yield
        else:
            with SlowSteps(self.announce) as steps:
                steps.begin(what)
                yield


class SlowSteps:
    """Announces every step that takes longer than `SLOW_SECONDS`, once; quick ones are silent."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        """Announce nothing yet.

        Args:
            announce: prints a line; called from another thread.
        """
        self._announce = announce
        self._timers: dict[str, threading.Timer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def begin(self, what: str) -> None:
        """Start a step, unless it has been started before; several may run in parallel."""
        if what in self._timers:
            return
        timer = threading.Timer(SLOW_SECONDS, self._announce, [f"{what} …"])
        timer.daemon = True
        self._timers[what] = timer
        # Where the system allows no further thread, the work itself says so.
        with suppress(RuntimeError):
            timer.start()

    def end(self, what: str) -> None:
        """End a step; it is not announced any more."""
        self._timers[what].cancel()


class Printed(Observer):
    """Prints lines to standard output, as in a notebook or script, and warnings to standard error.

    On a terminal and in a notebook, a live line is overwritten as the work goes on, and removed
    when it is done.
    """

    def __init__(self, stream: TextIO | None = None, *, is_live: bool | None = None) -> None:
        """Choose where to print.

        Args:
            stream: stream to print to; None: `sys.stdout` at the time of printing.
            is_live: whether lines can be overwritten; None: on a terminal and in a notebook.
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

    def announce(self, what: str) -> None:
        """Print a line to standard error about a step that takes long."""
        print(printable(f"lcbench: {what}"), file=sys.stderr, flush=True)

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
        """Return a context in which a line is shown and kept up to date, if `is_live`."""
        return self._kept_up(line) if self.is_live else nullcontext()

    def _print(self, text: str, *, stays: bool = True) -> None:
        """Overwrite the live line with a text; unless it stays, the next text overwrites it."""
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
    """Return the observer that a `progress` argument asks for.

    Args:
        progress: True: print lines; False: pass warnings to Python's log; or an observer.

    Raises:
        RequestError: any other value.
    """
    if isinstance(progress, Observer):
        return progress
    if not isinstance(progress, bool):
        raise RequestError(f"progress={progress} is not True, False or an Observer.")
    return Printed() if progress else Observer()
