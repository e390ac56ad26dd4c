"""Bootstrap samples of the scores of one task, the same for all cells that have its items.

A sample gives each cluster of items (`clusters`) a random weight, and every cell its score under
these weights, so that cells are compared over the same draws. A weight depends on the cluster, the
sample and the seed only, so that tasks with common items are drawn together, independently of
anything else that is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

from lcbench.uncertainty.clusters import digest_of_names, link, mixed, nothing_shared, numbered
from lcbench.uncertainty.correlations import Correlations
from lcbench.uncertainty.items import Samples, independent_parts, score_of
from lcbench.uncertainty.permutation import sign_flip_p
from lcbench.uncertainty.variation import (
    CLUSTERS_AT_ONCE,
    Component,
    Grouped,
    Variation,
    components,
    steps_of,
    variances_of,
    variations,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
"""Of all intervals."""

# From this reach on, draws end too early: it is between those of eight and nine units.
_FAR = 2.5
_OUTMOST = 10
# Shape of a block of weights, by samples and clusters: 2 MB in floating point. A 64-bit number
# gives the weights of four neighbouring samples.
_SAMPLES_AT_ONCE = 1024
_LANES = 4
# For pairs, maximum number of counts in a block, so that they fit into the cache, and minimum
# number of samples.
_COUNTS = 2**19
_FEWEST_SAMPLES = 32
# Increment of the Weyl sequence of SplitMix64.
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Resampled:
    """The bootstrap samples of cells with the same items.

    Attributes:
        scores: scores over all items, as fractions, shape (cells,).
        draws: scores over each sample, shape (resamples, cells).
        drawn: covariance of the draws, shape (cells, cells).
        variations: variation of the scores by independent sources.
        components: components that samples are drawn from, for cells with different values.
        places: position of each cell in the components.
        units: name of the units: queries, pairs …
        count: number of units, not counting experiments.
        clusters: number of independent clusters of units.
        grouped: name of the clusters if there are fewer than units: documents, or groups.
        signed: whether the score can be negative: a correlation, or a mean of values of which some
            are negative.
        still: names of subsets (or splits) with a single cluster, which do not vary.
    """

    scores: NDArray[np.float64]
    draws: NDArray[np.float32]
    drawn: NDArray[np.float64]
    variations: tuple[Variation, ...]
    components: tuple[Component, ...]
    places: tuple[int, ...]
    units: str
    count: int
    clusters: int
    grouped: str = "groups"
    signed: bool = False
    still: tuple[str, ...] = ()

    def stretch(self, gradient: NDArray[np.float64]) -> tuple[float, float]:
        """Return how far an interval of a sum of scores must reach, and its degrees of freedom.

        Bootstrap percentiles are too narrow for few clusters: their variance is (n − 1)/n times the
        unbiased one, and their tails are normal instead of Student's t. Hesterberg's (2015)
        expanded percentiles correct both. For several sources, the degrees of freedom are
        Satterthwaite's.

        Args:
            gradient: derivatives of the quantity with respect to the scores, shape (cells,).

        Returns:
            the reach in standard deviations of the draws (1.96 for many units), and the degrees of
            freedom.
        """
        variances, degrees = variances_of(self.variations, gradient)
        return reach(variances, degrees, float(gradient @ self.drawn @ gradient))

    def error(self, gradient: NDArray[np.float64]) -> float:
        """Return the unbiased standard error of a sum of scores with this gradient."""
        return float(np.sqrt(variances_of(self.variations, gradient)[0].sum()))

    def deviation(self, gradient: NDArray[np.float64]) -> float:
        """Return the standard deviation of the draws of a sum of scores with this gradient."""
        return float(np.sqrt(max(float(gradient @ self.drawn @ gradient), 0.0)))

    def differences(self, raw: int, ours: int) -> NDArray[np.float64]:
        """Return each cluster's contribution to the difference of two scores, shape (clusters,)."""
        of_items = [one for one in self.components if not one.deviates]
        places = self.places[raw], self.places[ours]
        parts = [one.weight * one.differences(*places) for one in of_items]
        if not parts:
            return np.zeros(0)
        added = np.concatenate(parts)[self._by_cluster.order]
        found: NDArray[np.float64] = np.add.reduceat(added, self._by_cluster.starts[:-1])
        return found

    @cached_property
    def _by_cluster(self) -> Grouped:
        """The units of all components that consist of items, grouped by cluster."""
        of_items = [one for one in self.components if not one.deviates]
        if len(of_items) == 1:
            return of_items[0].grouped
        return Grouped.of(np.concatenate([one.clusters for one in of_items]))

    @staticmethod
    def changes(differences: NDArray[np.float64]) -> tuple[int, int]:
        """Return how many clusters raise a score and how many lower it, given `differences`."""
        # If the items of a cluster cancel out, rounding errors remain.
        least = 1e-12 * float(np.abs(differences).max(initial=0.0))
        return int((differences > least).sum()), int((differences < -least).sum())

    def p_value(self, raw: int, ours: int, differences: NDArray[np.float64] | None = None) -> float:
        """Return the p-value of the difference of two cells' scores (`permutation`).

        The signs of the clusters' contributions are flipped. This is exact for means of items
        without experiments, and otherwise to first order. A classification's experiments add normal
        noise of their observed variance. As ten experiments estimate it badly, p is that of
        Student's t with (experiments − 1) / (their share of the variance) degrees of freedom. These
        are fewer than Satterthwaite's, with which p falls below 0.001 up to 1.6 times too often. In
        simulations of 1,000 texts and 10 experiments of any share, p falls below 0.05, 0.01 and
        0.001 in 0.88 to 1, 0.74 to 1 and 0.5 to 1 times as many cases as it should. (With the
        variance taken as known: 1.6, 3 and 9 times.) The interaction of texts and experiments is
        contained in the differences of texts, and is not added to the noise.

        Args:
            raw: the first cell.
            ours: the second.
            differences: their `differences`, if already computed.
        """
        gradient = np.zeros(len(self.scores))
        gradient[[raw, ours]] = -1.0, 1.0
        noise = unknown = 0.0
        for together in self.variations:
            if together.source == "both":
                # It is contained in the texts' differences.
                noise -= float(gradient @ together.covariance @ gradient)
        for one in self.components:
            if one.deviates:
                parts = one.values[:, self.places[ours]] - one.values[:, self.places[raw]]
                variance = one.weight**2 * float(parts.var(ddof=1)) / len(parts)
                noise += variance
                unknown += variance / (len(parts) - 1)
        units = self.differences(raw, ours) if differences is None else differences
        noise = max(noise, 0.0)
        degrees = float(noise + units @ units) / unknown if unknown > 0 else float("inf")
        return sign_flip_p(units, float(np.sqrt(noise)), degrees)


