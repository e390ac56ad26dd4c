"""Intervals of functions of sums over items: means, ratios, slopes, and differences of them.

Items that share a text are one unit, a cluster. The training draws of a classification are units of
a second kind, crossed with the texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr, stdtrit

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2_000
"""Bootstrap samples: the ends of an interval are then sure to 3 % of its width."""

SEED = 0

Function = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
"""Of sums, shape (…, columns), to what is asked, shape (…, quantities)."""

Interval = tuple[float, float]

# Of fewer clusters percentiles cannot reach as far as they should: Student's t can.
_FEWEST_RESAMPLED = 10

# Sums over more clusters are drawn from their normal limit: at this many the two differ by less
# than the bootstrap does from one seed to another, and 100,000 clusters cost no more than these.
_MOST_RESAMPLED = 1_000

# Of a sum's size: small enough for a derivative to ten digits, far above rounding.
_STEP = 1e-5

_LEVEL = 0.975


def intervals(
    columns: Sequence[NDArray[np.floating[Any]]],
    clusters: NDArray[np.int64],
    functions: Sequence[Function],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Interval | None]:
    """Return the 95 % intervals of what a function makes of sums over items.

    Without training draws: the percentiles of a bootstrap over the clusters (Field and Welsh 2007),
    widened for few of them (Hesterberg 2015). With draws: Student's t over the variance of texts
    crossed with draws, in which their interaction counts once:
    (MS_text + MS_draw - MS_interaction) / (texts · draws), to first order, with Satterthwaite's
    degrees of freedom; a component that is estimated below zero is left out.

    Args:
        columns: what is summed; each of shape (items,) or, by training draw, (items, draws), of
            which the mean over the draws is summed.
        clusters: which each item is of, shape (items,).
        functions: tried in turn until both ends are finite.
        resamples: of the bootstrap.
        seed: of its draws.

    Returns:
        One a quantity; None for fewer than two clusters, or where no function gives finite ends.
    """
    numbers, rows = np.unique(clusters, return_inverse=True)
    if len(numbers) < 2:
        return [None] * _quantities(columns, functions[0])
    if len(numbers) < _FEWEST_RESAMPLED or any(column.ndim > 1 for column in columns):
        found = [_by_students_t(columns, rows, len(numbers), function) for function in functions]
    else:
        drawn = _resampled(
            np.stack([_by_cluster(column, rows, len(numbers)) for column in columns], axis=1),
            resamples,
            seed,
        )
        found = [_percentiles(function(drawn), len(numbers)) for function in functions]
    return [
        next((ends for ends in of if ends is not None), None) for of in zip(*found, strict=True)
    ]


def totals(columns: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """Return the sum of each column over items, of the means over draws; shape (columns,)."""
    return np.array([_mean_of_draws(column).sum() for column in columns])


def changed(change: NDArray[np.floating[Any]], clusters: NDArray[np.int64]) -> tuple[int, int]:
    """Return how many clusters gain and how many lose.

    Args:
        change: of each item, shape (items,).
        clusters: which each item is of, shape (items,).
    """
    numbers, rows = np.unique(clusters, return_inverse=True)
    sums = _by_cluster(change, rows, len(numbers))
    # Sums of what cancels are zero but for rounding.
    least = 1e-9 * float(np.abs(change).max(initial=0.0))
    return int((sums > least).sum()), int((sums < -least).sum())


def _quantities(columns: Sequence[NDArray[np.floating[Any]]], function: Function) -> int:
    with np.errstate(all="ignore"):
        return int(function(totals(columns)).shape[-1])


def _mean_of_draws(column: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(column if column.ndim == 1 else column.mean(axis=1, dtype=np.float64))


def _by_cluster(
    column: NDArray[np.floating[Any]], rows: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    return np.asarray(np.bincount(rows, weights=_mean_of_draws(column), minlength=count))


def _resampled(sums: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the totals of samples of clusters, shape (resamples, columns)."""
    count = len(sums)
    if count > _MOST_RESAMPLED:
        spread = np.atleast_2d(np.cov(sums, rowvar=False, ddof=0)) * count
        random = np.random.default_rng((seed, count))
        return random.multivariate_normal(sums.sum(axis=0), spread, resamples)
    return np.asarray(_counts(count, resamples, seed).astype(np.float64) @ sums)


