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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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

    They are fitted by least squares, none below 0, to embeddings less their mean over texts: what
    all texts have in common, and so a collapse to a common direction, does not count. If no
    sentence explains anything, all count alike, which excludes a collapse most cautiously.

    Args:
        sentences: embeddings of each text's sentences, each embedded alone, in order, shape
            (texts, k, dimensions).
        joined: embeddings of the texts, shape (texts, dimensions).
    """
    parts, whole = _centred(sentences), _centred(joined)
    count = parts.shape[1]
    columns = parts.transpose(1, 0, 2).reshape(count, -1).T
    target = whole.ravel()
    found, residual = nnls(columns, target)
    variance = float(target @ target)
    total = float(found.sum())
    if total <= 0 or variance <= 0:
        return Weights((1 / count,) * count, 0.0)
    return Weights(tuple((found / total).tolist()), 1 - float(residual) ** 2 / variance)


def pools_by_mean(model: Any) -> bool:
    """Return whether the embeddings of a model are means of its token vectors, all counting alike.

    Args:
        model: a `SentenceTransformer`; one with several ways for texts needs it of each.
    """
    modes = [one.pooling_mode for one in model.modules() if hasattr(one, "pooling_mode")]
    return bool(modes) and all(mode in ("mean", ("mean",), ["mean"]) for mode in modes)


def _centred(rows: ArrayLike) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.array(rows, dtype=np.float64)
    found -= found.mean(axis=0)
    return found
