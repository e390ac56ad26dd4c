"""Bootstrap samples of the scores of one task, the same for all cells that have its items.

A sample draws items with replacement and gives every cell its score over them, so that cells are
compared over the same draws. Knows nothing of tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from lcbench.uncertainty.items import Correlations, Samples, independent_parts, score_of
from lcbench.uncertainty.permutation import sign_flip_p

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95
"""Of all intervals."""

# From this reach on, draws end too early: it is between those of eight and nine units.
_FAR = 2.5
_OUTMOST = 10
# Items that are drawn together; of more, it is drawn first how many fall into each such block.
_BLOCK = 4096
# Counts of samples × items that are held at once: 4 to 8 MB each, twice.
_COUNTS_AT_ONCE = 2**20
_PAIRS_AT_ONCE = 2**19


@dataclass(frozen=True)
class Component:
    """A source of a score's variation, independent of the others.

    Attributes:
        values: of each unit and cell, shape (units, cells).
        weight: of it in the score.
        gold: what the values of pairs are correlated with; None: their mean is the score.
        deviates: whether only the deviations of its mean from `values`' add to the score: those of
            a classification's experiments, whose mean the texts give already.
    """

    values: NDArray[np.float64]
    weight: float
    gold: NDArray[np.float64] | None = None
    deviates: bool = False


@dataclass(frozen=True)
class Resampled:
    """The bootstrap samples of cells with the same items.

    Attributes:
        scores: over all items, as fractions, shape (cells,).
        draws: over each sample, shape (resamples, cells).
        covariances: of the draws of each component, shape (components, cells, cells).
        sizes: units of each component.
        components: what was drawn from, of cells that are not alike.
        places: of each cell in them.
        units: what they are.
        count: how many, experiments aside.
        signed: whether the score can be below 0: correlations, and means of values some of which
            are.
        still: names of the subsets (or splits) of a single item, which stay as they are.
    """

    scores: NDArray[np.float64]
    draws: NDArray[np.float32]
    covariances: NDArray[np.float64]
    sizes: NDArray[np.float64]
    components: tuple[Component, ...]
    places: tuple[int, ...]
    units: str
    count: int
    signed: bool = False
    still: tuple[str, ...] = ()

    def stretch(self, gradient: NDArray[np.float64]) -> tuple[float, float]:
        """Return how far an interval of a sum of scores must reach, and the degrees of freedom.

        Percentiles of a bootstrap are too narrow for few units: its variance is smaller by
        (n − 1)/n than the one estimated without bias, and normal where Student's t is right. The
        percentiles that make up for both are those of Hesterberg (2015, "expanded percentile"). Of
        several components the degrees of freedom are Satterthwaite's.

        Args:
            gradient: of the quantity by each score, shape (cells,).

        Returns:
            the reach in standard deviations of the draws (1.96 for many units), and the degrees.
        """
        drawn = np.einsum("i,kij,j->k", gradient, self.covariances, gradient)
        return reach(
            drawn * self.sizes / np.maximum(self.sizes - 1, 1), self.sizes - 1, drawn.sum()
        )

    def deviation(self, gradient: NDArray[np.float64]) -> float:
        """Return the standard deviation of the draws of a sum of scores, of such a gradient."""
        variance = gradient @ self.covariances.sum(axis=0) @ gradient
        return float(np.sqrt(max(variance, 0.0)))

    def p_value(self, raw: int, ours: int) -> float:
        """Return the p-value of the difference of two cells' scores (`permutation`).

        Sign flips of the differences of items. Of pairs: with ranks g of the gold standard and a,
        b of each cell's cosines, centred and scaled to length 1, the difference of Spearman's
        correlations ρ is Σ (b − a) g. As Σ (b² − a²) = 0, it is also the sum of
        (b − a) g − ρ (b² − a²) / 2, what a pair adds to first order; these are flipped (without
        the second term the test would be valid, and far weaker).

        Exact for means of items without experiments, and else to first order. A classification's
        experiments add normal noise of the variance that they show, and as ten of them know it
        badly, p is that of Student's t, of (experiments − 1) / (their share of the variance)
        degrees of freedom. That is fewer than Satterthwaite's, with which p falls below 0.001 up to
        1.6 times too often; in simulations of 1,000 texts and 10 experiments of any share, p falls
        below 0.05, 0.01 and 0.001 in 0.88 to 1, 0.74 to 1 and 0.5 to 1 times as many cases as it
        should. (With the variance taken as known: 1.6, 3 and 9 times.)
        """
        differences, noise, unknown = [np.zeros(0)], 0.0, 0.0
        for one in self.components:
            values = one.values[:, [self.places[raw], self.places[ours]]]
            count = len(values)
            if one.gold is not None:
                gold, before, after = (
                    _unit(stats.rankdata(column)) for column in (one.gold, *values.T)
                )
                rho = gold @ (before + after) / 2
                parts = gold * (after - before) - rho * (after**2 - before**2) / 2
            else:
                parts = (values[:, 1] - values[:, 0]) / count
            if one.deviates:
                variance = one.weight**2 * float(parts.var(ddof=1)) * count
                noise += variance
                unknown += variance / (count - 1)
            else:
                differences.append(one.weight * parts)
        units = np.concatenate(differences)
        degrees = float(noise + units @ units) / unknown if unknown > 0 else float("inf")
        return sign_flip_p(units, float(np.sqrt(noise)), degrees)


def _unit(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks around their mean, the sum of whose squares is 1."""
    centred = ranks - ranks.mean()
    length = np.sqrt(centred @ centred)
    found: NDArray[np.float64] = centred / length if length > 0 else centred
    return found


