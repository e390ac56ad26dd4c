"""The sources of variation of a task's scores: clusters of items, and experiments.

Unbiased variances are computed from the contributions of each unit to first order; `bootstrap`
draws from the same components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lcbench.uncertainty.clusters import numbered
from lcbench.uncertainty.correlations import Correlations
from lcbench.uncertainty.items import Samples, independent_parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLUSTERS_AT_ONCE = 512
"""Clusters whose weights, or right answers, are held at once."""


@dataclass(frozen=True)
class Component:
    """A source of variation of a score: a sample of units, or a classification's experiments.

    Attributes:
        values: value of each unit and cell, shape (units, cells).
        weight: weight of its mean in the score.
        clusters: cluster of each unit, shape (units,).
        gold: gold standard that values of pairs are correlated with; None: the score is their mean.
        deviates: whether only deviations from the mean of `values` add to the score, as for a
            classification's experiments, whose mean is that of the texts.
        right: for texts, the experiments that classify them correctly, by cell and subset, as bits
            of shape (units,); empty: unknown.
        experiments: for texts, the number of experiments.
    """

    values: NDArray[np.float64]
    weight: float
    clusters: NDArray[np.uint64]
    gold: NDArray[np.float64] | None = None
    deviates: bool = False
    right: Sequence[Sequence[NDArray[np.unsignedinteger[Any]]]] = ()
    experiments: int = 0

    @cached_property
    def grouped(self) -> Grouped:
        """The units grouped by cluster."""
        return Grouped.of(self.clusters)

    @cached_property
    def correlations(self) -> Correlations | None:
        """The sorted pairs; None if the score is a mean."""
        return None if self.gold is None else Correlations(self.gold, self.values)

    def differences(self, raw: int, ours: int) -> NDArray[np.float64]:
        """Return each unit's contribution to the difference of two cells, shape (units,).

        They add up to the difference. For pairs, with ranks g of the gold standard and ranks a, b
        of the two cells' cosines, centred and scaled to length 1, the difference of Spearman's
        correlations ρ is Σ (b − a) g. As Σ (b² − a²) = 0, it is also the sum of
        (b − a) g − ρ (b² − a²) / 2, a pair's contribution to first order. (Without the second term
        a test of them would be valid but far weaker.)
        """
        if self.correlations is None:
            means: NDArray[np.float64] = (self.values[:, ours] - self.values[:, raw]) / len(
                self.values
            )
            return means
        gold, ranks = self.correlations.units
        before, after = ranks[:, (raw, ours)].T
        rho = gold @ (before + after) / 2
        added: NDArray[np.float64] = gold * (after - before) - rho * (after**2 - before**2) / 2
        return added


@dataclass(frozen=True)
class Grouped:
    """Units by their clusters.

    Attributes:
        members: distinct clusters, shape (clusters,).
        order: indices of units, sorted by cluster, shape (units,).
        starts: position in `order` at which each cluster begins, and the end, shape (clusters +
            1,).
    """

    members: NDArray[np.uint64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, clusters: NDArray[np.uint64]) -> Grouped:
        """Group units, given the cluster of each, shape (units,)."""
        order = np.argsort(clusters, kind="stable")
        ordered = clusters[order]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        return cls(ordered[first], order, np.append(first, len(order)))

    def in_order_of_units(self) -> Grouped:
        """Return the same clusters in the order of their first units.

        The values of neighbouring clusters are then mostly next to each other in memory.
        """
        place = np.argsort(self.order[self.starts[:-1]])
        starts = np.append(0, np.cumsum(self.sizes[place]))
        shift = np.repeat(self.starts[:-1][place] - starts[:-1], np.diff(starts))
        return Grouped(self.members[place], self.order[shift + np.arange(len(shift))], starts)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The number of units in each cluster."""
        return np.diff(self.starts)

    def units(self, some: slice) -> NDArray[np.int64]:
        """Return the units of some of the clusters."""
        return self.order[self.starts[some.start] : self.starts[some.stop]]

    def sums(self, some: slice, values: NDArray[Any], axis: int = 0) -> NDArray[Any]:
        """Return sums over some of the clusters, of the values of their `units` along an axis."""
        starts = self.starts[some]
        if some.stop - some.start == values.shape[axis]:
            return values
        found: NDArray[Any] = np.add.reduceat(values, starts - starts[0], axis=axis)
        return found


