"""Types for the uncertainty of a table: intervals, p-values, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty import power

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 0

SIGNIFICANCE = 0.05
"""What p is at most where an improvement is significant."""

LEAST_CHANGED = 10
"""Of fewer units that changed an interval has no mark: that of nDCG@10 of 24 queries of which 15 %
change covers the truth in 65 to 73 of 100 cases."""

CellKey = tuple[str, str, str]  # label of the block, policy, task


@dataclass(frozen=True)
class Uncertainty:
    """The interval and test of a relative improvement; all but p in %.

    Attributes:
        low: lower end of its 95 % interval.
        high: upper end.
        p: of a two-sided paired permutation test; None where there is none (means of tasks).
        adjusted: p by Holm's correction over all pairs of the table; None as for p.
        units: what was resampled: queries, pairs, texts, sets, documents; of a mean over columns of
            several tasks `TASKS`.
        count: how many of them (of a mean over columns of several tasks: how many tasks).
        note: what the interval leaves out; empty where it is nothing.
        alone: the ends of the interval of this τ by itself, where `low` and `high` are those of a
            band over all that were tried; else None.
        tried: how many policies the band is over.
        error: the standard error, in percentage points of the improvement; None: unknown.
        drawn: the standard deviation of its draws, which for few units, and for classifications,
            is another; None: unknown.
        critical: of the interval, in standard errors.
        bound: the size that the improvement does not exceed, by the 90 % interval; None: unknown.
        up: how many independent units score higher than in the baseline; None: unknown, or several
            tasks.
        down: how many score lower.
        clusters: how many independent ones the units make; 0: as many as units.
        grouped: what the clusters are, where they are fewer than the units.
    """

    low: float
    high: float
    p: float | None = None
    adjusted: float | None = None
    units: str = "items"
    count: int = 0
    note: str = ""
    alone: tuple[float, float] | None = None
    tried: int = 1
    error: float | None = None
    drawn: float | None = None
    critical: float | None = None
    bound: float | None = None
    up: int | None = None
    down: int | None = None
    clusters: int = 0
    grouped: str = "groups"

    @property
    def changed(self) -> int | None:
        """The number of units that differ from the baseline; None if unknown."""
        return None if self.up is None or self.down is None else self.up + self.down

    @property
    def is_too_few(self) -> bool:
        """Whether too few units changed for a conclusion about others from the interval or p."""
        return self.changed is not None and 0 < self.changed < LEAST_CHANGED

    @property
    def detectable(self) -> float | None:
        """The smallest true effect that would probably be significant (`power`), or None."""
        if self.error is None or self.critical is None:
            return None
        return power.detectable(self.error, self.critical)

    @property
    def independent(self) -> int:
        """The number of independent units."""
        return self.clusters or self.count

    @property
    def sample(self) -> str:
        """The resampled units in words: "1,527 queries in 197 documents"; empty if unknown."""
        if not self.count:
            return ""
        inside = f" in {self.clusters:,} {self.grouped}" if 0 < self.clusters < self.count else ""
        return f"{self.count:,} {self.units}{inside}"

    @property
    def excludes_zero(self) -> bool:
        """Whether the improvement is significant, by its interval and, if it has one, by p.

        Not where fewer than `LEAST_CHANGED` units changed: the two would contradict each other.
        """
        return (
            (self.low > 0 or self.high < 0)
            and (self.p is None or self.p <= SIGNIFICANCE)
            and not self.is_too_few
        )


@dataclass(frozen=True)
class Draws:
    """Bootstrap samples of the scores of a table's cells.

    Attributes:
        scores: as fractions, by label of the block, policy and task, shape (resamples,); of a cell
            whose items are unknown its score, in each.
        cells: of the cells whose items are known: the task's units, how many, and how many
            independent clusters they make.
        tasks: by column, which of its tasks are in each sample, shape (resamples, tasks), drawn
            with replacement.
        picks: by column, which of its samples each of them gives; the same shape.
        signed: tasks whose scores can be below 0: correlations.
        ratios: of a cell's improvement the variance without bias by that of its draws.
        families: by task the name of its family: tasks that share items; of others their own.
    """

    scores: Mapping[CellKey, NDArray[np.float32]]
    cells: Mapping[CellKey, tuple[str, int, int]]
    tasks: Mapping[str, NDArray[np.int64]]
    picks: Mapping[str, NDArray[np.int64]]
    signed: frozenset[str] = frozenset()
    ratios: Mapping[CellKey, float] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TableStatistics:
    """The uncertainty of a table's entries; missing entries are unknown.

    Attributes:
        cells: by label of the block, policy and task.
        means: by label, policy and column, `Avg` among them.
        average: of `Avg Improv.`, by column.
        resamples: bootstrap samples.
        seed: of all that is drawn.
        notes: what is unknown, and why.
        draws: what the intervals of means come from; None: of nothing.
    """

    cells: Mapping[tuple[str, str, str], Uncertainty]
    means: Mapping[tuple[str, str, str], Uncertainty]
    average: Mapping[str, Uncertainty]
    resamples: int = RESAMPLES
    seed: int = SEED
    notes: tuple[str, ...] = ()
    draws: Draws | None = field(default=None, repr=False, compare=False)


NOTHING = TableStatistics({}, {}, {})
"""Of a table of which nothing is known."""
