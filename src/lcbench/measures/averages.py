"""Mean cosines of embeddings and of their averages, in the data and in each bootstrap sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lcbench.measures.weighting import fit_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Draws = NDArray[np.float64]

# Samples whose weighted means are added up together: 33 MB for 1,000 texts of 16 sentences.
_SAMPLES_AT_ONCE = 256


class WeightedDraws(NamedTuple):
    """Averages by weights of sentences, of the data and of each bootstrap sample: shape (samples,).

    Attributes:
        effective: number of sentences that, counting alike, would average as much.
        explained: share of the variance of texts that the weights explain.
        cosine: mean cosine of the weighted means.
        most: the same, were averaging the most that the weights leave possible.
        least: the same, were it the least.
    """

    effective: Draws
    explained: Draws
    cosine: Draws
    most: Draws
    least: Draws


def averaged(cosine: Draws, count: float | Draws) -> Draws:
    """Return `averaged_cosine` of the mean cosine in each sample, shape (samples,).

    Args:
        cosine: the mean cosine in each sample.
        count: number of vectors, of all samples or of each.
    """
    found: Draws = count * cosine / (1 + (count - 1) * cosine)
    return found


def mean_cosines(rows: NDArray[np.float64], drawn: Draws) -> Draws:
    """Return the mean cosine of pairs of different texts in each sample, shape (samples,).

    Args:
        rows: embeddings of length 1, shape (texts, dimensions).
        drawn: how often each text is in each sample, shape (samples, texts).

    A text that is drawn twice does not form a pair with itself, whose cosine would be 1.
    """
    return _mean_of_pairs(drawn @ rows, drawn)


def weighted_cosines(sentences: NDArray[np.float64], shares: Draws, drawn: Draws) -> Draws:
    """Return the mean cosine of weighted means of sentences in each sample, shape (samples,).

    Args:
        sentences: of length 1, shape (texts, k, dimensions).
        shares: weights of the sentences in each sample, shape (samples, k).
        drawn: how often each text is in each sample, shape (samples, texts).
    """
    texts, count, _ = sentences.shape
    products = (sentences @ sentences.transpose(0, 2, 1)).reshape(texts, -1)
    flat = sentences.reshape(texts * count, -1)
    found = []
    for start in range(0, len(drawn), _SAMPLES_AT_ONCE):
        some = slice(start, start + _SAMPLES_AT_ONCE)
        weights = shares[some]
        pairs_of = weights[:, :, None] * weights[:, None, :]
        lengths = np.sqrt(pairs_of.reshape(len(weights), -1) @ products.T)
        factors = (drawn[some] / lengths)[:, :, None] * weights[:, None, :]
        found.append(factors.reshape(len(weights), -1) @ flat)
    return _mean_of_pairs(np.concatenate(found), drawn)


def weighted_draws(
    sentences: NDArray[np.float64], joined: NDArray[np.float64], drawn: Draws, equal: Draws
) -> WeightedDraws:
    """Return what the model's weights of sentences make of averaging, in each sample.

    Args:
        sentences: of length 1, shape (texts, k, dimensions).
        joined: embeddings of the texts, of length 1, shape (texts, dimensions).
        drawn: how often each text is in each sample, shape (samples, texts).
        equal: mean cosines of the means in which all sentences count alike, shape (samples,).
    """
    shares, explained = fit_weights(sentences, joined, drawn)
    cosine = weighted_cosines(sentences, shares, drawn)
    places = range(sentences.shape[1])
    alone = np.mean([mean_cosines(sentences[:, place], drawn) for place in places], axis=0)
    # Weights that explain nothing exclude nothing between the two.
    known, between = np.maximum(explained, 1e-9), np.clip(cosine, 0, 1)
    most = np.maximum(cosine, np.minimum(equal, averaged(between, 1 / known)))
    least = np.minimum(cosine, np.maximum(alone, averaged(between, known)))
    return WeightedDraws(1 / (shares**2).sum(axis=1), explained, cosine, most, least)


def _mean_of_pairs(totals: NDArray[np.float64], drawn: Draws) -> Draws:
    """Return the mean cosine of pairs of different texts from the sums of their embeddings."""
    squares = (drawn**2).sum(axis=1)
    pairs = drawn.sum(axis=1) ** 2 - squares
    cosines: Draws = ((totals**2).sum(axis=1) - squares) / pairs
    return cosines
