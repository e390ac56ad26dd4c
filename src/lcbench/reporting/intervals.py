"""Computes bootstrap intervals and permutation tests of improvements, paired over items.

Takes tables and the files of their cells; `tables` and `figures` show the results. The bootstrap of
one task is in `uncertainty.bootstrap`, p-values are in `uncertainty.permutation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcbench.reporting.advice import TaskDifferences, recommend_block, task_differences
from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.means import everywhere, of_table, unknown_alone
from lcbench.reporting.notes import listed
from lcbench.reporting.score_table import AVERAGE, ScoreTable
from lcbench.reporting.statistics import (
    RESAMPLES,
    SEED,
    CellKey,
    Draws,
    TableStatistics,
    Uncertainty,
)
from lcbench.reporting.task_intervals import (
    OF_BASELINE,
    LinkedTasks,
    TaskItems,
    TaskOutcome,
    link_tasks,
    of_pair,
    task_outcome,
)
from lcbench.reporting.threads import in_threads
from lcbench.results.cell_items import CellItems
from lcbench.tasks.suites import averaged_columns
from lcbench.uncertainty.bootstrap import generator, resample
from lcbench.uncertainty.clusters import link
from lcbench.uncertainty.items import NO_ITEMS, TaskSamples, same_items

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles
    from lcbench.tuning.options import Across


FEW_UNITS = 5
"""Tasks with at most this number of queries, pairs or sets are named in a note: with five, the
smallest p of a permutation test is 2/2⁵ = 0.06, so that no difference can be significant."""


# The main scores of these columns are correlations: a task in them whose items are unknown may have
# a negative score.
_CORRELATIONS = frozenset({"STS", "Summ"})


Asked = Mapping[str, Mapping[tuple[str, str], tuple[float, "CellFiles"]]]
"""Score as a fraction and files of each cell with a score, by task, then by label and policy."""

Scores = Mapping[tuple[str, str], float]
"""Scores of a task's cells as fractions, by label and policy."""

Clusters = Sequence[Sequence["NDArray[np.uint64]"]]
"""Cluster of each item of a task, by group of cells and part of their score."""


def asked_cells(table: ScoreTable, scores: pd.DataFrame) -> Asked:
    """Return the cells of a table that have a score and files.

    Args:
        table: one of `table1.build_tables`.
        scores: frame that it was built from.
    """
    files = {}
    if "files" in scores.columns:
        files = {cell: rows[-1].files for cell, rows in rows_by_cell(table, scores).items()}
    asked: dict[str, dict[tuple[str, str], tuple[float, CellFiles]]] = {}
    for block in table.blocks:
        for task in block.tasks:
            for policy, score in task.scores.items():
                found = files.get((block.label, policy, task.task))
                if score is not None and found is not None:
                    of_task = asked.setdefault(task.task, {})
                    of_task[block.label, policy] = score / 100, found
    return asked


def analyse(
    table: ScoreTable,
    asked: Asked,
    items: dict[str, TaskItems],
    resamples: int = RESAMPLES,
    seed: int = SEED,
    progress: Callable[[int, int], None] | None = None,
    *,
    together: bool = False,
    across: Across | Literal["auto"] | None = None,
) -> TableStatistics:
    """Return the intervals and tests of a table's improvements.

    A sample draws clusters of items (`clusters`) once for all tasks, models and policies. The draws
    of a cluster are seeded by its texts alone, so that an interval does not depend on other tasks
    of the table unless they share texts. The improvements are those of the table; items that do not
    reproduce its scores count as unknown.

    Means are over tasks drawn with replacement within their column and then over their items, or
    over items alone in a column of one task. All models and policies have the same draws.

    Args:
        table: one of `table1.build_tables`.
        asked: its cells (`asked_cells`).
        items: their items by task (`task_intervals.task_items`), removed as tasks are done.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
        progress: receives the number of finished tasks and of all tasks.
        together: whether bands are over all policies, not over constants and others by themselves.
        across: what recommendations of a repair are cross-validated over, or `auto`; None: there
            are none.
    """
    linked = link_tasks(items)
    differences: dict[str, dict[str, TaskDifferences]] = {}

    def keep(task: str, scores: Scores, own: TaskItems, clusters: Clusters) -> None:
        differences[task] = task_differences(task, scores, own, clusters)

    see = None if across is None else keep
    outcomes = outcomes_of(asked, items, linked, resamples, seed, progress, see=see)
    cells, draws = of_outcomes(table, outcomes, linked.families, resamples, seed)
    means, average = of_table(table, draws, cells, together=together)
    return TableStatistics(
        cells=_holm(cells),
        means=means,
        average=average,
        resamples=resamples,
        seed=seed,
        notes=(
            *_notes(table, cells, outcomes),
            *linked.notes,
            *_few_notes(table, cells),
            *_average_notes(table, draws, outcomes),
        ),
        draws=draws,
        recommendations={}
        if across is None
        else {
            block.label: recommend_block(
                *(table, block, differences, linked.families),
                None if across == "auto" else across,
                seed,
            )
            for block in table.blocks
        },
    )


