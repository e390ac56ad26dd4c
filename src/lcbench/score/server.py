"""Runs in the main process: encodes texts for scoring processes and returns embeddings."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from lcbench.encode.encoder import EmbeddingError
from lcbench.results.cell import Cell
from lcbench.score.cell import EncoderError, FailedCell, Job
from lcbench.system.log import Relay, about

if TYPE_CHECKING:
    from lcbench.encode.engine import Engine

# Seconds for a process to end by itself, or to request the rest of its texts.
SHUTDOWN_SECONDS = 2.0

# Errors of writing to a process that has ended.
PIPE_ERRORS = (OSError, TypeError, ValueError)


@dataclass
class Worker:
    """A scoring process, as seen by the parent."""

    process: Any
    connection: Connection
    # Kept open so that the process notices when this one ends.
    life: Connection
    job: Job | None = None
    asking: bool = False
    relay: Relay | None = None
    # Time of its cell, without waiting for the encoder.
    seconds: float = 0.0


@dataclass(order=True)
class _Request:
    number: int
    worker: Worker = field(compare=False)
    job: Job = field(compare=False)
    message: tuple[Any, ...] = field(compare=False)


class Server:
    """Answers the processes' requests in a separate thread, one at a time.

    Attributes:
        current: request that is being answered.
        abandoned: cell whose request is being answered although its process was ended.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._requests: list[_Request] = []
        self._changed = threading.Condition()
        self._ended = False
        self._repair: Any = None
        self._awaited: Worker | None = None
        self._abandoned_at = 0.0
        self.current: _Request | None = None
        self.abandoned: Cell | None = None

    def ask(self, worker: Worker, job: Job, message: tuple[Any, ...]) -> None:
        """Queue a request."""
        with self._changed:
            self._requests.append(_Request(job.number, worker, job, message))
            self._changed.notify()

    def forget(self, worker: Worker) -> None:
        """Drop the requests of a process that has ended."""
        with self._changed:
            self._requests = [one for one in self._requests if one.worker is not worker]
            if self._awaited is worker:
                self._awaited = None

    def abandon(self, worker: Worker) -> None:
        """Drop the requests of a process that was ended, including the one being answered."""
        self.forget(worker)
        with self._changed:
            if self.current is not None and self.current.worker is worker:
                self.abandoned, self._abandoned_at = self.current.job.cell, time.monotonic()
                self._engine.stop()

    def is_with_another(self, worker: Worker) -> bool:
        """Whether another process's request is being answered."""
        current = self.current
        return current is not None and current.worker is not worker

    def is_stuck(self) -> bool:
        """Return whether the encoder hangs in a request that it was told to abandon."""
        with self._changed:
            waited = time.monotonic() - self._abandoned_at
            return self.abandoned is not None and waited > ENCODER_SECONDS

    def end(self) -> None:
        """Stop answering."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def serve(self) -> None:
        """Answer requests until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_what_it_waits_for, SHUTDOWN_SECONDS)
                self._awaited = self._awaited if self._has_what_it_waits_for() else None
                if self._ended:
                    return
                if not self._requests:
                    continue
                request = self.current = self._next()
            with about(request.job.cell):
                reply = self._answer(request)
            request.worker.asking = False
            # If the process has ended, `Pool` notices it.
            with suppress(*PIPE_ERRORS):
                request.worker.connection.send(reply)
            with self._changed:
                self.current = None
                if self.abandoned is not None:
                    self.abandoned = None
                    self._engine.go_on()

    def _has_what_it_waits_for(self) -> bool:
        if self._ended or self._awaited is None:
            return self._ended or bool(self._requests)
        return any(one.worker is self._awaited for one in self._requests)

    def _next(self) -> _Request:
        # First the rest of a request in progress, then requests under the present repair, then
        # cells in their order. The sooner a cell has all its embeddings, the sooner it is scored in
        # parallel with the encoding of others; and each change of temperature is checked again.
        going_on = [one for one in self._requests if one.worker is self._awaited]
        same = [one for one in self._requests if one.job.cell.repair == self._repair]
        request = min(going_on or same or self._requests)
        self._requests.remove(request)
        self._repair = request.job.cell.repair
        kind, *_, more = request.message
        self._awaited = request.worker if kind == "embed" and more else None
        return request

    def _answer(self, request: _Request) -> Any:
        kind, texts, *given = request.message
        backend = self._engine.at(request.job.cell.repair.policy)
        try:
            if kind == "embed":
                role, prompt, more = given
                return backend.embed(texts, role, prompt, more=more)
            return backend.lengths(texts, *given)
        except EmbeddingError as error:
            return error
        # Any error is a failure of that cell.
        except Exception as error:
            return EncoderError(FailedCell.of(error))


def prompt_of(engine: Engine, message: tuple[Any, ...]) -> Any:
    """Return the prompt that was requested, or the error of looking it up."""
    try:
        return engine.prompt_of(*message[1:])
    except Exception as error:
        return EncoderError(FailedCell.of(error))


# Seconds after which an encoder that was told to stop counts as hanging: it stops after the present
# batch or block of texts to tokenise, which take a few seconds.
ENCODER_SECONDS = 120.0
