"""All that a report says of a frame of scores, found once: `write` and `page` only show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lcbench.report.choice import Choice
from lcbench.report.lengths import LengthTable, build_length_tables
from lcbench.report.paper import Comparison, compare
from lcbench.report.sheets import Sheet
from lcbench.report.statistics import RESAMPLES, SEED, TableStatistics, analyse
from lcbench.report.table1 import Block, Table

if TYPE_CHECKING:
    import pandas as pd

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
