"""The p-value of a paired difference: how often signs flipped at random make as much of it.

Under the null hypothesis either system could have given either value of a pair, so that each
difference could as well have the other sign. All sign patterns are counted, none is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 1e-12
"""No p-value is given as less: what lies below is lost in the rounding of floating point."""

# Units of which all sign patterns are enumerated, half of them against the other half.
_ENUMERATED = 30
_SPREAD_ENUMERATED = 14
# The largest denominator of differences that are fractions of the largest of them: experiments ×
# languages is 510 for Massive.
_DENOMINATORS = 1000
# Standard deviations beyond which a sum of flipped signs lies with a probability of less than
# 2 exp(−8.5² / 2) = 4e-16 (Hoeffding).
_REACH = 8.5
# Points of the characteristic function that are computed at once, how many at most, times units,
# and below what it counts as fallen to nothing.
_POINTS = 32
_AT_MOST = 2**19
_NOTHING = 1e-11


def sign_flip_p(
    differences: Sequence[float] | NDArray[np.float64],
    spread: Sequence[float] | NDArray[np.float64] = (),
) -> float:
    """Return the two-sided p-value of a sum of paired differences: exact, not sampled.

    The probability that Σ ± differences + Σ ± spread is at least as far from zero as
    Σ differences is. Up to 30 units by enumeration; beyond, where differences are multiples of a
    step (shares of right answers), from their distribution on that lattice, by FFT; else by
    inversion of the characteristic function Π cos(dᵢ t) (Gil-Pelaez 1951), good to nine digits
    where no few differences outweigh all others.

    Args:
        differences: of each unit, shape (units,); zeros count for nothing.
        spread: further differences of which the sum varies as well, but has no part in the sum that
            was observed, shape (any,).

    Returns:
        A number in (0, 1]; 1 if nothing differs, never less than `LEAST`.
    """
    values = np.asarray(differences, dtype=np.float64)
    further = np.asarray(spread, dtype=np.float64)
    observed = abs(math.fsum(values))
    values, further = values[values != 0], further[further != 0]
    units = np.concatenate([values, further])
    # Sums that are equal in exact arithmetic are not in floating point.
    observed -= 1e-10 * float(np.abs(units).sum())
    if observed <= 0:
        return 1.0
    deviation = math.sqrt(float(units @ units))
    if 2 * math.exp(-((observed / deviation) ** 2) / 2) < LEAST:
        return LEAST
    if len(units) <= _ENUMERATED:
        found = _enumerated(units, observed)
    elif len(further) <= _SPREAD_ENUMERATED and (lattice := _lattice(values)) is not None:
        numbers, step = lattice
        found = _on_lattice(numbers, observed / step, _sums(further / step))
    else:
        found = _inverted(units, observed, deviation)
    return min(1.0, max(LEAST, found))


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of all sign patterns."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _enumerated(units: NDArray[np.float64], observed: float) -> float:
    half = len(units) // 2
    first, second = _sums(units[:half]), np.sort(_sums(units[half:]))
    as_far = len(second) - np.searchsorted(second, observed - first)
    return 2 * float(as_far.sum()) / 2.0 ** len(units)


def _lattice(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], float] | None:
    """Return values as multiples of a step, and the step; None if there is none."""
    if len(values) == 0:
        return None
    largest = float(np.abs(values).max())
    shares = np.unique(np.round(np.abs(values) / largest, 12))
    denominators = np.arange(1, _DENOMINATORS + 1)
    for share in shares:
        multiples = denominators * share
        denominators = denominators[np.abs(multiples - np.rint(multiples)) < 1e-8]
        if len(denominators) == 0:
            return None
    step = largest / denominators[0]
    return np.rint(values / step).astype(np.int64), step


def _on_lattice(numbers: NDArray[np.int64], observed: float, shifts: NDArray[np.float64]) -> float:
    """Return P(|Σ ± numbers + shift| ≥ observed), each shift as likely as the others.

    The sum moves in steps of 2. Its distribution is the discrete Fourier transform of its
    characteristic function, over as many points as it reaches.
    """
    sizes, times = np.unique(np.abs(numbers), return_counts=True)
    whole = int(sizes @ times)
    reach = min(whole, math.ceil(_REACH * math.sqrt(float(sizes.astype(float) ** 2 @ times))) + 1)
    reach += (whole - reach) % 2
    points = reach + 1
    angles = np.pi * np.arange(points) / points
    logarithm, negative = np.zeros(points), np.zeros(points, dtype=bool)
    with np.errstate(divide="ignore"):
        for size, count in zip(sizes, times, strict=True):
            cosine = np.cos(size * angles)
            logarithm += count * np.log(np.abs(cosine))
            if count % 2:
                negative ^= cosine < 0
    characteristic = np.where(negative, -1.0, 1.0) * np.exp(logarithm)
    chances = np.fft.fft(characteristic * np.exp(1j * angles * reach)).real / points
    # Of sums −reach, −reach + 2, …: the chance of each or more.
    beyond = np.append(np.cumsum(np.maximum(chances, 0.0)[::-1])[::-1], 0.0)
    places = np.ceil((observed - shifts + reach) / 2).astype(np.int64)
    return 2 * float(beyond[np.clip(places, 0, points)].mean())


def _inverted(units: NDArray[np.float64], observed: float, deviation: float) -> float:
    """Return P(|Σ ± units| ≥ observed) from the characteristic function.

    P(sum > s) = 1/2 − 1/π Σ sin((k + 1/2) Δ s) φ((k + 1/2) Δ) / (k + 1/2); with Δ as small as it is
    here, the error is the chance of a sum beyond 8.5 standard deviations.
    """
    step = 2 * np.pi / (observed + _REACH * deviation)
    found: list[NDArray[np.float64]] = []
    at_most = max(4, _AT_MOST // (_POINTS * len(units)))
    while len(found) < at_most:
        places = np.arange(_POINTS) + 0.5 + _POINTS * len(found)
        found.append(np.cos(np.multiply.outer(places * step, units)).prod(axis=1))
        if np.abs(found[-1][_POINTS // 2 :]).max() < _NOTHING:
            break
    characteristic = np.concatenate(found)
    places = np.arange(len(characteristic)) + 0.5
    if len(found) == at_most:
        # Cut off where it has not fallen to nothing: as if a little normal noise were added.
        characteristic = characteristic * np.exp(-36 * (places / len(places)) ** 2)
    inner = np.sin(places * step * observed) * characteristic / places
    return 2 * (0.5 - float(inner.sum()) / np.pi)
