"""Measure how much the sentences of a text differ, and what averaging them loses.

Semantic shift of arXiv:2603.21437, whose text is not fully public: if a definition is unclear, both
readings are given. All functions take the embeddings of a text's sentences in reading order, one
per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.geometry import unit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Shift:
    """The movement of a text through the embedding space, sentence by sentence.

    Attributes:
        sentences: number of sentences, k.
        local_sum: sum of the cosine distances of neighbouring sentences; grows with k.
        local_mean: their mean; 0 for a single sentence.
        dispersion: mean cosine distance of all pairs of sentences, C_pair.
    """

    sentences: int
    local_sum: float
    local_mean: float
    dispersion: float

    @property
    def shift_by_sum(self) -> float:
        """The shift, Local · Dispersion, with Local as a sum, which grows with k."""
        return self.local_sum * self.dispersion

    @property
    def shift_by_mean(self) -> float:
        """The shift, Local · Dispersion, with Local as a mean."""
        return self.local_mean * self.dispersion


def shift(sentences: ArrayLike) -> Shift:
    """Return the local change, the dispersion and the shift of a text's sentences.

    Args:
        sentences: embeddings in reading order, shape (sentences, dimensions).
    """
    rows = unit(sentences, least=1)
    count = len(rows)
    if count == 1:
        return Shift(1, 0.0, 0.0, 0.0)
    steps = np.maximum(1 - (rows[:-1] * rows[1:]).sum(axis=1), 0.0)
    return Shift(count, float(steps.sum()), float(steps.mean()), _dispersion(rows))


def dilution(sentences: ArrayLike) -> float:
    """Return how far sentences are from their mean: C_mean, the mean of 1 − cos(e_i, mean).

    Raises:
        RequestError: the sentences cancel out, so that their mean has no direction.
    """
    rows = unit(sentences, least=1)
    mean = rows.mean(axis=0)
    norm = float(np.linalg.norm(mean))
    if norm < 1e-12:
        raise RequestError("the embeddings of the sentences cancel out: their mean is 0")
    return float(np.mean(1 - rows @ mean / norm))


def dilution_of_dispersion(dispersion: float, count: int) -> float:
    """Return the dilution that k unit vectors of this dispersion must have.

    Theorem 1 of arXiv:2603.21437, an identity: C_mean = 1 − √(1 − (k − 1)/k · C_pair).
    """
    return 1 - float(np.sqrt(max(1 - (count - 1) / count * dispersion, 0.0)))


def pooling_agreement(sentences: ArrayLike, text: ArrayLike) -> float:
    """Return the cosine of the mean of a text's sentences with the embedding of the whole text.

    If it is 1, the model embeds a text as the mean of its sentences, and results about means apply
        to it.
    """
    mean = unit(sentences, least=1).mean(axis=0)
    return float((unit(mean[None], least=1) @ unit(np.atleast_2d(text), least=1).T)[0, 0])


def neighbour_overlap(
    queries: ArrayLike,
    others: ArrayLike,
    corpus: ArrayLike,
    count: int = 1,
    own: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Return the share of nearest neighbours in a corpus that pairs of embeddings have in common.

    This is Overlap@m of arXiv:2603.21437 for a sentence and the text that begins with it.

    Args:
        queries: shape (pairs, dimensions).
        others: row i is compared with row i of `queries`.
        corpus: shape (texts, dimensions).
        count: m, the number of neighbours.
        own: row of the corpus that is each query itself, which is no neighbour of it, shape
            (pairs,); None: the corpus has none of them.

    Returns:
        The share of each pair, from 0 to 1, shape (pairs,).
    """
    left, right = unit(queries, least=1), unit(others, least=1)
    texts = unit(corpus, least=1)
    if left.shape != right.shape:
        raise RequestError(f"queries and others have the shapes {left.shape} and {right.shape}")
    if not 1 <= count <= len(texts) - (own is not None):
        raise RequestError(f"count={count} neighbours of {len(texts)} texts")
    nearest = []
    for rows in (left, right):
        cosines = rows @ texts.T
        if own is not None:
            cosines[np.arange(len(rows)), np.asarray(own)] = -np.inf
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :count])
    return np.array([len(np.intersect1d(*pair)) / count for pair in zip(*nearest, strict=True)])


def evidence_dilution(query: ArrayLike, chunks: ArrayLike, document: ArrayLike) -> float:
    """Return how far a document scores below its best chunk: max_j cos(q, c_j) − cos(q, d).

    After the Evidence Dilution Index of arXiv:2606.18781; above 0, a chunk says more to the query
    than the whole document does.
    """
    asked = unit(np.atleast_2d(query), least=1)[0]
    best = float((unit(chunks, least=1) @ asked).max())
    return best - float(unit(np.atleast_2d(document), least=1)[0] @ asked)


def _dispersion(rows: NDArray[np.float64]) -> float:
    total = rows.sum(axis=0)
    count = len(rows)
    return max(1 - float((total @ total - count) / (count * (count - 1))), 0.0)