def reach(
    variances: NDArray[np.float64], degrees: NDArray[np.float64], drawn: float
) -> tuple[float, float]:
    """Return how far an interval reaches, in standard deviations of the draws.

    Args:
        variances: of independent components, each estimated without bias.
        degrees: of freedom of each.
        drawn: the variance of the draws.

    Returns:
        the reach, and the degrees of freedom of the sum (Satterthwaite 1946).
    """
    total = float(variances.sum())
    if total <= 0 or drawn <= 0:
        return float(stats.norm.ppf((1 + LEVEL) / 2)), float("inf")
    freedom = total**2 / float((variances**2 / np.maximum(degrees, 1e-9)).sum())
    t = float(stats.t.ppf((1 + LEVEL) / 2, freedom))
    return t * float(np.sqrt(total / drawn)), freedom


def interval(
    draws: NDArray[np.float64], reaching: float, value: float, deviation: float
) -> tuple[float, float]:
    """Return the percentiles of draws that lie as far out as a normal value's would.

    Means of n units lie between the least and the greatest of them, however often they are drawn:
    of few units percentiles cannot reach as far as they should (of two tasks that gain, none would
    ever reach zero). Where the reach is that of eight units or less, the interval is at least
    value ± reach × deviation: Student's t. Of a normal quantity without effect, zero is then
    excluded in 5.5 % of cases for two units (49 % by percentiles alone), 5.4 % for three (26 %),
    5.1 % for four (12 %), 4.5 % for six (7 %).

    Args:
        draws: of the quantity, shape (resamples,).
        reaching: of `reach`.
        value: the quantity itself.
        deviation: of the draws; to first order, where some of them may be infinite.
    """
    tail = float(stats.norm.cdf(-reaching))
    if reaching > _FAR:
        # Further out a percentile is one of a few draws, which may be infinite.
        tail = max(tail, _OUTMOST / len(draws))
    low, high = (float(end) for end in np.quantile(draws, [tail, 1 - tail], method="inverted_cdf"))
    if reaching > _FAR:
        low, high = min(low, value - reaching * deviation), max(high, value + reaching * deviation)
    return low, high


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a source of random numbers of its own for each name: no other draw changes it."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])


def resample(
    cells: Sequence[Samples], resamples: int, random: np.random.Generator
) -> Resampled | None:
    """Return bootstrap samples of the scores of cells with the same items.

    Counts of a sample's items times their values give all cells' means at once; Spearman's
    correlations come from counts as well (`items.spearman`). A subset of a single item stays as it
    is in all samples.

    Args:
        cells: with the same items, and the same number of experiments.
        resamples: how many samples.
        random: of `generator`.

    Returns:
        None where there is no variation to draw from: no subset has more than a single item.
    """
    # Cells with the same values have the same score in every sample, to the last bit.
    unlike, place_of = _unlike(cells)
    parts = components([cells[place] for place in unlike])
    if not any(len(one.values) > 1 and not one.deviates for one in parts):
        return None
    draws = np.zeros((resamples, len(unlike)))
    for one in parts:
        if len(one.values) == 1:
            draws += one.weight * one.values
    still = _still(cells[0])
    signed = any(one.gold is not None or (one.values < 0).any() for one in parts)
    parts = [one for one in parts if len(one.values) > 1]
    covariances = []
    for one in parts:
        if one.gold is None:
            drawn = _means(one.values, resamples, random)
            if one.deviates:
                drawn -= one.values.mean(axis=0)
        else:
            drawn = _correlations(one.gold, one.values, resamples, random)
        drawn *= one.weight
        draws += drawn
        covariances.append(np.cov(drawn, rowvar=False).reshape(len(unlike), len(unlike)))
    sizes = np.array([len(one.values) for one in parts], dtype=np.float64)
    first = next(iter(cells[0].values()))
    return Resampled(
        scores=np.array([score_of(cell) for cell in cells]),
        draws=draws.astype(np.float32)[:, place_of],
        covariances=np.stack(covariances)[:, place_of][:, :, place_of],
        sizes=sizes,
        components=tuple(parts),
        places=tuple(place_of),
        units=first.units,
        count=int(sum(len(one.values) for one in parts if not one.deviates)),
        signed=signed,
        still=still,
    )


