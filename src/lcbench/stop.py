"""Told to stop: by Ctrl-C, by SIGTERM, or by SIGUSR1 some time before the end.

SIGINT, SIGTERM and SIGHUP end a run at once, but never in the middle of writing a cell. SIGUSR1
(what Slurm is asked to send before a job's time ends) ends it gently: no further cell is begun, and
those under way have `LCBENCH_GRACE` seconds to finish.

An end at once is made with exceptions, so that what the libraries have to clean up is. Where that
takes more than `END_SECONDS`, because a thread does not come back from what it is doing, the
process ends without: as when it is killed, what is finished is kept and its claims are free.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn

# What a run has to clean up after it was told to end at once.
END_SECONDS = 10.0
# The exit statuses of a process that was interrupted or told to end, as a shell has them: 128 and
# the signal's number.
INTERRUPTED, TERMINATED = 130, 143

_GRACE_SECONDS = 60.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# One Ctrl-C may arrive twice, from the terminal and from whatever started this process.
_SAME_SECONDS = 0.5


class Terminated(KeyboardInterrupt):
    """The process was told to end: like Ctrl-C, but by the system."""


class DeviceLost(Terminated):
    """A GPU has failed, and with it whatever this process would compute: another has to go on.

    It passes where the failure of a cell is caught: no cell is at fault.
    """

    def __init__(self, error: BaseException) -> None:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        super().__init__(
            f"the GPU has failed, and this process cannot go on with it ({said}). Where that comes "
            "again at the same place, CUDA_LAUNCH_BLOCKING=1 shows in the traceback which "
            "operation it is; an uncorrectable ECC error or an Xid is for whoever looks after the "
            "machine"
        )


class EncoderStuck(Terminated):
    """A thread that encodes does not come back: this process can neither go on nor wait for it.

    It passes where the failure of a cell is caught, as `DeviceLost` does.
    """

    def __init__(self, cell: object, seconds: float) -> None:
        super().__init__(
            f"{cell} was ended for its time (cell_minutes), and what encodes its texts in this "
            f"process has not come back within {seconds:g} seconds: a device or a tokenizer hangs. "
            "The cell has failed; where the same comes again, leave out its task"
        )


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
        self._watchdog: _Watchdog | None = None

    def __enter__(self) -> Stop:
        # Elsewhere no handler can be set; whoever calls from another thread catches by itself.
        if threading.current_thread() is threading.main_thread():
            for one in _ENDING:
                # Under nohup a closed terminal is no reason to end.
                if one == signal.SIGHUP and signal.getsignal(one) == signal.SIG_IGN:
                    continue
                self._before[one] = signal.signal(one, self._end)
            self._before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._ask)
            self._watchdog = _Watchdog()
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
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None

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


class _Watchdog:
    """Ends the process where it has not ended some time after it was told to.

    It is a thread that Python's own handler wakes, whatever the main thread is doing: the handlers
    that a program sets are run by the main thread alone, once it is back from C.
    """

    def __init__(self) -> None:
        reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reads,), name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Watch no more: the process may go on."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writes)


def _watch(signals: int) -> None:
    """End the process when it is time, by the numbers of signals that come through a pipe."""
    told: float | None = None
    status = TERMINATED
    while True:
        left = None if told is None else told + END_SECONDS - time.monotonic()
        if left is not None and left <= 0:
            _end_now(status, f"this did not end within {END_SECONDS:g} seconds")
        if not select.select([signals], [], [], left)[0]:
            continue
        came = os.read(signals, 64)
        if not came:
            os.close(signals)
            return
        for number in came:
            if number not in _ENDING:
                continue
            if told is None:
                told = time.monotonic()
                status = INTERRUPTED if number == signal.SIGINT else TERMINATED
            elif number == signal.SIGINT and time.monotonic() - told > _SAME_SECONDS:
                _end_now(INTERRUPTED, "interrupted twice")


def _end_now(status: int, why: str) -> NoReturn:
    # Nothing of Python's: another thread may hold what printing needs.
    words = f"lcbench: {why}. What is finished is kept; the same command goes on from there.\n"
    # A terminal that is gone or stopped keeps nobody.
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, words.encode())
    os._exit(status)


def leave(status: int) -> NoReturn:
    """End the process with an exit status, soon.

    At its end Python waits for all threads and for all processes that it has started, however long
    that takes; what there was to do is done.
    """
    if status in (INTERRUPTED, TERMINATED):
        # Another Ctrl-C is the end.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
    # Nothing stays unsaid: what is written with the last of Python's steps may not be.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    timer = threading.Timer(END_SECONDS, os._exit, (status,))
    timer.daemon = True
    timer.start()
    sys.exit(status)


def grace_seconds() -> float:
    """Return how long cells that are under way may go on when a run is told to stop."""
    try:
        return max(0.0, float(os.environ.get("LCBENCH_GRACE", _GRACE_SECONDS)))
    except ValueError:
        return _GRACE_SECONDS


def _raise(number: signal.Signals) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated
