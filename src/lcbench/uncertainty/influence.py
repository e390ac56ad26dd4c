"""How much each pair moves Spearman's correlation, to first order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def influence(
    gold: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Spearman's correlations with `gold`, and how each pair's weight moves them.

    The correlation is that of the ranks a and b, as shares of all pairs, of which ties have the
    mean, less ½: N / √(A·B), with the means N, A and B of ab, a² and b². One more pair like k moves
    the ranks of all pairs above it, so that N changes by a_k b_k + mean_i(b_i [k below i]) +
    mean_i(a_i [k below i]), where ties count by half, and A by a_k² + 2 mean_i(a_i [k below i]).

    Args:
        gold: shape (pairs,).
        values: shape (pairs, policies).

    Returns:
        correlations, shape (policies,), NaN where one side is constant; and influences, shape
        (pairs, policies), with mean 0.
    """
    wanted = _Ranks(gold)
    of_wanted = wanted.ranks**2 + 2 * wanted.above(wanted.ranks)
    correlations, influences = [], []
    for column in values.T:
        ours = _Ranks(column)
        norms = (wanted.ranks**2).mean(), (ours.ranks**2).mean()
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt(norms[0] * norms[1])
            correlation = (wanted.ranks * ours.ranks).mean() / scale
            product = wanted.ranks * ours.ranks
            product = product + wanted.above(ours.ranks) + ours.above(wanted.ranks)
            of_ours = ours.ranks**2 + 2 * ours.above(ours.ranks)
            influence = product / scale - correlation / 2 * (
                of_wanted / norms[0] + of_ours / norms[1]
            )
        correlations.append(correlation)
        influences.append(influence - influence.mean())
    return np.array(correlations), np.stack(influences, axis=1)


class _Ranks:
    """The ranks of values as shares of all, ties at their mean, less ½."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        _, self._place, self._sizes = np.unique(values, return_inverse=True, return_counts=True)
        middles = np.cumsum(self._sizes) - self._sizes / 2
        self.ranks = np.asarray(middles[self._place] / len(values) - 0.5, dtype=np.float64)

    def above(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return of each value the mean, over all, of the weights of those above it.

        Those equal to it count by half.
        """
        sums = np.bincount(self._place, weights=weights, minlength=len(self._sizes))
        higher = np.cumsum(sums[::-1])[::-1] - sums / 2
        return np.asarray(higher[self._place] / len(weights))