Source = Literal["items", "experiments", "both"]


@dataclass(frozen=True)
class Variation:
    """The variation of a task's scores with independent clusters.

    Attributes:
        covariance: unbiased covariance of the scores, shape (cells, cells).
        degrees: degrees of freedom.
        source: items, a classification's experiments, or their interaction, which is contained in
            the other two and must be subtracted once.
    """

    covariance: NDArray[np.float64]
    degrees: int
    source: Source = "items"


def components(
    cells: Sequence[Samples], name: str, clusters: Sequence[NDArray[np.uint64]]
) -> list[Component]:
    """Return the sources of variation of the scores of cells with the same items.

    For a classification these are its texts and, if recorded, its experiments.

    Args:
        cells: with the same items.
        name: name of the task.
        clusters: cluster of each item, by `independent_parts`.
    """
    found = []
    for (parts, weight), of_part in zip(independent_parts(cells[0]), clusters, strict=True):
        samples = [[cell[part] for part in parts] for cell in cells]
        values = np.empty((len(samples[0][0].values), len(cells)))
        for place, several in enumerate(samples):
            values[:, place] = np.mean([one.values for one in several], axis=0)
        right = [[one.right for one in several if one.right is not None] for several in samples]
        counts = {one.experiments for several in samples for one in several}
        if len(counts) > 1 or not all(len(several) == len(parts) for several in right):
            right, counts = [], {0}
        found.append(
            Component(
                values, weight, of_part, samples[0][0].gold, right=right, experiments=counts.pop()
            )
        )
        draws = [[one.draws for one in several if one.draws is not None] for several in samples]
        # Either all cells have them or none (`items.same_items`); translations may differ.
        if (
            all(len(several) == len(parts) for several in draws)
            and len({len(one) for several in draws for one in several}) == 1
        ):
            means = np.stack([np.mean(several, axis=0) for several in draws], axis=1)
            if len(means) > 1:
                trained = numbered(len(means), name, "experiments", parts[0])
                found.append(Component(means, weight, trained, deviates=True))
    return found


def variations(parts: Sequence[Component]) -> list[Variation]:
    """Return the variation of scores with their clusters, from contributions to first order.

    Parts that share clusters vary together, so the clusters of all of them form one sample.
    """
    every, places = np.unique(
        np.concatenate([one.grouped.members for one in parts]), return_inverse=True
    )
    owners = np.repeat(np.arange(len(parts)), [len(one.grouped.members) for one in parts])
    has = coo_array((np.ones(len(places)), (owners, places)), (len(parts), len(every))).tocsr()
    number, sample = connected_components(has @ has.T, directed=False)
    found = []
    for group in range(number):
        own = [one for one, of in zip(parts, sample, strict=True) if of == group]
        grouped, added = own[0].grouped, own[0].weight * _contributions(own[0])
        if len(own) > 1:
            grouped = Grouped.of(np.concatenate([one.clusters for one in own]))
            added = np.concatenate([one.weight * _contributions(one) for one in own])
        squares = np.zeros((added.shape[1],) * 2)
        for some in steps_of(len(grouped.members), CLUSTERS_AT_ONCE):
            sums = grouped.sums(some, added[grouped.units(some)])
            squares += sums.T @ sums
        degrees = len(grouped.members) - 1
        source: Source = "experiments" if all(one.deviates for one in own) else "items"
        found.append(Variation(squares * (degrees + 1) / degrees, degrees, source))
    return found + [both for one in parts if (both := _interaction(one)) is not None]


