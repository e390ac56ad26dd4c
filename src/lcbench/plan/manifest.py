"""The manifest of a frozen sweep: its settings, and one line per cell with identity and cost.

A manifest is stored within its results folder, so that the folder can be moved or mounted
elsewhere:

    <results_dir>/sweeps/<label>-<digest>/manifest.jsonl
    <results_dir>/sweeps/<label>-<digest>/logs/            one file per run or array element

Its content does not change with the configs that it was made from. This module imports nothing
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
from lcbench.repair.repair import label_of
from lcbench.system.files import shortened_name, write_atomically

NAME = "manifest.jsonl"
# On a command line: the sweep planned or run last.
LATEST = "latest"
_SWEEPS = "sweeps"
# Raise it when the layout changes, so that other versions do not read it.
_FORMAT = 1


@dataclass(frozen=True)
class Line:
    """A cell of a frozen sweep.

    Attributes:
        index: index in the sweep, from 0.
        element: array element that runs it, from 0.
        model: name of the model.
        revision: revision of the model.
        policy: repair in canonical form.
        task: name of the task.
        protocol: key of the protocol.
        folder: folder of its files, relative to the results folder.
        seconds: predicted time; None: unknown.
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
        """The identity of the cell's result."""
        return self.model, self.revision, self.policy, self.task, self.protocol

    @property
    def is_measurement(self) -> bool:
        """Whether it is a measurement of collapse, which has no provenance file."""
        return PurePosixPath(self.folder).parts[1:2] == ("collapse",)

    def __str__(self) -> str:
        return f"{self.model.rpartition('/')[2]}, {label_of(self.policy)}, {self.task}"


@dataclass(frozen=True)
class Manifest:
    """A frozen sweep.

    Attributes:
        folder: folder of the manifest and its logs.
        made: time of creation, in UTC (ISO 8601).
        command: command that created it.
        versions: versions of the libraries at that time.
        settings: settings of the request, as `frozen.freeze` returns them.
        lines: cells, in the order in which a single process runs them.
        planned: whether `lcbench plan` or a launch created it; else a run.
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
        """The results folder that contains it."""
        return self.folder.parent.parent

    @property
    def command_line(self) -> str:
        """Beginning of the command that carries it out."""
        return "python -m lcbench collapse" if self.measures else "python -m lcbench"

    @property
    def measures(self) -> bool:
        """Whether its lines are measurements of collapse, not cells."""
        return any(line.is_measurement for line in self.lines)

    @property
    def elements(self) -> int:
        """Number of array elements."""
        return max((one.element for one in self.lines), default=-1) + 1


def folder_of(
    results_dir: Path,
    label: str,
    settings: Mapping[str, Any],
    lines: Sequence[Line],
    division: Sequence[float | None] = (),
) -> Path:
    """Return the folder of a sweep: the same for the same settings, cells and requested division.

    The actual division depends on estimates, which improve with every run.
    """
    cells = [line.identity for line in lines]
    content = json.dumps([settings, cells, list(division)], sort_keys=True).encode()
    # A sweep in a subfolder of configs (mine/x) has no subfolder here.
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
    """Write a manifest unless it exists, and return it.

    It becomes the `latest` one of its results folder.

    Args:
        folder: folder of the sweep.
        command: command that creates it.
        versions: versions of the libraries.
        settings: settings of the request, as `frozen.freeze` returns them.
        lines: cells of the sweep.
        planned: whether `lcbench plan` or a launch creates it, not a run.

    Raises:
        StorageError: it cannot be written.
    """
    path = folder / NAME
    if path.exists():
        try:
            there = read(folder)
        except RequestError:
            # Truncated, or written by another version: set aside and made again.
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
    """Make a manifest the last modified one of its results folder, even if a clock was ahead."""
    # This only affects `latest`; another user's file may not be touchable.
    with suppress(OSError):
        os.utime(path)
        others = path.parent.parent.glob(f"*/{NAME}")
        last = max((one.stat().st_mtime_ns for one in others if one != path), default=0)
        if last >= path.stat().st_mtime_ns:
            # Some file systems store times in steps of one or two seconds.
            moment = last + 2 * 10**9
            os.utime(path, ns=(moment, moment))


def read(path: Path) -> Manifest:
    """Read a manifest.

    Args:
        path: path of the manifest or its folder.

    Raises:
        RequestError: it does not exist, is incomplete, or has another version's layout.
    """
    file = path / NAME if path.is_dir() else path
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RequestError(
            f"manifest={path} cannot be read: {reason}. `python -m lcbench plan sweep=NAME` makes "
            "one and prints its path."
        ) from error
    try:
        # Names may contain line separators of str.splitlines (U+2028).
        header, *rows = map(json.loads, content.removesuffix("\n").split("\n"))
        if header["format"] != _FORMAT:
            raise RequestError(
                f"manifest={path} was made by another version of lcbench (format "
                f"{header['format']}, this one reads {_FORMAT}). Plan the sweep again; finished "
                "cells are reused."
            )
        lines = tuple(_line(row) for row in rows)
        if len(lines) != header["cells"]:
            raise ValueError(f"{len(lines)} of {header['cells']} cells")
        folder = file.absolute().parent
        if folder.parent.name != _SWEEPS:
            raise RequestError(
                f"manifest={path} must lie within its results folder, as <results_dir>/"
                f"{_SWEEPS}/{folder.name}."
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
            f"manifest={path} is incomplete ({type(error).__name__}: {error}). Plan the "
            "sweep again; finished cells are reused."
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
        raise TypeError(f"not a cell: {json.dumps(row)[:100]}")
    folder = PurePosixPath(line.folder)
    if folder.is_absolute() or ".." in folder.parts or "/" in line.task:
        raise ValueError(f"{line.folder}/{line.task} is outside the results folder")
    return line


def find(path: Path, results_dir: Path, *, planned: bool = False) -> Path:
    """Return the path of a manifest named on the command line, which may be `latest`.

    Args:
        path: path that was given.
        results_dir: results folder.
        planned: whether only planned sweeps count as `latest`.

    Raises:
        RequestError: there is none yet.
    """
    if str(path) != LATEST or path.exists():
        return path
    folder = latest(results_dir, planned=planned)
    if folder is None:
        how = "planned" if planned else "planned or run"
        raise RequestError(
            f"manifest={LATEST}: results_dir={results_dir} has no sweep that was {how}. "
            "`python -m lcbench plan sweep=NAME` plans one."
        )
    return folder


def latest(results_dir: Path, *, planned: bool = False) -> Path | None:
    """Return the folder of the sweep planned or run last; None if there is none.

    Args:
        results_dir: results folder.
        planned: whether only planned sweeps count.
    """
    sweeps = []
    for path in results_dir.glob(f"{_SWEEPS}/*/{NAME}"):
        with suppress(OSError):
            sweeps.append((path.stat().st_mtime, path.parent))
    for _, folder in sorted(sweeps, reverse=True):
        if not planned or read(folder).planned:
            return folder
    return None


def ranges(numbers: Iterable[int]) -> str:
    """Return distinct, ascending numbers in the syntax of sbatch's `--array`: `3,7,9-12`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
