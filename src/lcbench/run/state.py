"""The state of a sweep: which cells are done, running, failed or missing, and the time left."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lcbench.encode.options import MOST_SCORING
from lcbench.errors import LcbenchError
from lcbench.plan.machine import Machine
from lcbench.plan.manifest import Line, Manifest
from lcbench.plan.predict import work_seconds
from lcbench.results.failure import Failure, read_failure
from lcbench.results.files import CellFiles
from lcbench.run.claims import LEASE_SECONDS, Attempt, attempts_in, is_alive_here

Kind = Literal["done", "running", "failed", "missing"]
KINDS: tuple[Kind, ...] = ("done", "running", "failed", "missing")

# Only the end of a result is read, which reveals most truncated files; a run reads it completely.
_END_BYTES = 64
# The number of finished cells whose times are compared with predictions, and the shortest predicted
# time to compare: below it, unpredicted parts (imports, a first batch) dominate.
_MOST_COMPARED = 100
_LEAST_SECONDS = 10.0


@dataclass(frozen=True)
class CellState:
    """The state of a cell of a sweep.

    Attributes:
        line: line of the manifest.
        kind: done: it has a result that looks complete; running: a process has it; failed: its last
            attempt failed, and no process runs it; missing: anything else.
        files: files of the cell.
        finished: time at which its result was written (seconds since 1970, the file system's
            clock); None: it is not done.
        claim: claim of the process that runs it, or, if it is missing, of the dead one that ran it.
        held: seconds since the process claimed it, by that machine's clock; None: it is not
            running, or its claim does not say.
        silent: seconds, by two machines' clocks, since a process of another machine has touched
            its claim, if overdue; else None.
        failure: failure of its last attempt; None: it is done, or has not failed.
        is_broken: whether it has a truncated result, or one without provenance.
    """

    line: Line
    kind: Kind
    files: CellFiles
    finished: float | None = None
    claim: Attempt | None = None
    held: float | None = None
    silent: float | None = None
    failure: Failure | None = None
    is_broken: bool = False


@dataclass(frozen=True)
class State:
    """The state of a sweep.

    Attributes:
        manifest: manifest of the sweep.
        cells: states of the manifest's cells, in its order.
        at: time of observation, in seconds since 1970.
    """

    manifest: Manifest
    cells: tuple[CellState, ...]
    at: float

    @cached_property
    def counts(self) -> Mapping[Kind, int]:
        """Number of cells of each kind."""
        return counts_of(self.cells)

    def of(self, kind: Kind) -> list[CellState]:
        """Return the cells of a kind, in the manifest's order."""
        return [cell for cell in self.cells if cell.kind == kind]


@dataclass(frozen=True)
class TimeLeft:
    """The time left for a sweep.

    Attributes:
        work: seconds left for a single process.
        wall: seconds from now with the processes that are running; None: none is.
        processes: number of running processes.
        at_least: whether cells of unknown cost make it longer.
        scale: ratio of actual to predicted time of finished cells.
    """

    work: float
    wall: float | None
    processes: int
    at_least: bool
    scale: float


# When complete results were written, by cell and inode. A result is replaced and never modified, so
# that a complete one stays complete.
Seen = dict[tuple[str, int], float]


def state_of(manifest: Manifest, seen: Seen | None = None) -> State:
    """Return the present state of a sweep.

    Args:
        manifest: manifest of the sweep.
        seen: results seen by earlier calls, which is extended; None: every result's end is read.

    Raises:
        LcbenchError: a results folder cannot be listed.
    """
    seen = {} if seen is None else seen
    by_folder: dict[str, list[Line]] = defaultdict(list)
    for line in manifest.lines:
        by_folder[line.folder].append(line)
    found: dict[int, CellState] = {}
    at = time.time()
    for name, lines in by_folder.items():
        folder = manifest.results_dir / name
        inodes = _list(folder)
        last: dict[str, Attempt] = {}
        for attempt in attempts_in(folder, [one for one in inodes if one.startswith(".")]):
            # Sorted: a later attempt was made because those before it are over.
            last[attempt.task] = attempt
        for line in lines:
            files = CellFiles(folder, line.task)
            found[line.index] = _look(line, files, inodes, last.get(line.task), seen)
    return State(manifest, tuple(found[line.index] for line in manifest.lines), at)


def _list(folder: Path) -> dict[str, int]:
    """Return the inodes of a folder's entries by name; empty if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise LcbenchError(
            f"{folder} cannot be read: {error.strerror}. Ask its owner for permission."
        ) from error


def _look(
    line: Line, files: CellFiles, inodes: Mapping[str, int], last: Attempt | None, seen: Seen
) -> CellState:
    is_broken = False
    result = files.result
    # Provenance is written first: a result without it was not written here, or has lost it.
    if result.name in inodes and files.provenance.name not in inodes and not line.is_measurement:
        is_broken = True
    elif result.name in inodes:
        key = (f"{line.folder}/{line.task}", inodes[result.name])
        if key not in seen:
            with suppress(FileNotFoundError):
                written = _written(result)
                is_broken = written is None
                if written is not None:
                    seen[key] = written
        if key in seen:
            return CellState(line, "done", files, finished=seen[key])
    failure = read_failure(files.failure) if files.failure.name in inodes else None
    if last is not None and last.number <= (failure.attempts if failure else 0):
        last = None
    lives = None if last is None or last.holder is None else is_alive_here(last.holder)
    if last is not None and lives is not False:
        now = time.time()
        untouched = now - last.changed / 1e9
        return CellState(
            line,
            "running",
            files,
            claim=last,
            held=_held(last, now if lives else last.changed / 1e9),
            silent=untouched if not lives and untouched > LEASE_SECONDS else None,
            failure=failure,
            is_broken=is_broken,
        )
    kind: Kind = "missing" if failure is None else "failed"
    return CellState(line, kind, files, claim=last, failure=failure, is_broken=is_broken)


def _written(path: Path) -> float | None:
    """Return when a result was written; None if it is empty, truncated or unreadable.

    Raises:
        FileNotFoundError: it has been set aside in the meantime.
    """
    try:
        with path.open("rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            file.seek(max(0, about.st_size - _END_BYTES))
            return about.st_mtime if file.read(_END_BYTES).rstrip().endswith(b"}") else None
    except FileNotFoundError:
        raise
    except OSError:
        return None


def _held(claim: Attempt, until: float) -> float | None:
    began = instant(claim.holder.began) if claim.holder else None
    return None if began is None else max(0.0, until - began.timestamp())


def instant(text: str) -> datetime | None:
    """Return a time in UTC (ISO 8601) as local time; None if it is invalid."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone()
    except (TypeError, ValueError):
        return None


