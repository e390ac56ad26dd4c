"""What measurements of any kind need of a model and its engine, and why one could not be made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import LcbenchError, RequestError, StorageError
from lcbench.hub.datasets import digest_of, plain_folder
from lcbench.measures import files
from lcbench.plan.measurements import Unit
from lcbench.results import provenance
from lcbench.run.figures import check_figures, fits
from lcbench.score.cell import FailedCell
from lcbench.system.log import LOGGER
from lcbench.tasks.registry import registry
from lcbench.tasks.source import searches

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.engine import Engine
    from lcbench.measures.asked import Asked
    from lcbench.plan.layout import Grid
    from lcbench.repair.repair import Repair
    from lcbench.results.cell import Cell


def record_of(
    cell: Cell,
    facts: provenance.ModelFacts,
    loaded: SentenceTransformer,
    proofs: Mapping[Repair, dict[str, Any] | None],
) -> dict[str, Any]:
    """Return what is known of how any measurement was made."""
    return {
        "protocol": cell.protocol.record,
        "model_digest": facts.digest,
        "pooling": facts.pooling,
        "proof": proofs[cell.repair.encoding],
        **provenance.environment(str(loaded.device)),
    }


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


def prompt_of(engine: Engine, task: AbsTask) -> str:
    from mteb.types import PromptType

    kind = PromptType.document if searches(task.metadata.type) else None
    return engine.prompt_of(task.metadata, kind)


def units_of(grid: Grid, results_dir: Path, asked: Asked, mirror: Path | None) -> list[Unit]:
    """Return what is asked of a grid, whether it is there or not, in the order of work.

    What happens inside a model depends on what is changed of it alone, so that repairs that differ
    in their correction or chunks have one measurement. Figures are without corrections.

    Args:
        grid: models, repairs and tasks.
        results_dir: results folder.
        asked: what is measured of each.
        mirror: a folder that is searched for data first.

    Raises:
        RequestError: a figure can be made of none of the tasks, or a repair gives a text several
            embeddings.
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
    """Check that under each repair a text has one embedding.

    Raises:
        RequestError: under one of them each chunk has its own.
    """
    for repair in repairs:
        if repair.chunks is not None and repair.chunks.kind == "max":
            raise RequestError(
                f"chunks={repair.chunks}: each chunk of a text has an embedding of its own, and "
                "collapse compares one of each text: chunks=mean or chunks=late."
            )


def data_of(cell: Cell, mirror: Path | None) -> str:
    """Return what identifies a task's texts: a digest, or the commit of its dataset."""
    if cell.protocol.texts is not None:
        return cell.protocol.texts
    entry = registry().tasks[cell.task]
    folder = plain_folder(entry.dataset, entry.revision, mirror)
    return entry.revision if folder is None else digest_of(folder)
