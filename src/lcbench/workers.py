"""Score cells in processes of their own, while the encoder goes on with others.

mteb's scoring (logistic regression, clustering) uses one core and no GPU. Here each cell is scored
by a process that asks this one for embeddings: whatever the task asks for, mteb's code decides. A
process that dies is one failed cell, and so is one that is ended since its cell takes too long.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lcbench import failures, hub, machine
from lcbench.console import without_credentials
from lcbench.encode.encoder import Embedded, EmbeddingError, Encoder
from lcbench.errors import LcbenchError, RequestError
from lcbench.grid import Cell
from lcbench.provenance import ModelFacts, cores, model_meta
from lcbench.runlog import LOGGER, Relay, about
from lcbench.settings import cell_minutes_without_processes
from lcbench.stop import DeviceLost, EncoderStuck
from lcbench.tasks.mirror import Data, point_at
from lcbench.tasks.selection import DocsSizes
from lcbench.tasks.suites import DOCS_TASKS, Part, make_task, parts_of
from lcbench.tempscale.policy import Role

if TYPE_CHECKING:
    import pyarrow as pa
    from mteb.abstasks.task_metadata import TaskMetadata

    from lcbench.encode.encoder import Backend
    from lcbench.encode.engine import Engine

# What one may take: libraries (0.4 GiB, since processes share most of them) and its task's data.
_GIB_A_PROCESS = 2.0
_MOST_PROCESSES = 8
# Seconds that a process has to end by itself, or to ask for the rest of what it began.
_PATIENCE = 2.0
# Nothing is heard from any process for so long: is the encoder still there?
_LOOK_SECONDS = 1.0
# What tells a process that scores to end: SIGTERM reaches every process of a job, and what those do
# then is for the one to say that started them. Nothing else sends this one.
_END = signal.SIGALRM
# What lets such a process write down where it is.
_WHERE = signal.SIGUSR2
# Of the time between two looks at a cell no more counts as its own: this process may have slept.
_MOST_BETWEEN_LOOKS = 5.0
# Seconds after which an encoder that was told to stop is taken to hang: it stops after its batch,
# or when a block of texts is tokenised, which take a few seconds.
_ENCODER_SECONDS = 120.0
# What writing to a process that is gone raises.
_GONE = (OSError, TypeError, ValueError)


@dataclass(frozen=True)
class Job:
    """A cell to be scored.

    Attributes:
        number: its place in the order of the request.
        cell: which one.
        part: what is scored of the task.
        docs: sizes of the docs suite, for the model's window.
        model: what mteb is told of the model.
        mirror: the folder in which datasets are looked for first.
        unverified_data: whether a plain folder there may hold another dataset than its name says.
    """

    number: int
    cell: Cell
    part: Part
    docs: DocsSizes
    model: ModelFacts
    mirror: Path | None
    unverified_data: bool = False


@dataclass(frozen=True)
class ScoredCell:
    """A cell that was scored, in a form that travels between processes.

    Attributes:
        result: mteb's JSON, as mteb writes it.
        model_meta: mteb's description of the model.
        record: of its provenance, what scoring knows.
        items: one row an item, or None.
        without_roles: whether the task has neither queries nor documents.
    """

    result: bytes
    model_meta: dict[str, Any]
    record: dict[str, Any]
    items: pa.Table | None
    without_roles: bool


@dataclass(frozen=True)
class FailedCell:
    """A cell that could not be scored.

    Attributes:
        reason: in one line.
        traceback: all of it.
        transient: whether it may go better the next time.
        is_full: whether there was no room on a disk, so that no other cell would fare better.
    """

    reason: str
    traceback: str
    transient: bool = False
    is_full: bool = False

    @classmethod
    def of(cls, error: BaseException) -> FailedCell:
        """Return what an exception comes to, with its traceback.

        Raises:
            DeviceLost: it is not about a cell: a GPU has failed.
        """
        if (lost := failures.loss_of(error)) is not None:
            LOGGER.error("a GPU has failed:\n%s", "".join(traceback.format_exception(error)))
            raise DeviceLost(lost) from error
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        # Both are written down.
        return cls(
            without_credentials(reason),
            without_credentials("".join(traceback.format_exception(error))),
            transient=failures.may_pass(error),
            is_full=failures.is_full(error),
        )


class EncoderError(Exception):
    """The encoder failed; carries what it said."""

    def __init__(self, failed: FailedCell) -> None:
        super().__init__(failed)
        self.failed = failed


def processes(asked: int | None, *, beside_gpu: bool = False, among: int | None = None) -> int:
    """Return how many processes score: as asked, or as many as cores and memory allow.

    Args:
        asked: how many; None: see above.
        beside_gpu: whether texts are encoded on a GPU: it computes while all cores are free, and
            waits for them to be tokenised, so that half of the cores are left to that.
        among: how many cores there are; None: as here.
    """
    if asked is not None:
        return asked
    there = among or cores()
    free = there // 2 if beside_gpu else there
    return int(max(1, min(free, _memory_gib() / 2 // _GIB_A_PROCESS, _MOST_PROCESSES)))


def _memory_gib() -> float:
    """Return the memory that this process may use: the machine's, or its container's or job's."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            sizes.append(int(Path("/sys/fs/cgroup", limit).read_text(encoding="ascii")))
    with suppress(KeyError, ValueError):
        # In MiB.
        sizes.append(int(os.environ["SLURM_MEM_PER_NODE"]) * 2**20)
    return min(sizes) / 2**30


