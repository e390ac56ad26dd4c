"""Errors whose message names the key or file that is at fault, and the remedy.

The command line prints them without a traceback, and `exit_status` is what it ends with; the
functions of the Python API raise them.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class LcbenchError(Exception):
    """Something that the user can mend. The message is complete: what, where, and the remedy."""

    exit_status = 1


class RequestError(LcbenchError, ValueError):
    """The request itself is wrong, or asks for what is not here. Nothing was computed."""

    exit_status = 2


class NoResultsError(RequestError):
    """A results folder without results, or without those that a report is asked for."""


class MissingError(RequestError):
    """Models or data that are not here and cannot be fetched; `prefetch` is the remedy.

    Attributes:
        missing: what it is, one line each.
        where: it was looked for.
        why: it cannot be fetched.
        command: that gets it, on a machine with a network.
        request: the words of the command that asked for it, where that is not the present one.
    """

    def __init__(self, missing: Sequence[str], where: str, why: str) -> None:
        super().__init__(missing, where, why)
        self.missing = tuple(missing)
        self.where = where
        self.why = why
        self.request: tuple[str, ...] | None = None
        self.command = "python -m lcbench prefetch KEYS mirror=PATH"

    def __str__(self) -> str:
        """Return what is missing, and how to get it."""
        listed = "".join(f"\n  {one}" for one in self.missing)
        return (
            f"This is needed and not in {self.where}, and {self.why}:{listed}\n"
            "On a machine with a network, this gets all of it into one folder, to be named here "
            f"as mirror=PATH:\n  {self.command}"
        )


class InjectionError(RequestError):
    """A model whose attention cannot be brought to a temperature, or not provably so."""


class StorageError(LcbenchError):
    """Results cannot be written: a full disk, a folder without permission."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean a, b?" for the names nearest to `name`, or "" if none is near."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), by_folded, n=3, cutoff=0.6)
    return f" Did you mean {', '.join(by_folded[match] for match in near)}?" if near else ""
