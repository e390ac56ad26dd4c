"""Scores per subset, which are languages in most tasks that have several, at each τ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import pandas as pd

from lcbench.reporting.score_table import (
    BASELINE,
    Block,
    ScoreTable,
    TaskScores,
    ordered_policies,
    relative_improvement,
)
from lcbench.reporting.table import Entry, Section, Table, improvement, name, number
from lcbench.reporting.text import group_heading

_MEAN = "Mean"

_Key = tuple[int | None, str, str, str, str]  # window, model, revision, policy, task

_NOTES = (
    "Scores × 100, each the unweighted mean over the task's splits. The relative improvement is "
    "that of the model's best τ in Table 1, in % of the baseline.",
    f"{_MEAN} is the task's score in Table 1. How sure the improvement of one language is, is not "
    "computed.",
)


def language_table(table: ScoreTable, scores: pd.DataFrame) -> Table | None:
    """Return the scores of tasks with several subsets, one row a subset; None if there are none.

    What Table 1 does not count (missing, refused) has no value in any subset.

    Args:
        table: of `table1.build_tables`.
        scores: the frame that it was built from.
    """
    by_cell = _by_cell(scores[scores["group"] == table.group])
    policies = ordered_policies(policy for block in table.blocks for policy in block.policies)
    policies = (BASELINE, *(policy for policy in policies if policy != BASELINE))
    sections = []
    for block in table.blocks:
        rows = [row for task in block.tasks for row in _rows(block, task, policies, by_cell)]
        if rows:
            best = "" if block.best is None else f", best τ = {block.best}"
            sections.append(Section(f"{block.label}{best}", tuple(rows)))
    if not sections:
        return None
    taus = (f"τ = {policy}" for policy in policies if policy != BASELINE)
    return Table(
        name="languages",
        title=f"Scores per language or other subset ({group_heading(table.group)})",
        header=("Task", "Subset", "baseline", *taus, "Relative Improv."),
        labels=2,
        sections=tuple(sections),
        notes=_NOTES,
    )


def _by_cell(scores: pd.DataFrame) -> dict[_Key, dict[str, float]]:
    """Return the scores of each cell by subset, as fractions: the mean over the splits."""
    parts: dict[_Key, dict[str, list[float]]] = {}
    for one in scores.itertuples(index=False):
        # In a column with unknown windows pandas keeps the known ones as fractions.
        window = None if pd.isna(one.window) else int(one.window)
        key = (window, str(one.model), str(one.revision), str(one.policy), str(one.task))
        score = math.nan if pd.isna(one.score) else float(one.score)
        parts.setdefault(key, {}).setdefault(str(one.subset), []).append(score)
    return {
        key: {subset: fmean(splits) for subset, splits in subsets.items()}
        for key, subsets in parts.items()
    }


def _rows(
    block: Block,
    task: TaskScores,
    policies: tuple[str, ...],
    by_cell: Mapping[_Key, Mapping[str, float]],
) -> list[tuple[Entry, ...]]:
    """Return a row for each subset, and their mean; nothing for a task with but one."""
    cells = {
        policy: by_cell.get((block.window, block.model, block.revision, policy, task.task), {})
        for policy in block.policies
    }
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
        # Empty, and not missing: a policy that was asked for of another model alone.
        *(number(values[policy]) if policy in values else Entry("") for policy in policies),
        improvement(gain) if best is not None else Entry(""),
    )
