"""Tell a person how a run is going: which cell, how many of how many, how fast, how long yet."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lcbench.grid import Cell


class Progress:
    """A line that keeps up with the run on a terminal, and one line a finished cell anywhere."""

    def __init__(self, console: Console, cells: Sequence[Cell], already_done: int) -> None:
        """Begin.

        Args:
            console: where to print.
            cells: those that are to be run, in order.
            already_done: cells that were found finished.
        """
        self._console = console
        self._waiting = list(cells)
        self._done = already_done
        self._total = already_done + len(cells)
        self._texts = 0
        self._started = time.monotonic()
        self._current: Cell | None = None
        self._doing = ""
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._live = Live(
            console=console, get_renderable=self._line, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def doing(self, what: str) -> None:
        """Say what happens outside of any cell: a model is loaded."""
        self._doing = what
        if not self._console.is_terminal:
            self._console.print(Text(what))

    def start(self, cell: Cell) -> None:
        """Say that a cell begins."""
        self._current, self._doing = cell, ""
        self._texts = 0
        self._started = time.monotonic()

    def encoded(self, texts: int, tokens: int) -> None:
        """Count texts that went through the model."""
        self._texts += texts

    def finish(self, outcome: str) -> None:
        """Print the line of the cell that has ended."""
        cell = self._current
        if cell is None:
            return
        seconds = time.monotonic() - self._started
        self._seconds[cell.task].append(seconds)
        self._waiting.remove(cell)
        self._done += 1
        self._current = None
        number = f"{self._done:>{len(str(self._total))}}/{self._total}"
        rate = f", {self._texts / seconds:,.0f} texts/s" if self._texts else ""
        left = f", {_clock(self._left())} left" if self._waiting else ""
        self._console.print(
            Text(f"{number}  {cell!s:<58} {outcome:<6} {seconds:5.1f} s{rate}{left}"),
            soft_wrap=True,
        )

    def _left(self) -> float:
        """Return the seconds that are left: each task as long as it took before, else the mean."""
        known = [second for seconds in self._seconds.values() for second in seconds]
        if not known:
            return float("nan")
        mean = sum(known) / len(known)
        left = 0.0
        for cell in self._waiting:
            before = self._seconds.get(cell.task)
            left += sum(before) / len(before) if before else mean
        if self._current is not None:
            left -= time.monotonic() - self._started
        return max(0.0, left)

    def _line(self) -> Text:
        if self._current is None:
            return Text(self._doing)
        seconds = max(1e-3, time.monotonic() - self._started)
        left = self._left()
        return Text(
            f"{self._done + 1}/{self._total}  {self._current}  {self._texts / seconds:,.0f} texts/s"
            + (f", {_clock(left)} left" if left == left else ""),
            overflow="ellipsis",
            no_wrap=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
