"""The names of a cell's files in a results folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

META = "model_meta.json"


@dataclass(frozen=True)
class CellFiles:
    """The paths of a cell's files."""

    folder: Path
    task: str

    @property
    def result(self) -> Path:
        """mteb's result: written last, so the cell is done when it is there."""
        return self.folder / f"{self.task}.json"

    @property
    def provenance(self) -> Path:
        """The provenance of the result."""
        return self.folder / f"{self.task}.provenance.jsonl"

    @property
    def items(self) -> Path:
        """The items: one row per query, pair or text."""
        return self.folder / f"{self.task}.items.parquet"

    @property
    def failure(self) -> Path:
        """The traceback of the last attempt, if that failed."""
        return self.folder / f"{self.task}.failure.txt"

    @property
    def meta(self) -> Path:
        """mteb's description of the model, one per folder."""
        return self.folder / META


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file; empty for anything else, such as a pipe."""
    # Opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
