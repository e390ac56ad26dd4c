"""Which cells a process may run: what others finished, what failed, and how often it may again."""

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from lcbench.repair.repair import NO_REPAIR
from lcbench.results.cell import Cell, Protocol
from lcbench.results.failure import Failure
from lcbench.results.folder import Finished, Results
from lcbench.run.claims import Claim, Claims, here
from lcbench.run.queue import Busy, CellQueue, Done, tidy

PROTOCOL = Protocol("paper", "none", "float32", "test", subsets=None, window=512, texts=None)
CELL = Cell("some/model", "f" * 40, NO_REPAIR, "STS13", PROTOCOL)
FINISHED = Finished(lambda path: path.write_text('{"task_name": "STS13"}'), {}, {}, None)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


@pytest.fixture
def claims() -> Iterator[Claims]:
    with Claims() as one:
        yield one


def allotment(results: Results, claims: Claims, retries: int = 2) -> CellQueue:
    return CellQueue(results, claims, [CELL], retries)


def taken(one: CellQueue) -> Claim:
    claim = one.take(CELL)
    assert isinstance(claim, Claim), claim
    return claim


def fail(one: CellQueue, *, transient: bool) -> bool:
    _, again = one.fail(CELL, taken(one), "MemoryError: none", "Traceback\n", transient=transient)
    return again


def dead_claim(results: Results, number: int) -> Path:
    folder = results.files(CELL).folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".STS13.attempt-{number}"
    path.symlink_to(json.dumps(asdict(replace(here(), token=f"dead{number}", started="1"))))
    return path


def test_a_cell_is_taken_finished_and_done(results: Results, claims: Claims) -> None:
    one = allotment(results, claims)
    assert one.look(CELL) is None
    assert one.finish(CELL, taken(one), FINISHED)
    assert one.look(CELL) == Done()
    assert one.take(CELL) == Done()
    assert [path.name for path in results.files(CELL).folder.glob(".*")] == []


def test_what_another_process_runs_is_busy(results: Results, claims: Claims) -> None:
    one = allotment(results, claims)
    taken(one)
    with Claims() as others:
        verdict = allotment(results, others).take(CELL)
    assert isinstance(verdict, Busy)
    assert verdict.holder is not None
    assert verdict.is_fresh