def reach(
    variances: NDArray[np.float64], degrees: NDArray[np.float64], drawn: float
) -> tuple[float, float]:
    """Return how far an interval must reach, in standard deviations of the draws.

    Args:
        variances: unbiased variances of independent components.
        degrees: degrees of freedom of each.
        drawn: variance of the draws.

    Returns:
        the reach, and the degrees of freedom of the sum (Satterthwaite 1946).
    """
    total = float(variances.sum())
    if total <= 0 or drawn <= 0:
        return float(stats.norm.ppf((1 + LEVEL) / 2)), float("inf")
    freedom = total**2 / float((variances**2 / np.maximum(degrees, 1e-9)).sum())
    t = float(special.stdtrit(freedom, (1 + LEVEL) / 2))
    return t * float(np.sqrt(total / drawn)), freedom


def interval(
    draws: NDArray[np.float64], reaching: float, value: float, deviation: float
) -> tuple[float, float]:
    """Return the percentiles of draws that correspond to a normal quantile.

    However often n units are drawn, their mean lies between the smallest and the largest of them,
    so that percentiles of few units cannot reach as far as they should (for two tasks that gain,
    none would ever reach zero). If the reach is that of eight units or fewer, the interval is
    therefore at least value ± reach × deviation, Student's t. For a normal quantity without effect,
    zero is then excluded in 5.5 % of cases for two units (49 % by percentiles alone), 5.4 % for
    three (26 %), 5.1 % for four (12 %) and 4.5 % for six (7 %).

    Args:
        draws: draws of the quantity, shape (resamples,).
        reaching: result of `reach`.
        value: the quantity itself.
        deviation: standard deviation of the draws, to first order if some of them may be infinite.
    """
    tail = float(special.ndtr(-reaching))
    if reaching > _FAR:
        # Further out, a percentile would depend on a few draws, which may be infinite.
        tail = max(tail, _OUTMOST / len(draws))
    low, high = (float(end) for end in np.quantile(draws, [tail, 1 - tail], method="inverted_cdf"))
    if reaching > _FAR:
        low, high = min(low, value - reaching * deviation), max(high, value + reaching * deviation)
    return low, high


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator for a name, independent of all other draws."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])


