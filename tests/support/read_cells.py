"""Cells and tables read as a report reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lcbench.reporting.intervals import analyse, asked_cells
from lcbench.reporting.task_intervals import task_items
from lcbench.results.cell_items import CellItems
from lcbench.uncertainty import covariance
from lcbench.uncertainty.items import Samples, TaskSamples, read_samples

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.reporting.score_table import ScoreTable
    from lcbench.reporting.statistics import TableStatistics
    from lcbench.results.files import CellFiles


def samples_of(files: CellFiles) -> Samples | None:
    return read_samples(CellItems(files))


def task_samples(cells: Iterable[CellFiles]) -> TaskSamples:
    return TaskSamples(map(CellItems, cells))


def standard_error(files: CellFiles) -> float | None:
    return covariance.standard_error(files, task_samples([files]))


def analysed_table(
    table: ScoreTable, scores: pd.DataFrame, *more: Any, **named: Any
) -> TableStatistics:
    """Return the statistics of a table, of which all tasks are read first."""
    asked = asked_cells(table, scores)
    items = {
        task: task_items(cells, task_samples(files for _, files in cells.values()))
        for task, cells in asked.items()
    }
    return analyse(table, asked, items, *more, **named)
