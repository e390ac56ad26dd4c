"""The queue of cells for this process, shared with other processes on the same sweep.

A cell is claimed before it is started (`claims`). A cell that another process has finished, that
fails deterministically, or that failed too often since this process started is not started.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lcbench.errors import StorageError
from lcbench.results.cell import Cell
from lcbench.results.failure import Failure, read_failure
from lcbench.results.files import CellFiles
from lcbench.results.folder import Finished, Results
from lcbench.run.claims import Attempt, Claim, Claims, ClaimState, Holder, attempts_in, here, remove
from lcbench.system.files import remove_leftovers


@dataclass(frozen=True)
class Done:
    """A cell that another process has finished in the meantime."""


@dataclass(frozen=True)
class Busy:
    """A cell that another process runs.

    Attributes:
        holder: the process.
        is_fresh: whether this process has seen signs of life of it.
    """

    holder: Holder | None
    is_fresh: bool


Verdict = Done | Failure | Busy


class CellQueue:
    """Claims cells one by one, and records their outcomes."""

    def __init__(
        self, results: Results, claims: Claims, cells: Iterable[Cell], retries: int
    ) -> None:
        """Begin; earlier failures may be tried again, since the cells are requested again.

        Args:
            results: results folder.
            claims: claims of this process.
            cells: cells to run.
            retries: number of retries after transient failures.
        """
        self._results = results
        self._claims = claims
        self._retries = retries
        self._before: dict[Cell, int] = {}
        last: dict[tuple[Path, str], int] = {}
        cells = list(cells)
        for folder in {results.files(cell).folder for cell in cells}:
            for one in attempts_in(folder):
                # An attempt that seems to be running ends from now on.
                ended = one.number - 1 if claims.is_alive(one) else one.number
                last[folder, one.task] = max(ended, last.get((folder, one.task), 0))
        for cell in cells:
            files = results.files(cell)
            failure = read_failure(files.failure)
            over = 0 if failure is None else failure.attempts
            self._before[cell] = max(over, last.get((files.folder, cell.task), 0))

    def look(self, cell: Cell) -> Verdict | None:
        """Return why a cell should not be run; None if it may be."""
        if over := self._over(cell):
            return over
        claim_state = self._claim_state(cell)
        return (
            None if claim_state.holder is None else Busy(claim_state.holder, claim_state.is_fresh)
        )

    def take(self, cell: Cell) -> Claim | Verdict:
        """Claim a cell, or return why it should not be run.

        Raises:
            StorageError: the results folder cannot be written.
        """
        if over := self._over(cell):
            return over
        files, failed = self._results.files(cell), self._failed(cell)
        claim = self._claims.take(files.folder, cell.task, failed)
        if claim is None:
            return self.look(cell) or Busy(None, is_fresh=True)
        # Only now are changes visible that others made before the claim.
        over = self._over(cell)
        if over is None and self._failed(cell) >= claim.number:
            over = Busy(None, is_fresh=True)
        if over is None and claim.number - 1 - self._before[cell] > self._retries:
            over = self._killed(cell, claim)
        if over is None:
            return claim
        self._claims.release(claim)
        return over

    def finish(self, cell: Cell, claim: Claim, finished: Finished) -> bool:
        """Record a finished cell; return False if another process has taken it over.

        Raises:
            StorageError: it cannot be written; the cell does not count as done.
        """

        def is_mine() -> bool:
            return self._claims.holds(claim) and not self._results.files(cell).result.exists()

        written = self._results.write(cell, finished, is_mine)
        self._claims.release(claim)
        return written

    def fail(
        self, cell: Cell, claim: Claim, reason: str, traceback: str, *, transient: bool
    ) -> tuple[Path, bool]:
        """Record a failed attempt; return its file, and whether the cell has to be run again.

        It has to be if the failure is transient, or if another process has taken the cell over:
        then that one's outcome counts, and nothing is recorded.

        Raises:
            StorageError: it cannot be recorded.
        """
        failure = _failure(claim.number, reason, traceback, transient=transient)
        if not self._claims.holds(claim):
            self.drop(claim)
            return self._results.files(cell).failure, True
        where = self._results.write_failure(cell, failure)
        self._claims.release(claim)
        again = transient and claim.number - self._before[cell] <= self._retries
        return where, again

    def drop(self, claim: Claim) -> None:
        """Give back a cell that was not completed."""
        self._claims.release(claim)

    def _failed(self, cell: Cell) -> int:
        failure = self._results.failure(cell)
        return 0 if failure is None else failure.attempts

    def _claim_state(self, cell: Cell) -> ClaimState:
        files = self._results.files(cell)
        return self._claims.claim_state(files.folder, cell.task, self._failed(cell))

    def _over(self, cell: Cell) -> Verdict | None:
        """Return why a cell should not be run any more; None if it may be."""
        if self._results.files(cell).result.exists():
            return Done()
        failure = self._results.failure(cell)
        if failure is None or failure.attempts <= self._before[cell]:
            return None
        if failure.transient and failure.attempts - self._before[cell] <= self._retries:
            return None
        return failure

    def _killed(self, cell: Cell, claim: Claim) -> Failure:
        """Record that all processes that ran a cell since this one started were killed."""
        times = claim.number - 1 - self._before[cell]
        reason = f"{times} processes that ran it were killed (out of memory?)"
        failure = _failure(claim.number, reason, f"{reason}\n", transient=True)
        self._results.write_failure(cell, failure)
        return failure


def tidy(results: Results, cells: Iterable[Cell]) -> None:
    """Remove leftovers of killed processes: unfinished files, and claims on ended attempts.

    Claims on finished cells or failed attempts are useless, whoever owns them. Files that cannot be
    listed or removed are left: they block nothing.
    """
    remove_leftovers(results.folder)
    tasks: dict[Path, set[str]] = {}
    for cell in cells:
        tasks.setdefault(results.files(cell).folder, set()).add(cell.task)
    for folder, names in tasks.items():
        remove_leftovers(folder)
        for name in names:
            # Its process was killed after it had written the result.
            files = CellFiles(folder, name)
            with suppress(OSError):
                if files.failure.exists() and files.result.exists():
                    files.failure.unlink(missing_ok=True)
        attempts: list[Attempt] = []
        with suppress(StorageError):
            attempts += attempts_in(folder)
        for one in attempts:
            if one.task not in names:
                continue
            files = CellFiles(folder, one.task)
            failure = read_failure(files.failure)
            # Another user's file in a sticky folder is left.
            with suppress(OSError, StorageError):
                is_over = failure is not None and failure.attempts >= one.number
                if is_over or files.result.exists():
                    remove(one.path)


def _failure(attempts: int, reason: str, traceback: str, *, transient: bool) -> Failure:
    return Failure(
        attempts=attempts,
        transient=transient,
        reason=reason,
        where=str(here()),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        traceback=traceback,
    )
