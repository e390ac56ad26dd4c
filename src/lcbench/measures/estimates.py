"""Estimates with 95 % intervals from a bootstrap over texts, not over pairs of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty.bootstrap import interval, reach, weights
from lcbench.uncertainty.clusters import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Draws = NDArray[np.float64]

RESAMPLES = 2_000
"""Bootstrap samples: the ends of an interval are then known to 3 % of its width."""

# Samples for intervals of rank correlations: each sorts all texts again.
_CORRELATION_SAMPLES = 1_000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from a bootstrap over texts (not over pairs)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return "0.071 (0.052 to 0.090)"."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def resampled(texts: int, resamples: int, seed: int) -> Draws:
    """Return how often each text is in each sample; the first sample is the data themselves.

    Shape (1 + resamples, texts).
    """
    drawn = weights(numbered(texts, "crowding"), slice(0, resamples), seed).T
    return np.concatenate([np.ones((1, texts)), drawn.astype(np.float64)])


def samples(owners: NDArray[np.int64], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield all rows, then those of each bootstrap sample, which draws the texts they are of.

    At most 1,000 samples: they are for rank correlations, which sort all rows in each.

    Args:
        owners: number of each row's text, from 0.
        resamples: number of samples.
        seed: seed of the bootstrap.
    """
    rows = np.arange(len(owners))
    yield rows
    texts = numbered(int(owners.max()) + 1, "crowding")
    for one in weights(texts, slice(0, min(resamples, _CORRELATION_SAMPLES)), seed).T:
        yield np.repeat(rows, one[owners])


def spread(values: Draws, texts: int) -> Estimate:
    """Return a value with its 95 % interval, wider for few texts.

    Args:
        values: the value itself, then that of each bootstrap sample.
        texts: number of texts that were drawn from.
    """
    value, drawn = float(values[0]), values[1:]
    variance = float(drawn.var())
    if variance <= 1e-30:
        return Estimate(value, value, value)
    reaching, _ = reach(
        np.array([variance * texts / (texts - 1)]), np.array([texts - 1.0]), variance
    )
    low, high = interval(drawn, reaching, value, float(np.sqrt(variance)))
    return Estimate(value, low, high)


def defined(values: Sequence[float] | Draws, texts: int) -> Estimate | None:
    """Return the first value, with the interval that the others give it.

    None where it is undefined itself or in more than a twentieth of the samples.
    """
    found = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(found)
    if not finite[0] or finite.mean() < 0.95:
        return None
    return spread(found[finite], texts)
