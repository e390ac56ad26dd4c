"""Told to stop: by Ctrl-C, by SIGTERM, or by SIGUSR1 some time before the end.

SIGINT and SIGTERM end a run at once, but never in the middle of writing a cell. SIGUSR1 (what Slurm
is asked to send before a job's time ends) ends it gently: no further cell is begun, and those under
way have `LCBENCH_GRACE` seconds to finish.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

_GRACE_SECONDS = 60.0
_ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The process was told to end: like Ctrl-C, but by the system."""


class Stop:
    """Catches the signals that end a run, while it is a context.

    Attributes:
        is_asked: whether no further cell is to be begun.
        is_gentle: whether it was asked some time before the end, by SIGUSR1.
        progressed: whether anything was done so far that the next attempt need not do again.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_gentle = False
        self.progressed = False
        self._before: dict[signal.Signals, object] = {}
        self._shields = 0
        self._pending: signal.Signals | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Stop:
        # Elsewhere no handler can be set; whoever calls from another thread catches by itself.
        if threading.current_thread() is threading.main_thread():
            for one in _ENDING:
                self._before[one] = signal.signal(one, self._end)
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for one, handler in self._before.items():
            signal.signal(one, handler)  # type: ignore[arg-type]
        self._before = {}

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Let what is inside come to its end before a signal ends the run."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._pending is not None and not self._shields:
                pending, self._pending = self._pending, None
                _raise(pending)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True
        if self._shields:
            self._pending = signal.Signals(number)
        else:
            _raise(signal.Signals(number))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            return
        self.is_asked = self.is_gentle = True
        self._timer = threading.Timer(grace_seconds(), os.kill, (os.getpid(), signal.SIGTERM))
        self._timer.daemon = True
        self._timer.start()


def grace_seconds() -> float:
    """Return how long cells that are under way may go on when a run is told to stop."""
    try:
        return max(0.0, float(os.environ.get("LCBENCH_GRACE", _GRACE_SECONDS)))
    except ValueError:
        return _GRACE_SECONDS


def _raise(number: signal.Signals) -> None:
    if number == signal.SIGTERM:
        raise Terminated
    raise KeyboardInterrupt
