"""Statistical power: effects that a table would probably detect, and those that it rules out."""

from __future__ import annotations

from collections.abc import Iterable

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import AVERAGE, Block, ScoreTable
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Table, formatted, improvement, name, number
from lcbench.reporting.text import group_heading
from lcbench.uncertainty.power import CLAIMED, POWER, needed


def power_table(table: ScoreTable, statistics: TableStatistics) -> Table | None:
    """Return the detectable effects at each model's best τ; None without any interval.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table.
    """
    sections = []
    for block in table.blocks:
        if block.best is None:
            continue
        rows = list(_rows(table, block, block.best, statistics))
        if rows:
            sections.append(Section(f"{block.label}, {label_of(block.best)}", tuple(rows)))
    if not sections:
        return None
    return Table(
        name="power",
        title=f"What could have been seen: {group_heading(table.group)}",
        header=(
            "Column",
            "Task",
            "Units",
            "Up",
            "Down",
            "Gain (%)",
            "p",
            "p (Holm)",
            "Detectable (%)",
            f"Units for {CLAIMED} %",
            "No more than (%)",
        ),
        labels=2,
        sections=tuple(sections),
        notes=(
            f"Detectable: the smallest true gain or loss that is significant in {POWER:.0%} of "
            "such runs: of a task by its own interval; of columns and Avg by the band over all "
            f"{table.words[1]} tried.",
            f"Units for {CLAIMED} %: how many like these it takes for that to be {CLAIMED} %, "
            "which is about what the paper claims. Not of a classification, where the training "
            "draws limit it, nor of means over several tasks, where the tasks do.",
            "No more than: where the change is not significant, its size with 95 % confidence (the "
            "90 % interval): small where this is small, unknown where it is large.",
            "Up, Down: units that score higher or lower than at τ = 1.",
        ),
    )


def _rows(
    table: ScoreTable, block: Block, policy: str, statistics: TableStatistics
) -> Iterable[tuple[Entry, ...]]:
    for task in block.tasks:
        value = task.improvement(policy)
        known = statistics.cells.get((block.label, policy, task.task))
        if value is not None and known is not None:
            yield name(task.column), name(task.task), *_entries(value, known, is_task=True)
    several = [column.name for column in table.columns if len(column.tasks) > 1]
    for column in (*several, AVERAGE):
        mean = block.improvements[policy].get(column)
        known = statistics.means.get((block.label, policy, column))
        if mean is not None and known is not None:
            what = "" if column == AVERAGE else "mean"
            yield name(column), name(what), *_entries(mean, known, is_task=False)


def _entries(value: float, known: Uncertainty, is_task: bool) -> tuple[Entry, ...]:
    smallest = known.detectable
    enough = None
    if is_task and smallest and known.units != "texts" and known.count:
        enough = needed(known.count, smallest, CLAIMED)
    return (
        name(known.sample),
        formatted(known.up, ","),
        formatted(known.down, ","),
        improvement(value, known),
        formatted(known.p, ".2g"),
        formatted(known.adjusted, ".2g"),
        number(smallest),
        formatted(enough, ","),
        number(None if known.excludes_zero else known.bound),
    )
