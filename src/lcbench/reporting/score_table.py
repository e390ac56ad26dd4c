"""Types for Table 1: columns, rows, blocks of scores, and the relative improvement."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lcbench.repair.repair import label_of, parts_of

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
    """A column of the table, the mean over its tasks."""

    name: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A line of the table: scores × 100 (`raw`, `ours`) or relative improvement in %.

    `partial` has, for columns without a value, how many tasks have a score and how many there are.
    """

    kind: Literal["raw", "ours", "relative"]
    policy: str
    values: Values
    partial: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScores:
    """The scores × 100 of a task by policy; `None` is a missing value."""

    column: str
    task: str
    scores: Values

    def improvement(self, policy: str) -> float | None:
        """Return the relative improvement over the baseline in %; `None` for a missing value."""
        return relative_improvement(self.scores[policy], self.scores[BASELINE])


@dataclass(frozen=True)
class Block:
    """A model's part of a table (at one revision and window; `None`: window unknown).

    `scores` are × 100 and `improvements` % of the baseline, both by policy, then by column with
    `Avg`; `improvements` has no entry for the baseline. `best` is the policy of the line "ours": a
    candidate (`is_candidate`) if one has a score, `None` if there is only the baseline. `policies`
    are sorted by `ordered_policies`.
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
        """Return the lines raw, ours and relative; only raw if only the baseline was requested."""
        raw = Row("raw", BASELINE, self.scores[BASELINE], self.partial(BASELINE))
        if self.best is None:
            return (raw,)
        ours = self.partial(self.best)
        return (
            raw,
            Row("ours", self.best, self.scores[self.best], ours),
            # A task with a score at the best policy also has a baseline; otherwise it is refused.
            Row("relative", self.best, self.improvements[self.best], ours),
        )

    def scores_of(self, task: str) -> Values:
        """The scores × 100 of a task by policy."""
        (found,) = (one.scores for one in self.tasks if one.task == task)
        return found

    def partial(self, policy: str) -> dict[str, tuple[int, int]]:
        """Return the numbers of tasks with a score and of all tasks, for incomplete columns."""
        every = Counter(task.column for task in self.tasks)
        present = Counter(task.column for task in self.tasks if task.scores[policy] is not None)
        return {
            column: (present[column], every[column])
            for column in every
            if 0 < present[column] < every[column]
        }


@dataclass(frozen=True)
class ScoreTable:
    """A table: the models of a group, by window and then in order of occurrence.

    `average_improvement` is the row `Avg Improv.` in %, `None` with fewer than two models with a
    line "ours". `notes` explain every missing value.
    """

    group: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    average_improvement: Values | None
    notes: tuple[str, ...]

    @property
    def words(self) -> tuple[str, str]:
        """What its policies are called, one and several: τ, or repairs if some are not."""
        return word_of(policy for block in self.blocks for policy in block.policies)

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of all columns in the order of the table, `Avg` last."""
        return (*(column.name for column in self.columns), AVERAGE)


def temperature(policy: str) -> float | None:
    """Return the τ of a constant policy, `None` for any other policy."""
    try:
        value = float(policy)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def is_candidate(policy: str) -> bool:
    """Return whether a repair has a constant τ, 1 included; the best τ is one of these."""
    return temperature(parts_of(policy).get("tau", BASELINE)) is not None


def distance(policy: str) -> tuple[int, float]:
    """Return how far a candidate is from the baseline: by its other parts, then by its τ."""
    parts = parts_of(policy)
    tau = temperature(parts.get("tau", BASELINE))
    return len(parts.keys() - {"tau"}), math.inf if tau is None else abs(tau - 1)


def kinds_of(policies: Iterable[str]) -> frozenset[frozenset[str]]:
    """Return the kinds of repairs among policies: the keys of their parts, without the baseline."""
    return frozenset(frozenset(parts) for policy in policies if (parts := parts_of(policy)))


def has_several_kinds(policies: Iterable[str]) -> bool:
    """Return whether repairs of several kinds are compared: all of them are candidates then."""
    return len(kinds_of(policies)) > 1


def word_of(policies: Iterable[str]) -> tuple[str, str]:
    """Return what policies are called, one and several: τ, or repairs if some are not."""
    only_tau = all(parts_of(policy).keys() <= {"tau"} for policy in policies)
    return ("τ", "τ") if only_tau else ("repair", "repairs")


def policy_column(policies: Iterable[str]) -> tuple[str, Callable[[str], str]]:
    """Return the heading of a column of policies, and what shows one: τ and 0.9, or their names."""
    word, _ = word_of(policies)
    return (word, str) if word == "τ" else (word.capitalize(), label_of)


def ordered_policies(policies: Iterable[str]) -> tuple[str, ...]:
    """Return distinct policies: constants from large τ to small, other policies of τ by name, and
    each combination of other parts by itself and from large τ to small.
    """

    def place(policy: str) -> tuple[Any, ...]:
        parts = parts_of(policy)
        tau = temperature(named := parts.pop("tau", BASELINE))
        digits = (re.split(r"(\d+)", f"{key}={parts[key]}") for key in sorted(parts))
        natural = [[int(one) if one.isdigit() else one for one in some] for some in digits]
        return (natural, tau is None, 0.0 if tau is None else -tau, named)

    return tuple(sorted(set(policies), key=place))


def relative_improvement(ours: float | None, raw: float | None) -> float | None:
    """Return 100 · (ours − raw) / raw (paper, Table 1); `None` if one is missing, or raw ≤ 0.

    A correlation can be 0 or negative, and a fraction of that has no meaning.
    """
    if ours is None or raw is None or raw <= 0:
        return None
    return 100 * (ours - raw) / raw


@dataclass(frozen=True)
class Cell:
    """A cell's score as a fraction (NaN if missing), and the conditions of its measurement."""

    score: float
    parts: frozenset[tuple[str, str]]
    conditions: Mapping[str, str]


Cells = Mapping[str, Mapping[str, Cell]]  # by policy, then by task