def outcomes_of(
    asked: Asked,
    items: dict[str, TaskItems],
    linked: LinkedTasks,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    points: bool = False,
    see: Callable[[str, Scores, TaskItems, Clusters], None] | None = None,
) -> dict[str, TaskOutcome]:
    """Return the resampled cells of each task (`task_intervals.task_outcome`).

    Args:
        asked: cells (`asked_cells`).
        items: their items by task, removed as tasks are done.
        linked: clusters of these items.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
        progress: receives the number of finished tasks and of all tasks.
        points: whether pairs are differences of scores × 100, not relative improvements.
        see: receives each task, its scores, items and clusters, before the items are removed.
    """
    sizes = [bytes_of(files for _, files in of_task.values()) for of_task in asked.values()]

    def outcome(task: str) -> TaskOutcome:
        scores = {place: score for place, (score, _) in asked[task].items()}
        own, clusters = items.pop(task), linked.clusters[task]
        if see is not None:
            see(task, scores, own, clusters)
        return task_outcome(task, scores, own, clusters, resamples, seed, points=points)

    found = in_threads([partial(outcome, task) for task in asked], sizes, progress)
    return dict(zip(asked, found, strict=True))


def compare_pair(
    first: CellFiles, second: CellFiles, resamples: int = RESAMPLES, seed: int = SEED
) -> Uncertainty | None:
    """Return the interval and test of the second cell's improvement over the first, or None.

    None if items are unknown, if the cells differ in their items or number of experiments, or if
    the first score is not above 0.
    """
    read = TaskSamples([CellItems(first), CellItems(second)])
    before, after = read.samples[first], read.samples[second]
    if before is None or after is None or not same_items(before, after):
        return None
    clusters = link(read.shares(first).parts)
    drawn = resample([before, after], resamples, seed, first.task, clusters)
    return None if drawn is None else of_pair(drawn, 0, 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the given order.

    The smallest of m p-values is multiplied by m, the next by m − 1 and so on; none may be less
    than the one before it or more than 1.
    """
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def bytes_of(files: Iterable[CellFiles]) -> int:
    """Return the total size of the item files of cells, as far as they exist."""
    total = 0
    for one in files:
        try:
            total += one.items.stat().st_size
        except OSError:
            continue
    return total


def of_outcomes(
    table: ScoreTable,
    outcomes: Mapping[str, TaskOutcome],
    families: Mapping[str, str],
    resamples: int,
    seed: int,
) -> tuple[dict[CellKey, Uncertainty], Draws]:
    """Return the uncertainty of a table's cells, and the draws for its means.

    Args:
        table: the table.
        outcomes: by task (`task_intervals.task_outcome`).
        families: name of each task's family of tasks that share items.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
    """
    cells = {
        (label, policy, task): uncertainty
        for task in (task for column in table.columns for task in column.tasks)
        if task in outcomes
        for (label, policy), uncertainty in outcomes[task].pairs.items()
    }
    ratios = {
        cell: (one.error / one.drawn) ** 2
        for cell, one in cells.items()
        if one.error is not None and one.drawn
    }
    draws = _draws(table, outcomes, resamples, seed)
    return cells, replace(draws, families=families, ratios=ratios)


def _draws(
    table: ScoreTable, outcomes: Mapping[str, TaskOutcome], resamples: int, seed: int
) -> Draws:
    """Return the draws of all cells of a table, and of the tasks of its columns."""
    scores: dict[CellKey, NDArray[np.float32]] = {}
    known: dict[CellKey, tuple[str, int, int]] = {}
    for block in table.blocks:
        for task in block.tasks:
            for policy, score in task.scores.items():
                if score is None:
                    continue
                cell = block.label, policy, task.task
                outcome = outcomes.get(task.task)
                if outcome is not None and cell[:2] in outcome.draws:
                    scores[cell] = outcome.draws[cell[:2]]
                    known[cell] = outcome.units[cell[:2]]
                else:
                    scores[cell] = np.broadcast_to(np.float32(score / 100), resamples)
    tasks, picks = {}, {}
    for column in table.columns:
        random, shape = generator(seed, "tasks of", column.name), (resamples, len(column.tasks))
        if len(column.tasks) == 1:
            tasks[column.name] = np.zeros(shape, dtype=np.int64)
            picks[column.name] = np.arange(resamples)[:, None]
        else:
            tasks[column.name] = random.integers(0, len(column.tasks), shape)
            # A task that is drawn twice has different items each time.
            picks[column.name] = random.integers(0, resamples, shape)
    return Draws(scores, known, tasks, picks, _signed(table, outcomes))


def _signed(table: ScoreTable, outcomes: Mapping[str, TaskOutcome]) -> frozenset[str]:
    """Return the tasks of a table whose scores can be negative."""
    found = {
        task.task
        for block in table.blocks
        for task in block.tasks
        if any(score is not None and score < 0 for score in task.scores.values())
    }
    for column in table.columns:
        for task in column.tasks:
            known = outcomes[task].signed if task in outcomes else None
            if column.name in _CORRELATIONS if known is None else known:
                found.add(task)
    return frozenset(found)


def _holm(cells: Mapping[CellKey, Uncertainty]) -> dict[CellKey, Uncertainty]:
    tested = {cell: one.p for cell, one in cells.items() if one.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {cell: replace(one, adjusted=adjusted.get(cell)) for cell, one in cells.items()}


def _notes(
    table: ScoreTable, cells: Mapping[CellKey, Uncertainty], outcomes: Mapping[str, TaskOutcome]
) -> tuple[str, ...]:
    """Return notes on improvements of tasks without an interval, one per reason."""
    reasons = {reason for outcome in outcomes.values() for reason in outcome.unknown.values()}
    if not cells and reasons == {NO_ITEMS}:
        return ("no interval for any task: no items are known",)
    places: dict[tuple[str, str], list[str]] = {}
    for column in table.columns:
        for task in column.tasks:
            outcome = outcomes.get(task)
            if outcome is None:
                continue
            every = len(outcome.pairs) + len(outcome.unknown)
            counted: dict[str, int] = {}
            for reason in outcome.unknown.values():
                counted[reason] = counted.get(reason, 0) + 1
            for reason, count in counted.items():
                share = "" if count == every else f" in {count} of {every} cells"
                places.setdefault((reason, share), []).append(task)
    return tuple(
        f"no interval for {listed(tasks)}{share}: {reason}"
        for (reason, share), tasks in places.items()
    )


def _few_notes(table: ScoreTable, cells: Mapping[CellKey, Uncertainty]) -> tuple[str, ...]:
    """Return notes on tasks with too few items for any difference to be significant."""
    counts: dict[str, str] = {}
    for (_, _, task), one in cells.items():
        if one.independent <= FEW_UNITS:
            counts[task] = f"{task} ({one.sample})"
    tasks = [task for column in table.columns for task in column.tasks if task in counts]
    if not tasks:
        return ()
    named = listed([counts[task] for task in tasks])
    return (f"too few items for any difference to be significant: {named}",)


def _average_notes(
    table: ScoreTable, draws: Draws, outcomes: Mapping[str, TaskOutcome]
) -> tuple[str, ...]:
    """Return a note if averages have no interval because a column's only task has unknown items."""
    columns = averaged_columns([column.name for column in table.columns])
    found: list[str] = []
    lacking = every = 0
    for block in table.blocks:
        for policy, row in block.improvements.items():
            if row.get(AVERAGE) is not None:
                picks = {block.label: everywhere(block, policy)}
                unknown = unknown_alone(table, draws, picks, columns)
                found += unknown
                lacking, every = lacking + bool(unknown), every + 1
    if not found:
        return ()
    names = list(dict.fromkeys(found))
    reasons = {
        reason
        for name in names
        for reason in (outcomes[name].unknown.values() if name in outcomes else [NO_ITEMS])
    }
    share = "" if lacking == every else f" in {lacking} of {every} cells"
    why = f"the items of {listed(names)} are not known"
    if not reasons <= {NO_ITEMS, OF_BASELINE + NO_ITEMS}:
        why = f"{listed(names)} {'have' if len(names) > 1 else 'has'} none"
    return (f"{AVERAGE}: no interval{share}, since {why}",)
