"""Requests go through the engine as through a pipeline: the model never waits for a batch."""

import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engines import NOISE_FLOOR, encoder_of, engine_of, largest_difference

from lcbench.encode import encoder as module
from lcbench.encode.encoder import Embedded, Encoder, Stopped
from lcbench.encode.engine import Engine
from lcbench.encode.replica import Replica
from lcbench.encode.tokens import Tokenizer
from lcbench.repair.repair import NO_REPAIR, Repair
from lcbench.score.server import Server, Worker
from lcbench.score.worker import _RemoteBackend
from lcbench.tempscale.policy import BASELINE, parse

TEXTS = [f"text number {i} of some" + " more" * (i % 7) for i in range(40)]


class Device:
    """Stands for the model's device: a batch is computed only once the next one waits for it.

    Attributes:
        computed: indices of the batches whose next one was not there in time.
    """

    def __init__(self, engine: Engine, texts: int) -> None:
        self.late: list[int] = []
        self.batches = 0
        self._left = texts
        self._queue = engine._forward._pool._work_queue
        (replica,) = engine._forward._replicas
        self._run, replica.run = replica.run, self.run  # type: ignore[method-assign]

    def run(self, tokenizer: Any, batch: Sequence[Any], *how: Any) -> Any:
        self._left -= len(batch)
        self.batches += 1
        until = time.monotonic() + 30
        while self._left and not self._queue.qsize():
            if time.monotonic() > until:
                self.late.append(self.batches)
                break
            time.sleep(0.001)
        return self._run(tokenizer, batch, *how)


@contextmanager
def served(engine: Engine, policies: Sequence[Any]) -> Iterator[list[Encoder]]:
    """Encoders of scoring processes (threads of this one) that are served by an engine."""
    server = Server(engine)
    pipes = [multiprocessing.Pipe() for _ in policies]
    workers = {}
    for number, (policy, (here, _)) in enumerate(zip(policies, pipes, strict=True)):
        cell = SimpleNamespace(repair=Repair(policy))
        job: Any = SimpleNamespace(number=number, cell=cell)
        workers[here] = Worker(None, here, here, job)
    ends = threading.Event()

    def dispatch() -> None:
        while not ends.is_set():
            for here in wait(list(workers), 0.01):
                worker = workers[here]  # type: ignore[index]
                assert worker.job is not None
                server.ask(worker, worker.job, worker.connection.recv())

    threads = [threading.Thread(target=one) for one in (dispatch, *[server.serve] * 3)]
    for thread in threads:
        thread.start()
    try:
        yield [Encoder(_RemoteBackend(there), None) for _, there in pipes]  # type: ignore[arg-type]
    finally:
        ends.set()
        server.end()
        for thread in threads:
            thread.join(60)


def test_the_next_batch_is_ready_while_one_is_computed(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request's last batch too: what follows is in another request."""
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 4)
    encoder: Any = encoder_of(make_model("bert"), batch_tokens=32, lanes=1)
    device = Device(encoder.engine, len(TEXTS))
    found = encoder.embed(TEXTS)
    assert device.late == []
    assert device.batches >= 10
    assert largest_difference(found, encoder_of(make_model("bert")).embed(TEXTS)) < NOISE_FLOOR


def test_the_next_batch_is_ready_also_where_it_is_another_process_s(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 4)
    engine, _ = engine_of(make_model("bert"), batch_tokens=32, lanes=1)
    device = Device(engine, len(TEXTS))
    with (
        served(engine, [BASELINE] * 2) as encoders,
        ThreadPoolExecutor(2) as threads,
    ):
        halves = TEXTS[::2], TEXTS[1::2]
        found = list(threads.map(lambda one, texts: one.embed(texts), encoders, halves))
    assert device.late == []
    for rows, texts in zip(found, halves, strict=True):
        alone = encoder_of(make_model("bert")).embed(texts)
        assert largest_difference(rows, alone) < NOISE_FLOOR
    assert [one.counters.encoded_texts for one in encoders] == [20, 20]


