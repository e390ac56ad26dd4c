"""Computes all results of a report from a frame of scores; `select` and `page` show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.intervals import analyse, asked_cells
from lcbench.reporting.models import ModelComparison, compare_pairs, pairs_of_tables
from lcbench.reporting.reading import read_items
from lcbench.reporting.score_table import ScoreTable, kinds_of
from lcbench.reporting.statistics import NOTHING, TableStatistics
from lcbench.reporting.table import Table, distinct
from lcbench.reporting.tables import (
    by_length,
    choice,
    languages,
    main_results,
    matrix,
    paper,
    paper_comparison,
    power,
    roles,
)
from lcbench.reporting.tables.by_length import LengthBuckets
from lcbench.reporting.tables.choice import Choice
from lcbench.reporting.tables.interaction import gain_table
from lcbench.reporting.tables.items_by_length import places_of_tables
from lcbench.reporting.tables.longembed import longembed_table
from lcbench.reporting.tables.models import ranking_table
from lcbench.reporting.tables.paper import Comparison
from lcbench.reporting.tables.paper_lengths import interval_table, query_table
from lcbench.reporting.tables.ranks import rank_table
from lcbench.reporting.tables.repairs import RepairComparison, compare_repairs, repair_table
from lcbench.reporting.tables.roles import RoleGrid
from lcbench.reporting.tables.splits_by_length import LengthTable, build_length_tables, length_table
from lcbench.reporting.tables.windows import WindowComparison, compare_windows, windows_table
from lcbench.results.content import read_provenance

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.tuning.options import Across

CellKey = tuple[str, str, str]
"""A cell of a table: label of its block, policy, task."""


@dataclass(frozen=True)
class CellFindings:
    """The scores of a cell's parts, and its provenance.

    Attributes:
        subsets: scores × 100 by `split/subset`.
        provenance: content of its provenance file.
    """

    subsets: Mapping[str, float]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class TableFindings:
    """A table of scores and the results derived from it.

    Attributes:
        table: scores and improvements.
        statistics: intervals and tests of the improvements.
        choice: choice of τ; None: no model has two temperatures to choose from.
        cells: all cells with a result, whether or not they count in the table.
    """

    table: ScoreTable
    statistics: TableStatistics
    choice: Choice | None
    cells: Mapping[CellKey, CellFindings]


@dataclass(frozen=True)
class Findings:
    """A report.

    Attributes:
        score_tables: the data of Table 1, with their statistics.
        lengths: scores per length of tasks whose splits are lengths.
        by_length: scores by length bucket of queries, documents, texts and pairs.
        role_grids: improvements by the temperatures of queries and documents.
        paper: the paper's numbers compared with lcbench's.
        repairs: repairs of models with more than one kind of them, or on request.
        windows: scores by how much of a document is read.
        models: models compared with each other.
        tables: all tables as shown, the main ones first, with unique names.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
    """

    score_tables: tuple[TableFindings, ...]
    lengths: tuple[LengthTable, ...]
    by_length: tuple[LengthBuckets, ...]
    role_grids: tuple[RoleGrid, ...]
    paper: tuple[Comparison, ...]
    repairs: tuple[RepairComparison, ...]
    windows: tuple[WindowComparison, ...]
    models: tuple[ModelComparison, ...]
    tables: tuple[Table, ...]
    resamples: int
    seed: int

    @property
    def statistics(self) -> tuple[TableStatistics, ...]:
        """The statistics of each table of scores."""
        return tuple(found.statistics for found in self.score_tables)


def gather(
    tables: Sequence[ScoreTable],
    scores: pd.DataFrame,
    resamples: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
    with_repairs: bool = False,
    across: Across | Literal["auto"] | None = None,
) -> Findings:
    """Compute all results of a report.

    Args:
        tables: result of `table1.build_tables`.
        scores: the frame that they were built from.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
        progress: receives the name of a step, how much of it is done, and the total.
        with_repairs: whether repairs are compared in all tables, even if all are of one kind.
        across: what recommendations of a repair are cross-validated over, or `auto`; None: there
            are none.
    """

    def step(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else partial(progress, what)

    pairs = pairs_of_tables(tables, scores)
    asked = [asked_cells(table, scores) if resamples else {} for table in tables]
    asked += [one.asked if resamples else {} for one in pairs]
    of_paper = paper.asked_cells(scores)
    places = places_of_tables(tables, scores)
    of_repairs = {
        table.group
        for table in tables
        if with_repairs
        or len(kinds_of(one for block in table.blocks for one in block.policies)) > 1
    }
    tell = step("scores by length")
    read = read_items(places, asked, of_paper, resamples, seed, tell, of_repairs)
    found = []
    # The items of pairs of models come after those of tables.
    for table, cells, items in zip(tables, asked, read.items, strict=False):
        statistics = NOTHING
        if resamples:
            statistics = analyse(
                table,
                cells,
                items,
                resamples,
                seed,
                step("drawing samples"),
                together=table.group in of_repairs,
                across=across,
            )
        chosen = choice.choose(table, statistics)
        found.append(TableFindings(table, statistics, chosen, cells_of(table, scores)))
    models = tuple(
        compare_pairs(one, dict(items), resamples, seed, step("comparing models"))
        for one, items in zip(pairs, read.items[len(tables) :], strict=True)
    )
    buckets = [bucket for one in read.by_length for bucket in one.buckets]
    compared = paper.compare(of_paper, read.compared)
    thirds = [one.thirds for one in read.by_length if one.thirds is not None]
    of_groups = {
        one.table.group: compare_repairs(
            one.table,
            one.statistics,
            one.choice,
            {cell: known.provenance for cell, known in one.cells.items()},
            thirds,
        )
        for one in found
        if one.table.group in of_repairs
    }
    lengths = build_length_tables(scores, tables)
    windows = [one for table in tables for one in compare_windows(table, scores)]
    made = [
        *(main_results.main_table(one.table, one.statistics) for one in found),
        *(
            choice.choice_table(one.table.group, one.choice)
            for one in found
            if one.choice is not None
        ),
        *map(ranking_table, models),
        *(repair_table(group, of_group) for group, of_group in of_groups.items()),
        *(roles.role_table(one.table, one.statistics) for one in found),
        *(matrix.scores(one.table) for one in found),
        *(matrix.matrix(one.table, one.statistics) for one in found),
        *(power.power_table(one.table, one.statistics) for one in found),
        *(languages.language_table(one.table, scores) for one in found),
        length_table(lengths),
        by_length.length_table(buckets),
        gain_table([gain for one in read.by_length for gain in one.gains]),
        query_table([one.queries for one in read.by_length if one.queries is not None]),
        interval_table([one.intervals for one in read.by_length if one.intervals is not None]),
        rank_table([one.ranks for one in read.by_length if one.ranks is not None]),
        *paper_comparison.comparison_tables(compared),
        longembed_table(tables),
        windows_table(windows, {one.table.group: one.statistics for one in found}),
    ]
    return Findings(
        score_tables=tuple(found),
        lengths=tuple(lengths),
        by_length=tuple(buckets),
        role_grids=tuple(grid for table in tables for grid in roles.role_grids(table)),
        paper=compared,
        repairs=tuple(one for of_group in of_groups.values() for one in of_group),
        windows=tuple(windows),
        models=models,
        tables=distinct(table for table in made if table is not None),
        resamples=resamples,
        seed=seed,
    )


def cells_of(table: ScoreTable, scores: pd.DataFrame) -> dict[CellKey, CellFindings]:
    """Return the parts and the provenance of the cells in a table.

    Args:
        table: one of `table1.build_tables`.
        scores: frame that it was built from.
    """
    tasks = {task for column in table.columns for task in column.tasks}
    return {
        cell: CellFindings(
            {f"{row.split}/{row.subset}": 100 * float(row.score) for row in rows},
            read_provenance(rows[-1].files),
        )
        for cell, rows in rows_by_cell(table, scores).items()
        if cell[-1] in tasks
    }
