"""Stores the labels of models, given by `model.label=`, which tables show instead of names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from lcbench.errors import StorageError
from lcbench.system.files import write_atomically

NAME = "labels.json"

Labels = Mapping[tuple[str, str], str]
"""By name and revision of a model."""


def read_labels(results_dir: Path) -> Labels:
    """Return the labels of a folder of results; none if the file is missing or invalid."""
    try:
        rows = json.loads((results_dir / NAME).read_text(encoding="utf-8"))
        return {(str(row["model"]), str(row["revision"])): str(row["label"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def add_labels(results_dir: Path, labels: Labels) -> None:
    """Add labels to those of a folder of results.

    Raises:
        StorageError: the folder cannot be written.
    """
    known = read_labels(results_dir)
    if all(known.get(key) == label for key, label in labels.items()):
        return
    rows = [
        {"model": model, "revision": revision, "label": label}
        for (model, revision), label in sorted({**known, **labels}.items())
    ]
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    try:
        write_atomically(results_dir / NAME, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{results_dir / NAME} cannot be written: {error.strerror}.") from error
