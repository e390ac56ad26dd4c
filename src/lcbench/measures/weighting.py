"""How much of each sentence the embedding of a text holds, and what averaging by that would give.

An embedding that is the weighted mean Σ w_i e_i of the embeddings of k independent sentences, Σ w_i
= 1, crowds by averaging. With e_i = m + z_i, ‖m‖² = ρ the mean cosine, and z_i independent of mean
0 and ‖z_i‖² = 1 − ρ, two texts have the inner product ρ and each has ‖Σ w_i e_i‖² = ρ + (1 − ρ)
Σ w_i². Their cosine is therefore

    ρ / (ρ + (1 − ρ) Σ w_i²) = kρ / (1 + (k − 1)ρ)   with k = 1 / Σ w_i²,

the effective number of sentences. It is the number of sentences only where all count alike, as in
mean pooling, and 1 where the last one alone counts. So equal weights give the most that averaging
can. Weights of a model that pools otherwise, as by its last token, are estimated from its own
embeddings.

They explain a share R² of the variance of texts. If the rest belongs to no sentence, averaging does
not shrink it: Σ w_i² becomes Σ w_i² / R², and k effective sentences R² k. The log odds of the
cosine are ln k + ln(ρ / (1 − ρ)), so this lowers the cosine by up to ln(1 / R²) / 4: 0.02 at R² =
0.92, 0.17 at 0.5. As much is allowed for in the other direction, k / R². Averaging is therefore
known to lie between R² k and k / R², and in any case between one sentence alone and equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Draws = NDArray[np.float64]

# Samples that are fitted together: 27 MB for 17 vectors of 768 dimensions.
_SAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class Weights:
    """What the embeddings of texts of k sentences hold of each sentence.

    Attributes:
        shares: weight of each sentence by its place, at least 0; they add up to 1.
        explained: share of the variance of the texts' embeddings that the weighted sentences
            explain, 0 to 1; where it is low the weights say little.
    """

    shares: tuple[float, ...]
    explained: float

    @property
    def effective(self) -> float:
        """Number of sentences that would, counting alike, average as much: 1 / Σ w_i²."""
        return float(1 / np.square(self.shares).sum())


def weights_of(sentences: ArrayLike, joined: ArrayLike) -> Weights:
    """Estimate the weights of sentences in the embeddings of texts, the same for all texts.

    Args:
        sentences: embeddings of each text's sentences, each embedded alone, in order, shape
            (texts, k, dimensions).
        joined: embeddings of the texts, shape (texts, dimensions).
    """
    (shares,), (explained,) = fit_weights(sentences, joined, np.ones((1, len(np.asarray(joined)))))
    return Weights(tuple(shares.tolist()), float(explained))


def fit_weights(sentences: ArrayLike, joined: ArrayLike, drawn: Draws) -> tuple[Draws, Draws]:
    """Estimate the weights of sentences anew in each bootstrap sample.

    They are fitted by least squares, none below 0, to embeddings less their mean over texts: what
    all texts have in common, and so a collapse to a common direction, does not count. If no
    sentence explains anything, all count alike: the most averaging that there can be.

    Args:
        sentences: as `weights_of`.
        joined: as `weights_of`.
        drawn: how often each text is in each sample, shape (samples, texts).

    Returns:
        Shares by place, shape (samples, k), and the explained share of the variance, shape
        (samples,), as in `Weights`.
    """
    whole = np.asarray(joined, dtype=np.float64)[:, None]
    rows = np.concatenate([np.asarray(sentences, dtype=np.float64), whole], axis=1)
    rows -= rows.mean(axis=0)
    texts, size, dimensions = rows.shape
    products = (rows @ rows.transpose(0, 2, 1)).reshape(texts, -1)
    count = size - 1
    shares, explained = np.full((len(drawn), count), 1 / count), np.zeros(len(drawn))
    for start in range(0, len(drawn), _SAMPLES_AT_ONCE):
        some = drawn[start : start + _SAMPLES_AT_ONCE]
        drawn_texts = some.sum(axis=1)[:, None, None]
        totals = (some @ rows.reshape(texts, -1)).reshape(-1, size, dimensions)
        # Sums of products around the sample's own mean.
        sums = (some @ products).reshape(-1, size, size)
        sums -= totals @ totals.transpose(0, 2, 1) / drawn_texts
        with_text, variances = sums[:, :count, count], sums[:, count, count]
        values, vectors = np.linalg.eigh(sums[:, :count, :count])
        values[values < 1e-12 * values[:, -1:]] = 0
        roots = np.sqrt(values)
        # The same least squares, of k rows instead of one for each text and dimension.
        columns = roots[:, :, None] * vectors.transpose(0, 2, 1)
        along = (vectors.transpose(0, 2, 1) @ with_text[:, :, None])[:, :, 0]
        targets = np.divide(along, roots, out=np.zeros_like(along), where=roots > 0)
        for place, (column, target) in enumerate(zip(columns, targets, strict=True)):
            found, _ = nnls(column, target)
            total, variance = found.sum(), variances[place]
            if total > 0 and variance > 0:
                shares[start + place] = found / total
                explained[start + place] = min(1.0, found @ with_text[place] / variance)
    return shares, explained


def pools_by_mean(model: Any) -> bool:
    """Return whether the embeddings of a model are means of its token vectors, all counting alike.

    Args:
        model: a `SentenceTransformer`; one with several ways for texts needs it of each.
    """
    modes = [one.pooling_mode for one in model.modules() if hasattr(one, "pooling_mode")]
    return bool(modes) and all(mode in ("mean", ("mean",), ["mean"]) for mode in modes)
