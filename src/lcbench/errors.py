"""Errors whose message names the key or file that is at fault, and the remedy.

The command line prints them without a traceback; `exit_status` is what it ends with.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LcbenchError(Exception):
    """Something that the user can mend. The message is complete: what, where, and the remedy."""

    exit_status = 1


class RequestError(LcbenchError):
    """The request itself is wrong, or asks for what is not here. Nothing was computed."""

    exit_status = 2


class InjectionError(RequestError):
    """A model whose attention cannot be brought to a temperature, or not provably so."""


class StorageError(LcbenchError):
    """Results cannot be written: a full disk, a folder without permission."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean a, b?" for the names nearest to `name`, or "" if none is near."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    near = get_close_matches(name.lower(), by_folded, n=3, cutoff=0.6)
    return f" Did you mean {', '.join(by_folded[match] for match in near)}?" if near else ""
