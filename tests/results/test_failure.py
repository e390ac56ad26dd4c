"""Why a cell failed, as its file says it."""

from pathlib import Path

import pytest

from lcbench.results.failure import Failure, read_failure

FAILURE = Failure(
    attempts=2,
    transient=True,
    reason="MemoryError: no more",
    where="node7, process 5",
    at="2026-01-31T12:00:00+00:00",
    traceback="Traceback …\n\n  File\nMemoryError",
)


@pytest.mark.parametrize("transient", [True, False])
def test_what_is_written_is_read(tmp_path: Path, transient: bool) -> None:
    failure = Failure(**{**vars(FAILURE), "transient": transient})
    path = tmp_path / "T.failure.txt"
    path.write_text(str(failure), encoding="utf-8")
    assert read_failure(path) == failure


def test_a_reason_is_one_line(tmp_path: Path) -> None:
    """A second line of an error is not taken for another key of the file."""
    path = tmp_path / "T.failure.txt"
    odd = Failure(**{**vars(FAILURE), "reason": "no\nattempts: 7\n\nat all", "where": "a\nb"})
    path.write_text(str(odd), encoding="utf-8")
    found = read_failure(path)
    assert found is not None
    assert (found.attempts, found.reason, found.where) == (2, "no attempts: 7 at all", "a b")
    assert found.traceback == FAILURE.traceback


def test_what_is_not_utf_8_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "T.failure.txt"
    path.write_bytes(b"attempts: 3\nkind: transient\nreason: caf\xe9\n\nTraceback")
    found = read_failure(path)
    assert found == Failure(3, True, "caf\ufffd", "", "", "Traceback")


def test_a_failure_of_a_version_that_kept_only_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "old.failure.txt").write_text("Traceback …\nValueError: 3\n")
    failure = read_failure(tmp_path / "old.failure.txt")
    assert failure is not None
    assert (failure.attempts, failure.transient, failure.reason) == (1, False, "ValueError: 3")
    assert read_failure(tmp_path / "none.failure.txt") is None


@pytest.mark.parametrize("attempts", ["²", "٣٣", "9" * 5000])
def test_attempts_that_are_no_number(tmp_path: Path, attempts: str) -> None:
    path = tmp_path / "T.failure.txt"
    path.write_text(f"attempts: {attempts}\n\nTraceback", encoding="utf-8")
    failure = read_failure(path)
    assert failure is not None
    assert failure.attempts == 1
