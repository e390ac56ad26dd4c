"""A pool of processes that score cells while the encoder works on other cells.

mteb's scoring (logistic regression, clustering) uses one core and no GPU. Each cell is scored by a
process that requests embeddings from the main process. If a process dies, or is ended because its
cell takes too long, only that cell fails.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from lcbench.encode.encoder import REQUESTS_AT_ONCE
from lcbench.encode.options import MOST_SCORING
from lcbench.errors import LcbenchError, RequestError
from lcbench.score.cell import FailedCell, Job, ScoredCell, score_cell
from lcbench.score.server import (
    ENCODER_SECONDS,
    PIPE_ERRORS,
    SHUTDOWN_SECONDS,
    Server,
    Worker,
    prompt_of,
)
from lcbench.score.worker import END, IGNORED_SIGNALS, STACKS_SIGNAL, score_jobs
from lcbench.system.hardware import cores, memory_gib
from lcbench.system.log import Relay, about
from lcbench.system.process import descendants
from lcbench.system.signals import EncoderStuck
from lcbench.system.thirdparty import start_without_main

if TYPE_CHECKING:
    from lcbench.encode.engine import Engine

# Memory of a scoring process: libraries (0.4 GiB, as processes share most of them) and data.
_GIB_PER_PROCESS = 2.0
# Seconds without a message from any process after which the encoder is checked.
_POLL_SECONDS = 1.0
# Upper limit on the time between two checks that counts for a cell, since this process may have
# been suspended.
_MOST_BETWEEN_POLLS = 5.0


def processes(asked: int | None, *, on_gpu: bool = False, among: int | None = None) -> int:
    """Return the number of scoring processes: as requested, or as many as cores and memory allow.

    Args:
        asked: requested number; None: as many as cores and memory allow.
        on_gpu: whether texts are encoded on a GPU. Half of the cores are then left to
            tokenisation, which the GPU waits for.
        among: number of cores; None: the number that this process may use.
    """
    if asked is not None:
        return asked
    there = among or cores()
    free = there // 2 if on_gpu else there
    return int(max(1, min(free, memory_gib() / 2 // _GIB_PER_PROCESS, MOST_SCORING)))


def without_processes(cell_minutes: float) -> RequestError:
    """Return the message that a time limit needs scoring processes."""
    return RequestError(
        f"cell_minutes={cell_minutes:g} needs scoring processes, which can be ended: "
        "engine.scoring=1 or more, not engine.scoring=0."
    )


class Pool:
    """Processes that score cells, started on first use.

    Attributes:
        count: maximum number of processes; 0: cells are scored in this process.
        offline: whether processes that are started from now on must not use the network.
    """

    def __init__(
        self,
        count: int,
        *,
        offline: bool,
        address: str | None = None,
        cell_minutes: float | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            count: number of processes; 0: cells are scored in this process, one after the other.
            offline: see above.
            address: address of a site's mirror of the hub.
            cell_minutes: time limit of a cell, not counting time in which the encoder works for
                other cells; None: no limit.

        Raises:
            RequestError: there is a time limit but no scoring process, so that a cell could not be
                ended.
        """
        if cell_minutes is not None and not count:
            raise without_processes(cell_minutes)
        self.offline = offline
        self.count = count
        self._address = address
        self._cell_minutes = cell_minutes
        self._looked = 0.0
        self._workers: list[Worker] = []
        self._context: Any = None
        if count:
            methods = multiprocessing.get_all_start_methods()
            forks = "forkserver" in methods
            self._context = multiprocessing.get_context("forkserver" if forks else "spawn")
            if forks:
                # A process that has imported all libraries and only forks.
                self._context.set_forkserver_preload(["lcbench.score.preload"])

    def warm_up(self) -> None:
        """Start to load the libraries in the background."""
        if self._context is not None and self._context.get_start_method() == "forkserver":
            _start_quietly(forkserver.ensure_running)

    def working(self) -> int:
        """Return the number of processes that are scoring now, each on one core."""
        return sum(one.job is not None and not one.is_waiting for one in self._workers)

    def run(
        self,
        jobs: Iterable[Job],
        engine: Engine,
        started: Callable[[Job], None],
    ) -> Generator[tuple[Job, ScoredCell | FailedCell]]:
        """Score cells of one model, and yield each as it ends.

        Args:
            jobs: jobs in the order in which they are started; the next one is requested when it can
                be.
            engine: encoder of their texts.
            started: called for each job when it starts.

        Raises:
            EncoderStuck: the encoder hangs in a cell that was ended because of its time limit.
        """
        if not self.count:
            for job in jobs:
                started(job)
                outcome: ScoredCell | FailedCell
                try:
                    with about(job.cell):
                        outcome = score_cell(job, engine.at(job.cell.repair))
                except Exception as error:
                    outcome = FailedCell.of(error)
                yield job, outcome
            return
        server = Server(engine)
        serving = ThreadPoolExecutor(REQUESTS_AT_ONCE, "encoder")
        served = [serving.submit(server.serve) for _ in range(REQUESTS_AT_ONCE)]
        waiting = _JobQueue(jobs)
        self._looked = time.monotonic()
        try:
            while True:
                self._hand_out(waiting, started)
                if not any(one.job for one in self._workers):
                    break
                busy = {one.connection: one for one in self._workers if one.job is not None}
                for connection in wait(list(busy), _POLL_SECONDS):
                    worker = busy[connection]  # type: ignore[index]
                    yield from self._handle_message(worker, server, engine)
                for worker in self._overdue(server):
                    yield self._give_up(worker, server)
                if server.is_stuck():
                    engine.is_stuck = True
                    raise EncoderStuck(server.abandoned, ENCODER_SECONDS)
                for thread in served:
                    if thread.done():
                        thread.result()
        finally:
            server.end()
            if server.answering:
                engine.stop()
            # Before waiting for the server, which may be writing to a process that does not read.
            self._end_busy()
            serving.shutdown(wait=not engine.is_stuck)
            if any(one.job for one in self._workers):
                self.close()

    def close(self) -> None:
        """End all processes, including busy ones."""
        self._end_busy()
        for worker in self._workers:
            worker.connection.close()
        _wait_for(self._workers)
        for worker in self._workers:
            worker.life.close()
            worker.sender.shutdown(wait=False)
        self._workers = []

    def _end_busy(self) -> None:
        """End the processes that are scoring a cell."""
        busy = [one for one in self._workers if one.job is not None]
        for worker in busy:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, END)
        _wait_for(busy)

    def _overdue(self, server: Server) -> list[Worker]:
        """Add the time since the last check to each cell, and return processes over the limit."""
        now = time.monotonic()
        passed = min(now - self._looked, _MOST_BETWEEN_POLLS)
        self._looked = now
        if self._cell_minutes is None:
            return []
        busy = [one for one in self._workers if one.job is not None]
        for worker in busy:
            if not (worker.is_waiting and server.is_with_another(worker)):
                worker.seconds += passed
        return [one for one in busy if one.seconds > 60 * self._cell_minutes]

    def _give_up(self, worker: Worker, server: Server) -> tuple[Job, FailedCell]:
        """End a process whose cell takes too long, and return the failure of that cell."""
        job = worker.job
        if job is None:
            raise ValueError("a process without a cell takes no time")
        waits, pid = worker.is_waiting, worker.process.pid
        started = descendants(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, STACKS_SIGNAL)
            # A stopped process would write nothing.
            time.sleep(_POLL_SECONDS / 2)
            os.kill(pid, END)
        _wait_for([worker])
        for one in started:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        server.abandon(worker)
        words = self._remove_dead(worker).traceback
        reason = (
            f"it took longer than cell_minutes={self._cell_minutes:g} and was ended while its "
            f"texts were {'encoded' if waits else 'scored'}; name more, or cell_minutes=null"
        )
        return job, FailedCell(reason, f"{reason}\n{words}")

    def _hand_out(self, waiting: _JobQueue, started: Callable[[Job], None]) -> None:
        while True:
            idle = next((one for one in self._workers if one.job is None), None)
            if idle is None and len(self._workers) == self.count:
                return
            job = waiting.next()
            if job is None:
                return
            worker = self._start_in_time() if idle is None else idle
            if idle is None:
                self._workers.append(worker)
            try:
                worker.connection.send(job)
            except OSError as error:
                # It died while it was idle.
                failed = self._remove_dead(worker)
                if idle is None:
                    raise LcbenchError(
                        "A scoring process ends immediately after its start: "
                        f"{failed.reason}. engine.scoring=0 needs no such processes."
                    ) from error
                waiting.put_back(job)
                continue
            worker.job, worker.seconds = job, 0.0
            started(job)

    def _handle_message(
        self, worker: Worker, server: Server, engine: Engine
    ) -> Iterator[tuple[Job, ScoredCell | FailedCell]]:
        """Handle a process's message: a request to the encoder, or the end of its cell."""
        job = worker.job
        if job is None:
            return
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            server.forget(worker)
            yield job, self._remove_dead(worker)
            return
        if isinstance(message, ScoredCell | FailedCell):
            worker.job = None
            yield job, message
        elif message[0] == "prompt":
            # Answered at once instead of after the texts that are being encoded.
            with suppress(*PIPE_ERRORS):
                worker.connection.send(prompt_of(engine, message))
        else:
            server.ask(worker, job, message)

    def _start_in_time(self) -> Worker:
        """Start a process; this waits briefly for the one that forks it.

        Raises:
            LcbenchError: this takes longer than the time limit of a cell.
        """
        if self._cell_minutes is None:
            return self._start()
        begun: Future[Worker] = Future()

        def start() -> None:
            try:
                worker = self._start()
            except Exception as error:
                with suppress(InvalidStateError):
                    begun.set_exception(error)
                return
            try:
                begun.set_result(worker)
            except InvalidStateError:
                # The caller has given up on it.
                worker.process.kill()
                worker.life.close()

        threading.Thread(target=start, name="starts a process", daemon=True).start()
        try:
            return begun.result(60 * self._cell_minutes)
        except TimeoutError as error:
            begun.cancel()
            raise LcbenchError(
                "A scoring process could not be started within "
                f"cell_minutes={self._cell_minutes:g}: the process that forks them hangs or is "
                "stopped. cell_minutes=null with engine.scoring=0 needs no such processes."
            ) from error

    def _start(self) -> Worker:
        here, there = self._context.Pipe()
        life_here, life_there = self._context.Pipe()
        words_here, words_there = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=score_jobs,
            args=(there, life_there, words_there, self.offline, self._address),
            daemon=True,
        )
        start_without_main(process)
        # So that each side notices when the other one ends.
        there.close()
        life_there.close()
        words_there.close()
        worker = Worker(process, here, life_here)
        worker.relay = Relay(words_here, lambda: worker.job and worker.job.cell)
        return worker

    def _remove_dead(self, worker: Worker) -> FailedCell:
        """Remove a dead process from the pool, and return the failure of its cell."""
        worker.process.join(SHUTDOWN_SECONDS)
        code = worker.process.exitcode
        # The connection is closed with its last reference, as the server may be writing to it.
        worker.life.close()
        worker.sender.shutdown(wait=False)
        worker.job = None
        self._workers.remove(worker)
        how = f"with status {code}"
        if code is not None and code < 0:
            how = f"by signal {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += " (often out of memory: fewer processes need less, engine.scoring=1)"
        reason = f"its scoring process ended {how}"
        words = worker.relay.output_tail(SHUTDOWN_SECONDS) if worker.relay else ""
        return FailedCell(reason, f"{reason}\n{words}", transient=True)


def _wait_for(workers: Sequence[Worker]) -> None:
    """Give processes the time to end by themselves, then end them."""
    until = time.monotonic() + SHUTDOWN_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
    left = [one for one in workers if one.process.is_alive()]
    for worker in left:
        worker.process.kill()
    # The forking process, which reports their ends, may itself be stopped: wait for all together.
    until = time.monotonic() + SHUTDOWN_SECONDS
    for worker in left:
        worker.process.join(max(0.0, until - time.monotonic()))


class _JobQueue:
    """Jobs that have not been started; the next is requested when it can be started."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._back: deque[Job] = deque()

    def next(self) -> Job | None:
        """Return the next job, or None."""
        return self._back.popleft() if self._back else next(self._jobs, None)

    def put_back(self, job: Job) -> None:
        """Take back a job that could not be started, as the next one."""
        self._back.appendleft(job)


def _start_quietly(start: Callable[[], None]) -> None:
    """Start a process that ignores the signals of a terminal."""
    if threading.current_thread() is not threading.main_thread():
        start()
        return
    before = {one: signal.signal(one, signal.SIG_IGN) for one in IGNORED_SIGNALS}
    try:
        start()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
