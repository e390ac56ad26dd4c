"""Scores per length, for tasks whose splits are lengths: needle and passkey (`test_256` …).

Takes scores as a data frame. A score that does not count in Table 1 (missing, refused) has no value
at any length; the notes of Table 1 say why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lcbench.reporting.cells import means_by, rows_by_cell
from lcbench.reporting.score_table import ScoreTable, policy_column
from lcbench.reporting.statistics import CellKey
from lcbench.reporting.table import Entry, Section, Table, name, number, of_values
from lcbench.reporting.tables.items_by_length import LENGTH_SPLIT
from lcbench.reporting.text import group_heading

DATA = "lengths.csv"
"""The file with one value per row."""

_HEADER = ("group", "window", "model", "revision", "task", "policy", "length", "value")


@dataclass(frozen=True)
class LengthRow:
    """The scores × 100 of a model at a policy, by length in tokens; `None` is a missing value.

    `scores` has no entry for a length that the task does not have at this model's window, `window`
    is `None` where it is not known, and `mean` is the task's score × 100 as in Table 1.
    """

    window: int | None
    model: str
    revision: str
    label: str
    policy: str
    scores: Mapping[int, float | None]
    mean: float | None


@dataclass(frozen=True)
class LengthTable:
    """The scores of one task by length: `lengths` ascending, rows in the order of Table 1."""

    group: str
    task: str
    lengths: tuple[int, ...]
    rows: tuple[LengthRow, ...]


def build_length_tables(scores: pd.DataFrame, tables: Sequence[ScoreTable]) -> list[LengthTable]:
    """Return a table per group and task whose splits are all lengths, in the order of Table 1.

    Args:
        scores: frame that `tables` were built from.
        tables: results of `table1.build_tables`, which decide which cells count.
    """
    found = []
    for table in tables:
        cells = rows_by_cell(table, scores)
        for task in (task for column in table.columns for task in column.tasks):
            by_cell = {
                cell: means_by(_length, rows) for cell, rows in cells.items() if cell[-1] == task
            }
            every = {length for lengths in by_cell.values() for length in lengths}
            lengths = tuple(sorted(length for length in every if length is not None))
            if lengths and None not in every:
                found.append(
                    LengthTable(table.group, task, lengths, _rows(table, task, lengths, by_cell))
                )
    return found


def length_table(tables: Sequence[LengthTable]) -> Table | None:
    """Return one table with sections by task and rows by model and policy; `None` if empty.

    A length that a task or window does not have stays empty.
    """
    if not tables:
        return None
    lengths = sorted({length for table in tables for length in table.lengths})
    several = len({table.group for table in tables}) > 1
    heading, written = policy_column(row.policy for table in tables for row in table.rows)
    return Table(
        name="lengths",
        title="Needle and passkey by the documents' length in tokens",
        header=("Model", "Window", heading, *map(str, lengths), "Mean"),
        labels=3,
        sections=tuple(
            Section(
                f"{group_heading(table.group)}: {table.task}" if several else table.task,
                tuple(
                    (
                        name(row.label),
                        name("" if row.window is None else str(row.window)),
                        name(written(row.policy)),
                        *(
                            number(row.scores[length]) if length in row.scores else Entry("")
                            for length in lengths
                        ),
                        number(row.mean),
                    )
                    for row in table.rows
                ),
            )
            for table in tables
        ),
        notes=("The task's main score × 100. Mean is its score in Table 1.",),
        data=DATA,
    )


def length_values(tables: Sequence[LengthTable]) -> Table:
    """Return the scores × 100 per task, policy and length, one per row, for programs."""
    rows = (
        (table.group, row.window, row.model, row.revision, table.task, row.policy, length, value)
        for table in tables
        for row in table.rows
        for length, value in row.scores.items()
    )
    return of_values("lengths", "Scores per length", _HEADER, rows)


def _length(row: Any) -> int | None:
    """Return the length that a row's split stands for, or None."""
    found = LENGTH_SPLIT.fullmatch(str(row.split))
    return None if found is None else int(found[1])


def _rows(
    table: ScoreTable,
    task: str,
    every: Sequence[int],
    by_cell: Mapping[CellKey, Mapping[int | None, float]],
) -> tuple[LengthRow, ...]:
    rows = []
    for block in table.blocks:
        counted = block.scores_of(task)
        cells = {policy: by_cell.get((block.label, policy, task), {}) for policy in block.policies}
        own = {length for cell in cells.values() for length in cell if length is not None} or set(
            every
        )
        for policy, cell in cells.items():
            counts = counted[policy] is not None
            rows.append(
                LengthRow(
                    window=block.window,
                    model=block.model,
                    revision=block.revision,
                    label=block.label,
                    policy=policy,
                    scores={
                        length: 100 * cell[length] if counts and length in cell else None
                        for length in sorted(own)
                    },
                    mean=counted[policy],
                )
            )
    return tuple(rows)
