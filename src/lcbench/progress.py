"""Tell a person how a run is going: which cells, how many of how many, how fast, how long yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lcbench.grid import Cell

# The rate of encoding is that of the last seconds.
_RATE_SECONDS = 10.0


class Progress:
    """A line that keeps up with the run on a terminal, and one line a finished cell anywhere."""

    def __init__(
        self,
        console: Console,
        cells: Sequence[Cell],
        already_done: int,
        left: Callable[[Sequence[Cell]], float | None],
    ) -> None:
        """Begin.

        Args:
            console: where to print.
            cells: those that are to be run.
            already_done: cells that were found finished.
            left: how many seconds remain, given the cells that have ended; None: not known.
        """
        self._console = console
        self._ended: list[Cell] = []
        self._running: list[Cell] = []
        self._already_done = already_done
        self._total = already_done + len(cells)
        self._seconds_left = left
        self._encoded: deque[tuple[float, int]] = deque()
        self._doing = ""
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
        """Say that a cell begins; others may be under way."""
        self._running.append(cell)

    def encoded(self, texts: int, tokens: int) -> None:
        """Count what went through the model; may be called from any thread."""
        self._encoded.append((time.monotonic(), tokens))

    def finish(self, cell: Cell, outcome: str, record: Mapping[str, Any]) -> None:
        """Print the line of a cell that has ended.

        Args:
            cell: which.
            outcome: in a word.
            record: of its provenance, the seconds and counts; empty for one that failed.
        """
        self._running.remove(cell)
        self._ended.append(cell)
        done = self._already_done + len(self._ended)
        number = f"{done:>{len(str(self._total))}}/{self._total}"
        took = ""
        if record:
            # What it has cost, not how long it lay in a queue.
            seconds = record["seconds"] - record["seconds_wait"]
            took = f"{seconds:5.1f} s, {record['seconds_encode']:.1f} of them encoding"
        left = self._seconds_left(self._ended) if done < self._total else None
        self._console.print(
            Text(
                f"{number}  {cell!s:<58} {outcome:<6} {took}"
                + ("" if left is None else f", {clock(left)} left")
            ),
            soft_wrap=True,
        )

    def _line(self) -> Text:
        if not self._running:
            return Text(self._doing)
        done = self._already_done + len(self._ended)
        left = self._seconds_left(self._ended)
        parts = [f"{done}/{self._total}", *map(str, self._running)]
        if rate := self._rate():
            parts.insert(1, f"{rate:,.0f} tokens/s")
        if left is not None:
            parts.insert(1, f"{clock(left)} left")
        return Text(" · ".join(parts), overflow="ellipsis", no_wrap=True)

    def _rate(self) -> float:
        """Return the tokens a second that went through the model in the last seconds."""
        now = time.monotonic()
        while self._encoded and self._encoded[0][0] < now - _RATE_SECONDS:
            self._encoded.popleft()
        return sum(tokens for _, tokens in list(self._encoded)) / _RATE_SECONDS


def clock(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
