"""`python -m lcbench status`: how a sweep stands, and how long it will take.

All of it is seen from the folders of results: each is listed once, and of the files only what is
needed is read. This module imports nothing heavy; `state_of`, `to_submit` and `time_left` are for
others too.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lcbench.errors import LcbenchError, RequestError
from lcbench.plan.manifest import Line, Manifest, find, latest, ranges, read
from lcbench.plan.predict import Machine, clock, duration, work_seconds
from lcbench.results.folder import CellFiles, Failure, read_failure
from lcbench.run.claims import LEASE_SECONDS, Attempt, attempts_in, lives_here
from lcbench.settings.read import read_status
from lcbench.system.console import emit, printable, screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console, RenderableType
    from rich.text import Text

Kind = Literal["done", "running", "failed", "missing"]
KINDS: tuple[Kind, ...] = ("done", "running", "failed", "missing")

# Of a result only its end is read, which finds most that were cut off; the run reads it whole.
_END_BYTES = 64
# Finished cells whose seconds are compared with what was predicted, and the least prediction that
# says anything: below it, what no prediction knows of (imports, a first batch) is most of it.
_MOST_COMPARED = 100
_LEAST_SECONDS = 10.0
# Processes that score beside encoding if the settings leave it to the machine (`workers`).
_MOST_PROCESSES = 8
# What a screen shows of a list, and a live view, which has no room but the window's.
_MOST_LISTED = 20
_MOST_WATCHED = 6
_WATCH_SECONDS = 2.0
_FLAGS = {"--failed": "failed=true", "--watch": "watch=true"}
_STYLES: Mapping[Kind, str] = {"done": "green", "running": "cyan", "failed": "red", "missing": ""}


@dataclass(frozen=True)
class CellState:
    """How a cell of a sweep stands.

    Attributes:
        line: of the manifest.
        kind: done: its result is there and looks whole; running: a process has it; failed: its last
            attempt did, and nobody runs it now; missing: all else.
        files: of the cell.
        finished: when its result was written (seconds since 1970, the file system's clock); None:
            it is not done.
        claim: of the process that runs it, or, if it is missing, of the dead one that ran it.
        held: seconds that the process has had it, both ends by that machine's clock; None: it is
            not running, or its claim does not say.
        silent: seconds, by two machines' clocks, since the process of another machine has touched
            its claim, if that is more than it should be; None: it is not.
        failure: how its last attempt ended; None: it is done, or has not failed.
        is_broken: whether a result is there that is not whole.
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
    """How a sweep stands.

    Attributes:
        manifest: of the sweep.
        cells: of the manifest, in its order.
        at: when it was looked at, in seconds since 1970.
    """

    manifest: Manifest
    cells: tuple[CellState, ...]
    at: float

    @cached_property
    def counts(self) -> Mapping[Kind, int]:
        """How many cells there are of each kind."""
        return _counts(self.cells)

    def of(self, kind: Kind) -> list[CellState]:
        """Return the cells of a kind, in the manifest's order."""
        return [cell for cell in self.cells if cell.kind == kind]


@dataclass(frozen=True)
class TimeLeft:
    """How long a sweep will take.

    Attributes:
        work: seconds that are left, one process all by itself.
        wall: seconds from now, if those that are at work stay; None: nobody is.
        processes: that are at work.
        at_least: whether it takes longer by cells whose cost is not known.
        scale: how long finished cells took for what was predicted.
    """

    work: float
    wall: float | None
    processes: int
    at_least: bool
    scale: float


# Results that were whole when they were looked at: by cell and inode, when they were written. A
# result is replaced and never written into, so that one that was whole stays so.
Seen = dict[tuple[str, int], float]


def state_of(manifest: Manifest, seen: Seen | None = None) -> State:
    """Look how a sweep stands.

    Args:
        manifest: of the sweep.
        seen: what earlier calls saw; it is added to. None: every result's end is read.

    Raises:
        LcbenchError: a folder of results cannot be listed.
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
            # They are sorted: a later one was made because those before it are over.
            last[attempt.task] = attempt
        for line in lines:
            files = CellFiles(folder, line.task)
            found[line.index] = _look(line, files, inodes, last.get(line.task), seen)
    return State(manifest, tuple(found[line.index] for line in manifest.lines), at)


def _list(folder: Path) -> dict[str, int]:
    """Return the inodes of what is in a folder, by name; nothing if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise LcbenchError(
            f"{folder} cannot be read: {error.strerror}. Ask whoever owns it for permission."
        ) from error


def _look(
    line: Line, files: CellFiles, inodes: Mapping[str, int], last: Attempt | None, seen: Seen
) -> CellState:
    is_broken = False
    result = files.result
    if result.name in inodes:
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
    lives = None if last is None or last.holder is None else lives_here(last.holder)
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
    """Return when a result was written; None: it is empty, cut off or cannot be read.

    Raises:
        FileNotFoundError: it has been set aside meanwhile.
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
    began = _instant(claim.holder.began) if claim.holder else None
    return None if began is None else max(0.0, until - began.timestamp())


def _instant(text: str) -> datetime | None:
    """Return a time in UTC (ISO 8601) as that of this machine's place; None: it is none."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone()
    except (TypeError, ValueError):
        return None


def to_submit(manifest: Manifest, state: State, queued: Container[int]) -> list[int]:
    """Return the array elements that are to be submitted again, in ascending order.

    They are those with a cell that is neither done nor running. A cell whose process is silent
    beyond the lease counts as not running here: if it lives after all, whoever comes sees its claim
    change and leaves the cell alone, while a cell of a node that died would else stay for ever.

    Args:
        manifest: of the sweep.
        state: of the same sweep.
        queued: elements that wait or run in Slurm, and will come to their cells by themselves.
    """
    open_ = {
        cell.line.element
        for cell in state.cells
        if cell.kind in ("failed", "missing") or cell.silent is not None
    }
    return [one for one in range(manifest.elements) if one in open_ and one not in queued]


def time_left(state: State) -> TimeLeft:
    """Reckon how long a sweep will take.

    What is left is what was predicted of the cells that are not done, those that run less the time
    they have had, times how long the finished ones took for what was predicted (`_scale`). It is
    divided by the processes that are at work; but an element of an array is run by one process, so
    that it takes no less than the longest of these, and no less than the longest cell.
    """
    open_ = [cell for cell in state.cells if cell.kind != "done"]
    scale = _scale(state) if open_ else 1.0
    work = sum(_rest(cell, scale) for cell in open_)
    processes = len({_token(cell) for cell in state.of("running")})
    wall = None
    if processes:
        by_element: dict[int, float] = defaultdict(float)
        for cell in open_:
            by_element[cell.line.element] += _rest(cell, scale)
        longest = max(_rest(cell, scale) for cell in open_)
        if state.manifest.elements > 1:
            longest = max(longest, *by_element.values())
        wall = max(work / processes, longest)
    at_least = any(cell.line.seconds is None for cell in open_)
    return TimeLeft(work, wall, processes, at_least, scale)


def _rest(cell: CellState, scale: float) -> float:
    """Return the seconds that a cell will take yet, as far as they are known."""
    if cell.kind == "done":
        return 0.0
    return max(0.0, (cell.line.seconds or 0.0) * scale - (cell.held or 0.0))


def _token(cell: CellState) -> str:
    holder = cell.claim.holder if cell.claim else None
    return str(cell.files.result) if holder is None else str(holder.token)


def _scale(state: State) -> float:
    """Return how long the cells that finished last took, for what was predicted of them.

    A manifest's seconds are shares of one process's time on the clock; those of a result are the
    cell's own, and overlap where other processes score beside the encoding. Their sum is no time
    that anybody has waited. So they are put together by the rule that the prediction was made by
    (`cost.work_seconds`), and sums are compared, not cells. Times at which files were written are
    not used: they also tell of nights in which nobody was at work, and of how many were.
    """
    made = _instant(state.manifest.made)
    since = 0.0 if made is None else made.timestamp()
    # A result from before was not what the prediction was for; it may be another machine's.
    finished = [
        cell for cell in state.cells if (cell.finished or 0.0) >= since and cell.line.seconds
    ]
    finished.sort(key=lambda cell: cell.finished or 0.0, reverse=True)
    predicted = 0.0
    measured: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for cell in finished[:_MOST_COMPARED]:
        if (took := _took(cell.files.provenance)) is not None:
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


def _took(path: Path) -> tuple[tuple[str, int], tuple[float, float]] | None:
    """Return device, cores, seconds of encoding and all others of a result; None: unknown.

    Waiting for other cells' texts to be encoded is in neither.
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
        processes = min(cores, _MOST_PROCESSES)
    return work_seconds(cells, Machine("", device, cores, ""), processes)


def prepare(arguments: Iterable[str]) -> list[str]:
    """Return a command line in Hydra's grammar, which has no flags of one's own."""
    return [_FLAGS.get(one, one) for one in arguments]


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    settings = read_status(config)
    if settings.failed and settings.watch:
        raise RequestError("failed=true is for scripts and watch=true for the eye: one of them.")
    folder = settings.manifest or latest(settings.results_dir)
    if folder is None:
        raise RequestError(
            f"results_dir={settings.results_dir}: no sweep was planned or run there. "
            "`python -m lcbench plan sweep=NAME` plans one, `python -m lcbench` runs one; "
            "results_dir=PATH or manifest=PATH names another."
        )
    manifest = read(find(folder, settings.results_dir))
    if settings.failed:
        # It asks this module what is to be submitted.
        from lcbench.run import slurm

        if numbers := to_submit(manifest, state_of(manifest), slurm.queued(manifest.folder)):
            emit(f"{ranges(numbers)}\n")
        return 0
    console = screen()
    if settings.watch and console.is_terminal:
        return _watch(manifest, console)
    # Lines are the terminal's to wrap, so that a path can be copied.
    console.print(view(state_of(manifest)), soft_wrap=True)
    if settings.watch:
        warn("watch=true: there is no terminal to watch on. This is how it stands now.")
    return 0


def _watch(manifest: Manifest, console: Console) -> int:
    """Show how a sweep stands until nothing is left to be done.

    Returns:
        0: all cells are done, or somebody has seen enough; 1: some have failed.
    """
    from rich.live import Live

    seen: Seen = {}
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            state = state_of(manifest, seen)
            live.update(view(state, most=_MOST_WATCHED), refresh=True)
            if not state.counts["missing"] and not state.counts["running"]:
                return 1 if state.counts["failed"] else 0
            time.sleep(_WATCH_SECONDS)
    return 0


def view(state: State, most: int = _MOST_LISTED) -> RenderableType:
    """Return how a sweep stands, to be printed.

    Args:
        state: of the sweep.
        most: lines of each list, and of the table.
    """
    from rich.console import Group

    left = time_left(state)
    parts: list[RenderableType] = [_headline(state, left)]
    parts += _table(state, left.scale, most)
    running = [_running_line(cell, state.at) for cell in state.of("running")]
    parts += _listed("running", running, most)
    failed = [_failed_line(one, one.failure) for one in state.of("failed") if one.failure]
    parts += _listed("failed", failed, most)
    broken = [cell for cell in state.cells if cell.is_broken]
    parts += _listed(
        "broken: the next run sets it aside and computes it again",
        [_plain(f"  {_shown(cell.files.result)}") for cell in broken],
        most,
    )
    dead = [cell for cell in state.of("missing") if cell.claim]
    parts += _listed(
        "interrupted: the process is dead, the next run computes it again",
        [_plain(f"  {cell.line} · {_holder(cell)}") for cell in dead],
        most,
    )
    return Group(*parts)


def _headline(state: State, left: TimeLeft) -> Text:
    from rich.text import Text

    made = _instant(state.manifest.made)
    line = Text().append_text(_plain(state.manifest.folder.name, "bold"))
    line.append(f", planned {made:%Y-%m-%d %H:%M}: " if made else ": ")
    counts = [(f"{state.counts[kind]} {kind}", _STYLES[kind]) for kind in KINDS]
    for number, (text, style) in enumerate(counts):
        line.append(", " if number else "").append(text, style)
    return line.append_text(Text(f" of {len(state.cells)}. {_left_line(state, left)}"))


def _left_line(state: State, left: TimeLeft) -> str:
    if len(state.cells) == state.counts["done"]:
        return "Nothing is left to be done."
    if not left.work:
        # Whatever was predicted is used up, or nothing was.
        nobody = "" if left.processes else "; nobody is at work on it"
        return f"How long it will take is not known{nobody}."
    about = "At least" if left.at_least else "About"
    if left.wall is None:
        time_ = duration(left.work / 3600)
        return f"{about} {time_} of work left for one process; nobody is at work on it."
    processes = "1 process" if left.processes == 1 else f"{left.processes} processes"
    silent = len({_token(cell) for cell in state.cells if cell.silent is not None})
    silent_ = f" ({silent} of them silent)" if silent else ""
    return f"{about} {duration(left.wall / 3600)} left with {processes} at work{silent_}."


def _table(state: State, scale: float, most: int) -> list[RenderableType]:
    """Return a row for each element, or for each model if there is but one; none for one row."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    by_element = state.manifest.elements > 1
    rows = list(_element_rows(state) if by_element else _model_rows(state))
    if len(rows) < 2 and not by_element:
        return []
    table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False)
    table.add_column("element" if by_element else "model")
    for name in ("cells", *KINDS, "work left"):
        table.add_column(name, justify="right")
    for name, cells in rows[:most]:
        counts = _counts(cells)
        rest = sum(_rest(cell, scale) for cell in cells)
        unknown = any(cell.kind != "done" and cell.line.seconds is None for cell in cells)
        time_ = duration(rest / 3600) if rest else ""
        time_ = f"≥ {time_ or '?'}" if unknown else time_
        if counts["done"] == len(cells):
            time_ = "all done"
        numbers = [Text(str(counts[kind] or ""), _STYLES[kind]) for kind in KINDS]
        table.add_row(_plain(name), str(len(cells)), *numbers, time_)
    parts: list[RenderableType] = ["", table]
    if len(rows) > most:
        parts.append(f"and {len(rows) - most} more")
    return parts


