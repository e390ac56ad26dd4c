"""Types for the uncertainty of a table: intervals, p-values, notes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty import power

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.tuning.options import Across
    from lcbench.tuning.recommend import Advice

RESAMPLES = 10_000
SEED = 0

SIGNIFICANCE = 0.05
"""The significance level: a significant improvement has p at or below it."""

LEAST_CHANGED = 10
"""With fewer changed units no improvement is called significant: for nDCG@10 of 24 queries, 15 % of
which change, 95 % intervals cover the true value in only 65 to 73 % of cases."""

CellKey = tuple[str, str, str]  # label of the block, policy, task


@dataclass(frozen=True)
class Uncertainty:
    """The interval and test of a relative improvement; all but p in %.

    Attributes:
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        p: p-value of a two-sided paired permutation test; None if there is no test (means of
            tasks).
        adjusted: p with Holm's correction over all pairs of the table; None without a test.
        units: resampled units: queries, pairs, texts, sets or documents; `TASKS` for a mean over
            columns of several tasks.
        count: number of units, or of tasks for a mean over columns of several tasks.
        note: sources of variation that the interval leaves out; empty if there are none.
        alone: ends of the interval of this τ by itself, if `low` and `high` are those of a band
            over all τ tried; else None.
        tried: number of policies that the band covers.
        error: standard error, in percentage points of the improvement; None: unknown.
        drawn: standard deviation of the bootstrap draws, which differs from the standard error for
            few units and for classifications; None: unknown.
        critical: half-width of the interval in standard errors; None: unknown.
        bound: size that the improvement does not exceed, by the 90 % interval; None: unknown.
        up: number of independent units that score higher than in the baseline; None: unknown, or a
            mean over several tasks.
        down: number of independent units that score lower.
        clusters: number of independent clusters of units; 0: every unit is independent.
        grouped: name of the clusters, if they are fewer than the units.
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
        """Whether the improvement is significant, by its interval and by p if it has a test.

        If fewer than `LEAST_CHANGED` units changed, it is not: interval and test could disagree.
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
        scores: scores as fractions by label of the block, policy and task, shape (resamples,); a
            cell with unknown items has its score in every sample.
        cells: units, number of units and number of independent clusters of the cells whose items
            are known.
        tasks: indices of each column's tasks in each sample, drawn with replacement, shape
            (resamples, tasks).
        picks: index of the sample of items that each of these tasks uses; the same shape.
        signed: tasks whose scores can be negative (correlations).
        ratios: unbiased variance of a cell's improvement divided by the variance of its draws.
        families: name of each task's family of tasks that share items, or its own name.
    """

    scores: Mapping[CellKey, NDArray[np.float32]]
    cells: Mapping[CellKey, tuple[str, int, int]]
    tasks: Mapping[str, NDArray[np.int64]]
    picks: Mapping[str, NDArray[np.int64]]
    signed: frozenset[str] = frozenset()
    ratios: Mapping[CellKey, float] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recommendation:
    """Which repair of a model to use, if any.

    Attributes:
        label: label of the model in tables.
        model: name of the model.
        revision: its revision.
        window: its window in tokens, or None.
        policies: repairs that were compared, in canonical form, those closest to the baseline
            first.
        tasks: tasks that they were compared on.
        across: what it is cross-validated over.
        advice: the recommendation; its repairs are those of `policies`. None: there is none.
        why: reason why there is none.
        left_out: tasks of the average whose items are not known, so that it is one without them.
    """

    label: str
    model: str
    revision: str
    window: int | None
    policies: tuple[str, ...]
    tasks: tuple[str, ...]
    across: Across
    advice: Advice | None
    why: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def policy(self) -> str | None:
        """The recommended repair in canonical form; None: the model as it is."""
        if self.advice is None or self.advice.chosen is None:
            return None
        return self.policies[self.advice.chosen]


@dataclass(frozen=True)
class TableStatistics:
    """The uncertainty of a table's entries; missing entries are unknown.

    Attributes:
        cells: uncertainty by label of the block, policy and task.
        means: uncertainty by label, policy and column, including `Avg`.
        average: uncertainty of `Avg Improv.` by column.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
        notes: notes on what is unknown, and why.
        draws: bootstrap samples behind the intervals of means; None if there are no intervals.
        recommendations: recommended repair by label, if asked for.
    """

    cells: Mapping[tuple[str, str, str], Uncertainty]
    means: Mapping[tuple[str, str, str], Uncertainty]
    average: Mapping[str, Uncertainty]
    resamples: int = RESAMPLES
    seed: int = SEED
    notes: tuple[str, ...] = ()
    draws: Draws | None = field(default=None, repr=False, compare=False)
    recommendations: Mapping[str, Recommendation] = field(
        default_factory=dict, repr=False, compare=False
    )


NOTHING = TableStatistics({}, {}, {}, resamples=0)
"""The statistics of a table without intervals."""
