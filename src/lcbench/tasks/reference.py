"""Named sets of unlabelled texts, which corrections of embeddings can be fitted on."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from lcbench.errors import RequestError, did_you_mean

DOCSTRINGS = "docstrings"
# Enough to estimate a covariance of 768 dimensions.
_DOCSTRINGS_COUNT = 1_000
_DIGITS = 8


def identified(name: str) -> str:
    """Return the name of a set with a digest of its texts: `docstrings-1a2b3c4d`.

    Args:
        name: name of a set, with or without a digest.

    Raises:
        RequestError: there is no such set, or its texts here have another digest.
    """
    known, _, digest = name.partition("-")
    if known != DOCSTRINGS:
        near = did_you_mean(known, [DOCSTRINGS])
        raise RequestError(
            f"on: {name}: there is no such set of texts, only {DOCSTRINGS} (of numpy, scipy, "
            f"scikit-learn and pandas).{near} Without on, each task's own texts are used."
        )
    here = _digest()
    if digest and digest != here:
        raise RequestError(
            f"on: {name}: the docstrings of the libraries installed here are others "
            f"({DOCSTRINGS}-{here}). Install the same versions of numpy, scipy, scikit-learn and "
            f"pandas, or fit on those here: on: {DOCSTRINGS}."
        )
    return f"{DOCSTRINGS}-{here}"


def texts_of(name: str) -> list[str]:
    """Return the texts of a set; see `identified`, whose errors it raises."""
    identified(name)
    return list(_docstrings())


@lru_cache(maxsize=1)
def _docstrings() -> tuple[str, ...]:
    """Return distinct docstrings without their summary lines, drawn by a hash of their ids."""
    from lcbench.tasks.docs.selection import collection, hash_of

    drawn = sorted(collection(), key=lambda doc: hash_of(doc.id))
    return tuple(dict.fromkeys(doc.body for doc in drawn))[:_DOCSTRINGS_COUNT]


@lru_cache(maxsize=1)
def _digest() -> str:
    return hashlib.sha256("\0".join(_docstrings()).encode()).hexdigest()[:_DIGITS]