def test_texts_that_several_ask_for_at_once_are_encoded_once(
    make_model: Callable[[str], Path],
) -> None:
    engine, _ = engine_of(make_model("bert"), batch_tokens=32, lanes=1)
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda i: engine.embed(NO_REPAIR, TEXTS[i : i + 20], "document", ""),
                [0, 10, 20] * 3,
            )
        )
    assert sum(one.work.texts for one in answers) == len(TEXTS)
    for start, answer in zip([0, 10, 20] * 3, answers, strict=True):
        same = answers[start // 10].embeddings
        assert np.array_equal(answer.embeddings, same)


def test_each_request_is_encoded_at_its_own_temperature(make_model: Callable[[str], Path]) -> None:
    engine, _ = engine_of(make_model("bert"), batch_tokens=64, lanes=2)
    taus = [1.0, 0.5, 0.5, 0.7, 1.0, 0.7, 0.5, 1.0]
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda i: engine.embed(
                    Repair(parse(taus[i])), TEXTS[5 * i : 5 * i + 5], "document", ""
                ),
                range(8),
            )
        )
    for i, answer in enumerate(answers):
        alone = encoder_of(make_model("bert"), taus[i]).embed(TEXTS[5 * i : 5 * i + 5])
        assert largest_difference(answer.embeddings, alone) < NOISE_FLOOR
        assert answer.work.texts == 5
    # No second counts for two of them.
    assert engine._requests == []