# Buckets of the same size, and all models on one task, have the same samples.
@lru_cache(maxsize=32)
def _counts(count: int, resamples: int, seed: int) -> NDArray[np.int16]:
    """Return how often each sample has each of so many clusters, (resamples, count)."""
    random = np.random.default_rng((seed, count))
    drawn = random.integers(0, count, (resamples, count), dtype=np.int32)
    drawn += np.arange(resamples, dtype=np.int32)[:, None] * count
    found = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
    return found.astype(np.int16)


def _percentiles(values: NDArray[np.float64], count: int) -> list[Interval | None]:
    # The "expanded percentiles": those of Student's t, as far out as the variance is too small.
    tail = ndtr(-math.sqrt(count / (count - 1)) * stdtrit(count - 1, _LEVEL))
    # Between two draws one of which is infinite there is no number.
    with np.errstate(invalid="ignore"):
        ends = np.quantile(values, (tail, 1 - tail), axis=0)
    return [
        (float(low), float(high)) if np.isfinite([low, high]).all() else None
        for low, high in ends.T
    ]


def _by_students_t(
    columns: Sequence[NDArray[np.floating[Any]]],
    rows: NDArray[np.int64],
    count: int,
    function: Function,
) -> list[Interval | None]:
    at = totals(columns)
    with np.errstate(all="ignore"):
        values, gradient = function(at), _gradient(columns, at, function)
    draws = max(column.shape[1] if column.ndim > 1 else 1 for column in columns)
    effects = np.zeros((len(values), count, draws))
    for column, slopes in zip(columns, gradient.T, strict=True):
        wide = column[:, None] if column.ndim == 1 else column
        summed = np.stack(
            [np.bincount(rows, weights=draw, minlength=count) for draw in wide.T], axis=1
        )
        for effect, slope in zip(effects, slopes, strict=True):
            if slope:
                effect += slope * summed
    found: list[Interval | None] = []
    for value, effect in zip(values, effects, strict=True):
        if not (np.isfinite(value) and np.isfinite(effect).all()):
            found.append(None)
            continue
        variance, degrees = _crossed(effect)
        half = float(stdtrit(degrees, _LEVEL)) * math.sqrt(variance)
        found.append((float(value) - half, float(value) + half))
    return found


def _gradient(
    columns: Sequence[NDArray[np.floating[Any]]], at: NDArray[np.float64], function: Function
) -> NDArray[np.float64]:
    """Return the derivatives of quantities by sums, shape (quantities, columns)."""
    steps = np.array([_STEP * float(np.abs(column).sum()) or _STEP for column in columns])
    around = np.diag(steps)
    return np.asarray(((function(at + around) - function(at - around)) / (2 * steps[:, None])).T)


def _crossed(effects: NDArray[np.float64]) -> tuple[float, float]:
    """Return the variance of the sum over rows of the mean over columns, and its degrees.

    Args:
        effects: of clusters and training draws, shape (clusters, draws).
    """
    count, draws = effects.shape
    of_rows = effects.mean(axis=1)
    rows = float(count * of_rows.var(ddof=1))
    if draws == 1:
        return rows, count - 1
    of_columns = effects.mean(axis=0)
    columns = float(count**2 * of_columns.var(ddof=1) / draws)
    rest = effects - of_rows[:, None] - of_columns + effects.mean()
    both = float(count / draws * (rest**2).sum() / ((count - 1) * (draws - 1)))
    if rows <= both and columns <= both:
        return both, (count - 1) * (draws - 1)
    if rows <= both:
        return columns, draws - 1
    if columns <= both:
        return rows, count - 1
    variance = rows + columns - both
    spread = rows**2 / (count - 1) + columns**2 / (draws - 1)
    return variance, variance**2 / (spread + both**2 / ((count - 1) * (draws - 1)))
