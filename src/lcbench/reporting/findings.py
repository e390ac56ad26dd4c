"""Computes all results of a report from a frame of scores; `select` and `page` show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.intervals import analyse, bytes_of
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import NOTHING, RESAMPLES, SEED, TableStatistics
from lcbench.reporting.table import Table, distinct
from lcbench.reporting.tables import (
    by_length,
    choice,
    languages,
    main_results,
    matrix,
    paper_comparison,
    power,
    roles,
)
from lcbench.reporting.tables.by_length import LengthBuckets, buckets_of
from lcbench.reporting.tables.choice import Choice
from lcbench.reporting.tables.interaction import LengthGain, gain_table, gains_by_length
from lcbench.reporting.tables.items_by_length import Place, places_of_tables, read_items
from lcbench.reporting.tables.paper import Comparison, compare
from lcbench.reporting.tables.paper_lengths import (
    Reading,
    accuracy_of_intervals,
    interval_table,
    ndcg_of_queries,
    query_table,
)
from lcbench.reporting.tables.ranks import LongestRanks, rank_table, ranks_of
from lcbench.reporting.tables.roles import RoleGrid
from lcbench.reporting.tables.splits_by_length import LengthTable, build_length_tables, length_table
from lcbench.reporting.threads import in_threads
from lcbench.results.content import read_provenance
from lcbench.uncertainty import sums

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results.files import CellFiles

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
        tables: all tables as shown, the main ones first, with unique names.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
    """

    score_tables: tuple[TableFindings, ...]
    lengths: tuple[LengthTable, ...] = ()
    by_length: tuple[LengthBuckets, ...] = ()
    role_grids: tuple[RoleGrid, ...] = ()
    paper: tuple[Comparison, ...] = ()
    tables: tuple[Table, ...] = ()
    resamples: int = RESAMPLES
    seed: int = SEED

    @property
    def statistics(self) -> tuple[TableStatistics, ...]:
        """The statistics of each table of scores."""
        return tuple(found.statistics for found in self.score_tables)


def gather(
    tables: Sequence[ScoreTable],
    scores: pd.DataFrame,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    progress: Callable[[str, int, int], None] | None = None,
) -> Findings:
    """Compute all results of a report.

    Args:
        tables: result of `table1.build_tables`.
        scores: the frame that they were built from.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
        progress: receives the name of a step, how much of it is done, and the total.
    """

    def step(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else partial(progress, what)

    found = []
    for table in tables:
        statistics = replace(NOTHING, resamples=0)
        if resamples:
            statistics = analyse(table, scores, resamples, seed, step("drawing samples"))
        chosen = choice.choose(table, statistics)
        found.append(TableFindings(table, statistics, chosen, cells_of(table, scores)))
    (buckets, of_lengths), compared = _by_length(
        tables, scores, min(resamples, sums.RESAMPLES), seed, step("scores by length")
    )
    lengths = build_length_tables(scores, tables)
    made = [
        *(main_results.main_table(one.table, one.statistics) for one in found),
        *(
            choice.choice_table(one.table.group, one.choice)
            for one in found
            if one.choice is not None
        ),
        *(roles.role_table(one.table, one.statistics) for one in found),
        *(matrix.scores(one.table) for one in found),
        *(matrix.matrix(one.table, one.statistics) for one in found),
        *(power.power_table(one.table, one.statistics) for one in found),
        *(languages.language_table(one.table, scores) for one in found),
        length_table(lengths),
        *of_lengths,
        *paper_comparison.comparison_tables(compared),
    ]
    return Findings(
        score_tables=tuple(found),
        lengths=tuple(lengths),
        by_length=tuple(buckets),
        role_grids=tuple(grid for table in tables for grid in roles.role_grids(table)),
        paper=compared,
        tables=distinct(table for table in made if table is not None),
        resamples=resamples,
        seed=seed,
    )


def _by_length(
    tables: Sequence[ScoreTable],
    scores: pd.DataFrame,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[tuple[list[LengthBuckets], list[Table | None]], tuple[Comparison, ...]]:
    """Return the scores by length with their tables, and the comparison with the paper.

    The items of a task and model are read once for all tables by length. The comparison with the
    paper also reads items, and runs in parallel.
    """
    places = places_of_tables(tables, scores)
    sizes = [bytes_of(cells.values()) for _, cells in places]
    jobs: list[Callable[[], _OfPlace | tuple[Comparison, ...] | None]] = [
        partial(_of_place, place, cells, resamples, seed) for place, cells in places
    ]
    jobs.append(partial(compare, scores))
    done = in_threads(jobs, [*sizes, max(sizes, default=0)], progress)
    (compared,) = (one for one in done if isinstance(one, tuple))
    found = [one for one in done if isinstance(one, _OfPlace)]
    buckets = [bucket for one in found for bucket in one.buckets]
    of_lengths = [
        by_length.length_table(buckets),
        gain_table([gain for one in found for gain in one.gains]),
        query_table([one.queries for one in found if one.queries is not None]),
        interval_table([one.intervals for one in found if one.intervals is not None]),
        rank_table([one.ranks for one in found if one.ranks is not None]),
    ]
    return (buckets, of_lengths), compared


@dataclass(frozen=True)
class _OfPlace:
    """The results by length for one task and model."""

    buckets: list[LengthBuckets]
    gains: list[LengthGain]
    ranks: LongestRanks | None
    queries: Reading | None
    intervals: Reading | None


def _of_place(
    place: Place, cells: Mapping[str, CellFiles], resamples: int, seed: int
) -> _OfPlace | None:
    """Return the results by length; None if items have no scores, as in clusterings."""
    items = read_items(cells)
    if items is None:
        return None
    return _OfPlace(
        buckets_of(place, items, resamples, seed),
        gains_by_length(place, items, resamples, seed),
        ranks_of(place, items, resamples, seed),
        ndcg_of_queries(place, items, resamples, seed),
        accuracy_of_intervals(place, items, resamples, seed),
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
