"""Reads the items of a report's cells, one task at a time, each file once.

All results that need items are computed, or their samples kept, while a cell's items are held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from lcbench.reporting.intervals import Asked, bytes_of
from lcbench.reporting.tables import paper
from lcbench.reporting.tables.by_length import LengthBuckets, buckets_of
from lcbench.reporting.tables.interaction import LengthGain, gains_by_length
from lcbench.reporting.tables.items_by_length import Place, items_of
from lcbench.reporting.tables.paper_lengths import (
    Reading,
    accuracy_of_intervals,
    ndcg_of_queries,
)
from lcbench.reporting.tables.ranks import LongestRanks, rank_of_longest, ranks_of
from lcbench.reporting.tables.thirds import Thirds, thirds_of
from lcbench.reporting.task_intervals import TaskItems, task_items
from lcbench.reporting.threads import in_threads
from lcbench.results.cell_items import CellItems
from lcbench.uncertainty import sums
from lcbench.uncertainty.items import TaskSamples

if TYPE_CHECKING:
    from lcbench.results.files import CellFiles


@dataclass(frozen=True)
class ByLength:
    """The results by length for one task and model."""

    buckets: list[LengthBuckets]
    gains: list[LengthGain]
    ranks: LongestRanks | None
    queries: Reading | None
    intervals: Reading | None
    thirds: Thirds | None


@dataclass(frozen=True)
class ReportItems:
    """The results that need items, and the samples that statistics are computed from.

    Attributes:
        items: samples of each table by task, for `intervals.analyse`.
        by_length: results by length of tasks and models, in the order of the tables.
        compared: estimates for the comparison with the paper, by task.
    """

    items: Sequence[dict[str, TaskItems]]
    by_length: Sequence[ByLength]
    compared: Mapping[str, paper.Estimates]


Cells = Mapping[str, "CellFiles"]
"""The files of a task's cells of one model by policy, the baseline first."""


def read_items(
    places: Sequence[tuple[Place, Cells]],
    tables: Sequence[Asked],
    compared: paper.Asked,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    with_thirds: Collection[str] = (),
) -> ReportItems:
    """Read the items of all cells of a report.

    Args:
        places: result of `items_by_length.places_of_tables`.
        tables: cells of each table whose samples are needed (`intervals.asked_cells`).
        compared: cells that are compared with the paper.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
        progress: receives the number of tasks that are done, and of all.
        with_thirds: groups of the tables whose items are kept by thirds of length.
    """
    by_task: dict[str, list[tuple[int, Place, Cells]]] = {}
    for number, (place, cells) in enumerate(places):
        by_task.setdefault(place.task, []).append((number, place, cells))
    for files in compared.with_samples | compared.ranked:
        by_task.setdefault(files.task, [])
    sizes = [
        bytes_of({files for _, _, cells in of_task for files in cells.values()})
        for of_task in by_task.values()
    ]
    jobs = [
        partial(_read_task, task, of_task, tables, compared, resamples, seed, with_thirds)
        for task, of_task in by_task.items()
    ]
    read = dict(zip(by_task, in_threads(jobs, sizes, progress), strict=True))
    numbered = {number: found for one in read.values() for number, found in one.by_length.items()}
    return ReportItems(
        [{task: read[task].items[place] for task in asked} for place, asked in enumerate(tables)],
        [numbered[number] for number in sorted(numbered)],
        {task: one.compared for task, one in read.items()},
    )


@dataclass(frozen=True)
class _TaskRead:
    """What is kept of one task.

    Attributes:
        items: samples of its cells by the index of the table.
        by_length: results by length by the index of the place.
        compared: estimates for the comparison with the paper.
    """

    items: Mapping[int, TaskItems]
    by_length: Mapping[int, ByLength]
    compared: paper.Estimates


def _read_task(
    task: str,
    places: Sequence[tuple[int, Place, Cells]],
    tables: Sequence[Asked],
    compared: paper.Asked,
    resamples: int,
    seed: int,
    with_thirds: Collection[str],
) -> _TaskRead:
    asked = {number: table[task] for number, table in enumerate(tables) if task in table}
    sampled = {files for files in compared.with_samples if files.task == task}
    sampled.update(files for of_table in asked.values() for _, files in of_table.values())
    ranked = {files for files in compared.ranked if files.task == task}
    read = TaskSamples()
    ranks: dict[CellFiles, tuple[float, float | None] | None] = {}

    def take(cell: CellItems, scope: str) -> None:
        if cell.files in sampled - read.samples.keys():
            read.read(cell, scope)
        if cell.files in ranked - ranks.keys():
            ranks[cell.files] = rank_of_longest(cell)

    # Tables may have cells in common. Their places follow each other, so that few are held.
    places = sorted(places, key=_first_file)
    uses = Counter(files for _, _, cells in places for files in cells.values())
    held: dict[CellFiles, CellItems] = {}

    def taken(place: Place, cells: Cells) -> Iterator[tuple[str, CellItems]]:
        for policy, files in cells.items():
            cell = held.pop(files, None) or CellItems(files)
            # Another table may have other texts under the same ids.
            take(cell, place.group)
            yield policy, cell
            uses[files] -= 1
            if uses[files]:
                held[files] = cell
            else:
                cell.close()
                _release()

    by_length = {}
    for number, place, cells in places:
        has_thirds = place.group in with_thirds
        found = _by_length(place, taken(place, cells), resamples, seed, has_thirds)
        if found is not None:
            by_length[number] = found
    # The paper's cells that are in no table.
    for files in (sampled - read.samples.keys()) | (ranked - ranks.keys()):
        take(CellItems(files), "")
    return _TaskRead(
        {number: task_items(of_table, read) for number, of_table in asked.items()},
        by_length,
        paper.estimates(task, compared, read, ranks),
    )


def _release() -> None:
    """Return memory that Arrow has freed to the system; by default it keeps much of it."""
    pa.default_memory_pool().release_unused()


def _first_file(place: tuple[int, Place, Cells]) -> str:
    """Return the path of the baseline's result, or of the first of the policies."""
    *_, cells = place
    return next((str(files.result) for files in cells.values()), "")


def _by_length(
    place: Place,
    cells: Iterable[tuple[str, CellItems]],
    resamples: int,
    seed: int,
    has_thirds: bool,
) -> ByLength | None:
    """Return the results by length; None if items have no scores, as in clusterings."""
    items = items_of(cells)
    _release()
    if items is None:
        return None
    resamples = min(resamples, sums.RESAMPLES)
    return ByLength(
        buckets_of(place, items, resamples, seed),
        gains_by_length(place, items, resamples, seed),
        ranks_of(place, items, resamples, seed),
        ndcg_of_queries(place, items, resamples, seed),
        accuracy_of_intervals(place, items, resamples, seed),
        thirds_of(place, items) if has_thirds else None,
    )
