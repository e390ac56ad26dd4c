"""Confidence intervals of functions of sums over items: means, ratios, slopes, differences.

Items that share a text form a cluster (`clusters`), which is drawn as in `bootstrap`. The training
draws of a classification are units of a second kind, crossed with the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.uncertainty.bootstrap import generator, interval, reach, weights
from lcbench.uncertainty.variation import (
    CLUSTERS_AT_ONCE,
    Grouped,
    Variation,
    crossed,
    steps_of,
    variances_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 2_000
"""Bootstrap samples: the ends of an interval are then sure to 3 % of its width."""

SEED = 0

Function = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
"""Of sums, shape (…, columns), to what is asked, shape (…, quantities)."""

Interval = tuple[float, float]

# With fewer clusters, percentiles are too narrow, and Student's t is used.
_FEWEST_RESAMPLED = 10

# Sums over more clusters are drawn from the normal limit of their distribution. At this number the
# two differ less than bootstraps of two seeds, and 100,000 clusters cost no more than these.
_MOST_RESAMPLED = 1_000

# Relative step of numerical derivatives: small enough for ten digits, far above rounding.
_STEP = 1e-5


@dataclass(frozen=True)
class Term:
    """A quantity that is summed over items.

    Attributes:
        values: values, shape (items,), or by training draw, (items, draws), whose mean over the
            draws is summed. Integers may have a small dtype, as there are millions.
        times: factors of the values, shape (items,); None: 1.
    """

    values: NDArray[Any]
    times: NDArray[np.float64] | None = None

    @property
    def draws(self) -> int:
        """The number of training draws; 0: values do not depend on them."""
        return self.values.shape[1] if self.values.ndim > 1 else 0

    @cached_property
    def means(self) -> NDArray[np.float64]:
        """The means over the draws, shape (items,)."""
        means = self.values.mean(axis=1, dtype=np.float64) if self.draws else self.values
        return np.asarray(means if self.times is None else means * self.times, dtype=np.float64)

    def some(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the values of some items by draw, shape (draws, items); (items,) without draws."""
        values = self.values.T[..., items]
        return np.asarray(values if self.times is None else values * self.times[items], np.float64)


def estimates(
    columns: Sequence[NDArray[Any] | Term],
    grouped: Grouped,
    functions: Sequence[Function],
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[tuple[float, Interval | None]]:
    """Return the values of a function of sums over items, with their 95 % intervals.

    Without training draws, they are percentiles of a bootstrap over the clusters
    (`bootstrap.interval`). With draws, or few clusters, they are to first order Student's t
    intervals with Satterthwaite's degrees of freedom, with the variance of texts crossed with
    draws, in which their interaction counts once (`variation.variances_of`).

    Args:
        columns: quantities that are summed.
        grouped: the items by their clusters.
        functions: functions of the sums, tried in turn until both ends of an interval are finite;
            the first gives the values.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.

    Returns:
        A value and its interval per quantity; no interval for fewer than two clusters, or if no
        function gives finite ends.
    """
    summed = [one if isinstance(one, Term) else Term(one) for one in columns]
    at = np.array([one.means.sum() for one in summed])
    with np.errstate(all="ignore"):
        values = functions[0](at).tolist()
    if not (values and resamples and len(grouped.members) > 1):
        return [(value, None) for value in values]
    drawn: NDArray[np.float64] | None = None
    if draws := max(one.draws for one in summed):
        sources: Sequence[Variation] = crossed(grouped, _crossing(summed, draws), draws)
    else:
        sums = _sums(summed, grouped)
        centred = sums - at / len(sums)
        scale = len(sums) / (len(sums) - 1)
        sources = [Variation(scale * centred.T @ centred, len(sums) - 1)]
        if len(sums) >= _FEWEST_RESAMPLED:
            drawn = _drawn(sums, grouped.members, resamples, seed)
    size = np.array([float(np.abs(one.means).sum()) for one in summed])
    results = [_of_function(function, at, size, sources, drawn) for function in functions]
    return [
        (value, next((ends for ends in of if ends is not None), None))
        for value, *of in zip(values, *results, strict=True)
    ]


def changed(change: NDArray[Any] | Term, grouped: Grouped) -> tuple[int, int]:
    """Return the number of clusters that gain and of clusters that lose.

    Args:
        change: change of each item, averaged over training draws.
        grouped: the items by their clusters.
    """
    change = (change if isinstance(change, Term) else Term(change)).means
    sums = np.add.reduceat(change[grouped.order], grouped.starts[:-1]) if len(change) else change
    # Sums of values that cancel out are zero up to rounding.
    least = 1e-9 * float(np.abs(change).max(initial=0.0))
    return int((sums > least).sum()), int((sums < -least).sum())


def _crossing(
    columns: Sequence[Term], draws: int
) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    def values(items: NDArray[np.int64]) -> NDArray[np.float64]:
        products = np.empty((len(columns), draws, len(items)))
        for place, one in enumerate(columns):
            products[place] = one.some(items)
        return products

    return values


def _sums(columns: Sequence[Term], grouped: Grouped) -> NDArray[np.float64]:
    """Return the sums of columns over clusters, shape (clusters, columns)."""
    values = np.stack([one.means for one in columns], axis=1)[grouped.order]
    found: NDArray[np.float64] = np.add.reduceat(values, grouped.starts[:-1], axis=0)
    return found


def _drawn(
    sums: NDArray[np.float64], members: NDArray[np.uint64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the totals of samples of clusters, shape (resamples, columns)."""
    if len(sums) > _MOST_RESAMPLED:
        # A weight of Poisson(1) has a variance of 1.
        random = generator(seed, "sums over", str(len(sums)))
        return random.multivariate_normal(sums.sum(axis=0), sums.T @ sums, resamples)
    drawn = np.zeros((resamples, sums.shape[1]))
    for some in steps_of(len(sums), CLUSTERS_AT_ONCE):
        times = weights(members[some], slice(0, resamples), seed)
        drawn += times.astype(np.float64).T @ sums[some]
    return drawn


def _of_function(
    function: Function,
    at: NDArray[np.float64],
    size: NDArray[np.float64],
    sources: Sequence[Variation],
    drawn: NDArray[np.float64] | None,
) -> list[Interval | None]:
    """Return the intervals of the quantities of a function.

    Args:
        function: function of the sums.
        at: the sums.
        size: Σ |values| of each.
        sources: sources of the sums' variation.
        drawn: sums over each sample; None: use Student's t.
    """
    around = np.diag(np.where(size > 0, _STEP * size, _STEP))
    with np.errstate(all="ignore"):
        values = function(at)
        slopes = (function(at + around) - function(at - around)).T / (2 * np.diagonal(around))
        draws = None if drawn is None else function(drawn)
    found: list[Interval | None] = []
    for place, (value, gradient) in enumerate(zip(values, slopes, strict=True)):
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            found.append(None)
            continue
        variances, degrees = variances_of(sources, gradient)
        reaching, _ = reach(variances, degrees, total := float(variances.sum()))
        error = float(np.sqrt(max(total, 0.0)))
        ends = float(value) - reaching * error, float(value) + reaching * error
        if draws is not None:
            # The variance of the draws is smaller by a factor of (n − 1)/n.
            count = sources[0].degrees + 1
            wider = reaching * float(np.sqrt(count / (count - 1)))
            ends = interval(draws[:, place], wider, float(value), error * reaching / wider)
        found.append(ends if np.isfinite(ends).all() else None)
    return found
