"""Runs in the main process: encodes texts for scoring processes and returns embeddings.

Some requests are answered at the same time; the engine takes them in order. Each process has a
thread that sends its answers, so that a process that is slow to read them delays no other.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from lcbench.encode.encoder import EmbeddingError, Stopped
from lcbench.results.cell import Cell
from lcbench.score.cell import EncoderError, FailedCell, Job
from lcbench.system.log import Relay, about

if TYPE_CHECKING:
    from lcbench.encode.engine import Engine
    from lcbench.repair.repair import Repair

# Seconds for a process to end by itself.
SHUTDOWN_SECONDS = 2.0

# Errors of writing to a process that has ended.
PIPE_ERRORS = (OSError, TypeError, ValueError)


@dataclass(eq=False)
class Worker:
    """A scoring process, as seen by the parent."""

    process: Any
    connection: Connection
    # Kept open so that the process notices when this one ends.
    life: Connection
    job: Job | None = None
    # Requests that are not answered yet.
    unanswered: int = 0
    relay: Relay | None = None
    # Time of its cell, without waiting for the encoder.
    seconds: float = 0.0
    # Sends the answers, in the order of the requests.
    sender: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "answers"))

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for the encoder, so that its core is free."""
        return self.unanswered > 0


@dataclass(order=True)
class _Request:
    number: int
    worker: Worker = field(compare=False)
    job: Job = field(compare=False)
    message: tuple[Any, ...] = field(compare=False)
    reply: Future[Any] = field(compare=False, default_factory=Future)


class Server:
    """Answers the processes' requests, in as many threads as run `serve`.

    Attributes:
        answering: requests that are being answered, in the order in which they were begun.
        abandoned: cell whose request is being answered although its process was ended.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._requests: list[_Request] = []
        self._changed = threading.Condition()
        self._ended = False
        self._repair: Repair | None = None
        self._begun: Worker | None = None
        self._abandoned_at = 0.0
        self.answering: list[_Request] = []
        self.abandoned: Cell | None = None

    def ask(self, worker: Worker, job: Job, message: tuple[Any, ...]) -> None:
        """Queue a request."""
        request = _Request(job.number, worker, job, message)
        with self._changed:
            worker.unanswered += 1
            self._requests.append(request)
            self._changed.notify()
        worker.sender.submit(self._send, request)

    def forget(self, worker: Worker) -> None:
        """Drop the requests of a process that has ended."""
        with self._changed:
            for request in self._requests + self.answering:
                if request.worker is worker:
                    request.reply.cancel()
            self._requests = [one for one in self._requests if one.worker is not worker]
            if self._begun is worker:
                self._begun = None

    def abandon(self, worker: Worker) -> None:
        """Drop the requests of a process that was ended, including the one being answered."""
        self.forget(worker)
        with self._changed:
            mine = [one for one in self.answering if one.worker is worker]
            if mine:
                self.abandoned, self._abandoned_at = mine[0].job.cell, time.monotonic()
                self._engine.stop()

    def is_with_another(self, worker: Worker) -> bool:
        """Whether another process's request is being answered."""
        with self._changed:
            return bool(self.answering) and self.answering[0].worker is not worker

    def is_stuck(self) -> bool:
        """Return whether the encoder hangs in a request that it was asked to abandon."""
        with self._changed:
            waited = time.monotonic() - self._abandoned_at
            return self.abandoned is not None and waited > ENCODER_SECONDS

    def end(self) -> None:
        """Stop answering."""
        with self._changed:
            self._ended = True
            for request in self._requests + self.answering:
                request.reply.cancel()
            self._changed.notify_all()

    def serve(self) -> None:
        """Answer one request after the other until the end."""
        while True:
            with self._changed:
                self._changed.wait_for(self._may_answer)
                if self._ended:
                    return
                request = self._next()
                self.answering.append(request)
            try:
                with about(request.job.cell):
                    reply = self._answer(request)
            except BaseException:
                # It is raised where the server is waited for; no other cell is to blame.
                self.end()
                raise
            with self._changed:
                self.answering.remove(request)
                if reply is None and not request.reply.cancelled():
                    # What another process has asked for was stopped along with that.
                    self._requests.append(request)
                else:
                    with suppress(InvalidStateError):
                        request.reply.set_result(reply)
                if self.abandoned is not None and not self.answering:
                    self.abandoned = None
                    self._engine.go_on()
                    self._changed.notify_all()

    def _may_answer(self) -> bool:
        # While what was abandoned is being stopped, nothing new would last.
        return self._ended or (bool(self._requests) and self.abandoned is None)

    def _next(self) -> _Request:
        # First the rest of a request in progress, then requests under the present repair, then
        # cells in their order. The sooner a cell has all its embeddings, the sooner it is scored in
        # parallel with the encoding of others; and each change of the model is checked again.
        going_on = [one for one in self._requests if one.worker is self._begun]
        same = [one for one in self._requests if one.job.cell.repair.encoding == self._repair]
        request = min(going_on or same or self._requests)
        self._requests.remove(request)
        self._repair = request.job.cell.repair.encoding
        kind, *_, more = request.message
        self._begun = request.worker if kind == "embed" and more else None
        return request

    def _answer(self, request: _Request) -> Any:
        """Return the answer, the error that it is, or None if the engine was stopped."""
        kind, texts, *given = request.message
        repair = request.job.cell.repair.encoding
        try:
            if kind == "embed":
                role, prompt, _ = given
                return self._engine.embed(repair, texts, role, prompt)
            prompt, role = given
            return self._engine.lengths(repair, texts, prompt, role)
        except EmbeddingError as error:
            return error
        except Stopped:
            return None
        # Any error is a failure of that cell.
        except Exception as error:
            return EncoderError(FailedCell.of(error))

    def _send(self, request: _Request) -> None:
        """Send the answer to a request once it is there."""
        try:
            reply = request.reply.result()
        except CancelledError:
            return
        finally:
            with self._changed:
                request.worker.unanswered -= 1
        # If the process has ended, `Pool` notices it.
        with suppress(*PIPE_ERRORS):
            request.worker.connection.send(reply)


def prompt_of(engine: Engine, message: tuple[Any, ...]) -> Any:
    """Return the prompt that was requested, or the error of looking it up."""
    try:
        return engine.prompt_of(*message[1:])
    except Exception as error:
        return EncoderError(FailedCell.of(error))


# Seconds after which an encoder that was asked to stop counts as hanging. It stops after the
# current batch or block of texts to tokenise, which takes a few seconds.
ENCODER_SECONDS = 120.0
