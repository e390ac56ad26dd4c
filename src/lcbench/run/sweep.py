"""Runs a grid of cells: finds what is done, checks the request, and runs the rest.

All errors in a request are found before the first text is encoded and, where possible, before
anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lcbench.encode.store.shelf import check_writable
from lcbench.errors import RequestError
from lcbench.hub.datasets import (
    digest_of,
    plain_folder,
)
from lcbench.hub.models import LocatedModel
from lcbench.plan import elements
from lcbench.plan.layout import Grid
from lcbench.plan.manifest import Line, Manifest
from lcbench.results.cell import Cell
from lcbench.results.folder import Results
from lcbench.results.rows import COMPARED_VERSIONS
from lcbench.run.claims import here
from lcbench.run.queue import tidy
from lcbench.run.runner import Runner, RunOptions
from lcbench.system import versions
from lcbench.system.files import remove_leftovers
from lcbench.system.log import LOGGER, logged
from lcbench.system.observer import Observer
from lcbench.system.signals import Stop
from lcbench.tasks.registry import registry


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        cells: all cells of the request.
        found: number of cells that were already finished.
        failed: cells without a result, each with the reason in one line.
        refused: models whose attention temperature cannot be set, each with the reason.
        elsewhere: cells that were left to other processes, each with its process.
        stopped: whether a signal stopped it before all cells were run.
    """

    cells: tuple[Cell, ...]
    found: int
    failed: dict[Cell, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[Cell, str] = field(default_factory=dict)
    stopped: bool = False


@dataclass(frozen=True)
class Sweep:
    """The cells to run, and their results folder.

    Attributes:
        grid: grid of the request.
        results: results folder.
        register: writes a manifest for a request without one, for `lcbench status`.
        frozen: manifest that the request was read from; None: `register` makes one.
        element: array element to run; None: all of them, waiting for cells that other processes
            run.
        begun: called with the manifest as soon as cells are about to be run.
        done: called with each cell that has a result, at once or as soon as it has.
    """

    grid: Grid
    results: Results
    register: Callable[[Sequence[Line]], Manifest]
    frozen: Manifest | None = None
    element: int | None = None
    begun: Callable[[Manifest], None] | None = None
    done: Callable[[Cell], None] = lambda _: None


def run(sweep: Sweep, options: RunOptions, observer: Observer, stop: Stop | None = None) -> Outcome:
    """Run the cells that have no result yet and that no other process runs.

    Args:
        sweep: the cells.
        options: options of the run.
        observer: receives progress, and warnings of result files that were set aside and of data
            that could not be fetched.
        stop: signals when to end; None: only exceptions do.

    Raises:
        RequestError: the request is wrong, or needs data that is missing; nothing was computed.
        StorageError: the disk is full; finished cells are kept.
    """
    grid, results, frozen, element = sweep.grid, sweep.results, sweep.frozen, sweep.element
    stop = Stop() if stop is None else stop
    lines: Sequence[Line] = elements.lines_of(grid.cells, results)
    if frozen is not None:
        check_same_cells(frozen, lines)
        lines = frozen.lines
    cells_of = _of_element(grid, lines, element)
    cells = tuple(cell for group in cells_of.values() for cell in group)
    left_of = {
        model: [cell for cell in group if not results.is_done(cell, observer.warn)]
        for model, group in cells_of.items()
    }
    left = [cell for group in left_of.values() for cell in group]
    done = {cell for cell in grid.cells if results.files(cell).result.exists()} - set(left)
    _check_same_data(results, options.mirror, done, left)
    _check_same_versions(results, done, left)
    for cell in cells:
        if cell in done:
            sweep.done(cell)
    if not left:
        # A finished sweep can be read even if nothing can be written.
        tidy(results, cells)
        return Outcome(cells, len(cells))
    results.check_writable()
    if options.store.is_named and options.store.folder is not None:
        check_writable(options.store.folder)
    tidy(results, cells)
    left_of = {model: group for model, group in left_of.items() if group}
    with closing(
        Runner(grid, results, options, observer, stop=stop, waits=element is None, done=sweep.done)
    ) as runner:
        runner.prepare(left)
        prediction = runner.predict(left_of)
        if frozen is None:
            costs = [prediction.cells.get(cell) for cell in grid.cells]
            frozen = sweep.register(elements.with_seconds(lines, costs, prediction))
        with logged(frozen.folder / "logs", _log_name(element)) as log, _logged_outcome():
            LOGGER.info(
                "%s begins: %d cells, %d of them finished",
                here(),
                len(cells),
                len(cells) - len(left),
            )
            if sweep.begun is not None:
                sweep.begun(frozen)
            runner.run(left_of, len(cells), prediction)
    remove_leftovers(frozen.folder)
    tidy(results, cells)
    if runner.failed:
        observer.say(f"log: {log}", dim=True)
    return Outcome(
        cells,
        len(cells) - len(left),
        runner.failed,
        runner.refused,
        runner.elsewhere,
        stopped=stop.is_asked and any(not results.files(cell).result.exists() for cell in left),
    )


def _of_element(
    grid: Grid, lines: Sequence[Line], element: int | None
) -> dict[LocatedModel, list[Cell]]:
    """Return the cells of each model in an element, or in the whole sweep for None.

    Raises:
        RequestError: there is no such element.
    """
    asked = {
        cell
        for cell, line in zip(grid.cells, lines, strict=True)
        if element is None or line.element == element
    }
    if not asked:
        raise RequestError(
            f"element={element}: the sweep has elements 0 to {max(one.element for one in lines)}."
        )
    return {
        model: [cell for cell in group if cell in asked] for model, group in grid.cells_of.items()
    }


@contextmanager
def _logged_outcome() -> Iterator[None]:
    """Log how a run ends, in any case."""
    try:
        yield
    except KeyboardInterrupt:
        LOGGER.warning("interrupted")
        raise
    except Exception:
        LOGGER.exception("ends")
        raise
    LOGGER.info("ends")


def check_same_cells(frozen: Manifest, lines: Sequence[Line]) -> None:
    """Refuse to run a frozen sweep whose cells differ from those planned.

    Raises:
        RequestError: naming the first difference.
    """
    if [one.identity for one in frozen.lines] == [one.identity for one in lines]:
        return
    there, here = set(frozen.lines), {one.identity: one for one in lines}
    gone = next(
        (one for one in sorted(there, key=lambda one: one.index) if one.identity not in here), None
    )
    raise RequestError(
        f"manifest={frozen.folder}: the planned sweep cannot be run here: "
        + (
            f"{gone} (revision {gone.revision}, protocol {gone.protocol}) is no longer one of its "
            "cells. The model's files, or texts that are not from the hub (such as the docstrings "
            "of installed libraries), differ from those it was planned with."
            if gone
            else "its cells are in another order."
        )
        + " Plan the sweep again; finished cells are reused."
    )


def _log_name(element: int | None) -> str | None:
    if element is None:
        return None
    me = here()
    who = me.job or f"{me.host}-{me.process}"
    return f"element-{element:04}-{who}.log"


def _check_same_data(
    results: Results, mirror: Path | None, done: set[Cell], left: Sequence[Cell]
) -> None:
    """Refuse existing results that were scored on other data than this request would use.

    Raises:
        RequestError: naming the tasks, and the remedy.
    """
    unfinished = {cell.task for cell in left}
    other: dict[str, str] = {}
    for cell in done:
        if cell.protocol.texts is not None:
            # Other texts have another digest, and therefore other cells.
            continue
        known = results.provenance(cell)
        if not known:
            # Its element will set it aside: its data is unknown.
            continue
        record = known.get("data") or {}
        every = record["parts"].items() if "parts" in record else [(cell.task, record)]
        for task, data in every:
            entry = registry().tasks[task]
            origin, revision = str(data.get("origin", "")), str(data.get("revision", ""))
            folder = plain_folder(entry.dataset, entry.revision, mirror)
            now = None if folder is None else f"mirror {digest_of(folder)}"
            if now is not None and origin != now:
                other[task] = f"{origin or 'unknown'}, not {now}"
            elif origin.startswith("mirror"):
                if now is None and cell.task in unfinished:
                    other[task] = f"{origin}, which this request does not name"
            elif revision != entry.revision:
                other[task] = f"revision {revision or 'unknown'}, mteb reads {entry.revision}"
    if other:
        listed = "; ".join(f"{task} ({why})" for task, why in sorted(other.items()))
        raise RequestError(
            f"results_dir={results.folder} has results on other data than this request "
            f"would use: {listed}. Name the same mirror, install the mteb of constraints.txt, or "
            "keep these apart: results_dir=PATH."
        )


def _check_same_versions(results: Results, done: set[Cell], left: Sequence[Cell]) -> None:
    """Refuse to compute cells that could not be compared with existing ones.

    Raises:
        RequestError: naming the libraries whose versions differ, and the remedy.
    """
    new = {(cell.model, cell.revision, cell.task, cell.protocol) for cell in left}
    here = versions.versions()
    differ: dict[str, str] = {}
    for cell in done:
        if (cell.model, cell.revision, cell.task, cell.protocol) in new:
            there = results.provenance(cell).get("versions", {})
            for name in COMPARED_VERSIONS:
                if name in there and there[name] != here[name]:
                    differ[name] = f"{name} {there[name]}, now {here[name]}"
    if differ:
        raise RequestError(
            f"results_dir={results.folder} has results to compare with that were made with "
            f"other versions: {'; '.join(differ.values())}. Install those versions again, "
            "or keep the new results apart: results_dir=PATH."
        )