def _model_rows(state: State) -> Iterator[tuple[str, Sequence[CellState]]]:
    by_model: dict[str, list[CellState]] = defaultdict(list)
    for cell in state.cells:
        by_model[cell.line.model].append(cell)
    yield from by_model.items()


def _element_rows(state: State) -> Iterator[tuple[str, Sequence[CellState]]]:
    """Yield elements, those of which nothing or everything is done as one row each."""
    cells_of: dict[int, list[CellState]] = {n: [] for n in range(state.manifest.elements)}
    for cell in state.cells:
        cells_of[cell.line.element].append(cell)
    alike: dict[object, list[int]] = defaultdict(list)
    for number, cells in cells_of.items():
        kinds = {cell.kind for cell in cells}
        same = kinds <= {"done"} or kinds == {"missing"}
        alike[frozenset(kinds) if same else number].append(number)
    for numbers in alike.values():
        yield ranges(numbers), [cell for number in numbers for cell in cells_of[number]]


def _running_line(cell: CellState, at: float) -> Text:
    holder = cell.claim.holder if cell.claim else None
    began = _instant(holder.began) if holder else None
    parts = [f"  {cell.line} · {_holder(cell)}"]
    if began is not None:
        today = began.date() == datetime.fromtimestamp(at, UTC).astimezone().date()
        since = began.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")
        parts.append(f" · since {since} ({clock(cell.held or 0.0)})")
    if cell.silent is not None:
        parts.append(f" · silent for {clock(cell.silent)}")
    return _plain("".join(parts), "" if cell.silent is None else "yellow")


