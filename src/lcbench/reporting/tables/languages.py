"""Scores per subset, in most tasks the languages, at each τ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lcbench.repair.repair import label_of
from lcbench.reporting.cells import means_by, rows_by_cell
from lcbench.reporting.score_table import (
    BASELINE,
    Block,
    ScoreTable,
    TaskScores,
    ordered_policies,
    relative_improvement,
)
from lcbench.reporting.statistics import CellKey
from lcbench.reporting.table import Entry, Section, Table, improvement, name, number
from lcbench.reporting.text import group_heading

if TYPE_CHECKING:
    import pandas as pd

_MEAN = "Mean"

_NOTE = (
    f"{_MEAN} is the task's score in Table 1. How sure the improvement of one language is, is not "
    "computed."
)


def language_table(table: ScoreTable, scores: pd.DataFrame) -> Table | None:
    """Return the table of tasks with several subsets, a row per subset; None if there are none.

    A score that does not count in Table 1 (missing, refused) has no value in any subset.

    Args:
        table: one of `table1.build_tables`.
        scores: frame that it was built from.
    """
    by_cell = {
        cell: means_by(lambda row: str(row.subset), rows)
        for cell, rows in rows_by_cell(table, scores).items()
    }
    policies = ordered_policies(policy for block in table.blocks for policy in block.policies)
    policies = (BASELINE, *(policy for policy in policies if policy != BASELINE))
    sections = []
    for block in table.blocks:
        rows = [row for task in block.tasks for row in _rows(block, task, policies, by_cell)]
        if rows:
            best = "" if block.best is None else f", best {label_of(block.best)}"
            sections.append(Section(f"{block.label}{best}", tuple(rows)))
    if not sections:
        return None
    taus = (label_of(policy) for policy in policies if policy != BASELINE)
    return Table(
        name="languages",
        title=f"Scores per language or other subset ({group_heading(table.group)})",
        header=("Task", "Subset", "baseline", *taus, "Relative Improv."),
        labels=2,
        sections=tuple(sections),
        notes=(
            "Scores × 100, each the unweighted mean over the task's splits. The relative "
            f"improvement is that of the model's best {table.words[0]} in Table 1, in % of the "
            "baseline.",
            _NOTE,
        ),
    )


def _rows(
    block: Block,
    task: TaskScores,
    policies: tuple[str, ...],
    by_cell: Mapping[CellKey, Mapping[str, float]],
) -> list[tuple[Entry, ...]]:
    """Return a row for each subset, and their mean; nothing for a task with a single subset."""
    cells = {policy: by_cell.get((block.label, policy, task.task), {}) for policy in block.policies}
    subsets = sorted({subset for cell in cells.values() for subset in cell})
    if len(subsets) < 2:
        return []
    rows = []
    for subset in subsets:
        values = {
            policy: 100 * cell[subset]
            if task.scores[policy] is not None and subset in cell
            else None
            for policy, cell in cells.items()
        }
        rows.append(_row(task.task, subset, values, policies, block.best))
    rows.append(_row(task.task, _MEAN, task.scores, policies, block.best))
    return rows


def _row(
    task: str,
    subset: str,
    values: Mapping[str, float | None],
    policies: tuple[str, ...],
    best: str | None,
) -> tuple[Entry, ...]:
    gain = None if best is None else relative_improvement(values[best], values[BASELINE])
    return (
        name(task),
        name(subset),
        # Empty, not missing: the policy was requested for another model only.
        *(number(values[policy]) if policy in values else Entry("") for policy in policies),
        improvement(gain) if best is not None else Entry(""),
    )
