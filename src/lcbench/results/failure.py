"""The record of a failed cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lcbench.results.files import read_bytes


@dataclass(frozen=True)
class Failure:
    """The failure of a cell's last attempt.

    Attributes:
        attempts: number of attempts so far.
        transient: whether a retry may succeed: out of memory, no network, a process killed.
        reason: reason in one line.
        where: host, process, Slurm job.
        at: time, in UTC (ISO 8601).
        traceback: full traceback.
    """

    attempts: int
    transient: bool
    reason: str
    where: str
    at: str
    traceback: str

    def __str__(self) -> str:
        """Return the content of its file."""
        head = {
            "attempts": self.attempts,
            "kind": "transient" if self.transient else "deterministic",
            "reason": " ".join(self.reason.split()),
            "where": " ".join(self.where.split()),
            "at": self.at,
        }
        lines = [f"{key}: {value}\n" for key, value in head.items()]
        return "".join([*lines, "\n", self.traceback])


def read_failure(path: Path) -> Failure | None:
    """Return a recorded failure, or None; missing fields are empty."""
    try:
        text = read_bytes(path).decode("utf-8", errors="replace")
    except OSError:
        return None
    head, _, traceback = text.partition("\n\n")
    said = dict(line.partition(": ")[::2] for line in head.split("\n"))
    attempts = said.get("attempts", "")
    if not (attempts.isascii() and attempts.isdecimal() and len(attempts) < 10):
        # From a version that only recorded the traceback.
        last = text.strip().rpartition("\n")[2]
        return Failure(1, False, last, "", "", text)
    return Failure(
        attempts=int(attempts),
        transient=said.get("kind") == "transient",
        reason=said.get("reason", ""),
        where=said.get("where", ""),
        at=said.get("at", ""),
        traceback=traceback,
    )
