"""Runs in a scoring process: scores cells, and sends texts to the main process for encoding."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.encoder import Embedded
from lcbench.hub import cache
from lcbench.score.cell import EncoderError, FailedCell, ScoredCell, score_cell
from lcbench.score.server import SHUTDOWN_SECONDS
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from threadpoolctl import threadpool_limits

# The signal that ends a scoring process. SIGTERM is unsuitable: it reaches every process of a job,
# and only the main process decides what happens then.
END = signal.SIGALRM


class _RemoteBackend:
    """The encoder of the main process; see `Backend`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prompts: dict[tuple[str, Any], str] = {}

    def submit(
        self, texts: Sequence[str], role: Role | None, prompt: str, *, more: bool
    ) -> _Pending:
        self._connection.send(("embed", texts, role, prompt, more))
        return _Pending(self._connection)

    def lengths(
        self, texts: Sequence[str], prompt: str, role: Role | None
    ) -> tuple[NDArray[np.int32], float]:
        found: tuple[NDArray[np.int32], float] = self._ask("lengths", texts, prompt, role)
        return found

    def prompt_of(self, task: TaskMetadata, prompt_type: Any) -> str:
        key = (task.name, prompt_type)
        if key not in self._prompts:
            self._prompts[key] = self._ask("prompt", task, prompt_type)
        return self._prompts[key]

    def _ask(self, *message: Any) -> Any:
        self._connection.send(message)
        return _received(self._connection)


class _Pending:
    """Embeddings that the parent process will send; see `Pending`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def result(self) -> Embedded:
        embedded: Embedded = _received(self._connection)
        return embedded


def _received(connection: Connection) -> Any:
    """Return the next reply, or raise the error that it is."""
    reply = connection.recv()
    if isinstance(reply, Exception):
        raise reply
    return reply


# Signals that are sent to all processes of a terminal or job; the main process handles them.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def score_jobs(
    connection: Connection, life: Connection, words: Connection, offline: bool, address: str | None
) -> None:
    """Score jobs until there are no more; the main function of a scoring process."""
    # mteb computes some similarities on a GPU if it sees one: thousands of small ones that compete
    # with the encoder, in any precision, with half a gigabyte of GPU memory per process. Nothing
    # imported before this line has queried CUDA for its devices.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for one in IGNORED_SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    # As an exception, so that libraries can clean up.
    signal.signal(END, lambda *_: sys.exit(1))
    # Its output goes to the log, line by line.
    for stream in (1, 2):
        os.dup2(words.fileno(), stream)
    words.close()
    faulthandler.register(STACKS_SIGNAL, file=2, all_threads=True)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    from lcbench.system.quiet import quiet_libraries

    quiet_libraries()
    if address is not None:
        cache.use(address)
    if offline:
        cache.go_offline()
    use_one_core()
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        outcome: ScoredCell | FailedCell
        try:
            outcome = score_cell(job, _RemoteBackend(connection))
        except EncoderError as error:
            outcome = error.failed
        except Exception as error:
            outcome = FailedCell.of(error)
        try:
            connection.send(outcome)
        except OSError:
            return


def use_one_core() -> threadpool_limits:
    """Limit all libraries to one thread; return what undoes it.

    Other processes score on the other cores, and the model encodes there. Threads of OpenMP that
    wait for one of their own to get a core keep theirs busy meanwhile: on a busy machine a small
    clustering took 16 s instead of 0.7.
    """
    # Only what is loaded is limited: scikit-learn has an OpenMP of its own.
    import sklearn.cluster  # noqa: F401
    import threadpoolctl
    import torch

    torch.set_num_threads(1)
    return threadpoolctl.threadpool_limits(1)


def _end_with(life: Connection) -> None:
    """End this process when its parent ends."""
    with suppress(EOFError, OSError):
        life.recv_bytes()
    os.kill(os.getpid(), END)
    time.sleep(SHUTDOWN_SECONDS)
    os._exit(1)


# So that the process can write its traceback to the log.
STACKS_SIGNAL = signal.SIGUSR2