def test_answers_come_in_the_order_of_the_requests(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though some of what was asked for later is in the store, and is there at once."""
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 4)
    engine, _ = engine_of(make_model("bert"), batch_tokens=32, lanes=1)
    expected = encoder_of(make_model("bert")).embed(TEXTS)
    engine.embed(NO_REPAIR, sorted(TEXTS, key=len)[:20], None, "")
    with served(engine, [BASELINE]) as (encoder,):
        assert largest_difference(encoder.embed(TEXTS), expected) < NOISE_FLOOR


def test_an_error_leaves_no_answer_that_could_be_taken_for_the_next(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TEXTS_AT_ONCE", 4)
    engine, _ = engine_of(make_model("bert"), batch_tokens=32, lanes=1)
    embed = engine.embed
    calls: list[int] = []

    def first_fails(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("too much")
        return embed(*given)

    monkeypatch.setattr(engine, "embed", first_fails)
    with served(engine, [BASELINE]) as (encoder,):
        with pytest.raises(Exception, match="too much"):
            encoder.embed(TEXTS)
        # What was on its way is not asked for again, and nothing more of it was asked for.
        assert len(calls) == module.REQUESTS_AHEAD
        expected = encoder_of(make_model("bert")).embed(TEXTS[:6])
        assert largest_difference(encoder.embed(TEXTS[:6]), expected) < NOISE_FLOOR


def test_a_process_that_does_not_read_its_answer_delays_no_other(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = engine_of(make_model("bert"))
    embed = engine.embed

    def large(*given: Any) -> Any:
        answer = embed(*given)
        # More than a pipe holds.
        return Embedded(np.tile(answer.embeddings, (1, 20_000)), answer.work)

    monkeypatch.setattr(engine, "embed", large)
    with served(engine, [BASELINE] * 5) as encoders:
        pending = [
            one._backend.submit([f"unread {i}"], None, "", more=False)
            for i, one in enumerate(encoders[:4])
        ]
        assert encoders[4].embed(["a text"]).shape[0] == 1
        assert [len(one.result().embeddings) for one in pending] == [1] * 4


def test_what_is_stopped_along_with_an_abandoned_request_is_done_again(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = engine_of(make_model("bert"))
    server = Server(engine)
    cell: Any = SimpleNamespace(repair=Repair(BASELINE))
    pipes = [multiprocessing.Pipe() for _ in range(2)]
    jobs: list[Any] = [SimpleNamespace(number=i, cell=cell) for i in range(2)]
    gone, other = (
        Worker(None, pipe[0], pipe[0], job) for pipe, job in zip(pipes, jobs, strict=True)
    )
    embed = engine.embed
    inside = threading.Semaphore(0)
    calls: list[str] = []

    def hangs(policy: Any, texts: Any, *given: Any) -> Any:
        calls.append(texts[0])
        if len(calls) > 2:
            return embed(policy, texts, *given)
        inside.release()
        while not engine._forward._stopped:
            time.sleep(0.001)
        raise Stopped

    monkeypatch.setattr(engine, "embed", hangs)
    threads = [threading.Thread(target=server.serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    server.ask(gone, jobs[0], ("embed", ["gone"], None, "", False))
    server.ask(other, jobs[1], ("embed", ["other"], None, "", False))
    assert inside.acquire(timeout=60)
    assert inside.acquire(timeout=60)
    server.abandon(gone)
    answer = pipes[1][1].recv()
    assert answer.embeddings.shape[0] == 1
    assert sorted(calls) == ["gone", "other", "other"]
    assert server.abandoned is None
    assert not engine._forward._stopped
    assert not pipes[0][1].poll()
    server.end()
    for thread in threads:
        thread.join(60)


def test_a_run_that_is_given_up_leaves_no_thread_waiting(make_model: Callable[[str], Path]) -> None:
    engine, _ = engine_of(make_model("bert"), batch_tokens=32, lanes=1)
    (replica,) = engine._forward._replicas
    begun = threading.Event()

    def slow(*_: Any) -> Any:
        begun.set()
        time.sleep(0.05)
        raise RuntimeError("late")

    replica.run = slow  # type: ignore[method-assign]
    with closing(engine):
        pending = [engine.submit(NO_REPAIR, TEXTS[i : i + 5], None, "") for i in range(0, 40, 5)]
        assert begun.wait(60)
    for one in pending:
        assert one.cancelled() or isinstance(one.exception(60), (RuntimeError, Stopped))


def test_threads_hand_over_soon_while_there_is_an_engine(make_model: Callable[[str], Path]) -> None:
    before = sys.getswitchinterval()
    engine, _ = engine_of(make_model("bert"))
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    engine.close()
    assert sys.getswitchinterval() == pytest.approx(before)


def test_a_request_has_the_time_of_its_own_batches(
    make_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long one too whose last batch ends after those of the short one that follows it."""
    pause = 0.1
    plain = Replica.run
    long, short = TEXTS[:16], ["one that is short"]
    left = [len(long)]

    def run(self: Replica, tokenizer: Tokenizer, batch: Any, unscaled: Any = None) -> Any:
        is_short = batch[0].length == ids
        left[0] -= not is_short
        time.sleep(pause if is_short or left[0] else 8 * pause)
        return plain(self, tokenizer, batch, unscaled)

    engine, (_, model) = engine_of(make_model("bert"), batch_tokens=1, lanes=2)
    ids = len(model.tokenizer(short[0])["input_ids"])
    assert ids not in {len(model.tokenizer(text)["input_ids"]) for text in long}
    engine.embed(NO_REPAIR, ["to begin with"], "document", "")
    monkeypatch.setattr(Replica, "run", run)
    began = time.perf_counter()
    ended: list[str] = []
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(engine.embed, NO_REPAIR, long, "document", "")
        first.add_done_callback(lambda _: ended.append("long"))
        time.sleep(pause)
        second = threads.submit(engine.embed, NO_REPAIR, short, "document", "")
        second.add_done_callback(lambda _: ended.append("short"))
    whole = time.perf_counter() - began
    assert ended == ["short", "long"]
    spent = [one.result().work.seconds for one in (first, second)]
    assert 0.8 * whole < sum(spent) <= whole
    # Two batches are computed at once.
    assert spent[1] < 4 * pause < 7 * pause < spent[0]
