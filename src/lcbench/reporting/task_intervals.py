"""Computes intervals and p-values of a task's cells compared with its baseline, over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from lcbench.reporting.notes import listed
from lcbench.reporting.score_table import BASELINE
from lcbench.reporting.statistics import Uncertainty
from lcbench.uncertainty import power
from lcbench.uncertainty.bootstrap import LEVEL, Resampled, interval, resample
from lcbench.uncertainty.clusters import families, link
from lcbench.uncertainty.items import (
    NO_ITEMS,
    ROUNDING,
    ItemShares,
    Samples,
    TaskSamples,
    paired,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

MOST_LOST = -100.0
"""The lowest possible end of an interval in %: a score that is never negative cannot lose more.

Cutting a confidence interval at the possible values does not change how often it covers the true
value. With few items, intervals based on Student's t would otherwise extend far beyond them."""


def possible(low: float, high: float, *, points: bool = False) -> tuple[float, float]:
    """Return an interval limited to possible values, for a score that is never below 0.

    Args:
        low: lower end.
        high: upper end.
        points: whether it is of a difference of scores × 100, which is at most 100 either way.
    """
    if points:
        return max(low, -100.0), min(high, 100.0)
    return max(low, MOST_LOST), max(high, MOST_LOST)


@dataclass(frozen=True)
class TaskOutcome:
    """The results for one task.

    Attributes:
        pairs: uncertainty of improvements, by label and policy.
        draws: draws of scores as fractions, by label and policy, shape (resamples,).
        units: name of the units, their number, and number of clusters, by label and policy.
        unknown: reason for a missing result, by label and policy.
        signed: whether the task's score can be negative; None: its items are unknown.
    """

    pairs: Mapping[tuple[str, str], Uncertainty]
    draws: Mapping[tuple[str, str], NDArray[np.float32]]
    units: Mapping[tuple[str, str], tuple[str, int, int]]
    unknown: Mapping[tuple[str, str], str]
    signed: bool | None = None


_NOT_ABOVE_ZERO = "the baseline is not above 0"
_SINGLE = "a single item says nothing of others"
_ONE_CLUSTER = "all items are linked by texts that they share: a single unit says nothing of others"
_OTHER_SCORE = "the table's score is not that of all items, as where it takes some subsets only"
_OTHER_ITEMS = "the items are not those of the baseline"
_OTHER_EXPERIMENTS = "the experiments are not as many as the baseline's"
OF_BASELINE = "of the baseline, "

LEAVES_OUT = "the interval leaves out"
OVER_AS_IT_IS = "the baseline is not significantly different from 0 and taken as fixed"


@dataclass(frozen=True)
class TaskItems:
    """The items of a task's cells.

    Attributes:
        samples: items of each cell, by label and policy; None: unknown.
        why: reasons for unknown items, by label and policy.
        groups: cells with the same items.
        shares: texts that the items of each group share with others.
    """

    samples: Mapping[tuple[str, str], Samples | None]
    why: Mapping[tuple[str, str], str]
    groups: Sequence[Sequence[tuple[str, str]]]
    shares: Sequence[ItemShares]


@dataclass(frozen=True)
class LinkedTasks:
    """The clusters of the items of all tasks of a table.

    Attributes:
        clusters: cluster of each item, by task, group of cells, and part of their score.
        families: name of each task's family of tasks that share items, or its own name.
        notes: notes on unknown links.
    """

    clusters: Mapping[str, Sequence[Sequence[NDArray[np.uint64]]]]
    families: Mapping[str, str]
    notes: tuple[str, ...]


def task_items(
    asked: Mapping[tuple[str, str], tuple[float, CellFiles]], read: TaskSamples
) -> TaskItems:
    """Return the items of the cells of one task, grouped for one table.

    Args:
        asked: the table's score as a fraction and the cell's files, by label and policy.
        read: samples of the task's cells.
    """
    files = {place: found for place, (_, found) in asked.items()}
    samples = {place: read.samples[found] for place, found in files.items()}
    places = list(asked)
    groups = [[places[number] for number in group] for group in paired(list(samples.values()))]
    return TaskItems(
        samples,
        {place: read.why[found] for place, found in files.items() if found in read.why},
        groups,
        [read.shares(files[group[0]]) for group in groups],
    )


def link_tasks(items: Mapping[str, TaskItems]) -> LinkedTasks:
    """Return the clusters of all items of a table, linked across tasks."""
    parts = [part for of in items.values() for shares in of.shares for part in shares.parts]
    linked = iter(link(parts))
    clusters = {
        task: [[next(linked) for _ in shares.parts] for shares in of.shares]
        for task, of in items.items()
    }
    known = {
        task: [one for group in of_task for one in group]
        for task, of_task in clusters.items()
        if of_task
    }
    notes = []
    older = [task for task, of in items.items() if any(one.are_older for one in of.shares)]
    if older:
        notes.append(
            f"items of {listed(older)} do not say which texts they share, as those of an older "
            "version: queries of the same relevant documents count as one by the ids, and nothing "
            "is shared with other tasks"
        )
    for task, of in items.items():
        if lacking := max((one.lacking for one in of.shares), default=0):
            notes.append(
                f"{lacking} items of {task} do not say what they share: taken by themselves"
            )
    return LinkedTasks(clusters, families(known), tuple(notes))


