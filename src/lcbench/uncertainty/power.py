"""Power analysis: the effects that a comparison can detect, and those that it rules out.

Estimates are assumed normal with a known standard error (Card et al. 2020; Sakai 2016). Effects
have the unit of the error, here % of the baseline.
"""

from __future__ import annotations

import math

from scipy import stats

POWER = 0.8
"""The probability with which the smallest detectable effect is found."""

CLAIMED = 0.5
"""The effect on Avg in % that is to be seen: about what the paper claims."""

LEVEL = 0.90
"""Of the interval that equivalence is read from: two one-sided tests at 5 % (Schuirmann 1987)."""


def detectable(error: float, critical: float, power: float = POWER) -> float:
    """Return the smallest effect that is significant with a given probability.

    Args:
        error: the standard error.
        critical: critical value of the interval, in standard errors; an effect is significant if
            the interval excludes zero.
        power: the probability.
    """
    return (critical + float(stats.norm.ppf(power))) * error


def probability(effect: float, error: float, critical: float) -> float:
    """Return the probability that an effect is significant, with the correct sign.

    Args:
        effect: the true effect.
        error: the standard error.
        critical: as for `detectable`.
    """
    if error <= 0:
        return float(effect != 0)
    return float(stats.norm.cdf(abs(effect) / error - critical))


def needed(count: int, smallest: float, effect: float) -> int:
    """Return how many units make an effect detectable, if the error falls with their square root.

    Args:
        count: present number of units.
        smallest: effect that is detectable with them.
        effect: effect that is to be detectable.
    """
    return math.ceil(count * (smallest / effect) ** 2)


def bound(value: float, error: float, critical: float) -> float:
    """Return the size that an effect does not exceed in either direction.

    Args:
        value: the estimate.
        error: its standard error.
        critical: critical value of the 90 % interval (`LEVEL`), in standard errors.
    """
    return abs(value) + critical * error
