"""`reporting.processes`: every job is carried out, in forks or here, and no fork is left."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from lcbench.reporting import processes


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "cores", lambda: 3)


def write(folder: Path, place: int) -> None:
    (folder / str(place)).write_text(str(os.getpid()), encoding="utf-8")


def written_by(folder: Path) -> list[int]:
    return [int((folder / str(place)).read_text(encoding="utf-8")) for place in range(9)]


def test_jobs_are_shared_out_and_progress_is_reported(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    jobs = [partial(write, tmp_path, place) for place in range(9)]
    processes.in_processes(jobs, lambda *numbers: told.append(numbers))
    by = written_by(tmp_path)
    assert by[::3] == [os.getpid()] * 3
    assert len(set(by)) == 3
    assert told == [(done, 9) for done in (1, 2, 3, 6, 9)]


def test_few_jobs_are_carried_out_here(tmp_path: Path) -> None:
    processes.in_processes([partial(write, tmp_path, place) for place in range(7)])
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {str(os.getpid())}


def test_jobs_of_a_fork_that_fails_are_carried_out_here(tmp_path: Path) -> None:
    here = os.getpid()

    def fails_elsewhere(place: int) -> None:
        if os.getpid() != here and place == 4:
            raise MemoryError
        write(tmp_path, place)

    processes.in_processes([partial(fails_elsewhere, place) for place in range(9)])
    by = written_by(tmp_path)
    assert by[0::3] + by[1::3] == [here] * 6
    assert here not in by[2::3]


def test_an_error_is_raised_and_no_fork_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks: list[int] = []
    forked = processes._forked

    def recorded(jobs: Sequence[Callable[[], object]]) -> int:
        forks.append(forked(jobs))
        return forks[-1]

    monkeypatch.setattr(processes, "_forked", recorded)

    def fails(place: int) -> None:
        if place == 4:
            raise ValueError("no")
        write(tmp_path, place)

    with pytest.raises(ValueError, match="no"):
        processes.in_processes([partial(fails, place) for place in range(9)])
    assert len(forks) == 2
    for fork in forks:
        with pytest.raises(ChildProcessError):
            os.waitpid(fork, os.WNOHANG)
