"""Computes intervals of mean improvements over columns, for a single τ and for the best of several.

Takes the bootstrap draws of a table's cells (`intervals.analyse`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from lcbench.reporting.notes import candidate_policies, listed
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, ScoreTable
from lcbench.reporting.statistics import CellKey, Draws, Uncertainty
from lcbench.reporting.task_intervals import (
    LEAVES_OUT,
    OVER_AS_IT_IS,
    possible,
    relative_changes,
)
from lcbench.tasks.suites import averaged_columns
from lcbench.uncertainty import power
from lcbench.uncertainty.bootstrap import LEVEL, interval
from lcbench.uncertainty.simultaneous import critical_values, critical_values_of_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

TASKS = "tasks and their items"
"""The units of a mean over several tasks."""

_NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))
_NORMAL_90 = float(stats.norm.ppf((1 + power.LEVEL) / 2))

# What a difference of two means is divided by: the baseline, which varies with the samples; the
# baseline as observed; or nothing, for points.
_Over = Literal["baseline", "fixed baseline", "points"]

Picks = Mapping[str, Mapping[str, str]]
"""Policy of each task of the columns, by label of the block."""


@dataclass(frozen=True)
class Band:
    """A simultaneous confidence band over several improvements.

    Attributes:
        critical: half-width of the 95 % band, in standard errors of normal estimates.
        critical_90: half-width of the 90 % band, used to test for equivalence.
        tried: number of improvements in the band.
    """

    critical: float
    critical_90: float
    tried: int


@dataclass(frozen=True)
class MeanImprovement:
    """The mean relative improvement of models over columns, in %, with its sources of variation.

    Attributes:
        value: the improvement.
        drawn: improvement in each bootstrap sample, shape (resamples,).
        linear: the same to first order, which is always finite.
        variance: unbiased estimate of its variance.
        degrees: degrees of freedom of the variance.
        units: units that it is a mean over.
        count: number of units.
        note: sources of variation that are left out.
        signed: whether any of its scores can be negative.
        points: whether it is a difference of scores × 100 instead.
    """

    value: float
    drawn: NDArray[np.float64]
    linear: NDArray[np.float64]
    variance: float
    degrees: float
    units: str
    count: int
    note: str = ""
    signed: bool = False
    points: bool = False

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.variance))

    def alone(self) -> tuple[float, float]:
        """Return the 95 % interval of this improvement as if no other τ had been tried.

        The percentiles of the draws are widened to the width of a t interval with the unbiased
        variance.
        """
        deviation = float(self.linear.std())
        reaching = _NORMAL
        if deviation > 0 and self.variance > 0:
            reaching = self.critical(_NORMAL) * self.error / deviation
        return self.possible(*interval(self.drawn, reaching, self.value, deviation))

    def critical(self, normal: float, level: float = LEVEL) -> float:
        """Return a critical value of the normal distribution, scaled to that of Student's t."""
        exact = float(stats.t.ppf((1 + level) / 2, self.degrees))
        return normal * exact / float(stats.norm.ppf((1 + level) / 2))

    def uncertainty(self, band: Band | None = None) -> Uncertainty:
        """Return the uncertainty of the improvement, accounting for the other τ tried.

        Args:
            band: band over all τ tried; None if only this τ was tried.
        """
        low, high = alone = self.alone()
        if band is not None:
            half = self.critical(band.critical) * self.error
            low, high = self.possible(self.value - half, self.value + half)
        return Uncertainty(
            low,
            high,
            units=self.units,
            count=self.count,
            note=self.note,
            alone=None if band is None else alone,
            tried=1 if band is None else band.tried,
            error=self.error,
            critical=self.critical(_NORMAL if band is None else band.critical),
            bound=power.bound(
                self.value,
                self.error,
                self.critical(_NORMAL_90 if band is None else band.critical_90, power.LEVEL),
            ),
        )

    def possible(self, low: float, high: float) -> tuple[float, float]:
        """Return an interval limited to values that such scores can reach."""
        return (low, high) if self.signed else possible(low, high, points=self.points)