def resample(
    cells: Sequence[Samples],
    resamples: int,
    seed: int,
    name: str = "",
    clusters: Sequence[NDArray[np.uint64]] | None = None,
) -> Resampled | None:
    """Return bootstrap samples of the scores of cells with the same items.

    Each cluster has a weight of Poisson(1) in a sample, as if clusters were drawn with replacement
    but their total number were not fixed (Hanley and MacGibbon 2006; Chamandy, Muralidharan, Najmi
    and Naidu 2012). A mean is the ratio of weighted sums; a correlation counts each pair as often
    as its weight says. A part with a single cluster does not vary.

    Args:
        cells: samples of cells with the same items and number of experiments.
        resamples: number of samples.
        seed: seed of all draws.
        name: name of the task, which gives its experiments their own draws.
        clusters: cluster of each item, for each of `independent_parts`; None: items share nothing.

    Returns:
        The samples; None if nothing varies because all items belong to one cluster.
    """
    if clusters is None:
        clusters = unlinked(cells[0], name)
    # Cells with the same values have the same score in every sample, to the last bit. Cells that
    # are equally often right about the same texts, but in other experiments, are drawn separately.
    unlike, place_of = _unlike(cells)
    parts = components([cells[place] for place in unlike], name, clusters)
    signed = any(one.gold is not None or (one.values < 0).any() for one in parts)
    draws = np.zeros((resamples, len(unlike)))
    moving = []
    for one in parts:
        if len(one.clusters) > 1 and (one.clusters != one.clusters[0]).any():
            draws += one.weight * _drawn(one, resamples, seed)
            moving.append(one)
        elif not one.deviates:
            draws += one.weight * _scores(one)
    of_items = [one for one in moving if not one.deviates]
    if not of_items:
        return None
    drawn = np.cov(draws, rowvar=False).reshape(len(unlike), len(unlike))
    first = next(iter(cells[0].values()))
    within = any(len(one.grouped.members) < len(one.clusters) for one in of_items)
    of_cells = np.ix_(place_of, place_of)
    return Resampled(
        scores=np.array([score_of(cell) for cell in cells]),
        draws=draws.astype(np.float32)[:, place_of],
        drawn=drawn[of_cells],
        variations=tuple(
            replace(one, covariance=one.covariance[of_cells]) for one in variations(moving)
        ),
        components=tuple(moving),
        places=tuple(place_of),
        units=first.units,
        count=sum(len(one.clusters) for one in of_items),
        clusters=len(np.unique(np.concatenate([one.grouped.members for one in of_items]))),
        # Queries of one split are linked by common documents; other items by equal texts.
        grouped="documents" if first.units == "queries" and within else "groups",
        signed=signed,
        still=_names_of_still(cells[0], clusters),
    )


def unlinked(samples: Samples, name: str) -> list[NDArray[np.uint64]]:
    """Return a cluster per item, for items that share nothing, by `independent_parts`."""
    return link(
        [
            nothing_shared(numbered(len(samples[parts[0]].values), name, parts[0]))
            for parts, _ in independent_parts(samples)
        ]
    )


def _names_of_still(samples: Samples, clusters: Sequence[NDArray[np.uint64]]) -> tuple[str, ...]:
    """Return the names of the parts of a score that have a single cluster."""
    splits = {split for split, _ in samples}
    names = []
    for (parts, _), of_part in zip(independent_parts(samples), clusters, strict=True):
        if (of_part == of_part[0]).all():
            split, subset = parts[0]
            names.append(subset if len(splits) == 1 else f"{split} {subset}")
    return tuple(names)


