"""Spearman's correlation of weighted pairs, and the contribution of each pair."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Sorted values are divided into this many rows, which are summed in parallel.
_ROWS = 32


class Correlations:
    """Spearman's correlations of cells with a gold standard, over samples of pairs.

    A sample is given by how often it contains each pair, so that pairs are sorted only once for all
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

    def over(self, counts: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return the correlations of samples, given how often they contain each pair.

        The precision of 1e-7 suffices for draws: terms are summed in single precision.

        Args:
            counts: shape (pairs, samples).

        Returns:
            The correlations, shape (samples, cells); NaN if one side is constant.
        """
        single = np.zeros((len(counts) + 1, counts.shape[1]), dtype=np.float32)
        single[:-1] = counts
        total = counts.sum(axis=0, dtype=np.float64)
        cubes = np.einsum("ij,ij->j", single * single, single).astype(np.float64)
        middles, lost = self._gold.middles(single)
        # Relative to the mean of the ranks 1 … n, which does not depend on ties.
        middles -= (total + 1) / 2
        weights = np.take(middles.astype(np.float32), self._gold.group, axis=0)
        weights *= single
        norm = (total**3 - lost) / 12
        own = np.einsum("ij,ij->j", weights, single) / 2
        found = np.empty((counts.shape[1], len(self._cells)))
        # Allocating memory for each cell would take longer than the computation.
        room = np.empty((2, *self._gold.rows.shape, counts.shape[1]), dtype=np.float32)
        for cell, order in enumerate(self._cells):
            product, lost = order.product(single, weights, cubes, room)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, cell] = (product - own) / np.sqrt(norm * (total**3 - lost) / 12)
        return found

    def whole(self) -> NDArray[np.float64]:
        """Return the correlations over all pairs, shape (cells,); NaN if a side is constant."""
        gold, _ = self._gold.once()
        found = np.empty(len(self._cells))
        for cell, order in enumerate(self._cells):
            ranks, _ = order.once()
            with np.errstate(invalid="ignore", divide="ignore"):
                found[cell] = ranks @ gold / np.sqrt((ranks @ ranks) * (gold @ gold))
        return found

    @cached_property
    def units(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The centred ranks of all pairs, scaled to length 1: (pairs,) and (pairs, cells).

        They are 0 if a side is constant.
        """
        gold, *cells = (order.once()[0] for order in (self._gold, *self._cells))
        ranks = np.stack([gold, *cells], axis=1)
        lengths = np.sqrt((ranks**2).sum(axis=0))
        ranks = ranks / np.where(lengths > 0, lengths, 1.0)
        return ranks[:, 0], ranks[:, 1:]

    def influence(self) -> NDArray[np.float64]:
        """Return each pair's contribution to the correlations, shape (pairs, cells).

        It is the derivative of the weighted correlation with respect to the pair's weight (the
        infinitesimal jackknife), through the product of its own ranks and through the ranks of all
        other pairs that it shifts. The sum over all pairs is 0. NaN if one side is constant.
        """
        gold, of_gold = self._gold.once()
        found = np.empty((len(gold), len(self._cells)))
        for cell, order in enumerate(self._cells):
            ranks, ties = order.once()
            product, norm, of_norm = ranks @ gold, ranks @ ranks, gold @ gold
            moved = ranks * gold + order.above(gold) + self._gold.above(ranks)
            with np.errstate(invalid="ignore", divide="ignore"):
                grown = (len(gold) ** 2 - ties**2) / norm + (len(gold) ** 2 - of_gold**2) / of_norm
                found[:, cell] = (moved - product * grown / 8) / np.sqrt(norm * of_norm)
        return found


@dataclass(frozen=True)
class _Order:
    """Sorted values and their ties.

    The squares of centred ranks add up to (n³ − Σ t³)/12, where t is the size of each tie, 1 for a
    distinct value.

    Attributes:
        order: indices of the values in ascending order.
        rows: the same indices, padded with the one after the last, in rows of equal length; the
            order goes down the columns, shape (`_ROWS`, columns).
        group: index of the distinct value, for each value and one after the last.
        first: position in the order at which each distinct value begins.
        tied: positions in the order of values that are tied.
        starts: position in `tied` at which each tie begins.
    """

    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    first: NDArray[np.int64]
    tied: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> _Order:
        order = np.argsort(values, kind="stable")
        same = values[order][1:] == values[order][:-1]
        after, before = np.append(False, same), np.append(same, False)
        tied = np.flatnonzero(after | before)
        full = np.full(-(-len(order) // _ROWS) * _ROWS, len(order))
        full[: len(order)] = order
        rows = np.ascontiguousarray(full.reshape(-1, _ROWS).T)
        group = np.zeros(len(order) + 1, dtype=np.int64)
        group[order] = np.cumsum(~after) - 1
        first = np.flatnonzero(~after)
        return cls(order, rows, group, first, tied, np.flatnonzero(~after[tied]))

    def middles(
        self, counts: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rank of each group of equal values in each sample, and Σ t³ of all values.

        Args:
            counts: shape (pairs + 1, samples), the last 0.
        """
        taken = np.take(counts, self.order, axis=0)
        sizes = np.add.reduceat(taken, self.first, axis=0).astype(np.float64)
        ranks = np.cumsum(sizes, axis=0) - (sizes - 1) / 2
        return ranks, np.einsum("ij,ij->j", sizes * sizes, sizes)

    def product(
        self,
        counts: NDArray[np.float32],
        weights: NDArray[np.float32],
        cubes: NDArray[np.float64],
        room: NDArray[np.float32],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Σ weights × (ranks + counts / 2) of each sample, and Σ t³ of all values.

        The weights must add up to 0. A rank is the sum of counts up to its value, less half of its
        own; the sums up to the previous column and within the column are computed separately.

        Args:
            counts: shape (pairs + 1, samples), the last 0.
            weights: weight of each pair times its count, of the same shape.
            cubes: Σ counts³ of each sample.
            room: scratch memory, shape (2, `_ROWS`, columns, samples).
        """
        samples = counts.shape[1]
        below, weighted = room
        # Without a mode, numpy allocates a buffer.
        np.take(counts, self.rows, axis=0, out=below, mode="clip")
        np.take(weights, self.rows, axis=0, out=weighted, mode="clip")
        # Equivalent to np.cumsum along the first axis, which is several times slower.
        for row in range(1, _ROWS):
            np.add(below[row - 1], below[row], out=below[row])
        product = np.einsum(
            "ij,ij->j", weighted.reshape(-1, samples), below.reshape(-1, samples)
        ).astype(np.float64)
        before = np.cumsum(below[-1], axis=0, dtype=np.float64) - below[-1]
        product += np.einsum("ij,ij->j", weighted.sum(axis=0).astype(np.float64), before)
        if len(self.tied):
            places = self.order[self.tied]
            single, here = counts[places].astype(np.float64), weights[places].astype(np.float64)
            sizes = np.add.reduceat(single, self.starts, axis=0)
            together = np.add.reduceat(here, self.starts, axis=0)
            reached = np.cumsum(single, axis=0)
            ends = np.cumsum(sizes, axis=0)
            inside = reached - single / 2 - np.repeat(ends - sizes, self._members(), axis=0)
            product += np.einsum("ij,ij->j", together, sizes) / 2
            product -= np.einsum("ij,ij->j", here, inside)
            cubes = cubes - (single**3).sum(axis=0) + (sizes**3).sum(axis=0)
        return product, cubes

    def once(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the centred rank of each value, and the size of its tie."""
        count = len(self.order)
        ranks, sizes = np.empty(count), np.ones(count)
        ranks[self.order] = np.arange(count) - (count - 1) / 2
        if len(self.tied):
            places = self.order[self.tied]
            means = np.add.reduceat(ranks[places], self.starts) / self._members()
            ranks[places] = np.repeat(means, self._members())
            sizes[places] = np.repeat(self._members(), self._members())
        return ranks, sizes

    def above(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return, for each value, the weights of larger values and half of those of equal ones."""
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