def to_submit(manifest: Manifest, state: State, queued: Container[int]) -> list[int]:
    """Return the array elements to submit again, in ascending order.

    These have a cell that is neither done nor running. A cell whose process is silent beyond the
    lease counts as not running: if the process is alive after all, a new one sees its claim change
    and leaves the cell alone, whereas a cell of a dead node would otherwise never be resubmitted.

    Args:
        manifest: manifest of the sweep.
        state: state of the same sweep.
        queued: elements that wait or run in Slurm, which will run their cells anyway.
    """
    open_ = {
        cell.line.element
        for cell in state.cells
        if cell.kind in ("failed", "missing") or cell.silent is not None
    }
    return [one for one in range(manifest.elements) if one in open_ and one not in queued]


def time_left(state: State) -> TimeLeft:
    """Estimate how long a sweep will take.

    It is the predicted time of the unfinished cells, less the time that running cells have had,
    scaled by the actual over the predicted time of finished cells (`_scale`), and divided by the
    number of running processes. As one process runs an array element, it is at least the time of
    the longest element and of the longest cell.
    """
    open_ = [cell for cell in state.cells if cell.kind != "done"]
    scale = _scale(state) if open_ else 1.0
    work = sum(remaining_seconds(cell, scale) for cell in open_)
    processes = len({token(cell) for cell in state.of("running")})
    wall = None
    if processes:
        by_element: dict[int, float] = defaultdict(float)
        for cell in open_:
            by_element[cell.line.element] += remaining_seconds(cell, scale)
        longest = max(remaining_seconds(cell, scale) for cell in open_)
        if state.manifest.elements > 1:
            longest = max(longest, *by_element.values())
        wall = max(work / processes, longest)
    at_least = any(cell.line.seconds is None for cell in open_)
    return TimeLeft(work, wall, processes, at_least, scale)


def remaining_seconds(cell: CellState, scale: float) -> float:
    """Return the seconds left for a cell, as far as known."""
    if cell.kind == "done":
        return 0.0
    return max(0.0, (cell.line.seconds or 0.0) * scale - (cell.held or 0.0))


def token(cell: CellState) -> str:
    holder = cell.claim.holder if cell.claim else None
    return str(cell.files.result) if holder is None else str(holder.token)


def _scale(state: State) -> float:
    """Return the ratio of actual to predicted time of the cells finished last.

    A manifest's seconds are shares of one process's wall-clock time; those of a result belong to
    the cell, and overlap where processes score in parallel with encoding, so that their sum is no
    wall-clock time. They are therefore combined by the rule of the prediction
    (`predict.work_seconds`), and sums are compared, not cells. Modification times are not used:
    they also depend on when, and in how many processes, the sweep was running.
    """
    made = instant(state.manifest.made)
    since = 0.0 if made is None else made.timestamp()
    # A result older than the manifest may come from another machine.
    finished = [
        cell for cell in state.cells if (cell.finished or 0.0) >= since and cell.line.seconds
    ]
    finished.sort(key=lambda cell: cell.finished or 0.0, reverse=True)
    predicted = 0.0
    measured: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for cell in finished[:_MOST_COMPARED]:
        if (took := _measured_seconds(cell.files.provenance)) is not None:
            machine, divided = took
            measured[machine].append(divided)
            predicted += cell.line.seconds or 0.0
    if predicted < _LEAST_SECONDS:
        return 1.0
    seconds = sum(
        _wall_seconds(cells, device, cores, state.manifest.settings)
        for (device, cores), cells in measured.items()
    )
    return seconds / predicted


def _measured_seconds(path: Path) -> tuple[tuple[str, int], tuple[float, float]] | None:
    """Return a result's device, cores, seconds of encoding and other seconds; None if unknown.

    Neither includes waiting for other cells' texts to be encoded.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        total, wait, encode = (
            float(record[name]) for name in ("seconds", "seconds_wait", "seconds_encode")
        )
        hardware = record["hardware"]
        machine = str(hardware["device"]), max(1, int(hardware["cores"] or 1))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    others = max(0.0, total - wait - encode)
    if not (math.isfinite(others) and math.isfinite(encode) and encode >= 0):
        return None
    return machine, (encode, others)


def _wall_seconds(
    cells: Collection[tuple[float, float]], device: str, cores: int, settings: Mapping[str, Any]
) -> float:
    engine = settings.get("engine")
    processes = engine.get("scoring") if isinstance(engine, Mapping) else None
    if not isinstance(processes, int):
        processes = min(cores, MOST_SCORING)
    return work_seconds(cells, Machine("", device, cores, ""), processes)


def counts_of(cells: Iterable[CellState]) -> Mapping[Kind, int]:
    counts = Counter(cell.kind for cell in cells)
    return {kind: counts[kind] for kind in KINDS}
