"""Spearman's correlation over samples of pairs: of weighted pairs, and what each pair adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Correlations:
    """Spearman's correlations of cells with a gold standard, over samples of pairs.

    Counting the pairs of a sample instead of drawing them lets the pairs be sorted once for all
    samples. Ties have their mean rank, as in `scipy.stats.spearmanr`.
    """

    def __init__(self, gold: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Sort the pairs.

        Args:
            gold: shape (pairs,).
            values: shape (pairs, cells).
        """
        self._gold = _Order.of(gold)
        self._cells = [_Order.of(column) for column in values.T]

    def over(self, counts: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the correlations of samples that have each pair so many times.

        Args:
            counts: shape (samples, pairs).

        Returns:
            Shape (samples, cells); NaN where one side is constant.
        """
        total = counts.sum(axis=1, dtype=np.float64)
        single = counts.astype(np.float64)
        cubes = np.einsum("ij,ij,ij->i", single, single, single)
        ranks, lost = self._gold.ranks(counts, cubes)
        # From the mean of the ranks 1 … n, which is the same whatever the ties.
        weights = single * (ranks - (total[:, None] + 1) / 2)
        norm = (total**3 - lost) / 12
        own = np.einsum("ij,ij->i", weights, single) / 2
        found = np.empty((len(counts), len(self._cells)))
        for cell, order in enumerate(self._cells):
            product, lost = order.product(counts, weights, own, cubes)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, cell] = product / np.sqrt(norm * (total**3 - lost) / 12)
        return found

    def influence(self) -> NDArray[np.float64]:
        """Return what each pair adds to the correlations, shape (pairs, cells).

        The derivative of the weighted correlation by the pair's weight (the infinitesimal
        jackknife): of the product of its own ranks, and of the ranks of all others that it moves.
        Over all pairs it adds up to 0. NaN where one side is constant.
        """
        gold, of_gold = self._gold.once()
        found = np.empty((len(gold), len(self._cells)))
        for cell, order in enumerate(self._cells):
            ranks, ties = order.once()
            product, norm, of_norm = ranks @ gold, ranks @ ranks, gold @ gold
            moved = ranks * gold + order.above(gold) + self._gold.above(ranks)
            grown = (len(gold) ** 2 - ties**2) / norm + (len(gold) ** 2 - of_gold**2) / of_norm
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, cell] = (moved - product * grown / 8) / np.sqrt(norm * of_norm)
        return found


def spearman(
    gold: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return `Correlations` of samples that have each pair so many times, (samples, cells)."""
    return Correlations(gold, values).over(counts)


@dataclass(frozen=True)
class _Order:
    """Values in order, and which of them are tied.

    The squares of ranks around their mean add up to (n³ − Σ t³)/12, t being the size of each tie, 1
    of a value that is alone.

    Attributes:
        order: places of the values, from small to large.
        tied: positions in that order of values that others equal.
        starts: where in `tied` each tie begins.
    """

    order: NDArray[np.int64]
    tied: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _Order:
        order = np.argsort(values, kind="stable")
        same = values[order][1:] == values[order][:-1]
        after, before = np.append(False, same), np.append(same, False)
        tied = np.flatnonzero(after | before)
        return cls(order, tied, np.flatnonzero(~after[tied]))

    def ranks(
        self, counts: NDArray[np.int32], cubes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rank of each value in each sample, and Σ t³."""
        taken = np.take(counts, self.order, axis=1)
        below = np.cumsum(taken, axis=1, dtype=np.int32)
        ranks = below - (taken - 1) / 2
        if len(self.tied):
            mean, cubes = self._ties(taken, below, cubes)
            ranks[:, self.tied] = np.repeat(mean, self._members(), axis=1) + 0.5
        found = np.empty_like(ranks)
        found[:, self.order] = ranks
        return found, cubes

    def product(
        self,
        counts: NDArray[np.int32],
        weights: NDArray[np.float64],
        own: NDArray[np.float64],
        cubes: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Σ weights × ranks of each sample, for weights that add up to 0, and Σ t³.

        Args:
            counts: shape (samples, pairs).
            weights: of each pair, times its count; the same shape.
            own: Σ weights × counts / 2 of each sample.
            cubes: Σ counts³ of each sample.
        """
        taken = np.take(counts, self.order, axis=1)
        below = np.cumsum(taken, axis=1, dtype=np.int32)
        weighted = np.take(weights, self.order, axis=1)
        # A rank is the counts up to its value, less half of its own, and a half that cancels.
        product = np.einsum("ij,ij->i", weighted, below) - own
        if len(self.tied):
            mean, cubes = self._ties(taken, below, cubes)
            here = weighted[:, self.tied]
            alone = below[:, self.tied] - taken[:, self.tied] / 2
            product -= np.einsum("ij,ij->i", here, alone)
            together = np.add.reduceat(here, self.starts, axis=1)
            product += np.einsum("ij,ij->i", together, mean)
        return product, cubes

    def once(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rank of each value around their mean, and the size of its tie."""
        ones = np.ones((1, len(self.order)), dtype=np.int32)
        ranks, _ = self.ranks(ones, np.full(1, len(self.order), dtype=np.float64))
        sizes = np.ones(len(self.order))
        sizes[self.order[self.tied]] = np.repeat(self._members(), self._members())
        return ranks[0] - (len(self.order) + 1) / 2, sizes

    def above(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for each value the sum of the weights of larger ones, and half of its equals'."""
        ordered = weights[self.order]
        reached = np.cumsum(ordered[::-1])[::-1]
        sums = reached - ordered / 2
        if len(self.tied):
            half = np.add.reduceat(ordered[self.tied], self.starts) / 2
            of_ties = reached[self.tied[self.starts]] - half
            sums[self.tied] = np.repeat(of_ties, self._members())
        found = np.empty_like(sums)
        found[self.order] = sums
        return found

    def _members(self) -> NDArray[np.int64]:
        return np.diff(np.append(self.starts, len(self.tied)))

    def _ties(
        self, taken: NDArray[np.int32], below: NDArray[np.int32], cubes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rank of each tie less a half, and Σ t³ of all values."""
        single = taken[:, self.tied].astype(np.float64)
        sizes = np.add.reduceat(single, self.starts, axis=1)
        ends = below[:, self.tied[np.append(self.starts[1:], len(self.tied)) - 1]]
        cubes = cubes - np.einsum("ij,ij,ij->i", single, single, single)
        return ends - sizes / 2, cubes + np.einsum("ij,ij,ij->i", sizes, sizes, sizes)