def mean_improvement(
    table: ScoreTable, draws: Draws, picks: Picks, columns: Sequence[str], *, points: bool = False
) -> MeanImprovement | None:
    """Return the mean relative improvement of models over columns, with its sources of variation.

    A column of several tasks varies with its tasks: the variance of its mean is the variance
    between tasks, which includes the noise of their items, and is at least the variance due to the
    items alone (the modified Hartung-Knapp method of random-effects meta-analysis; Röver, Knapp and
    Friede 2015). Tasks of a family (`Draws.families`) are not independent, so families are the
    units. A column of a single task contributes the noise of its items only, as the note says;
    such columns covary if they share items.

    If a baseline is not significantly different from 0, an end of the interval would be infinite.
    Differences are then divided by the observed baseline, treated as fixed, and the note says so.

    Args:
        table: the table.
        draws: draws of its cells.
        picks: policy of each task of the columns, by label of the block.
        columns: names of the columns whose mean is compared.
        points: whether it is the difference of scores × 100, not the relative improvement.

    Returns:
        None if a score is missing, a baseline is not above 0, or the items of a column's only task
        are unknown, so that its variation is unknown.
    """
    if unknown_alone(table, draws, picks, columns):
        return None
    found = _mean_improvement(table, draws, picks, columns, "points" if points else "baseline")
    if found is None or np.isfinite(found.alone()).all():
        return found
    return _mean_improvement(table, draws, picks, columns, "fixed baseline")


def of_table(
    table: ScoreTable,
    draws: Draws,
    cells: Mapping[CellKey, Uncertainty],
    *,
    together: bool = False,
) -> tuple[dict[tuple[str, str, str], Uncertainty], dict[str, Uncertainty]]:
    """Return the uncertainty of a table's means, and of its row `Avg Improv.`.

    If several τ were tried, the intervals of a model's means form a band over all of them
    (`simultaneous`), so that they also hold for the best τ. The constants, from which the best τ is
    chosen, are one family; other policies are another, unless all are compared together.

    Args:
        table: the table.
        draws: draws of its cells.
        cells: uncertainty of its cells.
        together: whether all policies are one family.
    """
    families = [
        [(block.label, policy) for policy in family]
        for block in table.blocks
        for family in _families(block, together)
    ]
    means, linear = of_families(table, draws, cells, families)
    return means, _over_models(table, draws, columns_of(table), linear, together)


def columns_of(table: ScoreTable) -> dict[str, tuple[str, ...]]:
    """Return the columns that each mean of a table is over: each by itself, and those of `Avg`."""
    names = [column.name for column in table.columns]
    return {**{name: (name,) for name in names}, AVERAGE: tuple(averaged_columns(names))}


def of_families(
    table: ScoreTable,
    draws: Draws,
    cells: Mapping[CellKey, Uncertainty],
    families: Iterable[Sequence[tuple[str, str]]],
    *,
    points: bool = False,
) -> tuple[dict[CellKey, Uncertainty], dict[CellKey, NDArray[np.float64]]]:
    """Return the uncertainty of means, as bands over families of what was tried.

    Args:
        table: the table.
        draws: draws of its cells.
        cells: uncertainty of its cells.
        families: labels and policies that are compared together.
        points: whether means are differences of scores × 100, not relative improvements.

    Returns:
        The uncertainty, and `MeanImprovement.linear`, by label, policy and column.
    """
    tasks_of = {column.name: column.tasks for column in table.columns}
    over = columns_of(table)
    # Avg, too, where the table has one task.
    alone = {
        name: tasks[0]
        for name, columns in over.items()
        if len(tasks := [task for column in columns for task in tasks_of[column]]) == 1
    }
    blocks = {block.label: block for block in table.blocks}
    means: dict[CellKey, Uncertainty] = {}
    linear: dict[CellKey, NDArray[np.float64]] = {}
    for family in families:
        for name, columns in over.items():
            known = {
                (label, policy): mean
                for label, policy in family
                for picks in [{label: everywhere(blocks[label], policy)}]
                if (mean := mean_improvement(table, draws, picks, columns, points=points))
                is not None
            }
            band = _band(list(known.values()))
            for (label, policy), mean in known.items():
                linear[label, policy, name] = mean.linear
                if name not in alone:
                    means[label, policy, name] = mean.uncertainty(band)
                elif own := cells.get((label, policy, alone[name])):
                    means[label, policy, name] = _of_task(own, mean, band)
    return means, linear


