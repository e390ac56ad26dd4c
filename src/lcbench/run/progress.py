"""Progress of a run: cells, speed and time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from lcbench.plan.predict import Prediction
from lcbench.results.cell import Cell
from lcbench.system.observer import Observer
from lcbench.system.words import clock

# The outcome of a cell that has failed and will be tried again.
AGAIN = "again"

# The rate of encoding is averaged over the last seconds.
_RATE_SECONDS = 10.0


class Progress:
    """Reports an updated line on a terminal, and one line per finished cell.

    Attributes:
        began: start of the first cell, on the monotonic clock.
        ran: number of cells that were completed here.
    """

    def __init__(
        self,
        observer: Observer,
        left: int,
        total: int,
        prediction: Prediction,
    ) -> None:
        """Begin.

        Args:
            observer: receives progress.
            left: number of cells to run.
            total: number of cells of the request, including finished ones.
            prediction: predicted time for the cells to run.
        """
        self.began: float | None = None
        self._observer = observer
        self.ran: set[Cell] = set()
        self._ended: list[Cell] = []
        self._running: list[Cell] = []
        self._already_done = total - left
        self._total = total
        self._prediction = prediction
        self._started = self._last = time.monotonic()
        self._encoded: deque[tuple[float, int]] = deque()
        self._doing = ""
        self._live = observer.live(self._line)

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def doing(self, what: str) -> None:
        """Report an activity outside any cell, such as loading a model."""
        self._doing = what
        if not self._observer.is_live:
            self._observer.say(what)

    def start(self, cell: Cell) -> None:
        """Report the start of a cell; others may be running."""
        if self.began is None:
            self.began = time.monotonic()
        self._running.append(cell)

    def encoded(self, texts: int, tokens: int) -> None:
        """Count encoded texts and tokens; may be called from any thread."""
        now = time.monotonic()
        self._encoded.append((now, tokens))
        while self._encoded[0][0] < now - _RATE_SECONDS:
            self._encoded.popleft()

    def finish(self, cell: Cell, outcome: str, record: Mapping[str, Any]) -> None:
        """Print the line of a cell that has ended.

        Args:
            cell: the cell.
            outcome: outcome in one word; `AGAIN`: it has not ended.
            record: seconds and counts of its provenance; empty if it failed.
        """
        self._running.remove(cell)
        if outcome == AGAIN:
            return
        if record:
            self.ran.add(cell)
        self._end(cell, outcome, record)

    def skip(self, cell: Cell, outcome: str) -> None:
        """Print the line of a cell that another process has finished."""
        self._end(cell, outcome, {})

    def _end(self, cell: Cell, outcome: str, record: Mapping[str, Any]) -> None:
        self._ended.append(cell)
        self._last = time.monotonic()
        done = self._already_done + len(self._ended)
        number = f"{done:>{len(str(self._total))}}/{self._total}"
        took = ""
        if record:
            # The time spent on it, not the time that it waited.
            seconds = record["seconds"] - record["seconds_wait"]
            took = f"{seconds:5.1f} s (encoding {record['seconds_encode']:.1f} s)"
            if vectors := record.get("vectors_per_document"):
                took += f", {vectors:.1f} vectors per document"
        left = f"{clock(self._left())} left" if done < self._total else ""
        said = ", ".join(one for one in (took, left) if one)
        self._observer.say(f"{number}  {cell!s:<58} {outcome:<6} {said}".rstrip())

    def _line(self) -> str:
        if not self._running:
            return self._doing
        done = self._already_done + len(self._ended)
        parts = [f"{done}/{self._total}", f"{clock(self._left())} left"]
        if rate := self._rate():
            parts.append(f"{rate:,.0f} tokens/s")
        parts += map(str, self._running)
        return " · ".join(parts)

    def _left(self) -> float:
        elapsed, since = self._last - self._started, time.monotonic() - self._last
        return self._prediction.left(self._ended, elapsed, since)

    def _rate(self) -> float:
        """Return the tokens encoded per second over the last seconds."""
        since = time.monotonic() - _RATE_SECONDS
        return sum(tokens for at, tokens in list(self._encoded) if at >= since) / _RATE_SECONDS
