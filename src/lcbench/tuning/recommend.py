"""Recommends one of several repairs, or none, and estimates what it gains on other texts.

The repair that is best on some texts is so partly by chance. Its gain is therefore estimated
by cross-validation: independent units (clusters of items that share texts, or tasks) are divided
into folds, a repair is chosen on all folds but one, and scored on that one. The bootstrap repeats
the whole procedure, with the choices, so that the interval accounts for them (Tibshirani and
Tibshirani 2009; Tsamardinos, Greasidou and Borboudakis 2018).

A repair is recommended if its gain is above 0 by a band over all repairs (`simultaneous`), and the
cross-validated gain is above 0 by its interval. The band alone is valid for any rule of choice; the
interval ensures that what is recommended is expected to gain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from lcbench.uncertainty import power
from lcbench.uncertainty.bootstrap import LEVEL, generator, interval, weights
from lcbench.uncertainty.simultaneous import critical_values
from lcbench.uncertainty.variation import steps_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDS = 10
"""Number of folds, or of units if they are fewer."""

FEWEST = 30
"""Minimum number of texts as units: with fewer, an interval of a chosen repair says nothing."""

FEWEST_TASKS = 8
"""Minimum number of tasks as units."""

LEAST_CHANGED = 10
"""Minimum number of units that a recommended repair must change; see `reporting.statistics`."""

RESAMPLES = 2_000

_NORMAL = float(stats.norm.ppf((1 + LEVEL) / 2))
# Numbers in an array of weights: 16 MB.
_AT_ONCE = 2**22
# `bootstrap.weights` needs blocks that start at a multiple of four samples.
_LANES = 4
# In %; sums and differences of equal numbers differ by less.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Part:
    """A part of an average score: a task, or a column of tasks.

    Attributes:
        weight: share of its mean in the average.
        units: distinct independent units, shape (units,).
        sizes: weight of each unit in the mean, such as its number of items, shape (units,).
        sums: weighted sums of the differences from the baseline by unit and repair, in % of the
            baseline's average, shape (units, repairs).
        noise: further deviations of the mean that are independent of the units, such as those of a
            classification's experiments, shape (experiments, repairs); None: there are none.
    """

    weight: float
    units: NDArray[np.uint64]
    sizes: NDArray[np.float64]
    sums: NDArray[np.float64]
    noise: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Advice:
    """Which of several repairs to use, if any. Gains are in % of the baseline's average.

    Attributes:
        chosen: index of the recommended repair; None: none.
        best: index of the repair of the largest gain on all data.
        gains: gain of each repair on all data, shape (repairs,).
        low: lower ends of the 95 % band over all repairs, shape (repairs,).
        high: upper ends, the same shape.
        expected: cross-validated gain of the best repair as chosen on other units.
        expected_low: lower end of its 95 % interval.
        expected_high: upper end.
        picks: number of folds in which each repair is the best of the other folds, the baseline
            first, shape (1 + repairs,).
        changed: number of units that each repair changes, shape (repairs,).
        units: number of independent units.
        detectable: gain that would be significant in four of five cases.
        resamples: number of bootstrap samples.
        seed: seed of folds and draws.
    """

    chosen: int | None
    best: int
    gains: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    expected: float
    expected_low: float
    expected_high: float
    picks: NDArray[np.int64]
    changed: NDArray[np.int64]
    units: int
    detectable: float
    resamples: int
    seed: int

    @property
    def needed(self) -> int:
        """Number of such units with which half a percent would be detectable (`power`)."""
        return power.needed(self.units, self.detectable, power.CLAIMED)


def recommend(
    parts: Sequence[Part],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    folds: int = FOLDS,
    few: bool = False,
    changed: int = LEAST_CHANGED,
) -> Advice:
    """Recommend one of several repairs, or none.

    Args:
        parts: parts of the average, all with the same repairs; weights add up to 1.
        resamples: number of bootstrap samples.
        seed: seed of folds and draws.
        folds: number of folds.
        few: whether units are few, such as tasks. Their weights in a sample are then exponential
            (the Bayesian bootstrap) instead of Poisson, so that no part is ever empty.
        changed: minimum number of units that a recommended repair changes.

    Returns:
        The advice, the same for the same arguments.
    """
    units = np.unique(np.concatenate([one.units for one in parts]))
    places = [np.searchsorted(units, one.units) for one in parts]
    fold_of = _folds(parts, places, len(units), min(folds, len(units)), seed)
    shifts = [_shifts(one, resamples, seed, number) for number, one in enumerate(parts)]
    done = [
        _procedure(parts, places, fold_of, drawn, [shift[:, some] for shift in shifts])
        for some, drawn in _weights(units, resamples, seed, few=few)
    ]
    expected = np.concatenate([one.expected for one in done])
    gains = np.concatenate([one.gains for one in done], axis=1)
    observed, drawn = gains[:, 0], gains[:, 1:]
    errors, stretch = _errors(parts, places, len(units))
    (critical,) = critical_values(drawn.T, LEVEL)
    half = critical * stretch * errors
    changing = _changed(parts, places, len(units))
    best = int(observed.argmax())
    value, around = float(expected[0]), expected[1:]
    deviation = float(drawn[best].std())
    reaching = _NORMAL
    if deviation > 0:
        reaching *= float(stretch[best] * errors[best]) / deviation
    low, high = interval(around, reaching, value, float(around.std()))
    # Percentiles of few units are too narrow: at least Student's t of the best repair.
    low = min(low, value - reaching * deviation)
    high = max(high, value + reaching * deviation)
    significant = (observed - half > 0) & (changing >= changed)
    return Advice(
        chosen=best if significant[best] and low > 0 else None,
        best=best,
        gains=observed,
        low=observed - half,
        high=observed + half,
        expected=value,
        expected_low=low,
        expected_high=high,
        picks=done[0].picks,
        changed=changing,
        units=len(units),
        detectable=power.detectable(float(errors[best]), critical * float(stretch[best])),
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True)
class _Done:
    """The procedure on several samples, the first of which may be the data themselves.

    Attributes:
        expected: cross-validated gains, shape (samples,).
        gains: gains of all repairs, shape (repairs, samples).
        picks: of the first sample, as in `Advice`.
    """

    expected: NDArray[np.float64]
    gains: NDArray[np.float64]
    picks: NDArray[np.int64]


def _procedure(
    parts: Sequence[Part],
    places: Sequence[NDArray[np.int64]],
    fold_of: NDArray[np.int64],
    drawn: NDArray[np.floating[Any]],
    shifts: Sequence[NDArray[np.float64]],
) -> _Done:
    """Choose and score repairs on several samples.

    Args:
        parts: parts of the average.
        places: index of each unit of a part among all units.
        fold_of: fold of each unit, shape (units,).
        drawn: weight of each unit in each sample, shape (units, samples).
        shifts: deviation of each part's means by its noise, shape (repairs, samples).
    """
    folds, repairs, samples = int(fold_of.max()) + 1, parts[0].sums.shape[1], drawn.shape[1]
    sums = np.zeros((len(parts), folds, repairs, samples))
    sizes = np.zeros((len(parts), folds, 1, samples))
    for number, (part, place, shift) in enumerate(zip(parts, places, shifts, strict=True)):
        for fold in range(folds):
            rows = np.flatnonzero(fold_of[place] == fold)
            own = drawn[place[rows]]
            sizes[number, fold, 0] = part.sizes[rows] @ own
            sums[number, fold] = part.sums[rows].T @ own + shift * sizes[number, fold]
    every = sums.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True)
    shares = np.array([one.weight for one in parts])
    (gains,) = _average(*every, shares)
    others = _average(every[0] - sums, every[1] - sizes, shares)
    best = others.argmax(axis=1)
    is_none = others.max(axis=1) <= _ROUNDING
    scored = np.take_along_axis(sums, best[None, :, None], axis=2)[:, :, 0]
    scored[:, is_none] = 0.0
    expected = _average(scored.sum(axis=1), every[1][:, 0, 0], shares)
    picks = np.where(is_none[:, 0], 0, 1 + best[:, 0])
    return _Done(expected, gains, np.bincount(picks, minlength=1 + repairs))


def _average(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return weighted means of the means of parts, along the first axis, without empty parts."""
    present = sizes > _ROUNDING
    wanted = np.broadcast_to(present, sums.shape)
    means = np.divide(sums, sizes, out=np.zeros(sums.shape), where=wanted)
    weight = present * shares.reshape(-1, *(1,) * (sums.ndim - 1))
    total: NDArray[np.float64] = weight.sum(axis=0)
    found: NDArray[np.float64] = (weight * means).sum(axis=0) / np.where(total > 0, total, 1.0)
    return found


