"""Handles the signals that stop a run: Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1 ahead of time.

SIGINT, SIGTERM and SIGHUP end a run at once, but never while a cell is being written. SIGUSR1,
which Slurm is asked to send before a job's time limit, ends it gently: no further cell is started,
and running cells have `LCBENCH_GRACE` seconds to finish.

A run is ended by exceptions, so that libraries can clean up. If that takes more than `END_SECONDS`,
because a thread does not return, the process is ended without cleaning up. As after a kill,
finished cells are kept and the process's claims are free.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn

# Time to clean up after a signal that ends the run at once.
END_SECONDS = 10.0
# Exit statuses after SIGINT and SIGTERM, as in a shell: 128 plus the signal's number.
INTERRUPTED, TERMINATED = 130, 143

_GRACE_SECONDS = 60.0
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# One Ctrl-C may arrive twice, from the terminal and from the parent process.
_DUPLICATE_SECONDS = 0.5


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP has ended the process, as Ctrl-C would."""


class DeviceLost(Terminated):
    """A GPU has failed, so that this process cannot compute anything more.

    It is not caught as the failure of a cell: no cell is at fault.
    """

    def __init__(self, error: BaseException) -> None:
        said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        super().__init__(
            f"the GPU has failed and this process cannot continue ({said}). If it happens again at "
            "the same point, CUDA_LAUNCH_BLOCKING=1 makes the traceback show the operation; report "
            "an uncorrectable ECC error or an Xid to the machine's administrator"
        )


class EncoderStuck(Terminated):
    """The encoding thread hangs, so that this process cannot continue.

    It is not caught as the failure of a cell, like `DeviceLost`.
    """

    def __init__(self, cell: object, seconds: float) -> None:
        super().__init__(
            f"{cell} exceeded its time limit (cell_minutes), and encoding has not returned within "
            f"{seconds:g} seconds: a device or a tokenizer hangs. The cell has failed; if this "
            "happens again, leave out its task"
        )


class Stop:
    """A context that handles the signals that end a run.

    Attributes:
        is_asked: whether no further cell may be started.
        is_gentle: whether the signal was SIGUSR1, some time before the end.
        progressed: whether this process has finished anything that the next need not repeat.
        followers: called with the number of each signal, to pass it on to other processes.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_gentle = False
        self.progressed = False
        self.followers: list[Callable[[int], None]] = []
        self._before: dict[signal.Signals, object] = {}
        self._shields = 0
        self._pending: signal.Signals | None = None
        self._timer: threading.Timer | None = None
        self._watchdog: _Watchdog | None = None

    def __enter__(self) -> Stop:
        # Handlers can be set in the main thread only; callers in other threads handle signals.
        if threading.current_thread() is threading.main_thread():
            for one in _ENDING_SIGNALS:
                # Under nohup a closed terminal does not end the run.
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
        """Delay signals until the end of this context."""
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
        self._pass_on(number)
        if self._shields:
            self._pending = signal.Signals(number)
        else:
            _raise(signal.Signals(number))

    def _pass_on(self, number: int) -> None:
        for follower in self.followers:
            with suppress(OSError):
                follower(number)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            return
        self.is_asked = self.is_gentle = True
        self._pass_on(number)
        self._timer = threading.Timer(grace_seconds(), os.kill, (os.getpid(), signal.SIGTERM))
        self._timer.daemon = True
        self._timer.start()


class _Watchdog:
    """Ends the process if it has not ended some time after a signal.

    It is a thread that Python's signal wake-up wakes whatever the main thread does: a program's
    handlers run in the main thread only, once it returns from C.
    """

    def __init__(self) -> None:
        reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reads,), name="watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop watching."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writes)


def _watch(signals: int) -> None:
    """Read signal numbers from a pipe, and end the process when its time is over."""
    signalled: float | None = None
    status = TERMINATED
    while True:
        left = None if signalled is None else signalled + END_SECONDS - time.monotonic()
        if left is not None and left <= 0:
            _end_now(status, f"this did not end within {END_SECONDS:g} seconds")
        if not select.select([signals], [], [], left)[0]:
            continue
        came = os.read(signals, 64)
        if not came:
            os.close(signals)
            return
        for number in came:
            if number not in _ENDING_SIGNALS:
                continue
            if signalled is None:
                signalled = time.monotonic()
                status = INTERRUPTED if number == signal.SIGINT else TERMINATED
            elif number == signal.SIGINT and time.monotonic() - signalled > _DUPLICATE_SECONDS:
                _end_now(INTERRUPTED, "interrupted twice")


def _end_now(status: int, why: str) -> NoReturn:
    # No print(): another thread may hold a lock that it needs.
    words = f"lcbench: {why}. Finished cells are kept; the same command resumes from there.\n"
    # A closed or stopped terminal must not block.
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, words.encode())
    os._exit(status)


def leave(status: int) -> NoReturn:
    """End the process with an exit status, without waiting for threads.

    Python would wait for all threads and child processes, however long they take, though nothing
    is left to do.
    """
    if status in (INTERRUPTED, TERMINATED):
        # Another Ctrl-C ends the process at once.
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)
    # Output must be written here: Python's own last flush may not happen.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    timer = threading.Timer(END_SECONDS, os._exit, (status,))
    timer.daemon = True
    timer.start()
    # Python's last collections would go through all that was imported, and take a second.
    gc.freeze()
    sys.exit(status)


def grace_seconds() -> float:
    """Return how long running cells may continue after a gentle stop, in seconds."""
    try:
        return max(0.0, float(os.environ.get("LCBENCH_GRACE", _GRACE_SECONDS)))
    except ValueError:
        return _GRACE_SECONDS


def _raise(number: signal.Signals) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated
