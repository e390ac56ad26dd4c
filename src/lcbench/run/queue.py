"""Which cells are this process's to run, among others that may work on the same sweep.

Before a cell is begun it is claimed (`claims`); one that another process has finished, that fails
for good, or that failed too often since this process began is not begun.
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
    """A cell that another process has finished meanwhile."""


@dataclass(frozen=True)
class Busy:
    """A cell that another process runs.

    Attributes:
        holder: which.
        is_fresh: whether that process was seen to live, by this one.
    """

    holder: Holder | None
    is_fresh: bool


Verdict = Done | Failure | Busy


class CellQueue:
    """Claims cells one by one, and records how they end."""

    def __init__(
        self, results: Results, claims: Claims, cells: Iterable[Cell], retries: int
    ) -> None:
        """Begin; what has failed before now may be tried again, since someone asks for it again.

        Args:
            results: where cells are recorded.
            claims: of this process.
            cells: that may be taken.
            retries: how often one is tried again that failed in a way that may pass.
        """
        self._results = results
        self._claims = claims
        self._retries = retries
        self._before: dict[Cell, int] = {}
        last: dict[tuple[Path, str], int] = {}
        cells = list(cells)
        for folder in {results.files(cell).folder for cell in cells}:
            for one in attempts_in(folder):
                # One that is under way, as far as can be told, ends from now on.
                ended = one.number - 1 if claims.is_alive(one) else one.number
                last[folder, one.task] = max(ended, last.get((folder, one.task), 0))
        for cell in cells:
            files = results.files(cell)
            failure = read_failure(files.failure)
            over = 0 if failure is None else failure.attempts
            self._before[cell] = max(over, last.get((files.folder, cell.task), 0))

    def look(self, cell: Cell) -> Verdict | None:
        """Return what stands against running a cell; None: nothing."""
        if over := self._over(cell):
            return over
        standing = self._claim_state(cell)
        return None if standing.holder is None else Busy(standing.holder, standing.is_fresh)

    def take(self, cell: Cell) -> Claim | Verdict:
        """Claim a cell, or return what stands against it.

        Raises:
            StorageError: the folder of results cannot be written.
        """
        if over := self._over(cell):
            return over
        files, failed = self._results.files(cell), self._failed(cell)
        claim = self._claims.take(files.folder, cell.task, failed)
        if claim is None:
            return self.look(cell) or Busy(None, is_fresh=True)
        # What others did until the claim was made is to be seen only now.
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
        """Record a finished cell; False: another process has taken it over, and records it.

        Raises:
            StorageError: nothing of this cell counts as done then.
        """

        def is_mine() -> bool:
            return self._claims.holds(claim) and not self._results.files(cell).result.exists()

        written = self._results.write(cell, finished, is_mine)
        self._claims.release(claim)
        return written

    def fail(
        self, cell: Cell, claim: Claim, reason: str, traceback: str, *, transient: bool
    ) -> tuple[Path, bool]:
        """Record a failed attempt; return where, and whether the cell is still to be run.

        It is, by this process or another, if the failure may pass, or if another has taken it over:
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
        """Give a cell back that was not run to its end."""
        self._claims.release(claim)

    def _failed(self, cell: Cell) -> int:
        failure = self._results.failure(cell)
        return 0 if failure is None else failure.attempts

    def _claim_state(self, cell: Cell) -> ClaimState:
        files = self._results.files(cell)
        return self._claims.standing(files.folder, cell.task, self._failed(cell))

    def _over(self, cell: Cell) -> Verdict | None:
        """Return why a cell is not to be run any more, whoever asks."""
        if self._results.files(cell).result.exists():
            return Done()
        failure = self._results.failure(cell)
        if failure is None or failure.attempts <= self._before[cell]:
            return None
        if failure.transient and failure.attempts - self._before[cell] <= self._retries:
            return None
        return failure

    def _killed(self, cell: Cell, claim: Claim) -> Failure:
        """Record that every process that has run a cell since this one began was killed."""
        times = claim.number - 1 - self._before[cell]
        reason = f"{times} processes that ran it ended without a word (killed for lack of memory?)"
        failure = _failure(claim.number, reason, f"{reason}\n", transient=True)
        self._results.write_failure(cell, failure)
        return failure


def tidy(results: Results, cells: Iterable[Cell]) -> None:
    """Remove what killed processes have left: unfinished files, and claims of what is over.

    The claim of a cell that is finished, or of an attempt that failed, is of no use to anyone,
    whoever's it is. What cannot be listed or removed stays: it stops nobody, and whoever has to
    write there is told.
    """
    remove_leftovers(results.folder)
    tasks: dict[Path, set[str]] = {}
    for cell in cells:
        tasks.setdefault(results.files(cell).folder, set()).add(cell.task)
    for folder, names in tasks.items():
        remove_leftovers(folder)
        for name in names:
            # Of a process that was killed after it had written the result.
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
            # Another user's, in a sticky folder, is left to that user.
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
