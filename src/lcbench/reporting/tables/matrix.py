"""Scores and relative improvements of each task at each τ, also with one value per row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import (
    BASELINE,
    Block,
    ScoreTable,
    TaskScores,
    ordered_policies,
)
from lcbench.reporting.statistics import LEAST_CHANGED, SIGNIFICANCE, TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Table, improvement, name, number, of_values
from lcbench.reporting.tables.main_results import identity
from lcbench.reporting.text import TOO_FEW, group_heading
from lcbench.system.words import several

DATA = "tasks.csv"
"""The file with one value per row."""

_HEADER = ("group", "window", "model", "revision", "column", "task", "policy", "value")
_STATISTICS = (
    *("improvement", "low", "high", "p", "adjusted"),
    *("units", "count", "up", "down", "detectable", "no_more_than"),
)


def scores(table: ScoreTable) -> Table:
    """Return the table of scores × 100 of each task at each policy."""

    def entry(block: Block, task: TaskScores, policy: str) -> Entry:
        return number(task.scores[policy], source=(block.label, policy, task.task))

    return _table(
        table,
        "scores",
        f"Scores per task and {table.words[0]}",
        _policies(table),
        entry,
        ("Scores × 100; τ = 1 is the baseline.",),
    )


def matrix(table: ScoreTable, statistics: TableStatistics) -> Table | None:
    """Return the table of relative improvements in % of each task at each policy other than τ = 1.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table, for the marks and a note that counts them.

    Returns:
        None if the table has no policy but the baseline.
    """
    policies = [policy for policy in _policies(table) if policy != BASELINE]
    if not policies:
        return None
    shown: list[Uncertainty | None] = []

    def entry(block: Block, task: TaskScores, policy: str) -> Entry:
        source = (block.label, policy, task.task)
        value = task.improvement(policy)
        if value is not None:
            shown.append(statistics.cells.get(source))
        return improvement(value, statistics.cells.get(source), source)

    title = f"Relative improvements per task and {table.words[0]}"
    made = _table(table, "matrix", title, policies, entry, ())
    counts = _counts(shown, table.words[0])
    return replace(made, notes=("Relative improvements over τ = 1 in % of its score.", *counts))


def task_values(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]) -> Table:
    """Return the scores × 100 per task and policy, one per row, for programs.

    A row also has the relative improvement and the ends of its 95 % interval in %, p, p by Holm's
    correction, and what was resampled; unknown values are empty.

    Args:
        tables: all tables of a report.
        statistics: the statistics of each table.
    """
    rows = (
        (
            *(*identity(table, block), task.column, task.task, policy),
            task.scores[policy],
            *_statistics(block, task, policy, known),
        )
        for table, known in zip(tables, statistics, strict=True)
        for block in table.blocks
        for task in block.tasks
        for policy in block.policies
    )
    return of_values("tasks", "Scores per task and τ", (*_HEADER, *_STATISTICS), rows)


def _policies(table: ScoreTable) -> tuple[str, ...]:
    return ordered_policies(policy for block in table.blocks for policy in block.policies)


def _table(
    table: ScoreTable,
    file: str,
    title: str,
    policies: Sequence[str],
    entry: Callable[[Block, TaskScores, str], Entry],
    notes: tuple[str, ...],
) -> Table:
    """Return a table with sections by model, rows by task and columns by policy."""
    return Table(
        name=file,
        title=f"{title} ({group_heading(table.group)})",
        header=("Column", "Task", *(label_of(policy) for policy in policies)),
        labels=2,
        sections=tuple(
            Section(
                block.label,
                tuple(
                    (
                        name(task.column),
                        name(task.task),
                        # Empty, not missing: the policy was requested for another model only.
                        *(
                            entry(block, task, policy) if policy in task.scores else Entry("")
                            for policy in policies
                        ),
                    )
                    for task in block.tasks
                ),
            )
            for block in table.blocks
        ),
        notes=notes,
        scores=table.group,
        data=DATA,
    )


def _statistics(
    block: Block, task: TaskScores, policy: str, statistics: TableStatistics
) -> tuple[float | str | None, ...]:
    gain = None if policy == BASELINE else task.improvement(policy)
    known = statistics.cells.get((block.label, policy, task.task))
    if gain is None or known is None:
        return (gain, *[None] * (len(_STATISTICS) - 1))
    return (
        *(gain, known.low, known.high, known.p, known.adjusted),
        *(known.units, known.count, known.up, known.down, known.detectable, known.bound),
    )


def _counts(shown: Iterable[Uncertainty | None], word: str) -> list[str]:
    """Return in words how many improvements are significantly different from zero.

    Args:
        shown: what is known of each.
        word: for what is compared with the baseline.
    """
    every = list(shown)
    known = [one for one in every if one is not None]
    if not known:
        return ["Of none of the pairs is it known whether it differs significantly from zero."]
    significant = sum(one.excludes_zero for one in known)
    corrected = sum(one.adjusted is not None and one.adjusted <= SIGNIFICANCE for one in known)
    notes = [
        f"Of {several(len(known), 'pair')} of a task's {word} and τ = 1, {significant} differ "
        f"significantly from zero, by interval and permutation test (p ≤ {SIGNIFICANCE}), "
        f"{corrected} after Holm's correction."
    ]
    few = sum(one.is_too_few for one in known)
    if few:
        notes.append(
            f"{TOO_FEW} fewer than {LEAST_CHANGED} items changed, too few to say anything of "
            f"others; {few} of the pairs."
        )
    tested = [one for one in known if one.p is not None and one.count]
    # Of n items no p is below 2/2ⁿ, that of all changing the same way.
    out_of_reach = [one for one in tested if _least_p(one) * len(tested) > SIGNIFICANCE]
    if out_of_reach:
        notes.append(
            f"{len(out_of_reach)} of the pairs have too few items to pass Holm's correction over "
            f"{len(tested)} pairs, however large the change: of {out_of_reach[0].sample} p is at "
            f"least {_least_p(out_of_reach[0]):.2g}."
        )
    if len(known) < len(every):
        notes.append(f"Pairs of which it is unknown: {len(every) - len(known)}.")
    return notes


def _least_p(known: Uncertainty) -> float:
    """Return the smallest p that a permutation test of so many items can have."""
    return float(2.0 ** (1 - known.independent))