def _interaction(one: Component) -> Variation | None:
    """Return the interaction of texts and experiments in the scores of a classification.

    It is the remainder of each text (cluster of texts) in each experiment after subtracting the
    means of both.
    """
    if not one.right or one.experiments < 2:
        return None
    experiments = np.arange(one.experiments)
    single = len(one.right[0]) == 1 and len(one.grouped.members) == len(one.values)

    def right(texts: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        of_subsets = []
        for subset in range(len(one.right[0])):
            bits = np.stack([several[subset][texts] for several in one.right])
            of_subsets.append(bits[:, None] >> experiments.astype(bits.dtype)[:, None] & 1)
        # Sums of zeros and ones are exact in single precision.
        found: NDArray[np.floating[Any]] = of_subsets[0].astype(np.float32)
        return found if single else np.asarray(np.mean(of_subsets, axis=0) - means)

    # These cancel out for single texts.
    means = np.zeros(())
    if not single:
        every = steps_of(len(one.values), CLUSTERS_AT_ONCE)
        blocks = (
            right(np.arange(some.start, some.stop)).sum(axis=-1, keepdims=True) for some in every
        )
        means = np.asarray(sum(blocks) / len(one.values))
    *_, both = crossed(one.grouped, right, one.experiments)
    scale = (one.weight / len(one.values)) ** 2
    return Variation(scale * both.covariance, both.degrees, both.source)


def crossed(
    grouped: Grouped,
    values: Callable[[NDArray[np.int64]], NDArray[np.floating[Any]]],
    experiments: int,
) -> tuple[Variation, Variation, Variation]:
    """Return the variances of sums over texts of means over experiments, by source.

    The sources are texts, experiments and their interaction: the mean squares of clusters of texts,
    of experiments, and of the remainder after subtracting the means of both.

    Args:
        grouped: the texts.
        values: returns the values of some texts, shape (quantities, experiments, texts).
        experiments: number of experiments.
    """
    grouped = grouped.in_order_of_units()
    many, times = len(grouped.members), experiments
    means, squares, of_experiments = 0.0, 0.0, 0.0
    for some in steps_of(many, CLUSTERS_AT_ONCE):
        sums = grouped.sums(some, values(grouped.units(some)), axis=-1)
        of_experiments = of_experiments + sums.sum(axis=-1, dtype=np.float64)
        of_texts = sums.mean(axis=1, dtype=np.float64)
        means = means + of_texts @ of_texts.T
        wide = sums.reshape(len(sums), -1)
        squares = squares + (wide @ wide.T).astype(np.float64)
    totals = np.asarray(of_experiments).T
    centre = totals.mean(axis=0)
    middle = np.outer(centre, centre) / many
    of_texts = means - middle
    experiments_too = totals.T @ totals / times - np.outer(centre, centre)
    rest = squares - times * means - totals.T @ totals / many + times * middle
    apart = (many - 1) * (times - 1)
    return (
        Variation(of_texts * many / (many - 1), many - 1, "items"),
        Variation(experiments_too / (times - 1), times - 1, "experiments"),
        Variation(rest * many / times / apart, apart, "both"),
    )


def variances_of(
    sources: Sequence[Variation], gradient: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variance of a sum of scores by source, with degrees of freedom.

    For a classification, the mean squares of texts and of experiments both contain that of their
    interaction, which is subtracted once: in a crossed design of two random factors the variance of
    a mean is (MS of texts + MS of experiments − MS of both) / (texts × experiments). The estimate
    is at least the variance by either factor alone.

    Args:
        sources: sources of the scores' variation.
        gradient: derivatives of the sum with respect to the scores, shape (cells,).
    """
    of: dict[Source, list[tuple[float, int]]] = {"items": [], "experiments": [], "both": []}
    for one in sources:
        # Rounding may make the variance of equal scores negative.
        variance = max(float(gradient @ one.covariance @ gradient), 0.0)
        of[one.source].append((variance, one.degrees))
    larger = max(of["items"], of["experiments"], key=lambda some: sum(one for one, _ in some))
    taken_off = [(-variance, degrees) for variance, degrees in of["both"]]
    terms = [*of["items"], *of["experiments"], *taken_off]
    if sum(one for one, _ in terms) < sum(one for one, _ in larger):
        terms = larger
    variances, freedoms = np.array(terms, dtype=np.float64).T
    return variances, freedoms


def _contributions(one: Component) -> NDArray[np.float64]:
    """Return each unit's contribution to the scores of a component, shape (units, cells)."""
    if one.correlations is not None:
        return one.correlations.influence()
    added: NDArray[np.float64] = (one.values - one.values.mean(axis=0)) / len(one.values)
    return added


def steps_of(count: int, size: int) -> Iterator[slice]:
    """Return slices that cover so many indices, each of at most a given size."""
    return (slice(start, min(count, start + size)) for start in range(0, count, size))