def _folds(
    parts: Sequence[Part],
    places: Sequence[NDArray[np.int64]],
    count: int,
    folds: int,
    seed: int,
) -> NDArray[np.int64]:
    """Return the fold of each unit, such that each part has about equal shares in all folds.

    Units of the same parts follow each other, by size and at random, and are dealt out in turn.
    """
    sizes = np.zeros((count, len(parts)))
    for number, (part, place) in enumerate(zip(parts, places, strict=True)):
        sizes[place, number] = part.sizes
    _, pattern = np.unique(sizes > 0, axis=0, return_inverse=True)
    shuffled = generator(seed, "folds").permutation(count)
    order = np.lexsort((shuffled, sizes.sum(axis=1), pattern.ravel()))
    found = np.empty(count, dtype=np.int64)
    found[order] = np.arange(count) % folds
    return found


def _weights(
    units: NDArray[np.uint64], resamples: int, seed: int, *, few: bool
) -> Iterator[tuple[slice, NDArray[np.floating[Any]]]]:
    """Yield the weights of units by block of samples; the first are 1, for the data themselves."""
    yield slice(0, 1), np.ones((len(units), 1))
    if few:
        drawn = generator(seed, "weights of units").exponential(size=(len(units), resamples))
        yield slice(1, 1 + resamples), drawn
        return
    step = max(_LANES, _AT_ONCE // len(units) // _LANES * _LANES)
    for some in steps_of(resamples, step):
        yield slice(1 + some.start, 1 + some.stop), weights(units, some, seed).astype(np.float32)


def _shifts(part: Part, resamples: int, seed: int, number: int) -> NDArray[np.float64]:
    """Return deviations of a part's means in each sample, shape (repairs, 1 + resamples)."""
    found = np.zeros((part.sums.shape[1], 1 + resamples))
    if part.noise is not None:
        random = generator(seed, "noise", str(number))
        drawn = random.exponential(size=(len(part.noise), resamples))
        found[:, 1:] = part.noise.T @ drawn / drawn.sum(axis=0)
    return found


def _errors(
    parts: Sequence[Part], places: Sequence[NDArray[np.int64]], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the standard error of each repair's gain, and by how much t is wider than normal.

    Means are ratios, so that a unit's contribution to first order is its deviation from the mean.
    The variance of a part is the unbiased one; the degrees of freedom are Satterthwaite's.
    """
    repairs = parts[0].sums.shape[1]
    added, own = np.zeros((count, repairs)), np.zeros((2, repairs))
    terms, noise = [], np.zeros(repairs)
    for part, place in zip(parts, places, strict=True):
        size, many = part.sizes.sum(), len(place)
        mean = part.sums.sum(axis=0) / size
        apart = part.weight * (part.sums - part.sizes[:, None] * mean) / size
        added[place] += apart
        squares = (apart**2).sum(axis=0)
        own += squares, squares * many / max(many - 1, 1)
        terms.append((squares, max(many - 1, 1)))
        if part.noise is not None:
            times = len(part.noise)
            variance = part.weight**2 * part.noise.var(axis=0, ddof=1) / times
            noise += variance
            terms.append((variance, times - 1))
    unbiased = np.divide(own[1], own[0], out=np.ones(repairs), where=own[0] > 0)
    total = (added**2).sum(axis=0) * unbiased + noise
    squared = sum(variance**2 / degrees for variance, degrees in terms)
    alone = sum(variance for variance, _ in terms)
    degrees = np.divide(alone**2, squared, out=np.full(repairs, 1e9), where=squared > 0)
    return np.sqrt(total), stats.t.ppf((1 + LEVEL) / 2, degrees) / _NORMAL


def _changed(
    parts: Sequence[Part], places: Sequence[NDArray[np.int64]], count: int
) -> NDArray[np.int64]:
    """Return the number of units that each repair changes."""
    found = np.zeros((count, parts[0].sums.shape[1]), dtype=bool)
    for part, place in zip(parts, places, strict=True):
        found[place] |= np.abs(part.sums) > _ROUNDING
    changed: NDArray[np.int64] = found.sum(axis=0)
    return changed
