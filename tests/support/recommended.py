"""The recommendation that a report gives on a folder of cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from read_cells import task_samples

from lcbench.reporting.advice import recommend_block, task_differences
from lcbench.reporting.intervals import asked_cells
from lcbench.reporting.score_table import Block
from lcbench.reporting.select import select_folder
from lcbench.reporting.statistics import Recommendation
from lcbench.reporting.task_intervals import link_tasks, task_items
from lcbench.results.folder import Results
from lcbench.tuning.options import Across


def recommended(
    cells: Results, report_dir: Path, across: Across | None = None, seed: int = 0
) -> tuple[Recommendation, Block]:
    """Return what is recommended for the only model of a folder, and its block of the table."""
    selected = select_folder(cells, None, report_dir, pytest.fail)
    (table,) = selected.tables
    (block,) = table.blocks
    asked = asked_cells(table, selected.scores)
    items = {
        task: task_items(own, task_samples(files for _, files in own.values()))
        for task, own in asked.items()
    }
    linked = link_tasks(items)
    differences = {
        task: task_differences(
            task,
            {place: score for place, (score, _) in own.items()},
            items[task],
            linked.clusters[task],
        )
        for task, own in asked.items()
    }
    return recommend_block(table, block, differences, linked.families, across, seed), block
