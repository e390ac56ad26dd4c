"""Simultaneous confidence intervals for several quantities of which the best is reported (max-T).

A 95 % interval covers a quantity that was fixed in advance. The best of several τ was not: it is
partly the best because its noise was favourable. A band that covers all τ simultaneously in 95 % of
cases also covers the chosen one, by whatever rule it was chosen (Rink and Brannath 2022, arXiv
2210.13206; Westfall and Young 1993).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Maximum number of ways of choosing one quantity per group that are enumerated.
_MOST_CHOICES = 20_000
# Sums per block, which fit into the cache.
_AT_ONCE = 2**18


def critical_values(draws: NDArray[np.float64], *levels: float) -> list[float]:
    """Return the half-widths of simultaneous bands over all quantities, in standard errors.

    It is the quantile of the largest |deviation| / standard deviation of each draw, and at least
    the normal quantile of a single quantity.

    Args:
        draws: joint draws of all quantities, shape (resamples, quantities); quantities that do not
            vary are left out.
        levels: confidence levels of the bands, such as 0.95.
    """
    deviations = _standardised(draws)
    if deviations.shape[1] < 2:
        return [_single(level) for level in levels]
    return _quantiles(np.abs(deviations).max(axis=1), levels)


def critical_values_of_means(groups: Sequence[NDArray[np.float64]], *levels: float) -> list[float]:
    """Return the critical values of a mean over groups with a free choice of one quantity of each.

    All choices are enumerated (6 τ of 5 models: 7,776). If there are too many, the values are
    Bonferroni's, which are larger.

    Args:
        groups: draws of the quantities of each group, shape (resamples, quantities).
        levels: confidence levels of the bands.
    """
    choices = math.prod(draws.shape[1] for draws in groups)
    if choices < 2:
        return [_single(level) for level in levels]
    if choices > _MOST_CHOICES:
        return [float(stats.norm.isf((1 - level) / 2 / choices)) for level in levels]
    every = np.concatenate(groups, axis=1)
    every = every - every.mean(axis=0)
    covariances = every.T @ every / len(every)
    places = _every_choice([draws.shape[1] for draws in groups])
    starts = np.cumsum([0, *(draws.shape[1] for draws in groups[:-1])])
    largest = np.zeros(len(every))
    for first in range(0, len(places), max(1, _AT_ONCE // len(every))):
        some = places[first : first + max(1, _AT_ONCE // len(every))] + starts
        chosen = np.zeros((len(some), every.shape[1]))
        chosen[np.arange(len(some))[:, None], some] = 1.0
        variances = np.einsum("ci,ij,cj->c", chosen, covariances, chosen)
        varies = variances > 0
        if varies.any():
            sums = (chosen[varies] / np.sqrt(variances[varies])[:, None]) @ every.T
            np.maximum(largest, sums.max(axis=0), out=largest)
            np.maximum(largest, -sums.min(axis=0), out=largest)
    return _quantiles(largest, levels)


def _single(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))


def _quantiles(largest: NDArray[np.float64], levels: Sequence[float]) -> list[float]:
    """Return the quantiles of the largest deviations, at least those of a single quantity."""
    return [max(_single(level), float(np.quantile(largest, level))) for level in levels]


def _standardised(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return standardised draws of the columns that vary."""
    deviations = draws - draws.mean(axis=0)
    scales = deviations.std(axis=0)
    found: NDArray[np.float64] = deviations[:, scales > 0] / scales[scales > 0]
    return found


def _every_choice(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return all choices of one quantity per group, shape (choices, groups)."""
    grid = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)
