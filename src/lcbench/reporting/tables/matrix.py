"""What each task gains at each τ: a matrix for each model of a table."""

from __future__ import annotations

from collections.abc import Iterable

from lcbench.reporting.score_table import (
    BASELINE,
    ScoreTable,
    ordered_policies,
    relative_improvement,
)
from lcbench.reporting.statistics import LEAST_CHANGED, SIGNIFICANCE, TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Table, improvement, name
from lcbench.reporting.text import TOO_FEW, group_heading


def matrix(table: ScoreTable, statistics: TableStatistics | None = None) -> Table | None:
    """Return the relative improvement of each task at each policy but τ = 1, in %.

    Args:
        table: of `table1.build_tables`.
        statistics: of the same table; they make the marks, and a note counts them.

    Returns:
        None if the table has no policy but the baseline.
    """
    policies = [
        policy
        for policy in ordered_policies(one for block in table.blocks for one in block.policies)
        if policy != BASELINE
    ]
    if not policies:
        return None
    known = {} if statistics is None else statistics.cells
    shown: list[Uncertainty | None] = []
    sections = []
    for block in table.blocks:
        rows = []
        for task in block.tasks:
            entries = []
            for policy in policies:
                if policy not in task.scores:
                    # No hole: it was asked for of another model alone.
                    entries.append(Entry(""))
                    continue
                value = relative_improvement(task.scores[policy], task.scores[BASELINE])
                uncertainty = known.get((block.label, policy, task.task))
                entries.append(improvement(value, uncertainty))
                if value is not None:
                    shown.append(uncertainty)
            rows.append((name(task.column), name(task.task), *entries))
        sections.append(Section(block.label, tuple(rows)))
    return Table(
        name="matrix",
        title=f"Relative improvements per task and τ ({group_heading(table.group)})",
        header=("Column", "Task", *(f"τ = {policy}" for policy in policies)),
        labels=2,
        sections=tuple(sections),
        notes=(
            "Relative improvements over τ = 1 in % of its score.",
            *([] if statistics is None else _counts(shown)),
        ),
    )


def _counts(shown: Iterable[Uncertainty | None]) -> list[str]:
    """Return in words how many improvements are significantly different from zero."""
    every = list(shown)
    known = [one for one in every if one is not None]
    if not known:
        return ["Of none of the pairs is it known whether it differs significantly from zero."]
    told = sum(one.excludes_zero for one in known)
    corrected = sum(one.adjusted is not None and one.adjusted <= SIGNIFICANCE for one in known)
    notes = [
        f"Of {len(known)} pairs of a task's τ and τ = 1, {told} differ significantly from zero, by "
        f"interval and permutation test (p ≤ {SIGNIFICANCE}), {corrected} after Holm's correction."
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
    """Return the smallest p of a permutation test of so many items: all change the same way."""
    return float(2.0 ** (1 - known.independent))