def _still(samples: Samples) -> tuple[str, ...]:
    """Return the names of the parts of a score that are of a single item."""
    splits = {split for split, _ in samples}
    names = []
    for parts, _ in independent_parts(samples):
        if len(samples[parts[0]].values) == 1:
            split, subset = parts[0]
            names.append(subset if len(splits) == 1 else f"{split} {subset}")
    return tuple(names)


def components(cells: Sequence[Samples]) -> list[Component]:
    """Return what the scores of cells with the same items vary with.

    Of a classification these are its texts and, where the cells have kept them, its experiments.
    """
    found = []
    for parts, weight in independent_parts(cells[0]):
        samples = [[cell[part] for part in parts] for cell in cells]
        values = np.empty((len(samples[0][0].values), len(cells)))
        for place, several in enumerate(samples):
            values[:, place] = np.mean([one.values for one in several], axis=0)
        found.append(Component(values, weight, samples[0][0].gold))
        draws = [[one.draws for one in several if one.draws is not None] for several in samples]
        # All of the cells have them, or none (`items.same_items`); translations may have others.
        if (
            all(len(several) == len(parts) for several in draws)
            and len({len(one) for several in draws for one in several}) == 1
        ):
            means = np.stack([np.mean(several, axis=0) for several in draws], axis=1)
            if len(means) > 1:
                found.append(Component(means, weight, deviates=True))
    return found


def _unlike(cells: Sequence[Samples]) -> tuple[list[int], list[int]]:
    """Return the places of cells with values of their own, and for each cell which of them."""
    known: dict[bytes, int] = {}
    unlike: list[int] = []
    place_of: list[int] = []
    for place, cell in enumerate(cells):
        digest = hashlib.blake2b(digest_size=16)
        for sample in cell.values():
            digest.update(sample.values.tobytes())
            if sample.draws is not None:
                digest.update(sample.draws.tobytes())
        key = digest.digest()
        if key not in known:
            known[key] = len(unlike)
            unlike.append(place)
        place_of.append(known[key])
    return unlike, place_of


def _means(
    values: NDArray[np.float64], resamples: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the means of samples of units, shape (resamples, cells)."""
    count = len(values)
    bounds = np.linspace(0, count, -(-count // _BLOCK) + 1).astype(int)
    sizes = np.diff(bounds)
    step = max(1, _COUNTS_AT_ONCE // int(sizes.max()))
    found = np.zeros((resamples, values.shape[1]))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = random.multinomial(count, sizes / count, size=rows)
        for block, first in enumerate(bounds[:-1]):
            counts = _counts(drawn[:, block], int(sizes[block]), random)
            inside = values[first : first + sizes[block]]
            found[start : start + rows] += counts.astype(np.float64) @ inside
    return found / count


def _correlations(
    gold: NDArray[np.float64],
    values: NDArray[np.float64],
    resamples: int,
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Return Spearman's correlations of samples of pairs, shape (resamples, cells).

    A sample in which one side is constant has no correlation; it counts as the score itself.
    """
    count = len(gold)
    step = max(1, _PAIRS_AT_ONCE // count)
    correlations, found = Correlations(gold, values), []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        counts = _counts(np.full(rows, count), count, random)
        found.append(correlations.over(counts.astype(np.int32)))
    drawn = np.concatenate(found)
    once = np.ones((1, count), dtype=np.int32)
    return np.where(np.isnan(drawn), correlations.over(once), drawn)


def _counts(drawn: NDArray[np.int64], size: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each of `size` units is drawn, of so many draws a row; (rows, size)."""
    places = np.repeat(np.arange(len(drawn)) * size, drawn)
    places += random.integers(0, size, len(places), dtype=np.int32)
    return np.bincount(places, minlength=len(drawn) * size).reshape(len(drawn), size)