def score_cell(job: Job, backend: Backend) -> ScoredCell:
    """Score a cell, in whatever process this is.

    Raises:
        whatever mteb, the data or the model raises.
    """
    from threadpoolctl import threadpool_limits

    from lcbench.score import score

    task = make_task(job.part, job.docs)
    data = _data(job, task)
    meta = model_meta(job.model, job.cell.policy)
    began = time.time()
    # One thread, so that scores have the same digits on any number of cores; other cores score
    # other cells.
    with threadpool_limits(1):
        scored = score(task, Encoder(backend, meta), unverified=job.unverified_data)
    if scored.differs:
        data["differs"] = list(scored.differs)
    with tempfile.TemporaryDirectory(prefix="lcbench-") as folder:
        path = Path(folder, "result.json")
        scored.result.to_disk(path)
        result = path.read_bytes()
    kind = task.metadata.type
    return ScoredCell(
        result=result,
        model_meta=meta.to_dict(),
        record={"task_type": kind, "data": data, "began": began, **scored.provenance()},
        items=scored.items,
        without_roles=not has_queries(kind),
    )


def has_queries(kind: str) -> bool:
    """Return whether a type of task has queries and documents; others' texts are neither."""
    return "Retrieval" in kind or "Reranking" in kind


def _data(job: Job, task: Any) -> dict[str, Any]:
    """Point a task at its data, and return what its provenance says of it."""
    if job.cell.task in DOCS_TASKS:
        return asdict(Data("docstrings", str(job.cell.protocol.docs), "installed libraries"))
    if parts := parts_of(task):
        return {"parts": {one.metadata.name: asdict(point_at(one, job.mirror)) for one in parts}}
    return asdict(point_at(task, job.mirror))


@dataclass
class _Worker:
    """A process that scores, as this one sees it."""

    process: Any
    connection: Connection
    # Held open so that the process can tell when this one is gone.
    life: Connection
    job: Job | None = None
    asking: bool = False
    relay: Relay | None = None
    # That its cell has taken, without the waiting for the encoder's turn.
    seconds: float = 0.0


@dataclass(order=True)
class _Request:
    number: int
    worker: _Worker = field(compare=False)
    job: Job = field(compare=False)
    message: tuple[Any, ...] = field(compare=False)


