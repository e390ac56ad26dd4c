"""A sweep that is frozen: its settings, and one line a cell with its identity and its cost.

A manifest lies below the results that it is for, so that all of it can be moved or mounted
elsewhere:

    <results_dir>/sweeps/<label>-<digest>/manifest.jsonl
    <results_dir>/sweeps/<label>-<digest>/logs/            one file a run, or an array element

What it says does not change with the configs that it was made from. This module imports nothing
heavy: `lcbench status` reads manifests of ten thousand cells.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from lcbench.errors import RequestError
from lcbench.system.files import shortened_name, write_atomically

NAME = "manifest.jsonl"
# On a command line: the sweep that was planned or run last.
LATEST = "latest"
_SWEEPS = "sweeps"
# Raise it when the content changes, so that no other version takes it for its own.
_FORMAT = 1


@dataclass(frozen=True)
class Line:
    """A cell of a frozen sweep.

    Attributes:
        index: its place in the sweep, from 0.
        element: the array element that runs it, from 0.
        model: its name.
        revision: of the model.
        policy: in canonical form.
        task: its name.
        protocol: its key.
        folder: of its files, below the folder of results.
        seconds: that it is predicted to take; None: not known.
    """

    index: int
    element: int
    model: str
    revision: str
    policy: str
    task: str
    protocol: str
    folder: str
    seconds: float | None

    @property
    def identity(self) -> tuple[str, ...]:
        """What a result belongs to."""
        return self.model, self.revision, self.policy, self.task, self.protocol

    def __str__(self) -> str:
        return f"{self.model.rpartition('/')[2]}, τ = {self.policy}, {self.task}"


@dataclass(frozen=True)
class Manifest:
    """A frozen sweep.

    Attributes:
        folder: of the sweep: the manifest and its logs.
        made: when, in UTC (ISO 8601).
        command: that asked for it.
        versions: of the libraries at that time.
        settings: of the request, as `frozen.freeze` returns them.
        lines: its cells, in the order in which one process runs them.
        planned: whether it was asked for by itself; else a run has made it.
    """

    folder: Path
    made: str
    command: tuple[str, ...]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    lines: tuple[Line, ...]
    planned: bool = True

    @property
    def results_dir(self) -> Path:
        """The folder of results that it lies in."""
        return self.folder.parent.parent

    @property
    def elements(self) -> int:
        """How many array elements it has."""
        return max((one.element for one in self.lines), default=-1) + 1


def folder_of(
    results_dir: Path,
    label: str,
    settings: Mapping[str, Any],
    lines: Sequence[Line],
    division: Sequence[float | None] = (),
) -> Path:
    """Return the folder of a sweep: the same for the same settings, cells and division asked for.

    What the division comes to goes by estimates, which get better with every run.
    """
    cells = [line.identity for line in lines]
    content = json.dumps([settings, cells, list(division)], sort_keys=True).encode()
    # A sweep of a subfolder of configs (mine/x) has no folder of its own here.
    name = shortened_name(label.replace("/", "-"))
    return results_dir / _SWEEPS / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}"


def freeze(
    folder: Path,
    *,
    command: Sequence[str],
    versions: Mapping[str, str],
    settings: Mapping[str, Any],
    lines: Sequence[Line],
    planned: bool = True,
) -> Manifest:
    """Write a manifest, or find it written already, and return it.

    It becomes the last one of its results (`latest`).

    Args:
        folder: of the sweep.
        command: that asked for it.
        versions: of the libraries.
        settings: of the request, as `frozen.freeze` returns them.
        lines: its cells.
        planned: whether it was asked for by itself, and not by a run.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / NAME
    if path.exists():
        try:
            there = read(folder)
        except RequestError:
            # Cut off, or another version's: kept, and made again.
            with suppress(OSError):
                path.replace(path.with_name(f"{NAME}.broken-{secrets.token_hex(4)}"))
        else:
            if there.planned or not planned:
                _make_latest(path)
                return there
    made = datetime.now(UTC).isoformat(timespec="seconds")
    header = {
        "format": _FORMAT,
        "made": made,
        "command": list(command),
        "cells": len(lines),
        "planned": planned,
        "versions": dict(versions),
        "settings": dict(settings),
    }
    text = "".join(
        json.dumps(one, ensure_ascii=False) + "\n" for one in [header, *map(asdict, lines)]
    )
    write_atomically(path, text)
    _make_latest(path)
    return read(folder)