def _holder(cell: CellState) -> str:
    holder = cell.claim.holder if cell.claim else None
    return "whose it is, its claim does not say" if holder is None else str(holder)


def _failed_line(cell: CellState, failure: Failure) -> RenderableType:
    from rich.console import Group

    times = "once" if failure.attempts == 1 else f"{failure.attempts} times"
    kind = "transient" if failure.transient else "not transient"
    line = _plain(f"  {cell.line} · {times}, {kind}: {failure.reason or 'no reason given'}")
    # All of it is in the file.
    line.no_wrap, line.overflow = True, "ellipsis"
    return Group(line, _plain(f"    {_shown(cell.files.failure)}", "dim"))


def _listed(title: str, lines: Sequence[RenderableType], most: int) -> list[RenderableType]:
    from rich.text import Text

    if not lines:
        return []
    parts: list[RenderableType] = [Text(f"\n{title}", "bold"), *lines[:most]]
    if len(lines) > most:
        parts.append(f"  and {len(lines) - most} more")
    return parts


def _plain(text: str, style: str = "") -> Text:
    """Return a text as it is: no markup, and nothing that a terminal obeys."""
    from rich.text import Text

    return Text(printable(text).replace("\n", "\\n"), style)


def _shown(path: Path) -> str:
    """Return a path as it is typed here: relative if it is below the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _counts(cells: Iterable[CellState]) -> Mapping[Kind, int]:
    counts = Counter(cell.kind for cell in cells)
    return {kind: counts[kind] for kind in KINDS}
