"""Cells scored in processes of their own: the same scores, and a death is one failed cell."""

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from commands import Commands
from engines import engine_of

from lcbench.encode.encoder import EmbeddingError
from lcbench.encode.engine import Engine
from lcbench.encode.store.shelf import Store
from lcbench.errors import LcbenchError, RequestError
from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.results.provenance import model_facts
from lcbench.score import pool as workers
from lcbench.score import server as score_server
from lcbench.score import worker as score_worker
from lcbench.score.cell import FailedCell, Job, ScoredCell, score_cell
from lcbench.score.pool import Pool, processes
from lcbench.system import log
from lcbench.system import process as machine
from lcbench.system.signals import EncoderStuck
from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes
from lcbench.tasks.docs.source import DocsSource
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.suites import resolve_all
from lcbench.tempscale.policy import parse

SIZES = DocsSizes(
    documents=40,
    documents_per_module=8,
    long_documents=8,
    clustering_sets=2,
    clustering_share=0.7,
    synthetic=SyntheticSizes(lengths=(64,), documents=3),
)
TASKS = ("DocstringLibraryClassification", "DocstringModuleClusteringP2P", "DocstringRetrieval")


def jobs_of(located: Any, model: Any) -> list[Job]:
    """Three tasks at two temperatures."""
    parts = resolve_all([TaskChoice(name) for name in TASKS], "test", None, [DocsSource(SIZES)])
    protocol = Protocol("paper", "none", "float32", "test", None, None, "0" * 16)
    cells = [
        Cell(located.name, located.revision, Repair(parse(tau)), task, protocol)
        for tau in (1.0, 0.7)
        for task in TASKS
    ]
    facts = model_facts(located, model)
    return [Job(number, cell, parts[cell.task], facts, None) for number, cell in enumerate(cells)]


@pytest.fixture(scope="module")
def made(make_model: Callable[[str], Path]) -> Iterator[tuple[Engine, list[Job]]]:
    """An engine, and jobs for it."""
    engine, found = engine_of(make_model("bert"))
    yield engine, jobs_of(*found)
    engine.close()


@pytest.fixture
def pool() -> Iterator[Pool]:
    with closing(Pool(2, offline=True)) as one:
        yield one


def ended(pool: Pool, engine: Engine, jobs: list[Job]) -> dict[int, Any]:
    begun: list[Job] = []
    with closing(pool.run(jobs, engine, begun.append)) as outcomes:
        found = {job.number: outcome for job, outcome in outcomes}
    assert begun == jobs
    return found


def main_part(scored: ScoredCell) -> Any:
    """What must be the same digit by digit: all scores."""
    return json.loads(scored.result)["scores"]


def test_from_the_same_embeddings_processes_give_the_scores_of_this_one_digit_by_digit(
    made: tuple[Engine, list[Job]], pool: Pool
) -> None:
    engine, jobs = made
    alone = {job.number: score_cell(job, engine.at(job.cell.repair)) for job in jobs}
    # What was encoded for these is in the engine's store.
    found = ended(pool, engine, jobs)
    for number, scored in alone.items():
        assert main_part(found[number]) == main_part(scored)
        assert found[number].items.equals(scored.items)
        assert found[number].model_meta == scored.model_meta
        assert found[number].record["data"] == scored.record["data"]
        assert found[number].record["texts"] == scored.record["texts"]
    # A temperature reaches the encoder from a process as well.
    assert main_part(alone[0]) != main_part(alone[3])


def test_processes_that_share_an_encoder_give_the_scores_of_cells_run_alone(
    made: tuple[Engine, list[Job]], pool: Pool, make_model: Callable[[str], Path]
) -> None:
    """Cold: which cell asks first is left to chance, and so are the batches."""
    _, jobs = made
    folder = make_model("bert")
    engine, _ = engine_of(folder)
    # Temperatures change from each job to the next.
    mixed = [jobs[i] for i in (0, 3, 1, 4, 2, 5)]
    found = ended(pool, engine, mixed)
    engine.close()
    for job in jobs:
        fresh, _ = engine_of(folder)
        alone = score_cell(job, fresh.at(job.cell.repair))
        fresh.close()
        for one, other in zip(
            main_part(found[job.number])["test"], main_part(alone)["test"], strict=True
        ):
            assert one["main_score"] == pytest.approx(other["main_score"], abs=1e-4)
    assert sum(one.record["encoded_texts"] for one in found.values()) > 0


