"""The types of Table 1: columns, rows, blocks of scores, and the relative improvement."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

BASELINE = "1"
"""The canonical policy that leaves attention unchanged (τ = 1)."""

AVERAGE = "Avg"
"""The name of the last column, the unweighted mean over the others."""

COLUMN_ORDER = (
    "Class",
    "PairClass",
    "Clust",
    "Summ",
    "STS",
    "BeirRetr",
    "Retr",
    "LongRetr",
    "Rerank",
    "LongEmbRetr",
)
"""The paper's order of columns, with mteb's other task types in between; others come after."""

Values = Mapping[str, float | None]
"""Values by column name, `Avg` included; `None` is a missing value."""


@dataclass(frozen=True)
class Column:
    """A column of the table and the tasks that it is the mean of."""

    name: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table: scores × 100 (`raw`, `ours`) or relative improvement in %.

    `partial` has the columns without a value of which some tasks have a score: how many, of how
    many.
    """

    kind: Literal["raw", "ours", "relative"]
    policy: str
    values: Values
    partial: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScores:
    """The scores × 100 of one task by policy; `None` is a missing value."""

    column: str
    task: str
    scores: Values

    def improvement(self, policy: str) -> float | None:
        """The relative improvement over the baseline in %; `None` for a missing value."""
        return relative_improvement(self.scores[policy], self.scores[BASELINE])


@dataclass(frozen=True)
class Block:
    """All that a table says of one model (at one revision and window; `None`: window unknown).

    `scores` are × 100 and `improvements` % of the baseline, both by policy, then by column with
    `Avg`; `improvements` has no entry for the baseline. `best` is the policy of the line "ours", a
    constant where one has a score, `None` where there is none but the baseline. `policies` goes
    from large τ to small, those that are no constant last.
    """

    window: int | None
    model: str
    revision: str
    label: str
    policies: tuple[str, ...]
    best: str | None
    scores: Mapping[str, Values]
    improvements: Mapping[str, Values]
    tasks: tuple[TaskScores, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The lines raw, ours and relative; raw alone where only the baseline was asked for."""
        raw = Row("raw", BASELINE, self.scores[BASELINE], self.partial(BASELINE))
        if self.best is None:
            return (raw,)
        ours = self.partial(self.best)
        return (
            raw,
            Row("ours", self.best, self.scores[self.best], ours),
            # What has a score at the best policy has one in the baseline: else it is refused.
            Row("relative", self.best, self.improvements[self.best], ours),
        )

    def partial(self, policy: str) -> dict[str, tuple[int, int]]:
        """How many tasks of a column have a score, of how many, where it is some and not all."""
        every = Counter(task.column for task in self.tasks)
        present = Counter(task.column for task in self.tasks if task.scores[policy] is not None)
        return {
            column: (present[column], every[column])
            for column in every
            if 0 < present[column] < every[column]
        }


@dataclass(frozen=True)
class ScoreTable:
    """One table: a group's models, by window and then in the order in which they came.

    `average_improvement` is the row `Avg Improv.` in %, `None` with fewer than two models that
    have a line "ours". `notes` say where every missing value comes from.
    """

    group: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    average_improvement: Values | None
    notes: tuple[str, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of all columns in the order of the table, `Avg` last."""
        return (*(column.name for column in self.columns), AVERAGE)


def temperature(policy: str) -> float | None:
    """The τ of a constant policy, `None` for a policy that is no positive finite number."""
    try:
        value = float(policy)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def ordered_policies(policies: Iterable[str]) -> tuple[str, ...]:
    """Each policy once: constants from large τ to small, then the others by name."""

    def place(policy: str) -> tuple[bool, float, str]:
        tau = temperature(policy)
        return (tau is None, 0.0 if tau is None else -tau, policy)

    return tuple(sorted(set(policies), key=place))


def relative_improvement(ours: float | None, raw: float | None) -> float | None:
    """100 · (ours − raw) / raw in % (paper, Table 1); `None` without one of them, or raw ≤ 0.

    A correlation can be 0 or negative, where a share of it would have no meaning.
    """
    if ours is None or raw is None or raw <= 0:
        return None
    return 100 * (ours - raw) / raw


@dataclass(frozen=True)
class Cell:
    """A cell's score as a fraction (NaN where it has none) and what it was measured under."""

    score: float
    parts: frozenset[tuple[str, str]]
    conditions: Mapping[str, str]


Cells = Mapping[str, Mapping[str, Cell]]  # by policy, then by task