class Pool:
    """Processes that score cells; they are started when they are first needed.

    Attributes:
        count: how many there are at most; 0: cells are scored in this process.
        offline: whether the network is out of bounds for processes that are started from now on.
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
            count: processes; 0: cells are scored in this one, one after the other.
            offline: see above.
            address: of a site's mirror of the hub.
            cell_minutes: that a cell may take, without those in which the encoder works for other
                cells; None: any number.

        Raises:
            RequestError: cells are scored in this process, which cannot end one alone.
        """
        if cell_minutes is not None and not count:
            raise RequestError(cell_minutes_without_processes(cell_minutes))
        self.offline = offline
        self.count = count
        self._address = address
        self._cell_minutes = cell_minutes
        self._looked = 0.0
        self._workers: list[_Worker] = []
        self._context: Any = None
        if count:
            methods = multiprocessing.get_all_start_methods()
            forks = "forkserver" in methods
            self._context = multiprocessing.get_context("forkserver" if forks else "spawn")
            if forks:
                # A process that has imported everything and does nothing but fork.
                self._context.set_forkserver_preload(["lcbench.score", "sentence_transformers"])

    def warm_up(self) -> None:
        """Begin to load the libraries, beside whatever this process does."""
        if self._context is not None and self._context.get_start_method() == "forkserver":
            _start_quietly(forkserver.ensure_running)

    def working(self) -> int:
        """Return how many processes are scoring at present, and so use a core."""
        return sum(one.job is not None and not one.asking for one in self._workers)

    def run(
        self,
        jobs: Iterable[Job],
        engine: Engine,
        started: Callable[[Job], None],
    ) -> Generator[tuple[Job, ScoredCell | FailedCell]]:
        """Score cells of one model, and yield each as it ends.

        Args:
            jobs: in the order in which they are begun; the next is asked for when it can be.
            engine: encodes for them.
            started: told of each as it begins.

        Raises:
            EncoderStuck: the encoder does not come back from a cell that was ended for its time.
        """
        if not self.count:
            for job in jobs:
                started(job)
                outcome: ScoredCell | FailedCell
                try:
                    with about(job.cell):
                        outcome = score_cell(job, engine.at(job.cell.policy))
                except Exception as error:
                    outcome = FailedCell.of(error)
                yield job, outcome
            return
        server = _Server(engine)
        serving = ThreadPoolExecutor(1, "encoder")
        served = serving.submit(server.serve)
        waiting = _Waiting(jobs)
        self._looked = time.monotonic()
        try:
            while True:
                self._hand_out(waiting, started)
                if not any(one.job for one in self._workers):
                    break
                busy = {one.connection: one for one in self._workers if one.job is not None}
                for connection in wait(list(busy), _LOOK_SECONDS):
                    worker = busy[connection]  # type: ignore[index]
                    yield from self._hear(worker, server, engine)
                for worker in self._overdue(server):
                    yield self._give_up(worker, server)
                if server.is_stuck():
                    engine.is_stuck = True
                    raise EncoderStuck(server.abandoned, _ENCODER_SECONDS)
                if served.done():
                    served.result()
        finally:
            server.end()
            if server.current is not None:
                engine.stop()
            # Before the server is waited for: it may be writing to one that does not read.
            self._end_busy()
            serving.shutdown(wait=not engine.is_stuck)
            if any(one.job for one in self._workers):
                self.close()

    def close(self) -> None:
        """End all processes, also in the middle of their work."""
        self._end_busy()
        for worker in self._workers:
            worker.connection.close()
        _wait_for(self._workers)
        for worker in self._workers:
            worker.life.close()
        self._workers = []

    def _end_busy(self) -> None:
        """End the processes that are in the middle of their work."""
        busy = [one for one in self._workers if one.job is not None]
        for worker in busy:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, _END)
        _wait_for(busy)

    def _overdue(self, server: _Server) -> list[_Worker]:
        """Count the time that cells have taken since the last look, and return whose is over."""
        now = time.monotonic()
        passed = min(now - self._looked, _MOST_BETWEEN_LOOKS)
        self._looked = now
        if self._cell_minutes is None:
            return []
        busy = [one for one in self._workers if one.job is not None]
        for worker in busy:
            if not (worker.asking and server.is_with_another(worker)):
                worker.seconds += passed
        return [one for one in busy if one.seconds > 60 * self._cell_minutes]

    def _give_up(self, worker: _Worker, server: _Server) -> tuple[Job, FailedCell]:
        """End a process whose cell takes too long, and return that cell as a failed one."""
        job = worker.job
        if job is None:
            raise ValueError("a process without a cell takes no time")
        asking, pid = worker.asking, worker.process.pid
        started = machine.descendants(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, _WHERE)
            # It may be stopped, and then writes nothing.
            time.sleep(_LOOK_SECONDS / 2)
            os.kill(pid, _END)
        _wait_for([worker])
        for one in started:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        server.abandon(worker)
        words = self._bury(worker).traceback
        reason = (
            f"it took longer than cell_minutes={self._cell_minutes:g} and was ended while its "
            f"texts were {'encoded' if asking else 'scored'}; name more, or cell_minutes=null"
        )
        return job, FailedCell(reason, f"{reason}\n{words}")

    def _hand_out(self, waiting: _Waiting, started: Callable[[Job], None]) -> None:
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
                # It died while it had nothing to do.
                failed = self._bury(worker)
                if idle is None:
                    raise LcbenchError(
                        "A process that is to score cells ends as soon as it has begun: "
                        f"{failed.reason}. engine.scoring=0 does without."
                    ) from error
                waiting.put_back(job)
                continue
            worker.job, worker.asking, worker.seconds = job, False, 0.0
            started(job)

    def _hear(
        self, worker: _Worker, server: _Server, engine: Engine
    ) -> Iterator[tuple[Job, ScoredCell | FailedCell]]:
        """Take what a process says: a question to the encoder, or the end of its cell."""
        job = worker.job
        if job is None:
            return
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            server.forget(worker)
            yield job, self._bury(worker)
            return
        if isinstance(message, ScoredCell | FailedCell):
            worker.job = None
            yield job, message
        elif message[0] == "prompt":
            # Known at once, and not to wait for what is being encoded.
            with suppress(*_GONE):
                worker.connection.send(_prompt(engine, message))
        else:
            worker.asking = True
            server.ask(worker, job, message)

    def _start_in_time(self) -> _Worker:
        """Start a process, which for a moment waits for the one that forks it.

        Raises:
            LcbenchError: that takes longer than a cell may.
        """
        if self._cell_minutes is None:
            return self._start()
        begun: Future[_Worker] = Future()

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
                # Nobody waits for it any more.
                worker.process.kill()
                worker.life.close()

        threading.Thread(target=start, name="starts a process", daemon=True).start()
        try:
            return begun.result(60 * self._cell_minutes)
        except TimeoutError as error:
            begun.cancel()
            raise LcbenchError(
                "A process that is to score cells could not be started within "
                f"cell_minutes={self._cell_minutes:g}: the one that starts them hangs, or is "
                "stopped. cell_minutes=null with engine.scoring=0 does without it."
            ) from error

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        life_here, life_there = self._context.Pipe()
        words_here, words_there = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_score_jobs,
            args=(there, life_there, words_there, self.offline, self._address),
            daemon=True,
        )
        process.start()
        # So that either side sees the end of the other.
        there.close()
        life_there.close()
        words_there.close()
        worker = _Worker(process, here, life_here)
        worker.relay = Relay(words_here, lambda: worker.job and worker.job.cell)
        return worker

    def _bury(self, worker: _Worker) -> FailedCell:
        """Take a process that has died out of the pool, and say what became of it."""
        worker.process.join(_PATIENCE)
        code = worker.process.exitcode
        # Its connection is closed with the last that knows of it: the server may be writing there.
        worker.life.close()
        worker.job = None
        self._workers.remove(worker)
        how = f"with status {code}"
        if code is not None and code < 0:
            how = f"by signal {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                how += " (often for lack of memory: fewer processes need less, engine.scoring=1)"
        reason = f"the process that scored it ended {how}"
        words = worker.relay.last_words(_PATIENCE) if worker.relay else ""
        return FailedCell(reason, f"{reason}\n{words}", transient=True)


