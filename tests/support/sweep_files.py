"""Sweeps made by hand: a manifest, and the files that its cells may have left."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcbench.plan import manifest
from lcbench.plan.manifest import Line, Manifest
from lcbench.run.claims import Holder

FOLDER = "paper-0a1b2c3d/results/org__model/main"
RESULT = json.dumps({"task_name": "A", "scores": {"test": [{"main_score": 0.5}]}}, indent=2)


def line(index: int, task: str, **changed: Any) -> Line:
    """Return a cell, by default of one model's baseline, in element 0, of 100 seconds."""
    known: dict[str, Any] = {
        "element": 0,
        "model": "org/model",
        "revision": "main",
        "policy": "1",
        "protocol": "paper-0a1b2c3d",
        "folder": FOLDER,
        "seconds": 100.0,
    }
    return Line(index=index, task=task, **{**known, **changed})


def plan(
    results_dir: Path, lines: Sequence[Line], *, label: str = "demo", **engine: Any
) -> Manifest:
    """Freeze a sweep, planned an hour before anything else happens."""
    folder = results_dir / "sweeps" / f"{label}-01234567"
    found = manifest.freeze(
        folder, command=["python"], versions={}, settings={"engine": engine}, lines=lines
    )
    path = folder / manifest.NAME
    path.write_text(path.read_text().replace(found.made, "2026-01-02T03:04:05+00:00", 1))
    return manifest.read(folder)


def write_result(
    sweep: Manifest,
    index: int,
    content: str = RESULT,
    at: float | None = None,
    record: dict[str, Any] | None = None,
) -> Path:
    """Write the result of a cell, at a time, with the provenance given."""
    cell = sweep.lines[index]
    path = sweep.results_dir / cell.folder / f"{cell.task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".provenance.jsonl").write_text(json.dumps(record or {}))
    path.write_text(content)
    if at is not None:
        os.utime(path, (at, at))
    return path


def write_failure(sweep: Manifest, index: int, text: str) -> Path:
    """Write the failure of a cell."""
    cell = sweep.lines[index]
    path = sweep.results_dir / cell.folder / f"{cell.task}.failure.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_claim(
    sweep: Manifest, index: int, holder: Holder, number: int = 1, touched: float | None = None
) -> Path:
    """Write the claim of a process, touched at a time."""
    cell = sweep.lines[index]
    path = sweep.results_dir / cell.folder / f".{cell.task}.attempt-{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(json.dumps(asdict(holder)))
    if touched is not None:
        os.utime(path, (touched, touched), follow_symlinks=False)
    return path