def test_what_was_finished_between_look_and_claim_is_not_run_again(
    results: Results, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = allotment(results, claims)
    take = claims.take

    def slow(*given: object, **more: object) -> Claim | None:
        results.write(CELL, FINISHED)
        return take(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "take", slow)
    assert one.take(CELL) == Done()
    assert [path.name for path in results.files(CELL).folder.glob(".*")] == []


def test_what_failed_for_good_is_not_tried_again_by_anyone_of_this_time(
    results: Results, claims: Claims
) -> None:
    one, other = allotment(results, claims), allotment(results, claims)
    assert fail(one, transient=False) is False
    for each in (one, other):
        verdict = each.take(CELL)
        assert isinstance(verdict, Failure)
        assert (verdict.attempts, verdict.reason) == (1, "MemoryError: none")
    # Whoever begins afterwards was asked to try again.
    later = allotment(results, claims)
    assert taken(later).number == 2


def test_what_was_under_way_when_this_process_began_fails_for_it_as_well(
    results: Results, claims: Claims
) -> None:
    one = allotment(results, claims)
    claim = taken(one)
    with Claims() as others:
        later = allotment(results, others)
        one.fail(CELL, claim, "ValueError: 3", "Traceback\n", transient=False)
        assert isinstance(later.take(CELL), Failure)


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_what_may_pass_is_tried_again_so_often(
    results: Results, claims: Claims, retries: int
) -> None:
    one = allotment(results, claims, retries)
    outcomes = [fail(one, transient=True) for _ in range(retries + 1)]
    assert outcomes == [True] * retries + [False]
    assert isinstance(one.take(CELL), Failure)
    failure = results.failure(CELL)
    assert failure is not None
    assert (failure.attempts, failure.transient) == (retries + 1, True)
    assert taken(allotment(results, claims, retries)).number == retries + 2


def test_attempts_of_killed_processes_before_this_one_do_not_count(
    results: Results, claims: Claims
) -> None:
    for number in range(1, 9):
        dead_claim(results, number)
    one = allotment(results, claims)
    assert one.finish(CELL, taken(one), FINISHED)
    assert list(results.files(CELL).folder.glob(".*")) == []


def test_attempts_on_machines_that_are_gone_do_not_count_either(
    results: Results,
) -> None:
    """What preemption of nodes leaves behind."""
    folder = results.files(CELL).folder
    folder.mkdir(parents=True)
    for number in range(1, 6):
        gone = replace(here(), token=f"gone{number}", claim=f"{number}", machine="another")
        (folder / f".STS13.attempt-{number}").symlink_to(json.dumps(asdict(gone)))
    with Claims(lease_seconds=0.2) as claims:
        one = allotment(results, claims)
        assert isinstance(one.take(CELL), Busy)
        time.sleep(0.3)
        assert one.finish(CELL, taken(one), FINISHED)
    assert list(folder.glob(".*")) == []


def test_a_cell_that_kills_who_runs_it_is_given_up(results: Results, claims: Claims) -> None:
    one = allotment(results, claims)
    for number in (1, 2):
        dead_claim(results, number)
    assert isinstance(one.look(CELL), type(None))
    dead_claim(results, 3)
    verdict = one.take(CELL)
    assert isinstance(verdict, Failure)
    assert verdict.reason.startswith("3 processes that ran it were killed")
    assert results.failure(CELL) == verdict
    assert list(results.files(CELL).folder.glob(".*")) == []


def test_the_result_of_one_that_was_taken_over_is_dropped(results: Results, claims: Claims) -> None:
    one = allotment(results, claims)
    claim = taken(one)
    folder = results.files(CELL).folder
    other = asdict(replace(here(), token="other", machine="another"))
    (folder / ".STS13.attempt-2").symlink_to(json.dumps(other))
    assert not one.finish(CELL, claim, FINISHED)
    assert not results.files(CELL).result.exists()
    assert [path.name for path in folder.iterdir()] == [".STS13.attempt-2"]


def test_a_failure_of_one_that_was_taken_over_is_not_recorded(
    results: Results, claims: Claims
) -> None:
    one = allotment(results, claims)
    claim = taken(one)
    dead_claim(results, 2)
    where, again = one.fail(CELL, claim, "ValueError: 3", "Traceback\n", transient=True)
    assert not where.exists()
    # What becomes of it is the other's to say.
    assert again


def test_tidying_leaves_claims_of_what_is_not_over(results: Results, claims: Claims) -> None:
    dead_claim(results, 1)
    folder = results.files(CELL).folder
    (folder / ".other.attempt-1").symlink_to("{}")
    tidy(results, [CELL])
    assert len(list(folder.iterdir())) == 2
    results.write(CELL, FINISHED)
    tidy(results, [CELL])
    assert [path.name for path in folder.glob(".*")] == [".other.attempt-1"]


def test_the_claim_of_an_attempt_that_failed_is_tidied_away(
    results: Results, claims: Claims
) -> None:
    one = allotment(results, claims)
    fail(one, transient=False)
    dead_claim(results, 1)
    running = dead_claim(results, 2)
    tidy(results, [CELL])
    assert list(results.files(CELL).folder.glob(".*")) == [running]


@pytest.mark.parametrize(
    ("count", "seconds"),
    [(50, 1.0), pytest.param(200, 0.05, marks=[pytest.mark.alone, pytest.mark.exhaustive])],
)
def test_claiming_and_recording_take_less_than_fifty_milliseconds(
    results: Results, claims: Claims, count: int, seconds: float
) -> None:
    """On a machine that does nothing else; on any other there is no gross fault."""
    cells = [replace(CELL, task=f"T{number}") for number in range(count)]
    one = CellQueue(results, claims, cells, 2)
    began = time.perf_counter()
    for cell in cells:
        assert one.look(cell) is None
        claim = one.take(cell)
        assert isinstance(claim, Claim)
        assert one.finish(cell, claim, FINISHED)
    took = (time.perf_counter() - began) / len(cells)
    print(f"{1000 * took:.1f} ms a cell")
    assert took < seconds


def test_a_failure_next_to_a_finished_cell_is_tidied_away(results: Results) -> None:
    """Its process was killed between the result and the removal of an older failure."""
    files = results.files(CELL)
    files.folder.mkdir(parents=True)
    files.failure.write_text("attempts: 1\n\nTraceback")
    tidy(results, [CELL])
    assert files.failure.exists()
    files.result.write_text("{}")
    tidy(results, [CELL])
    assert not files.failure.exists()


def test_another_users_claim_in_a_sticky_folder_stops_nobody(
    results: Results, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = dead_claim(results, 1)
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self == dead:
            raise PermissionError(1, "Operation not permitted")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    claim = allotment(results, claims).take(CELL)
    assert isinstance(claim, Claim)
    claims.release(claim)
    assert not claim.path.is_symlink()
    results.files(CELL).result.write_text("{}")
    tidy(results, [CELL])
    assert dead.is_symlink()


@pytest.mark.parametrize("call", ["listdir", "scandir", "stat"])
def test_tidying_passes_over_what_cannot_be_listed_or_looked_at(
    results: Results, claims: Claims, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = dead_claim(results, 1).parent
    real = getattr(os, call)

    def refuse(path: Any, *given: Any, **more: Any) -> Any:
        if str(path).startswith(str(folder)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, *given, **more)

    monkeypatch.setattr(os, call, refuse)
    tidy(results, [CELL])