def unknown(draws: Draws, picks: Picks, tasks_of: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the tasks of columns in which some compared cell has no variation."""
    return [
        task
        for tasks in tasks_of.values()
        for task in tasks
        if any(
            (label, policy, task) not in draws.cells
            for label, policies in picks.items()
            for policy in (BASELINE, policies.get(task, BASELINE))
        )
    ]


def unknown_alone(
    table: ScoreTable, draws: Draws, picks: Picks, columns: Sequence[str]
) -> list[str]:
    """Return the tasks that are alone in their column and have no variation."""
    return unknown(
        draws,
        picks,
        {
            column.name: column.tasks
            for column in table.columns
            if column.name in columns and len(column.tasks) == 1
        },
    )


def everywhere(block: Block, policy: str) -> dict[str, str]:
    """Return the same policy for each task."""
    return {task.task: policy for task in block.tasks}


def _families(block: Block, together: bool) -> list[list[str]]:
    """Return the families of policies that were tried: constants, and all others; or one of all."""
    tried = [one for one in block.policies if one != BASELINE]
    candidates = tried if together else candidate_policies(block.tasks, block.policies)
    others = [one for one in tried if one not in candidates]
    return [family for family in (candidates, others) if family]


def _band(tried: Sequence[MeanImprovement]) -> Band | None:
    """Return the band over several improvements; None if there is only one."""
    if len(tried) < 2:
        return None
    draws = np.stack([mean.linear for mean in tried], axis=1)
    wide, narrow = critical_values(draws, LEVEL, power.LEVEL)
    return Band(wide, narrow, tried=len(tried))


def _of_task(own: Uncertainty, mean: MeanImprovement, band: Band | None) -> Uncertainty:
    """Return the uncertainty of a column with one task: that of the task, widened for the τ tried.

    The test of a task is for one τ, and is reported with the task only.
    """
    own = replace(own, p=None, adjusted=None)
    if band is None:
        return own
    error, stretched = own.error, own.critical
    if error is None or stretched is None:
        error, stretched = mean.error, mean.critical(_NORMAL)
    critical = band.critical * stretched / _NORMAL
    low, high = mean.possible(mean.value - critical * error, mean.value + critical * error)
    return replace(
        own,
        low=low,
        high=high,
        alone=(own.low, own.high),
        tried=band.tried,
        error=error,
        critical=critical,
        bound=power.bound(mean.value, error, band.critical_90 * stretched / _NORMAL),
    )


def _over_models(
    table: ScoreTable,
    draws: Draws,
    over: Mapping[str, Sequence[str]],
    linear: Mapping[tuple[str, str, str], NDArray[np.float64]],
    together: bool,
) -> dict[str, Uncertainty]:
    """Return the uncertainty of the row `Avg Improv.`, with each model at its best τ.

    Args:
        table: the table.
        draws: draws of its cells.
        over: columns of each mean.
        linear: `MeanImprovement.linear` by label, policy and mean.
        together: whether all policies are one family.
    """
    blocks = [block for block in table.blocks if block.best is not None]
    best = {block.label: everywhere(block, str(block.best)) for block in blocks}
    found: dict[str, Uncertainty] = {}
    for name, value in (table.average_improvement or {}).items():
        mean = None if value is None else mean_improvement(table, draws, best, over[name])
        if mean is None:
            continue
        tried = []
        for block in blocks:
            family = next(one for one in _families(block, together) if block.best in one)
            keys = [(block.label, policy, name) for policy in family]
            tried.append(np.stack([linear[key] for key in keys if key in linear], axis=1))
        band = None
        if any(of_model.shape[1] > 1 for of_model in tried):
            wide, narrow = critical_values_of_means(tried, LEVEL, power.LEVEL)
            band = Band(wide, narrow, tried=max(of_model.shape[1] for of_model in tried))
        found[name] = mean.uncertainty(band)
    return found


def _mean_improvement(
    table: ScoreTable, draws: Draws, picks: Picks, columns: Sequence[str], over: _Over
) -> MeanImprovement | None:
    """Compute `mean_improvement`, as a share of baselines that vary or are fixed, or in points."""
    points, fixed = over == "points", over == "fixed baseline"
    tasks_of = {column.name: column.tasks for column in table.columns if column.name in columns}
    blocks = [block for block in table.blocks if block.label in picks]
    drawn: list[NDArray[np.float64]] = []
    shares: list[float] = []
    effects: list[_Effects] = []
    for block in blocks:
        scores = {task.task: task.scores for task in block.tasks}
        policies = picks[block.label]
        values: dict[str, NDArray[np.float64]] = {}
        for name, tasks in tasks_of.items():
            pairs = [(scores[task][BASELINE], scores[task][policies[task]]) for task in tasks]
            if any(score is None for pair in pairs for score in pair):
                return None
            values[name] = np.array(pairs, dtype=np.float64) / 100
        raw, ours = np.mean([pairs.mean(axis=0) for pairs in values.values()], axis=0)
        if raw <= 0 and not points:
            return None
        unit = 1.0 if points else float(raw)
        slope = -ours / raw if over == "baseline" else -1.0
        gradient = np.array([slope, 1.0]) * 100 / unit / len(tasks_of)
        own = _Effects.of(draws, block.label, policies, tasks_of, values, gradient)
        effects.append(own)
        means = np.mean(list(own.samples.values()), axis=0)
        drawn.append(
            relative_changes(means[0], means[1], over=None if over == "baseline" else unit)
        )
        shares.append(float(100 * (ours - raw) / unit))
    by_column = [np.mean([one.linear[name] for one in effects], axis=0) for name in tasks_of]
    variance, degrees = _variance(draws, tasks_of, effects, blocks[0].label)
    units, count = TASKS, sum(len(tasks) for tasks in tasks_of.values())
    if all(len(tasks) == 1 for tasks in tasks_of.values()):
        items = [draws.cells[blocks[0].label, BASELINE, tasks[0]] for tasks in tasks_of.values()]
        kinds = {kind for kind, *_ in items}
        units, count = (
            kinds.pop() if len(kinds) == 1 else "items",
            sum(size for _, size, _ in items),
        )
    return MeanImprovement(
        value=float(np.mean(shares)),
        drawn=np.mean(drawn, axis=0),
        linear=np.sum(by_column, axis=0),
        variance=variance,
        degrees=degrees,
        units=units,
        count=count,
        note=_note(tasks_of, draws.families, unknown(draws, picks, tasks_of), fixed),
        signed=any(task in draws.signed for tasks in tasks_of.values() for task in tasks),
        points=points,
    )


@dataclass(frozen=True)
class _Effects:
    """The contributions of each column's tasks to the improvement of one model.

    Attributes:
        values: contribution of each task by column, shape (tasks,); tasks are averaged, columns
            are added.
        items: contribution of each task in each sample of its items by column, shape (tasks,
            resamples).
        samples: scores (baseline, policy) in each sample by column, shape (2, resamples).
        linear: contribution of each column's samples to first order, shape (resamples,).
        ratios: `Draws.ratios` of each task by column, shape (tasks,).
    """

    values: Mapping[str, NDArray[np.float64]]
    items: Mapping[str, NDArray[np.float64]]
    samples: Mapping[str, NDArray[np.float64]]
    linear: Mapping[str, NDArray[np.float64]]
    ratios: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(
        cls,
        draws: Draws,
        label: str,
        policies: Mapping[str, str],
        tasks_of: Mapping[str, Sequence[str]],
        scores: Mapping[str, NDArray[np.float64]],
        gradient: NDArray[np.float64],
    ) -> _Effects:
        """Return the effects of a model.

        Args:
            draws: draws of the table's cells.
            label: label of the model.
            policies: policy of each task.
            tasks_of: tasks of each column.
            scores: scores of each task at the baseline and at its policy, by column.
            gradient: gradient of the improvement with respect to the column's two means.
        """
        items, samples, linear = {}, {}, {}
        for name, tasks in tasks_of.items():
            of_tasks = np.stack(
                [
                    [draws.scores[label, BASELINE, task] for task in tasks],
                    [draws.scores[label, policies[task], task] for task in tasks],
                ]
            )
            drawn = of_tasks[:, draws.tasks[name].T, draws.picks[name].T]
            samples[name] = drawn.mean(axis=1, dtype=np.float64)
            linear[name] = (gradient[:, None] * samples[name]).sum(axis=0)
            items[name] = np.einsum("p,ptr->tr", gradient, of_tasks.astype(np.float64))
        # Not a matrix product, whose rounding leaves 1e-14 where scores are equal.
        values = {name: (pairs * gradient).sum(axis=1) for name, pairs in scores.items()}
        ratios = {
            name: np.array([draws.ratios.get((label, policies[task], task), 1.0) for task in tasks])
            for name, tasks in tasks_of.items()
        }
        return cls(values, items, samples, linear, ratios)


def _variance(
    draws: Draws, tasks_of: Mapping[str, Sequence[str]], effects: Sequence[_Effects], label: str
) -> tuple[float, float]:
    """Return the unbiased variance of a sum of column means, and its degrees of freedom.

    The degrees of freedom are Satterthwaite's, for columns as if they were independent. A column
    whose tasks are one family varies like a single task, with its items. Columns that share items
    covary: twice the covariance of their items' contributions is added.
    """
    variances, degrees = [], []
    items = {name: np.mean([one.items[name] for one in effects], axis=0) for name in tasks_of}
    for name, tasks in tasks_of.items():
        ratios = np.mean([one.ratios[name] for one in effects], axis=0)
        noise = items[name].var(axis=1) * ratios
        if len(tasks) == 1:
            *_, count = draws.cells[label, BASELINE, tasks[0]]
            variances.append(float(noise[0]))
            degrees.append(count - 1)
            continue
        values = np.mean([one.values[name] for one in effects], axis=0)
        families = [draws.families.get(task, task) for task in tasks]
        names, places = np.unique(families, return_inverse=True)
        if len(names) == 1 and all((label, BASELINE, task) in draws.cells for task in tasks):
            # One family says nothing about other tasks: only its items vary.
            counts = np.array([draws.cells[label, BASELINE, task][-1] for task in tasks])
            apart = noise / len(tasks) ** 2
            freedom = apart.sum() ** 2 / max(float((apart**2 / (counts - 1)).sum()), 1e-300)
            variances.append(max(float(apart.sum()), float(items[name].mean(axis=0).var())))
            degrees.append(max(freedom, 1.0))
            continue
        sums = np.bincount(places, weights=values - values.mean())
        between = float(sums @ sums) * len(names) / max(len(names) - 1, 1)
        variances.append(max(between, float(noise.sum())) / len(tasks) ** 2)
        degrees.append(max(len(names) - 1, 1))
    together = sum(
        2 * float(np.cov(items[first].mean(axis=0), items[second].mean(axis=0))[0, 1])
        for place, first in enumerate(tasks_of)
        for second in list(tasks_of)[place + 1 :]
        if {draws.families.get(task, task) for task in tasks_of[first]}
        & {draws.families.get(task, task) for task in tasks_of[second]}
    )
    total = sum(variances)
    if total <= 0:
        return 0.0, float("inf")
    freedom = total**2 / sum(
        one**2 / max(of, 1e-9) for one, of in zip(variances, degrees, strict=True)
    )
    # A negative covariance may reduce the variance, but not below that of any column.
    return max(total + together, max(variances)), freedom


def _note(
    tasks_of: Mapping[str, Sequence[str]],
    families: Mapping[str, str],
    lacking: Sequence[str],
    fixed: bool,
) -> str:
    """Return which sources of variation the interval of a mean over columns leaves out."""
    notes = [OVER_AS_IT_IS] if fixed else []
    alone = [name for name, tasks in tasks_of.items() if len(tasks) == 1]
    sharing = [
        name
        for name, tasks in tasks_of.items()
        if len(tasks) > 1 and len({families.get(task, task) for task in tasks}) == 1
    ]
    between_tasks = f"{LEAVES_OUT} variation between tasks"
    if len(tasks_of) > 1 and len(alone) == len(tasks_of):
        notes.append(f"{between_tasks}: each column has only one")
    else:
        within = []
        if len(tasks_of) > 1 and alone:
            each = " each" if len(alone) > 1 else ""
            within.append(f"in {listed(alone)} (one task{each})")
        if sharing:
            whose = "their" if len(sharing) > 1 else "its"
            within.append(f"in {listed(sharing)} ({whose} tasks share texts)")
        if within:
            notes.append(f"{between_tasks} {' and '.join(within)}")
    if len(lacking) == sum(len(tasks) for tasks in tasks_of.values()):
        notes.append(f"{LEAVES_OUT} the sampling noise of items, none of which are known")
    elif lacking:
        notes.append(
            f"{LEAVES_OUT} the sampling noise of {listed(lacking)}, whose items are not known"
        )
    return "; ".join(notes)
