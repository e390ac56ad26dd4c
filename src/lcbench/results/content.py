"""Parses and checks a cell's files: the result, its provenance, and possible scores."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

from lcbench.errors import StorageError
from lcbench.results.cell import texts_of
from lcbench.results.files import CellFiles, read_bytes
from lcbench.system.transient import with_retries

# In a provenance: the digest of its result, which reveals changes by hand.
DIGEST = "result_sha256"

# mteb's prefix for a metric of queries with sub-queries (MindSmallReranking).
SUBQUERIES = "max_over_subqueries_"

# Prefixes of metrics that are never below 0; others may be -1 (correlations).
_NEVER_NEGATIVE = (
    *("accuracy", "f1", "ndcg_at", "map", "mrr", "recall", "precision", "hit_rate", "v_measure"),
    *("max_ap", "max_accuracy", "max_f1", SUBQUERIES, "paired_accuracy", "robustness_at", "lrap"),
    *("nmi", "text_acc", "image_acc"),
)

# Tolerance for rounding errors, as of a computed correlation of 1.
_ROUNDING = 1e-6


def read_provenance(files: CellFiles) -> dict[str, Any]:
    """Return a cell's provenance; {} if it is missing or unreadable."""
    try:
        content = content_of(files.provenance)
    except StorageError:
        return {}
    return (parse_provenance(content) if content is not None else None) or {}


def read_result(files: CellFiles) -> dict[str, Any] | None:
    """Return mteb's result of a cell, or None if it is missing or damaged."""
    try:
        content = content_of(files.result)
    except StorageError:
        return None
    return parse_result(content) if content is not None else None


def parse_provenance(content: bytes) -> dict[str, Any] | None:
    """Return a provenance, or None if the content or one of its types is invalid."""
    found = _json_object(content)
    if found is None:
        return None

    def texts(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)

    protocol, missing, window = (found.get(name) for name in ("protocol", "missing", "window"))
    names = ("model", "revision", "policy", "task_type", "imported")
    is_one = (
        all(isinstance(found.get(name), str | None) for name in names)
        and isinstance(protocol, dict | None)
        and isinstance(found.get("data"), dict | None)
        and isinstance(missing, dict | None)
        and isinstance(window, int | float | None)
        and not isinstance(window, bool)
        and all(map(texts, (missing or {}).values()))
    )
    if protocol is not None and is_one:
        subsets = protocol.get("subsets")
        is_one = isinstance(texts_of(protocol), str | None) and (subsets is None or texts(subsets))
    return found if is_one else None


def _json_object(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content)
    # Lists nested too deeply for Python's parser.
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def content_of(path: Path) -> bytes | None:
    """Return a file's content; None if it does not exist, empty if it is not a file.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return with_retries(lambda: read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _NO_FILE:
            return b""
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error


# Errors of reading a folder, a circular link, or a socket.
_NO_FILE = (errno.EISDIR, errno.ELOOP, errno.ENXIO)


def parse_result(raw: bytes) -> dict[str, Any] | None:
    """Return an mteb result, or None if the content is invalid."""
    content = _json_object(raw)
    if content is None or not isinstance(content.get("task_name"), str):
        return None
    scores = content.get("scores")
    if not isinstance(scores, dict) or not scores:
        return None
    for entries in scores.values():
        if not isinstance(entries, list) or not entries:
            return None
        if not all(isinstance(entry, dict) for entry in entries):
            return None
        subsets = [entry.get("hf_subset") for entry in entries]
        if not all(isinstance(one, str) for one in subsets) or len(set(subsets)) < len(subsets):
            return None
        if not all("main_score" in entry and is_possible(entry["main_score"]) for entry in entries):
            return None
    return content


def lowest_score(metric: str) -> int:
    """Return the lowest possible value of a main score of mteb: 0, or -1 (correlations)."""
    return 0 if metric.startswith(_NEVER_NEGATIVE) else -1


def is_possible(score: Any, lowest: float = -1) -> bool:
    """Return whether a value can be a score, or is an unknown score (None, NaN).

    Every main score of mteb is within [-1, 1]: accuracies, nDCG … within [0, 1], while correlations
    may be negative. Any other value is a percentage, or not a score.

    Args:
        score: the value.
        lowest: lowest value of its metric.
    """
    if score is None:
        return True
    if isinstance(score, bool) or not isinstance(score, int | float):
        return False
    return score != score or lowest - _ROUNDING <= score <= 1 + _ROUNDING


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a result's file, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