def _wait_for(workers: Sequence[_Worker]) -> None:
    """Give processes the time to end by themselves, then end them."""
    until = time.monotonic() + _PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
    left = [one for one in workers if one.process.is_alive()]
    for worker in left:
        worker.process.kill()
    # What says that they have ended may itself be stopped: all of them are waited for together.
    until = time.monotonic() + _PATIENCE
    for worker in left:
        worker.process.join(max(0.0, until - time.monotonic()))


class _Waiting:
    """Jobs that are yet to be begun: the next is asked for when it can be begun."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._back: deque[Job] = deque()

    def next(self) -> Job | None:
        """Return the next; None: there is none."""
        return self._back.popleft() if self._back else next(self._jobs, None)

    def put_back(self, job: Job) -> None:
        """Take back one that could not be begun: it is the next."""
        self._back.appendleft(job)


class _Server:
    """Answers what the processes ask, in a thread of its own: one request at a time.

    Attributes:
        current: what is being answered.
        abandoned: the cell whose request is being answered, where nobody waits for the answer.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._requests: list[_Request] = []
        self._changed = threading.Condition()
        self._ended = False
        self._policy: Any = None
        self._awaited: _Worker | None = None
        self._abandoned_at = 0.0
        self.current: _Request | None = None
        self.abandoned: Cell | None = None

    def ask(self, worker: _Worker, job: Job, message: tuple[Any, ...]) -> None:
        """Put a request in the queue."""
        with self._changed:
            self._requests.append(_Request(job.number, worker, job, message))
            self._changed.notify()

    def forget(self, worker: _Worker) -> None:
        """Drop what a process has asked for that is gone."""
        with self._changed:
            self._requests = [one for one in self._requests if one.worker is not worker]
            if self._awaited is worker:
                self._awaited = None

    def abandon(self, worker: _Worker) -> None:
        """Drop what a process has asked for that was ended, also what is being answered."""
        self.forget(worker)
        with self._changed:
            if self.current is not None and self.current.worker is worker:
                self.abandoned, self._abandoned_at = self.current.job.cell, time.monotonic()
                self._engine.stop()

    def is_with_another(self, worker: _Worker) -> bool:
        """Whether another process's request is being answered."""
        current = self.current
        return current is not None and current.worker is not worker

    def is_stuck(self) -> bool:
        """Whether the encoder does not come back from a request that it was told to leave."""
        with self._changed:
            waited = time.monotonic() - self._abandoned_at
            return self.abandoned is not None and waited > _ENCODER_SECONDS

    def end(self) -> None:
        """Answer no more."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def serve(self) -> None:
        """Answer until told to end."""
        while True:
            with self._changed:
                self._changed.wait_for(self._has_what_it_waits_for, _PATIENCE)
                self._awaited = self._awaited if self._has_what_it_waits_for() else None
                if self._ended:
                    return
                if not self._requests:
                    continue
                request = self.current = self._next()
            with about(request.job.cell):
                reply = self._answer(request)
            request.worker.asking = False
            # Where the process is gone, its end is seen elsewhere.
            with suppress(*_GONE):
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
        # The rest of what was begun, then what is at the present temperature, then cells in their
        # order: the sooner one has its embeddings together, the sooner it is scored beside the
        # encoding of others; and another temperature is proven again.
        going_on = [one for one in self._requests if one.worker is self._awaited]
        same = [one for one in self._requests if one.job.cell.policy == self._policy]
        request = min(going_on or same or self._requests)
        self._requests.remove(request)
        self._policy = request.job.cell.policy
        kind, *_, more = request.message
        self._awaited = request.worker if kind == "embed" and more else None
        return request

    def _answer(self, request: _Request) -> Any:
        kind, texts, *given = request.message
        backend = self._engine.at(request.job.cell.policy)
        try:
            if kind == "embed":
                role, prompt, more = given
                return backend.embed(texts, role, prompt, more=more)
            return backend.lengths(texts, *given)
        except EmbeddingError as error:
            return error
        # Whatever it is, it belongs to that cell.
        except Exception as error:
            return EncoderError(FailedCell.of(error))


def _prompt(engine: Engine, message: tuple[Any, ...]) -> Any:
    """Return the answer to a question for a prompt, or the error that it is."""
    try:
        return engine.prompt_of(*message[1:])
    except Exception as error:
        return EncoderError(FailedCell.of(error))


class _RemoteBackend:
    """The encoder of another process, as the process that scores sees it; see `Backend`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prompts: dict[tuple[str, Any], str] = {}

    def embed(
        self, texts: Sequence[str], role: Role | None, prompt: str, *, more: bool
    ) -> Embedded:
        found: Embedded = self._ask("embed", texts, role, prompt, more)
        return found

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
        reply = self._connection.recv()
        if isinstance(reply, Exception):
            raise reply
        return reply


