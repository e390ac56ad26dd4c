"""The measurements of a grid, their texts, and why one of them could not be made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import LcbenchError, RequestError, StorageError
from lcbench.hub.datasets import digest_of, plain_folder
from lcbench.measures import files
from lcbench.plan.measurements import Unit
from lcbench.run import checks
from lcbench.run.figures import check_figures, fits
from lcbench.score.cell import FailedCell
from lcbench.system.log import LOGGER
from lcbench.tasks.registry import registry

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.measures.asked import Asked
    from lcbench.plan.layout import Grid
    from lcbench.repair.repair import Repair
    from lcbench.results.cell import Cell
    from lcbench.tasks.source import Part


def reason_for(error: Exception) -> str:
    """Return why something could not be measured.

    Raises:
        StorageError: a disk is full, so that nothing else could be kept either.
        DeviceLost: a GPU has failed.
    """
    if isinstance(error, LcbenchError) and not isinstance(error, StorageError):
        return str(error)
    failed = FailedCell.of(error)
    if failed.is_full:
        raise StorageError(
            f"stopped, since no room is left on a disk: {failed.reason}. Free some space, then run "
            "the same command again: finished measurements are kept."
        ) from error
    LOGGER.error("could not be measured:\n%s", failed.traceback)
    return failed.reason


def load_texts(
    part: Part, mirror: Path | None, *, unverified_data: bool
) -> tuple[AbsTask, list[str]]:
    """Load the data of a task, and return the task with its documents.

    Args:
        part: the task, of which some splits and subsets are read.
        mirror: folder that is searched for data first.
        unverified_data: whether a plain folder may have other data than mteb describes.

    Raises:
        RequestError: data are missing, cannot be read, or are not those that mteb describes.
    """
    from lcbench.hub.contents import DataError, documents_in, load, refuse

    task = part.source.make(part)
    checks.find_data([task] if part.source.origin is None else [], mirror)
    try:
        wrong = [one for one in load(task) if not one.is_tolerable]
        if wrong and not unverified_data:
            raise refuse(wrong)
        return task, documents_in(task)
    except DataError as error:
        raise RequestError(str(error)) from error


def units_of(grid: Grid, results_dir: Path, asked: Asked, mirror: Path | None) -> list[Unit]:
    """Return the measurements and figures of a grid, finished or not, in the order of work.

    Measurements inside a model depend on its changes alone: repairs that differ in their correction
    or chunks share one. Figures show embeddings without corrections.

    Args:
        grid: models, repairs and tasks.
        results_dir: results folder.
        asked: what is measured.
        mirror: folder that is searched for data first.

    Raises:
        RequestError: a figure can be made of none of the tasks, or texts have several embeddings
            under a repair.
    """
    check_figures(grid, asked.figures)
    check_repairs(cell.repair for cell in grid.cells)
    units: list[Unit] = []
    for cells in grid.cells_of.values():
        for task in dict.fromkeys(cell.task for cell in cells):
            mine = [cell for cell in cells if cell.task == task]
            data = data_of(mine[0], mirror)
            encodings = list(
                dict.fromkeys(replace(cell, repair=cell.repair.encoding) for cell in mine)
            )
            if asked.embeddings is not None:
                of_cell = partial(files.path_of, results_dir, data=data, options=asked.embeddings)
                units += [Unit("embeddings", cell, of_cell(cell=cell)) for cell in mine]
            if asked.inside is not None:
                of_cell = partial(files.path_of, results_dir, data=data, options=asked.inside)
                models = dict.fromkeys(replace(cell, repair=cell.repair.of_model) for cell in mine)
                units += [Unit("inside", cell, of_cell(cell=cell)) for cell in models]
            repairs = [cell.repair.canonical for cell in encodings]
            units += [
                Unit(
                    "figure",
                    encodings[0],
                    files.figure_path_of(
                        results_dir, encodings[0], data, number, repairs, asked.figure_options
                    ),
                    number,
                )
                for number in asked.figures
                if fits(number, grid.parts[task].source.kind(task))
            ]
    return units


def check_repairs(repairs: Iterable[Repair]) -> None:
    """Check that a text has one embedding under each repair.

    Raises:
        RequestError: it has one for each chunk.
    """
    for repair in repairs:
        if repair.chunks is not None and repair.chunks.kind == "max":
            raise RequestError(
                f"chunks={repair.chunks}: each chunk of a text has an embedding of its own, and "
                "collapse compares one of each text: chunks=mean or chunks=late."
            )


def data_of(cell: Cell, mirror: Path | None) -> str:
    """Return a digest of a task's texts, or the commit of its dataset."""
    if cell.protocol.texts is not None:
        return cell.protocol.texts
    entry = registry().tasks[cell.task]
    folder = plain_folder(entry.dataset, entry.revision, mirror)
    return entry.revision if folder is None else digest_of(folder)