def task_outcome(
    task: str,
    scores: Mapping[tuple[str, str], float],
    items: TaskItems,
    clusters: Sequence[Sequence[NDArray[np.uint64]]],
    resamples: int,
    seed: int,
    *,
    points: bool = False,
) -> TaskOutcome:
    """Resample the cells of one task, those with the same items together.

    Args:
        task: its name.
        scores: the table's score as a fraction, by label and policy.
        items: result of `task_items`.
        clusters: clusters from `link_tasks`, for each group of cells.
        resamples: number of samples.
        seed: seed of all draws.
        points: whether pairs are differences of scores × 100, not relative improvements.
    """
    pairs: dict[tuple[str, str], Uncertainty] = {}
    draws: dict[tuple[str, str], NDArray[np.float32]] = {}
    units: dict[tuple[str, str], tuple[str, int, int]] = {}
    # Reasons for missing results, by cell.
    why = {place: items.why.get(place, "") for place in scores}
    unknown: dict[tuple[str, str], str] = {}
    signed: bool | None = None
    for group, of_group in zip(items.groups, clusters, strict=True):
        cells = [one for place in group if (one := items.samples[place]) is not None]
        drawn = resample(cells, resamples, seed, task, of_group)
        if drawn is None:
            single = all(len(one) == 1 for one in of_group)
            why.update(dict.fromkeys(group, _SINGLE if single else _ONE_CLUSTER))
            continue
        signed = bool(signed) or drawn.signed
        right = {}
        for place, cell in enumerate(group):
            # A table restricted to some subsets has other scores than the whole task.
            if abs(drawn.scores[place] - scores[cell]) <= 2 * ROUNDING:
                right[cell] = place
            else:
                why[cell] = _OTHER_SCORE
        # Cells with the same values share their draws.
        columns = {
            drawn.places[place]: np.ascontiguousarray(drawn.draws[:, place])
            for place in right.values()
        }
        for (label, policy), place in right.items():
            draws[label, policy] = columns[drawn.places[place]]
            units[label, policy] = drawn.units, drawn.count, drawn.clusters
            if policy != BASELINE and (label, BASELINE) in right:
                found = of_pair(drawn, right[label, BASELINE], place, points=points)
                if found is None:
                    unknown[label, policy] = _NOT_ABOVE_ZERO
                else:
                    pairs[label, policy] = found
    for cell in scores:
        if cell[1] != BASELINE and cell not in pairs and cell not in unknown:
            raw = cell[0], BASELINE
            unknown[cell] = why[cell] or _unlike_baseline(
                items.samples[cell], items.samples.get(raw), why.get(raw, NO_ITEMS)
            )
    return TaskOutcome(pairs, draws, units, unknown, signed)


def _unlike_baseline(own: Samples | None, baseline: Samples | None, why: str) -> str:
    """Return why a cell cannot be paired with its baseline, which may itself lack items."""
    if why or own is None or baseline is None:
        return OF_BASELINE + (why or NO_ITEMS)
    same = own.keys() == baseline.keys() and all(
        own[part].keys == baseline[part].keys for part in own
    )
    return _OTHER_EXPERIMENTS if same else _OTHER_ITEMS


def of_pair(drawn: Resampled, raw: int, ours: int, *, points: bool = False) -> Uncertainty | None:
    """Return the uncertainty of an improvement; None if the baseline is not above 0.

    Args:
        drawn: samples of the cells.
        raw: place of the baseline.
        ours: place of the cell that is compared with it.
        points: whether it is that of the difference of scores × 100, which needs no baseline above
            0.
    """
    before, after = float(drawn.scores[raw]), float(drawn.scores[ours])
    if before <= 0 and not points:
        return None
    draws = drawn.draws[:, [raw, ours]].astype(np.float64).T
    unit = 1.0 if points else before
    value, notes = 100 * (after - before) / unit, []
    for fixed in (True,) if points else (False, True):
        gradient = np.zeros(len(drawn.scores))
        gradient[raw] = -100 / unit if fixed else -100 * after / before**2
        gradient[ours] = 100 / unit
        improvements = relative_changes(draws[0], draws[1], over=unit if fixed else None)
        (reaching, degrees), deviation = drawn.stretch(gradient), drawn.deviation(gradient)
        low, high = interval(improvements, reaching, value, deviation)
        if np.isfinite([low, high]).all():
            break
        notes.append(OVER_AS_IT_IS)
    if drawn.still:
        each = "each of a single item" if len(drawn.still) > 1 else "of a single item"
        notes.append(f"{LEAVES_OUT} the sampling noise of {listed(drawn.still)}, {each}")
    if not drawn.signed:
        low, high = possible(low, high, points=points)
    error = drawn.error(gradient)
    critical, critical_90 = (
        float(stats.t.ppf((1 + level) / 2, degrees)) for level in (LEVEL, power.LEVEL)
    )
    differences = drawn.differences(raw, ours)
    up, down = drawn.changes(differences)
    return Uncertainty(
        low,
        high,
        p=drawn.p_value(raw, ours, differences),
        units=drawn.units,
        count=drawn.count,
        clusters=drawn.clusters,
        grouped=drawn.grouped,
        note="; ".join(notes),
        error=error,
        drawn=deviation,
        critical=critical,
        bound=power.bound(value, error, critical_90),
        up=up,
        down=down,
    )


def relative_changes(
    raw: NDArray[np.float64], ours: NDArray[np.float64], over: float | None = None
) -> NDArray[np.float64]:
    """Return relative improvements in %; infinite over a baseline that is not above 0.

    Args:
        raw: shape (resamples,).
        ours: the same.
        over: divisor of the difference; None: `raw`.
    """
    if over is not None:
        return 100 * (ours - raw) / over
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 100 * (ours - raw) / raw
    return np.where(raw > 0, found, np.copysign(np.inf, ours - raw))
