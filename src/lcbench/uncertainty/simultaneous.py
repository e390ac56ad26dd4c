"""Simultaneous intervals of several quantities of which the best is reported (max-T).

An interval of 95 % covers one quantity that was fixed beforehand. The best of several τ was not: it
is the best because its noise was favourable as well. A band that covers all of them at once in 95
of 100 cases covers the chosen one, by whatever rule it was chosen (Rink and Brannath 2022, arXiv
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

# Ways of choosing one of several quantities per group that are gone through one by one.
_MOST_CHOICES = 20_000
_AT_ONCE = 2**22


def critical_value(draws: NDArray[np.float64], level: float) -> float:
    """Return how many standard errors wide, either way, a band over all quantities is.

    The quantile of the largest |deviation| / standard deviation of each draw. It is never less than
    that of a single quantity in theory; here no less than the normal's.

    Args:
        draws: of all quantities, drawn together, shape (resamples, quantities); those that do not
            vary are left out.
        level: of the band, as 0.95.
    """
    single = float(stats.norm.ppf((1 + level) / 2))
    deviations = _standardised(draws)
    if deviations.shape[1] < 2:
        return single
    return max(single, float(np.quantile(np.abs(deviations).max(axis=1), level)))


def critical_value_of_means(groups: Sequence[NDArray[np.float64]], level: float) -> float:
    """Return the critical value of a mean over groups, one quantity of each being chosen freely.

    All ways of choosing are gone through (6 τ of 5 models: 7,776); where they are too many, the
    value is Bonferroni's, which is larger.

    Args:
        groups: of each group the draws of its quantities, shape (resamples, quantities).
        level: of the band.
    """
    single = float(stats.norm.ppf((1 + level) / 2))
    choices = math.prod(draws.shape[1] for draws in groups)
    if choices < 2:
        return single
    if choices > _MOST_CHOICES:
        return float(stats.norm.isf((1 - level) / 2 / choices))
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
            sums = chosen[varies] @ every.T / np.sqrt(variances[varies])[:, None]
            largest = np.maximum(largest, np.abs(sums).max(axis=0))
    return max(single, float(np.quantile(largest, level)))


def _standardised(draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return draws around their means in standard deviations, of the columns that vary."""
    deviations = draws - draws.mean(axis=0)
    scales = deviations.std(axis=0)
    found: NDArray[np.float64] = deviations[:, scales > 0] / scales[scales > 0]
    return found


def _every_choice(sizes: Sequence[int]) -> NDArray[np.int64]:
    """Return all ways of choosing one of each group, shape (choices, groups)."""
    grid = np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)
