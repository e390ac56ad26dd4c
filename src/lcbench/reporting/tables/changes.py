"""Changes of scores relative to the baseline over some items, and their entries in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcbench.reporting.score_table import BASELINE
from lcbench.reporting.statistics import Uncertainty
from lcbench.reporting.table import Entry, improvement
from lcbench.reporting.tables.items_by_length import Items
from lcbench.reporting.task_intervals import possible, relative_changes
from lcbench.uncertainty.correlations import Correlations
from lcbench.uncertainty.sums import Function, Interval, Term, changed, estimates
from lcbench.uncertainty.variation import Grouped

FEWEST_ITEMS = 30
"""With fewer items there is no score: one query would change it by more than 3 of 100 points."""

MISSING_VALUE = Entry("–")

Column = NDArray[Any]
"""Contributions of items to a score, shape (items,), or by training draw, shape (items, draws); the
latter are millions of zeros and ones, stored as int8."""


@dataclass(frozen=True)
class Change:
    """A change relative to the baseline.

    Attributes:
        value: change in %, in percentage points or in ranks; None: undefined.
        ends: ends of its 95 % interval; None: unknown.
        changed: numbers of units that gain and that lose; None: unknown.
    """

    value: float | None
    ends: Interval | None = None
    changed: tuple[int, int] | None = None

    @property
    def uncertainty(self) -> Uncertainty | None:
        """The interval and test of the change; None if unknown."""
        if self.ends is None:
            return None
        up, down = self.changed or (None, None)
        return Uncertainty(*self.ends, up=up, down=down)


NOT_DEFINED = Change(None)


def scores_and_changes(
    items: Items,
    chosen: NDArray[np.bool_],
    policies: Sequence[str],
    resamples: int,
    seed: int,
) -> tuple[dict[str, float | None], dict[str, Change]]:
    """Return the scores × 100 of some of the items by policy, and their relative changes in %.

    They are None for fewer than `FEWEST_ITEMS` items.

    Args:
        items: items of a task and model.
        chosen: mask of the items, shape (items,).
        policies: policies of the table, including the baseline.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.
    """
    rows, columns = additive(items, chosen)
    scores = {
        policy: _finite_or_none(100 * float(columns[policy].mean(dtype=np.float64)))
        if policy in columns
        else None
        for policy in policies
    }
    known = {policy: column for policy, column in columns.items() if scores.get(policy) is not None}
    found: dict[str, Change] = {}
    if BASELINE in known:
        is_signed = items.gold is not None
        found = relative_changes_of(known, items.clusters[rows], is_signed, resamples, seed)
    return scores, {
        policy: found.get(policy, NOT_DEFINED) for policy in policies if policy != BASELINE
    }


def relative_changes_of(
    columns: Mapping[str, Column],
    clusters: NDArray[np.uint64],
    is_signed: bool,
    resamples: int,
    seed: int,
) -> dict[str, Change]:
    """Return the relative change of a mean from that of the baseline in %, by policy.

    If a resampled baseline may be 0, differences are divided by the observed baseline, as in
    Table 1.

    Args:
        columns: contributions of items by policy, shape (items,) or (items, draws).
        clusters: cluster of each item, shape (items,).
        is_signed: whether a score can be negative.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.
    """
    raw, policies = columns[BASELINE], [policy for policy in columns if policy != BASELINE]
    if not policies or len(raw) == 0 or raw.mean() <= 0:
        return {}
    before = float(raw.mean(dtype=np.float64))

    def ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return relative_changes(sums[..., 1:2], sums[..., 2:])

    def over_as_it_is(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(100 * (sums[..., 2:] - sums[..., 1:2]) / sums[..., :1] / before)

    gains = [columns[policy] - raw for policy in policies]
    summed = [np.ones(len(raw)), raw, *(columns[policy] for policy in policies)]
    found = changes_of(summed, gains, clusters, (ratio, over_as_it_is), resamples, seed)
    if not is_signed:
        found = [
            replace(one, ends=None if one.ends is None else possible(*one.ends)) for one in found
        ]
    return dict(zip(policies, found, strict=True))


def changes_of(
    columns: Sequence[Column | Term],
    gains: Sequence[Column | Term],
    clusters: NDArray[np.uint64],
    functions: Sequence[Function],
    resamples: int,
    seed: int,
) -> list[Change]:
    """Return functions of sums over items as changes (`sums.estimates`).

    Args:
        columns: values to sum.
        gains: gain of each item, per change.
        clusters: cluster of each item, shape (items,).
        functions: functions that are tried in turn.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.
    """
    grouped = Grouped.of(clusters)
    found = estimates(columns, grouped, functions, resamples, seed)
    return [
        Change(value, ends, changed(gain, grouped))
        for (value, ends), gain in zip(found, gains, strict=True)
    ]


def additive(
    items: Items, chosen: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], dict[str, Column]]:
    """Return values whose mean is the score and whose resampled means are the resampled scores.

    For a mean these are the values of the items; for a correlation they are its first-order
    approximation (`Correlations.influence`), within each subset that has `FEWEST_ITEMS` pairs.

    Returns:
        Indices of the items, and their values by policy, shape (items,) or (items, draws); both are
        empty if there are too few items.
    """
    rows = np.flatnonzero(chosen)
    if len(rows) < FEWEST_ITEMS:
        return rows[:0], {}
    if items.gold is None:
        return rows, {policy: items.column(policy, chosen) for policy in items.values}
    parts = items.parts[rows]
    sizes = np.bincount(parts)
    enough = [part for part, size in enumerate(sizes) if size >= FEWEST_ITEMS]
    if not enough:
        return rows[:0], {}
    values = np.stack([of[rows] for of in items.values.values()], axis=1)
    places, found = [], []
    total = np.zeros(values.shape[1])
    for part in enough:
        here = parts == part
        correlations = Correlations(items.gold[rows][here], values[here])
        total += correlations.whole() * sizes[part]
        places.append(rows[here])
        found.append(correlations.influence() * sizes[part])
    columns = np.concatenate(found) + total / sizes[enough].sum()
    return np.concatenate(places), dict(zip(items.values, columns.T, strict=True))


def change_entry(change: Change) -> Entry:
    """Return an entry with a relative improvement and its mark of significance."""
    return improvement(change.value, change.uncertainty)


def _finite_or_none(score: float) -> float | None:
    return None if math.isnan(score) else score
