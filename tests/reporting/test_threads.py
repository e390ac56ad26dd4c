"""`reporting.threads`: results in order, progress, and what happens when a job fails."""

from __future__ import annotations

from functools import partial

import pytest

from lcbench.reporting import threads


def test_results_are_in_the_order_of_jobs_and_progress_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 3)
    told: list[tuple[int, int]] = []
    jobs = [partial(pow, 2, place) for place in range(5)]
    found = threads.in_threads(jobs, [1, 5, 3, 2, 4], lambda *numbers: told.append(numbers))
    assert found == [1, 2, 4, 8, 16]
    assert told == [(done, 5) for done in range(1, 6)]


def test_what_is_heaviest_begins_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 1)
    begun: list[int] = []
    threads.in_threads([partial(begun.append, place) for place in range(4)], [2, 9, 0, 5])
    assert begun == [1, 3, 0, 2]


def test_a_failure_is_that_of_all() -> None:
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        threads.in_threads([partial(int, "1"), fails], [2, 1])
