"""Tables of models compared with each other: differences of scores, and rankings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcbench.reporting.score_table import AVERAGE
from lcbench.reporting.table import (
    Entry,
    Section,
    Table,
    formatted,
    improvement,
    name,
    number,
)
from lcbench.reporting.text import MISSING_VALUE, group_heading
from lcbench.tasks.suites import averaged_columns

if TYPE_CHECKING:
    from lcbench.reporting.models import Difference, ModelComparison, Rank

_UNIT = " points"


def difference_table(comparison: ModelComparison, labels: Sequence[str]) -> Table:
    """Return the differences of models from the first of them, by column and task.

    Args:
        comparison: result of `models.compare_pairs`.
        labels: labels of two or more of its models.
    """
    first, *others = labels
    models = comparison.of.models
    sections = []
    for other in others:
        columns = tuple(
            _row(column, "", comparison.difference(first, other, column=column))
            for column in models.column_names
        )
        tasks = tuple(
            _row(column.name, task, comparison.difference(first, other, task=task))
            for column in models.columns
            for task in column.tasks
        )
        sections.append(Section(f"a: {first}, b: {other}", (*columns, *tasks)))
    notes = [
        "Scores × 100 of the models without a repair. b − a is in points; from and to are its 95 % "
        "interval, paired over the items of the tasks.",
    ]
    if len(comparison.of.pairs.blocks) > 1:
        notes.append(
            "Intervals of columns and Avg are simultaneous over all pairs of models; those of "
            "tasks are not, and p is not corrected for the number of tasks and pairs."
        )
    else:
        notes.append("Intervals and p are not corrected for the number of columns and tasks.")
    return Table(
        name="differences",
        title=f"Differences between models ({group_heading(models.group)})",
        header=("Column", "Task", "a", "b", "b − a", "from", "to", "p"),
        labels=2,
        sections=tuple(sections),
        notes=(*notes, *comparison.notes),
    )


def ranking_table(comparison: ModelComparison) -> Table:
    """Return rankings of all models by `Avg` and by each of its columns, with ties.

    Args:
        comparison: result of `models.compare_pairs`.
    """
    models = comparison.of.models
    columns = averaged_columns([column.name for column in models.columns])
    names = [AVERAGE, *(columns if len(columns) > 1 else ())]
    return Table(
        name="ranking",
        title=f"Ranking of models ({group_heading(models.group)})",
        header=("Rank", "Model", "Not separable from", "Score", "Minus\nhighest", "from", "to"),
        labels=3,
        sections=tuple(
            Section(column, tuple(map(_ranked, comparison.ranking(column)))) for column in names
        ),
        notes=(
            "Scores × 100 of the models without a repair. Rank: 1 + the number of models that are "
            "significantly better, by 95 % intervals of all differences, paired over items and "
            "simultaneous over all pairs of models. Models of equal rank are ties.",
            *comparison.notes,
        ),
    )


def _row(column: str, task: str, difference: Difference) -> tuple[Entry, ...]:
    found = difference.uncertainty
    return (
        name(column),
        name(task),
        number(difference.first),
        number(difference.second),
        improvement(difference.value, found, unit=_UNIT),
        *_ends(difference),
        formatted(None if found is None else found.p, ".2g"),
    )


def _ends(difference: Difference | None) -> tuple[Entry, Entry]:
    found = None if difference is None else difference.uncertainty
    if found is None:
        return number(None), number(None)
    return number(found.low, "detail"), number(found.high, "detail")


def _ranked(one: Rank) -> tuple[Entry, ...]:
    behind = one.behind
    return (
        name(MISSING_VALUE if one.rank is None else str(one.rank)),
        name(one.label),
        name(", ".join(one.tied)),
        number(one.score),
        improvement(None, None)
        if behind is None
        else improvement(behind.value, behind.uncertainty, unit=_UNIT),
        *_ends(behind),
    )