def test_encoding_waiting_and_scoring_are_distinguished(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made
    ended(pool, engine, jobs[:2])
    lengths = engine.lengths

    def slow(*given: Any) -> Any:
        # Another's turn comes first, and then it takes its time itself.
        time.sleep(1.0)
        found, seconds = lengths(*given)
        return found, seconds + 0.4

    monkeypatch.setattr(engine, "lengths", slow)
    found = ended(pool, engine, jobs[:1])
    record = found[0].record
    # Lengths are asked for once by the items of a classification; nothing else was made slow. A
    # machine that does other things as well takes longer for all of it, but no second counts twice.
    assert record["seconds_wait"] >= 0.59
    assert record["seconds_encode"] >= 0.4
    # What is left of all of them when the others are taken away.
    assert record["seconds_score"] > 0
    counted = [record[f"seconds_{part}"] for part in ("load", "encode", "wait", "items", "score")]
    assert min(counted) >= 0
    assert sum(counted) == pytest.approx(record["seconds"])


def test_the_death_of_a_process_is_one_failed_cell(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made
    killed: list[int] = []
    embed = engine.embed

    def kill_the_second(repair: Any, *given: Any) -> Any:
        if repair == Repair(parse(0.7)) and not killed:
            (worker,) = [w for w in pool._workers if w.job is not None and w.job.number == 3]
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)
        return embed(repair, *given)

    monkeypatch.setattr(engine, "embed", kill_the_second)
    found = ended(pool, engine, jobs)
    assert isinstance(found[3], FailedCell)
    assert found[3].reason == (
        "its scoring process ended by signal SIGKILL (often out of memory: fewer "
        "processes need less, engine.scoring=1)"
    )
    assert [number for number, one in found.items() if isinstance(one, FailedCell)] == [3]
    assert len(found) == len(jobs)


def test_a_process_that_died_idle_is_replaced_and_one_that_never_lives_is_reported(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made
    ended(pool, engine, jobs[:2])
    for worker in pool._workers:
        worker.process.kill()
        worker.process.join()
    found = ended(pool, engine, jobs[:2])
    assert all(isinstance(one, ScoredCell) for one in found.values())
    start = pool._start

    def stillborn() -> Any:
        worker = start()
        worker.process.kill()
        worker.process.join()
        return worker

    pool.close()
    monkeypatch.setattr(pool, "_start", stillborn)
    with pytest.raises(LcbenchError, match=r"ends immediately after its start.*engine.scoring=0"):
        ended(pool, engine, jobs[:1])


def test_what_the_encoder_raises_is_the_cells_own_failure(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made

    def no_memory(policy: Any, *given: Any) -> Any:
        raise MemoryError("one text alone is too much")

    monkeypatch.setattr(engine, "embed", no_memory)
    found = ended(pool, engine, jobs[:1])
    assert found[0].reason == "MemoryError: one text alone is too much"
    assert "no_memory" in found[0].traceback


def test_a_task_that_fails_leaves_its_traceback(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made

    def not_a_number(policy: Any, texts: Any, role: Any, prompt: str) -> Any:
        raise EmbeddingError(1, 7, len(texts))

    monkeypatch.setattr(engine, "embed", not_a_number)
    found = ended(pool, engine, jobs[:1])
    assert found[0].reason.startswith("EmbeddingError: The embedding of text ")
    assert "(7 tokens) is zero or not finite" in found[0].reason
    assert "score_cell" in found[0].traceback


def test_processes_end_with_the_run_that_is_given_up(
    made: tuple[Engine, list[Job]], pool: Pool
) -> None:
    engine, jobs = made
    outcomes = pool.run(jobs, engine, lambda job: None)
    next(outcomes)
    pids = [worker.process.pid for worker in pool._workers]
    assert len(pids) == 2
    outcomes.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    engine._forward._stopped = False
    # Another run starts others.
    assert len(ended(pool, engine, jobs[:2])) == 2


def test_a_process_that_is_stopped_does_not_keep_a_run_from_ending(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is in the middle of writing to it more than a pipe holds."""
    engine, jobs = made
    embed = engine.embed
    stopped: list[int] = []

    def stop_it(*given: Any) -> Any:
        found = embed(*given)
        if not stopped:
            stopped.extend(w.process.pid for w in pool._workers if w.is_waiting)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
        found.embeddings = np.tile(found.embeddings, (1, 2000))
        return found

    monkeypatch.setattr(engine, "embed", stop_it)
    outcomes = pool.run(jobs[:2], engine, lambda job: None)
    thread = threading.Thread(target=lambda: list(outcomes), daemon=True)
    monkeypatch.setattr(workers, "_POLL_SECONDS", 0.1)
    began: list[float] = []
    wait = workers.wait

    def give_up(*given: Any) -> Any:
        if stopped:
            # The server is given the time to begin to write.
            time.sleep(0.5)
            began.append(time.monotonic())
            raise KeyboardInterrupt
        return wait(*given)

    monkeypatch.setattr(workers, "wait", give_up)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    thread.start()
    thread.join(120)
    ended = time.monotonic()
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not thread.is_alive()
    assert stopped
    assert ended - began[0] < 30
    assert not any(Path(f"/proc/{pid}").exists() for pid in stopped)
    engine._forward._stopped = False


def processes_of(pool: Pool) -> list[int]:
    return [worker.process.pid for worker in pool._workers]


def test_a_cell_that_takes_longer_than_it_may_is_ended_and_the_others_go_on(
    made: tuple[Engine, list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made
    embed = engine.embed
    hung: list[int] = []

    def let_it_hang(*given: Any) -> Any:
        if not hung:
            (worker,) = [w for w in pool._workers if w.job is not None and w.job.number == 1]
            hung.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGSTOP)
            worker.seconds = 600.0
        return embed(*given)

    with closing(Pool(2, offline=True, cell_minutes=10)) as pool:
        monkeypatch.setattr(engine, "embed", let_it_hang)
        found = ended(pool, engine, jobs)
        assert hung[0] not in processes_of(pool)
    assert not Path(f"/proc/{hung[0]}").exists()
    failed = found[1]
    assert isinstance(failed, FailedCell)
    assert failed.reason.startswith("it took longer than cell_minutes=10 and was ended while its ")
    assert failed.reason.endswith("; name more, or cell_minutes=null")
    # It would hang again.
    assert not failed.transient
    assert not failed.is_full
    assert [number for number, one in found.items() if isinstance(one, FailedCell)] == [1]
    assert len(found) == len(jobs)


def test_what_is_encoded_for_a_cell_that_was_ended_is_left_and_other_cells_are_encoded(
    made: tuple[Engine, list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made
    embed = engine.embed
    slow: list[float] = []
    # Where processes are forked from that of the tests, its frames are part of theirs.
    monkeypatch.setattr(log, "_LAST_LINES", 1_000)

    def without_end(*given: Any) -> Any:
        if not slow:
            slow.append(time.monotonic())
            (worker,) = [w for w in pool._workers if w.job is not None and w.job.number == 0]
            worker.seconds = 600.0
            while not engine._forward._stopped and time.monotonic() - slow[0] < 60:
                time.sleep(0.05)
            raise RuntimeError("stopped")
        return embed(*given)

    monkeypatch.setattr(engine, "embed", without_end)
    with closing(Pool(1, offline=True, cell_minutes=10)) as pool:
        found = ended(pool, engine, jobs[:2])
    assert time.monotonic() - slow[0] < 60
    assert isinstance(found[0], FailedCell)
    assert "was ended while its texts were encoded" in found[0].reason
    # Where it was is told by the process itself.
    assert "in _received" in found[0].traceback
    assert "in score_cell" in found[0].traceback
    assert isinstance(found[1], ScoredCell)
    assert not engine._forward._stopped


def test_an_encoder_that_does_not_come_back_ends_the_run_after_its_cell_has_failed(
    made: tuple[Engine, list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, jobs = made
    comes_back = threading.Event()

    def hang(*_: Any) -> Any:
        pool._workers[0].seconds = 600.0
        comes_back.wait(60)
        raise RuntimeError("late")

    monkeypatch.setattr(engine, "embed", hang)
    monkeypatch.setattr(score_server, "ENCODER_SECONDS", 0.5)
    outcomes: list[Any] = []
    try:
        with closing(Pool(1, offline=True, cell_minutes=10)) as pool:
            with pytest.raises(EncoderStuck, match="a device or a tokenizer hangs") as raised:
                outcomes += pool.run(jobs[:2], engine, lambda job: None)
            # What has to be closed is not waited for either.
            assert engine.is_stuck
            assert not comes_back.is_set()
    finally:
        comes_back.set()
        engine.is_stuck = False
        engine.go_on()
    assert str(jobs[0].cell) in str(raised.value)


def test_the_time_of_a_cell_is_its_own(
    made: tuple[Engine, list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the encoding of others' texts counts nor the time in which this process slept."""
    engine, jobs = made
    now = [1000.0]
    monkeypatch.setattr(workers.time, "monotonic", lambda: now[0])
    pool, server = Pool(2, offline=True, cell_minutes=0.1), score_server.Server(engine)
    one, other = (score_server.Worker(None, None, None, job) for job in jobs[:2])  # type: ignore[arg-type]
    pool._workers, pool._looked = [one, other], 1000.0
    one.unanswered = other.unanswered = 1
    server.answering = [score_server._Request(0, one, jobs[0], ("lengths", ["a"], ""))]

    def after(seconds: float) -> list[score_server.Worker]:
        now[0] += seconds
        return pool._overdue(server)

    assert after(3.0) == []
    assert (one.seconds, other.seconds) == (3.0, 0.0)
    other.unanswered = 0
    assert after(1.0) == []
    assert (one.seconds, other.seconds) == (4.0, 1.0)
    # A laptop that was closed, or Ctrl-Z.
    other.job = None
    assert after(3600.0) == [one]
    assert (one.seconds, other.seconds) == (9.0, 1.0)
    pool._cell_minutes = None
    assert after(1.0) == []


def test_a_cell_that_is_ended_takes_what_it_has_started_with_it(
    made: tuple[Engine, list[Job]],
) -> None:
    engine, jobs = made
    with subprocess.Popen(
        ["sh", "-c", "(sleep 600 & echo $!; wait) & trap '' ALRM USR2; echo $!; wait; sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdout is not None
        below = sorted(int(shell.stdout.readline()) for _ in range(2))
        until = time.monotonic() + 30
        while sorted(machine.descendants(shell.pid)) != below and time.monotonic() < until:
            time.sleep(0.05)
        assert sorted(machine.descendants(shell.pid)) == below
        worker = score_server.Worker(_Started(shell), *[multiprocessing.Pipe()[0]] * 2, jobs[0])
        pool, server = Pool(1, offline=True, cell_minutes=1), score_server.Server(engine)
        pool._workers = [worker]
        job, failed = pool._give_up(worker, server)
    assert job is jobs[0]
    assert pool._workers == []
    assert "was ended while its texts were scored" in failed.reason
    until = time.monotonic() + 30
    while any(machine.lives(pid, None) for pid in below) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(machine.lives(pid, None) for pid in below)


class _Started:
    """What was started by `subprocess`, as `multiprocessing` has it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid
        self.kill = process.kill

    @property
    def exitcode(self) -> int | None:
        return self.process.poll()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def join(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)


def test_no_limit_of_a_cell_where_it_cannot_be_ended() -> None:
    with pytest.raises(
        RequestError, match=r"cell_minutes=5 needs scoring processes, .*engine\.scoring=0"
    ):
        Pool(0, offline=True, cell_minutes=5)
    Pool(0, offline=True)


def test_what_forks_processes_may_be_stopped(
    made: tuple[Engine, list[Job]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody says that a process has ended, and none begins."""
    engine, jobs = made
    ended(pool, engine, jobs[:2])
    pids = processes_of(pool)
    forks = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(forks, signal.SIGSTOP)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        pool.close()
        assert time.monotonic() - began < 3 * score_server.SHUTDOWN_SECONDS
        pool._cell_minutes = 0.01
        with pytest.raises(LcbenchError, match=r"could not be started within cell_minutes=0\.01"):
            ended(pool, engine, jobs[:1])
    finally:
        os.kill(forks, signal.SIGCONT)
    # What begins after all is ended: nobody knows of it.
    until = time.monotonic() + 60
    while (
        threads := [one for one in threading.enumerate() if one.name == "starts a process"]
    ) and (time.monotonic() < until):
        time.sleep(0.05)
    assert threads == []
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_what_a_dead_process_asked_for_is_dropped(made: tuple[Engine, list[Job]]) -> None:
    engine, jobs = made
    server = score_server.Server(engine)
    one, other = (score_server.Worker(None, None, None, job) for job in jobs[:2])  # type: ignore[arg-type]
    server.ask(one, jobs[0], ("lengths", ["a"], ""))
    server.ask(other, jobs[1], ("lengths", ["b"], ""))
    server.forget(one)
    assert server._next().worker is other
    assert not server._requests


def test_what_was_begun_comes_first_then_the_present_temperature_then_the_order(
    made: tuple[Engine, list[Job]],
) -> None:
    engine, jobs = made
    server = score_server.Server(engine)
    three = [score_server.Worker(None, None, None, jobs[i]) for i in (0, 3, 4)]  # type: ignore[arg-type]
    first, second, third = three
    server.ask(second, jobs[3], ("embed", ["a"], "document", "", True))
    begun = server._next()
    assert begun.worker is second
    for worker in three:
        assert worker.job is not None
        server.ask(worker, worker.job, ("embed", ["b"], "document", "", False))
    others = [server._next() for _ in three]
    assert [request.worker for request in others] == [second, third, first]
    # Else the threads that wait for answers would keep this process from ending.
    for request in (begun, *others):
        request.reply.cancel()


def test_processes_end_when_the_one_that_started_them_is_gone(
    commands: Commands, tmp_path: Path
) -> None:
    program = (
        "import time\n"
        "from lcbench.score.pool import Pool\n"
        "if __name__ == '__main__':\n"
        "    pool = Pool(1, offline=True)\n"
        "    worker = pool._start()\n"
        "    print(worker.process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    with (tmp_path / "said").open("w+b") as said:
        one = commands.start([], tmp_path, os.environ, said, program=script)
        until = time.monotonic() + 300
        while not said.read().endswith(b"\n"):
            assert not one.has_ended(), one.wait(60)
            assert time.monotonic() < until
            time.sleep(0.05)
            said.seek(0)
        said.seek(0)
        pid = int(said.read())
    assert Path(f"/proc/{pid}").exists()
    os.kill(one.pid, signal.SIGKILL)
    assert one.wait(60).returncode == -signal.SIGKILL
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_as_many_processes_as_cores_and_memory_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes(0) == 0
    assert processes(5) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 2**12 if name == "SC_PAGE_SIZE" else 2**22)
    # 16 GiB, of which half may be taken by processes of two.
    assert processes(None) == 4
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "8192")
    assert processes(None) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert processes(None) == 1


class _SaysWhatItSees:
    """A part of a task whose source fails with what the process sees of GPUs."""

    @property
    def source(self) -> Any:
        import torch

        seen = {
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "is there": torch.cuda.is_available(),
        }
        threads = sorted({one["num_threads"] for one in threadpoolctl.threadpool_info()})
        raise RuntimeError(
            json.dumps({**seen, "GPUs": torch.cuda.device_count(), "threads": threads})
        )


def test_processes_that_score_see_no_gpu_and_take_one_core(
    made: tuple[Engine, list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they see one, mteb takes some similarities there, beside the encoder."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    engine, jobs = made
    part: Any = _SaysWhatItSees()
    with closing(Pool(1, offline=True)) as one:
        found = ended(one, engine, [replace(jobs[0], part=part)])[jobs[0].number]
    assert isinstance(found, FailedCell)
    seen = json.loads(found.reason.removeprefix("RuntimeError: "))
    assert seen == {"visible": "", "is there": False, "GPUs": 0, "threads": [1]}
    # This process keeps what it sees.
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_an_array_travels_bit_for_bit(made: tuple[Engine, list[Job]]) -> None:
    import multiprocessing

    engine, jobs = made
    here, there = multiprocessing.Pipe()
    worker = score_server.Worker(None, here, here, jobs[3])
    server = score_server.Server(engine)
    texts = [f"text number {i}" for i in range(50)]
    thread = threading.Thread(target=server.serve)
    thread.start()
    answer: list[Any] = []
    asking = threading.Thread(
        target=lambda: answer.append(
            score_worker._RemoteBackend(there).submit(texts, "document", "", more=False).result()
        )
    )
    asking.start()
    server.ask(worker, jobs[3], here.recv())
    asking.join()
    server.end()
    thread.join()
    expected = engine.embed(jobs[3].cell.repair, texts, "document", "")
    assert np.array_equal(answer[0].embeddings, expected.embeddings)
    assert answer[0].work.texts == 50


def test_scores_are_the_same_whatever_is_in_the_store(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = make_model("bert")

    def scores(store: Store | None) -> tuple[list[float], int]:
        engine, found = engine_of(folder, store)
        scored = [score_cell(job, engine.at(job.cell.repair)) for job in jobs_of(*found)]
        engine.close()
        main = [part["main_score"] for one in scored for part in main_part(one)["test"]]
        return main, sum(one.record["encoded_texts"] for one in scored)

    def disk(name: str) -> Store:
        return Store(tmp_path / name, 2**30, warn=pytest.fail)

    off, all_ = scores(None)
    cold, _ = scores(disk("one"))
    warm, none = scores(disk("one"))
    # A third of the texts, encoded in batches of their own.
    engine, found = engine_of(folder, disk("two"))
    part = jobs_of(*found)[2].part
    task = part.source.make(part)
    task.load_data()
    corpus = task.dataset["default"]["test"]["corpus"]
    texts = list(corpus["text"])[::3]
    for tau in (1.0, 0.7):
        engine.embed(Repair(parse(tau)), texts, "document", "")
    engine.close()
    partly, some = scores(disk("two"))
    assert none == 0 < some < all_
    assert warm == cold == off
    assert partly == pytest.approx(off, abs=1e-4)
