"""All that a report says of a frame of scores, found once: `write` and `page` only show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

from lcbench.report.choice import Choice
from lcbench.report.lengths import LengthTable, build_length_tables
from lcbench.report.paper import Comparison, compare
from lcbench.report.sheets import Sheet
from lcbench.report.statistics import RESAMPLES, SEED, TableStatistics, analyse
from lcbench.report.table1 import Table
from lcbench.results import read_provenance

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results import CellFiles

CellKey = tuple[str, str, str]
"""A cell of a table: label of its block, policy, task."""


@dataclass(frozen=True)
class CellFindings:
    """A cell's parts and how it came about.

    Attributes:
        subsets: scores × 100 by `split/subset`.
        provenance: as its file has it.
    """

    subsets: Mapping[str, float]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class TableFindings:
    """One table and what was found of it.

    Attributes:
        table: the scores and improvements.
        statistics: how sure they are.
        choice: how τ is chosen; None: no model has a choice.
        cells: those that have a result, counted in the table or not.
    """

    table: Table
    statistics: TableStatistics
    choice: Choice | None
    cells: Mapping[CellKey, CellFindings]


@dataclass(frozen=True)
class Findings:
    """A report.

    Attributes:
        tables: of the shape of Table 1, with their statistics.
        lengths: scores per length of tasks whose splits are lengths.
        by_length: scores by length bucket of queries, documents, texts and pairs.
        role_grids: improvements by the temperatures of queries and documents.
        paper: the paper's numbers beside ours.
        sheets: all other tables.
        resamples: of the bootstrap.
        seed: of all that was drawn.
    """

    tables: tuple[TableFindings, ...]
    lengths: tuple[LengthTable, ...] = ()
    by_length: tuple[LengthBuckets, ...] = ()
    role_grids: tuple[RoleGrid, ...] = ()
    paper: tuple[Comparison, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    resamples: int = RESAMPLES
    seed: int = SEED


def cells_of(table: Table, scores: pd.DataFrame) -> dict[CellKey, CellFindings]:
    """Return the parts and the provenance of the cells that stand in a table.

    Args:
        table: of `table1.build_tables`.
        scores: the frame that it was built from.
    """
    labels = {(block.window, block.model, block.revision): block.label for block in table.blocks}
    tasks = {task for column in table.columns for task in column.tasks}
    subsets: dict[CellKey, dict[str, float]] = {}
    files: dict[CellKey, CellFiles] = {}
    for row in scores[scores["group"] == table.group].itertuples(index=False):
        # In a column with unknown windows pandas keeps the known ones as fractions.
        window = None if isinstance(row.window, float) and isnan(row.window) else row.window
        label = labels.get((None if window is None else int(window), row.model, row.revision))
        if label is None or row.task not in tasks:
            continue
        key = (label, str(row.policy), str(row.task))
        subsets.setdefault(key, {})[f"{row.split}/{row.subset}"] = 100 * float(row.score)
        files[key] = row.files
    return {key: CellFindings(subsets[key], read_provenance(files[key])) for key in subsets}
