"""What could have been seen: the effects that a comparison finds, and those that it rules out.

Of a normal estimate with a known standard error (Card et al. 2020; Sakai 2016). All effects are in
the units of the error, here % of the baseline.
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
    """Return the smallest effect that is significant with some probability.

    Args:
        error: the standard error.
        critical: of the interval whose exclusion of zero is significance, in standard errors.
        power: the probability.
    """
    return (critical + float(stats.norm.ppf(power))) * error


def probability(effect: float, error: float, critical: float) -> float:
    """Return the probability that an effect is significant, on its own side of zero.

    Args:
        effect: the true effect.
        error: the standard error.
        critical: as for `detectable`.
    """
    if error <= 0:
        return float(effect != 0)
    return float(stats.norm.cdf(abs(effect) / error - critical))


def needed(count: int, smallest: float, effect: float) -> int:
    """Return how many units make an effect detectable, the error falling with their square root.

    Args:
        count: of the units that there are.
        smallest: the effect that is detectable with them.
        effect: the one that is to be.
    """
    return math.ceil(count * (smallest / effect) ** 2)


def bound(value: float, error: float, critical: float) -> float:
    """Return the size that an effect does not exceed, either way.

    Args:
        value: the estimate.
        error: its standard error.
        critical: of the 90 % interval (`LEVEL`), in standard errors.
    """
    return abs(value) + critical * error