def _make_latest(path: Path) -> None:
    """Let a manifest look changed last of its results, also after a clock that was ahead."""
    # A courtesy to `latest`; another user's file may not be touched.
    with suppress(OSError):
        os.utime(path)
        others = path.parent.parent.glob(f"*/{NAME}")
        last = max((one.stat().st_mtime_ns for one in others if one != path), default=0)
        if last >= path.stat().st_mtime_ns:
            # Some file systems count in whole seconds, or in two.
            moment = last + 2 * 10**9
            os.utime(path, ns=(moment, moment))


def read(path: Path) -> Manifest:
    """Read a manifest.

    Args:
        path: of it, or of its folder.

    Raises:
        RequestError: there is none, or it is not whole, or another version's.
    """
    file = path / NAME if path.is_dir() else path
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise RequestError(
            f"manifest={path} cannot be read: {reason}. `python -m lcbench plan sweep=NAME` makes "
            "one and says where it is."
        ) from error
    try:
        # Names may hold what str.splitlines takes for ends of lines (U+2028).
        header, *rows = map(json.loads, content.removesuffix("\n").split("\n"))
        if header["format"] != _FORMAT:
            raise RequestError(
                f"manifest={path} was made by another version of lcbench (format "
                f"{header['format']}, this one reads {_FORMAT}). Plan the sweep again; finished "
                "cells are found."
            )
        lines = tuple(_line(row) for row in rows)
        if len(lines) != header["cells"]:
            raise ValueError(f"{len(lines)} of {header['cells']} cells")
        folder = file.absolute().parent
        if folder.parent.name != _SWEEPS:
            raise RequestError(
                f"manifest={path} does not lie below its results, as <results_dir>/{_SWEEPS}/"
                f"{folder.name}: where they are goes by that."
            )
        return Manifest(
            folder=folder,
            made=header["made"],
            command=tuple(header["command"]),
            versions=header["versions"],
            settings=header["settings"],
            lines=lines,
            planned=bool(header["planned"]),
        )
    except RequestError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RequestError(
            f"manifest={path} is not whole ({type(error).__name__}: {error}). Plan the sweep "
            "again; finished cells are found."
        ) from error


def _line(row: Mapping[str, Any]) -> Line:
    line = Line(**row)
    numbers = (line.index, line.element)
    texts = (line.model, line.revision, line.policy, line.task, line.protocol, line.folder)
    if not (
        all(type(one) is int and one >= 0 for one in numbers)
        and all(isinstance(one, str) for one in texts)
        and (line.seconds is None or isinstance(line.seconds, int | float))
    ):
        raise TypeError(f"no cell: {json.dumps(row)[:100]}")
    folder = PurePosixPath(line.folder)
    if folder.is_absolute() or ".." in folder.parts or "/" in line.task:
        raise ValueError(f"{line.folder}/{line.task} leads out of its results")
    return line


def find(path: Path, results_dir: Path, *, planned: bool = False) -> Path:
    """Return where a manifest is that a command line names; `latest` is the last of the results.

    Args:
        path: that was named.
        results_dir: where results are.
        planned: whether the last that was planned is meant, and not a run that nobody planned.

    Raises:
        RequestError: there is none yet.
    """
    if str(path) != LATEST or path.exists():
        return path
    found = latest(results_dir, planned=planned)
    if found is None:
        how = "planned" if planned else "planned or run"
        raise RequestError(
            f"manifest={LATEST}: results_dir={results_dir} has no sweep that was {how}. "
            "`python -m lcbench plan sweep=NAME` plans one."
        )
    return found


def latest(results_dir: Path, *, planned: bool = False) -> Path | None:
    """Return the folder of the sweep that was planned or run last; None: there is none.

    Args:
        results_dir: where results are.
        planned: whether only what was planned counts.
    """
    found = []
    for path in results_dir.glob(f"{_SWEEPS}/*/{NAME}"):
        with suppress(OSError):
            found.append((path.stat().st_mtime, path.parent))
    for _, folder in sorted(found, reverse=True):
        if not planned or read(folder).planned:
            return folder
    return None


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as sbatch's `--array` takes them, ascending, each once: `3,7,9-12`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