def _scores(one: Component) -> NDArray[np.float64]:
    """Return the scores of a component over all of its units, shape (cells,)."""
    if one.correlations is not None:
        return one.correlations.whole()
    means: NDArray[np.float64] = one.values.mean(axis=0)
    return means


def _unlike(cells: Sequence[Samples]) -> tuple[list[int], list[int]]:
    """Return the positions of cells with distinct values, and the index of each cell among them."""
    known: dict[bytes, int] = {}
    unlike: list[int] = []
    place_of: list[int] = []
    for place, cell in enumerate(cells):
        digest = hashlib.blake2b(digest_size=16)
        for sample in cell.values():
            digest.update(sample.values.tobytes())
            for more in (sample.draws, sample.right):
                if more is not None:
                    digest.update(more.tobytes())
        key = digest.digest()
        if key not in known:
            known[key] = len(unlike)
            unlike.append(place)
        place_of.append(known[key])
    return unlike, place_of


def _drawn(one: Component, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the scores of a component over each sample, shape (resamples, cells).

    A sample in which all weights are 0, or one side of a correlation is constant, counts as the
    score itself.
    """
    if one.correlations is not None:
        return _correlations(one.correlations, one.clusters, resamples, seed)
    grouped, centre, count = one.grouped, one.values.mean(axis=0), len(one.values)
    # The last row holds the number of units.
    total = np.zeros((one.values.shape[1] + 1, resamples))
    for some in steps_of(len(grouped.members), CLUSTERS_AT_ONCE):
        sums = grouped.sums(some, one.values[grouped.units(some)] - centre) / count
        rows = np.vstack([sums.T, grouped.sizes[some] / count]).astype(np.float32)
        for samples in steps_of(resamples, _SAMPLES_AT_ONCE):
            drawn = weights(grouped.members[some], samples, seed)
            total[:, samples] += rows @ drawn.astype(np.float32)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = np.where(total[-1] > 0, total[:-1] / total[-1], 0.0).T
    return found if one.deviates else found + centre


def _correlations(
    correlations: Correlations, clusters: NDArray[np.uint64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return Spearman's correlations over samples of clusters, shape (resamples, cells)."""
    step = min(_SAMPLES_AT_ONCE, max(_FEWEST_SAMPLES, _COUNTS // len(clusters) // _LANES * _LANES))
    found = np.concatenate(
        [
            correlations.over(weights(clusters, samples, seed))
            for samples in steps_of(resamples, step)
        ]
    )
    return np.where(np.isnan(found), correlations.whole(), found)


def _poisson() -> NDArray[np.uint8]:
    """Return the weight of a cluster for each 16-bit random number, shape (65536,).

    This is a Poisson distribution in steps of 2⁻¹⁶, with a mean of exactly 1 and a variance of
    1.0003.
    """
    times = np.arange(2, 12)
    parts = np.rint(2**16 * stats.poisson.pmf(times, 1)).astype(int)
    once = 2**16 - int(times @ parts)
    return np.repeat(np.arange(12), [2**16 - once - parts.sum(), once, *parts]).astype(np.uint8)


_POISSON = _poisson()


def weights(clusters: NDArray[np.uint64], samples: slice, seed: int) -> NDArray[np.uint8]:
    """Return the weights of clusters in samples: Poisson(1), fixed by seed, cluster and sample.

    Each cluster has a stream of SplitMix64, seeded by the cluster and the seed. Each number of it
    gives the weights of four samples.

    Args:
        clusters: shape (clusters,).
        samples: range of samples, which starts at a multiple of four.
        seed: seed of all draws.

    Returns:
        Shape (clusters, samples).
    """
    first, last = samples.start // _LANES, -(-samples.stop // _LANES)
    streams = mixed(clusters ^ np.uint64(digest_of_names("seed", seed)))
    steps: NDArray[np.uint64] = np.arange(first + 1, last + 1, dtype=np.uint64) * _STEP
    numbers = mixed(streams[:, None] + steps)
    lanes = numbers.astype("<u8", copy=False).view("<u2")[:, : samples.stop - samples.start]
    found: NDArray[np.uint8] = np.take(_POISSON, lanes, mode="clip")
    return found
