"""`python -m lcbench status`: shows a sweep's progress and the time left.

It is read from the results folders: each is listed once, and only the parts of files that are
needed are read. This module imports nothing heavy.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.cli.console import emit, screen, warn
from lcbench.errors import RequestError
from lcbench.plan.manifest import Manifest, find, latest, ranges, read
from lcbench.results.failure import Failure
from lcbench.run.state import (
    KINDS,
    CellState,
    Kind,
    Seen,
    State,
    TimeLeft,
    counts_of,
    instant,
    remaining_seconds,
    state_of,
    time_left,
    to_submit,
    token,
)
from lcbench.settings.read import read_status
from lcbench.system.printable import printable
from lcbench.system.words import clock, duration

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console, RenderableType
    from rich.text import Text


# Lines shown of a list, and in a live view, which has only the window's height.
_MOST_LISTED = 20
_MOST_WATCHED = 6
_WATCH_SECONDS = 2.0
_FLAGS = {"--failed": "failed=true", "--watch": "watch=true"}
_STYLES: Mapping[Kind, str] = {"done": "green", "running": "cyan", "failed": "red", "missing": ""}


def prepare(arguments: Iterable[str]) -> list[str]:
    """Return the command line in Hydra's grammar, which has no custom flags."""
    return [_FLAGS.get(one, one) for one in arguments]


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    settings = read_status(config)
    if settings.failed and settings.watch:
        raise RequestError("failed=true and watch=true are mutually exclusive.")
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
    # The terminal wraps lines, so that paths can be copied.
    console.print(view(state_of(manifest)), soft_wrap=True)
    if settings.watch:
        warn("watch=true needs a terminal; showing the status once.")
    return 0


def _watch(manifest: Manifest, console: Console) -> int:
    """Show a sweep's status until all cells are done or failed.

    Returns:
        0: all cells are done, or the user has interrupted; 1: some have failed.
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
    """Return a sweep's status, to be printed.

    Args:
        state: state of the sweep.
        most: the most lines of each list and of the table.
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
        "broken: the next run sets these aside and computes them again",
        [_plain(f"  {_shown(cell.files.result)}") for cell in broken],
        most,
    )
    dead = [cell for cell in state.of("missing") if cell.claim]
    parts += _listed(
        "interrupted: the process has ended; the next run computes these again",
        [_plain(f"  {cell.line} · {_holder(cell)}") for cell in dead],
        most,
    )
    return Group(*parts)


def _headline(state: State, left: TimeLeft) -> Text:
    from rich.text import Text

    made = instant(state.manifest.made)
    line = Text().append_text(_plain(state.manifest.folder.name, "bold"))
    line.append(f", planned {made:%Y-%m-%d %H:%M}: " if made else ": ")
    protocol = state.manifest.settings.get("protocol") or {}
    if (limit := protocol.get("limit")) is not None:
        line.append(f"a quick look (limit={limit}): ")
    counts = [(f"{state.counts[kind]} {kind}", _STYLES[kind]) for kind in KINDS]
    for number, (text, style) in enumerate(counts):
        line.append(", " if number else "").append(text, style)
    return line.append_text(Text(f" of {len(state.cells)}. {_left_line(state, left)}"))


def _left_line(state: State, left: TimeLeft) -> str:
    if len(state.cells) == state.counts["done"]:
        return "All cells are done."
    if not left.work:
        # More time has passed than was predicted, or nothing was predicted.
        idle = "" if left.processes else "; no process is running"
        return f"The time left is unknown{idle}."
    about = "At least" if left.at_least else "About"
    if left.wall is None:
        time_ = duration(left.work / 3600)
        return f"{about} {time_} of work left for one process; no process is running."
    processes = "1 process" if left.processes == 1 else f"{left.processes} processes"
    silent = len({token(cell) for cell in state.cells if cell.silent is not None})
    silent_ = f" ({silent} of them silent)" if silent else ""
    return f"{about} {duration(left.wall / 3600)} left with {processes} running{silent_}."


def _table(state: State, scale: float, most: int) -> list[RenderableType]:
    """Return a row per element, or per model if there is one element; None for a single row."""
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
        counts = counts_of(cells)
        rest = sum(remaining_seconds(cell, scale) for cell in cells)
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
    """Yield rows of elements; untouched and completed ones are combined into one row each."""
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
    began = instant(holder.began) if holder else None
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
    return "owner unknown" if holder is None else str(holder)


def _failed_line(cell: CellState, failure: Failure) -> RenderableType:
    from rich.console import Group

    times = "once" if failure.attempts == 1 else f"{failure.attempts} times"
    kind = "transient" if failure.transient else "not transient"
    line = _plain(f"  {cell.line} · {times}, {kind}: {failure.reason or 'no reason given'}")
    # The file has the full text.
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
    """Return text without markup or control characters."""
    from rich.text import Text

    return Text(printable(text).replace("\n", "\\n"), style)


def _shown(path: Path) -> str:
    """Return a path for display, relative if it is below the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