# What is sent to all processes of a terminal or of a job: what they do is decided by the one that
# started them.
_OTHERS_BUSINESS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def _start_quietly(start: Callable[[], None]) -> None:
    """Start a process that ignores Ctrl-C and the like."""
    if threading.current_thread() is not threading.main_thread():
        start()
        return
    before = {one: signal.signal(one, signal.SIG_IGN) for one in _OTHERS_BUSINESS}
    try:
        start()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _score_jobs(
    connection: Connection, life: Connection, words: Connection, offline: bool, address: str | None
) -> None:
    """Score jobs until there are no more: what a process of the pool runs."""
    # Some of mteb's similarities are taken on a GPU wherever one is seen: thousands of small ones
    # beside the encoder, in whatever precision, and half a gigabyte of its memory in each process.
    # In time: nothing that has been imported before asks CUDA for its devices.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for one in _OTHERS_BUSINESS:
        signal.signal(one, signal.SIG_IGN)
    # As an exception, so that what the libraries have to clean up is.
    signal.signal(_END, lambda *_: sys.exit(1))
    # What it says goes to the one log there is, not between the lines of another.
    for stream in (1, 2):
        os.dup2(words.fileno(), stream)
    words.close()
    faulthandler.register(_WHERE, file=2, all_threads=True)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    from lcbench.runtime import quiet_libraries

    quiet_libraries()
    if address is not None:
        hub.use(address)
    if offline:
        hub.go_offline()
    import torch

    torch.set_num_threads(1)
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


def _end_with(life: Connection) -> None:
    """End this process when the one that started it does, whatever it is doing."""
    with suppress(EOFError, OSError):
        life.recv_bytes()
    os.kill(os.getpid(), _END)
    time.sleep(_PATIENCE)
    os._exit(1)
