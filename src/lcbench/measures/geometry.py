"""Measure the geometry of a set of embeddings: density, evenness, dimensionality.

All measures take one embedding per row. Several depend on the number of rows, so compare sets of
equal size. Measures that need more rows than dimensions state it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Matrix = NDArray[np.float64]

# Rows per block of a distance matrix: 16 MB for 2,000 embeddings.
_ROWS_AT_ONCE = 1_024


def as_matrix(embeddings: ArrayLike, least: int = 2) -> Matrix:
    """Return embeddings as a float64 matrix after checking that they can be measured.

    Args:
        embeddings: shape (texts, dimensions).
        least: the smallest number of texts that can be measured.

    Raises:
        RequestError: not a matrix, fewer than `least` rows, or a value that is not finite.
    """
    matrix = np.asarray(embeddings, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] == 0:
        raise RequestError(
            f"embeddings has the shape {matrix.shape}: expected (texts, dimensions), a row a text"
        )
    if len(matrix) < least:
        raise RequestError(f"embeddings has {len(matrix)} rows: at least {least} are needed")
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        raise RequestError(
            f"embeddings has values that are not finite, first in row {int(np.argmin(finite))} "
            f"(of {int((~finite).sum())} such rows): remove these rows, or mend the model"
        )
    return matrix


def unit(embeddings: ArrayLike, least: int = 2) -> Matrix:
    """Return embeddings scaled to length 1, shape (texts, dimensions).

    Raises:
        RequestError: as `as_matrix`; or a row is all zeros and has no direction.
    """
    matrix = as_matrix(embeddings, least)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    if (norms == 0).any():
        raise RequestError(
            f"embeddings has a row of zeros, first row {int(np.argmin(norms))}: it has no cosine "
            "with any other; remove empty texts"
        )
    scaled: Matrix = matrix / norms
    return scaled


def mean_cosine(embeddings: ArrayLike) -> float:
    """Return the mean cosine of all pairs of embeddings: (‖Σu‖² − n) / (n(n − 1)), u unit rows.

    Figures 1c and 3 of arXiv:2410.24200. 1 means that all have the same direction, 0 independent
    directions.
    """
    rows = unit(embeddings)
    total = rows.sum(axis=0)
    count = len(rows)
    return float((total @ total - count) / (count * (count - 1)))


def mean_distance(embeddings: ArrayLike) -> float:
    """Return the mean cosine distance of all pairs of embeddings: 1 − `mean_cosine`."""
    return 1 - mean_cosine(embeddings)


def centroid_distance(embeddings: ArrayLike) -> float:
    """Return the mean Euclidean distance of unit embeddings to their mean.

    It is D of Figure 1b of arXiv:2410.24200, but in the embedding space instead of a t-SNE plot.
    """
    rows = unit(embeddings)
    return float(np.linalg.norm(rows - rows.mean(axis=0), axis=1).mean())


def uniformity(embeddings: ArrayLike, t: float = 2.0) -> float:
    """Return how evenly unit embeddings cover the sphere: log mean exp(−t‖x − y‖²) over pairs.

    It is 0 if all are equal, and near −2t if they are spread evenly over many dimensions (Wang and
    Isola 2020, arXiv:2005.10242).
    """
    rows = unit(embeddings)
    count = len(rows)
    total = 0.0
    for start in range(0, count, _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        squared = np.maximum(2 - 2 * (block @ rows.T), 0)
        squared[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        total += float(np.exp(-t * squared).sum())
    return float(np.log(total / (count * (count - 1))))


def alignment(embeddings: ArrayLike, partners: ArrayLike, alpha: float = 2.0) -> float:
    """Return how close unit embeddings are to those of their partners: mean ‖x − y‖^α.

    Row i of both forms a pair: a query and its relevant document, or a text and its paraphrase
    (Wang and Isola 2020, arXiv:2005.10242).

    Raises:
        RequestError: the two differ in shape.
    """
    left, right = unit(embeddings, least=1), unit(partners, least=1)
    if left.shape != right.shape:
        raise RequestError(
            f"embeddings and partners have the shapes {left.shape} and {right.shape}: row i of "
            "both must be one pair"
        )
    return float((np.linalg.norm(left - right, axis=1) ** alpha).mean())


def effective_rank(embeddings: ArrayLike) -> float:
    """Return the effective rank: exp of the entropy of the normalised singular values.

    This is RankMe (Garrido et al. 2023, arXiv:2210.02885), without centring. It is at most
    min(texts, dimensions).
    """
    singular = np.linalg.svd(as_matrix(embeddings), compute_uv=False)
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular[singular > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def participation_ratio(embeddings: ArrayLike) -> float:
    """Return the number of dimensions in which embeddings vary: (Σλ)² / Σλ² of their covariance.

    It is the number of dimensions if all vary equally, and 0 if all embeddings are equal.
    """
    values = _eigenvalues(as_matrix(embeddings))
    squares = float((values**2).sum())
    return 0.0 if squares == 0 else float(values.sum()) ** 2 / squares


def first_component_share(embeddings: ArrayLike) -> float:
    """Return the share of the variance along the first principal component, 0 to 1."""
    values = _eigenvalues(as_matrix(embeddings))
    total = float(values.sum())
    return 0.0 if total == 0 else float(values.max()) / total


def mean_share(embeddings: ArrayLike) -> float:
    """Return the share of the mean in unit embeddings: ‖mean of u‖², 0 to 1.

    A common direction raises all cosines by this share, and centring removes it.
    """
    mean = unit(embeddings).mean(axis=0)
    return float(mean @ mean)


def isoscore(embeddings: ArrayLike) -> float:
    """Return IsoScore: 1 if all dimensions vary equally, 0 if only one varies.

    Rudman et al. 2022, arXiv:2108.07344. The covariance of few texts in many dimensions is far from
    that of many: 50 evenly spread texts in 384 dimensions score 0.11 instead of 1. It therefore
    requires more texts than dimensions.

    Raises:
        RequestError: not more texts than dimensions, or all embeddings are equal.
    """
    matrix = as_matrix(embeddings)
    count, size = matrix.shape
    if count <= size:
        raise RequestError(
            f"IsoScore needs more texts than dimensions, and there are {count} texts in {size} "
            "dimensions: take more texts, or participation_ratio"
        )
    if size < 2:
        raise RequestError("IsoScore needs at least 2 dimensions")
    values = _eigenvalues(matrix)
    norm = float(np.linalg.norm(values))
    if norm == 0:
        raise RequestError("IsoScore of embeddings that are all equal is undefined")
    scaled = np.sqrt(size) * values / norm
    defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (size - np.sqrt(size)))
    used = (size - defect**2 * (size - np.sqrt(size))) ** 2 / size
    return float((used - 1) / (size - 1))


@dataclass(frozen=True)
class Hubness:
    """How often each embedding is among the nearest neighbours of the others.

    Attributes:
        occurrences: N_k, how many embeddings have this one among their k nearest, shape (texts,).
        k: the number of neighbours.
        skewness: skewness of the occurrences; 0: even; above 1: a few are neighbours of very many.
        never: share of embeddings that are never a neighbour, so that search never returns them.
    """

    occurrences: NDArray[np.int64]
    k: int
    skewness: float
    never: float


def hubness(embeddings: ArrayLike, k: int = 10) -> Hubness:
    """Return how unevenly embeddings occur as nearest neighbours of each other, by cosine.

    Radovanović et al. 2010 (JMLR 11). Ties go to the embedding that comes first.

    Raises:
        RequestError: `k` is not from 1 to the number of texts less 1.
    """
    rows = unit(embeddings)
    count = len(rows)
    if not 1 <= k < count:
        raise RequestError(f"k={k} neighbours of {count} texts: k must be from 1 to {count - 1}")
    occurrences = np.zeros(count, dtype=np.int64)
    for start in range(0, count, _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        cosines = block @ rows.T
        cosines[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        occurrences += np.bincount(nearest.ravel(), minlength=count)
    deviations = occurrences - occurrences.mean()
    spread = float(np.sqrt((deviations**2).mean()))
    skewness = 0.0 if spread == 0 else float((deviations**3).mean()) / spread**3
    return Hubness(occurrences, k, skewness, float((occurrences == 0).mean()))


def rank_correlation(values: ArrayLike, others: ArrayLike) -> float:
    """Return Spearman's rank correlation, e.g. of occurrences (`hubness`) with lengths.

    NaN if either side is constant.

    Raises:
        RequestError: the two differ in length.
    """
    left, right = np.asarray(values), np.asarray(others)
    if left.shape != right.shape or left.ndim != 1:
        raise RequestError(f"values of the shapes {left.shape} and {right.shape} are not pairs")
    return _correlation(average_ranks(left), average_ranks(right))


def average_ranks(values: ArrayLike) -> Matrix:
    """Return the ranks of values from 1, of equal ones the mean of theirs; NaN where one is NaN.

    As `scipy.stats.rankdata`, without its checks, which take most of its time for a few hundred
    values. Small whole numbers, such as samples of `order`, are counted instead of sorted.

    Args:
        values: shape (values,).
    """
    row = np.asarray(values)
    if not (row.dtype == np.intp and row.size and row.min() >= 0 and row.max() < 16 * row.size):
        row = order(row)
    if row.dtype != np.intp:
        return np.full(len(row), np.nan)
    counts = np.bincount(row)
    ranks: Matrix = (np.cumsum(counts) - (counts - 1) / 2)[row]
    return ranks


def order(values: ArrayLike) -> NDArray[Any]:
    """Return the place of each value among the distinct ones, from 0; values with NaN as they are.

    Samples of the places have the ranks of samples of the values, and need not be sorted.

    Args:
        values: shape (values,).
    """
    row = np.asarray(values, dtype=np.float64)
    if np.isnan(row).any():
        return row
    return np.unique(row, return_inverse=True)[1].astype(np.intp, copy=False)


def rank_correlations(values: ArrayLike) -> Matrix:
    """Return Spearman's rank correlations of all pairs of quantities, shape (quantities,) * 2.

    NaN where one is constant.

    Args:
        values: shape (quantities, observations).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Matrix = np.corrcoef(rankdata(np.asarray(values, dtype=float), axis=1))
    return found


def partial_rank_correlation(values: ArrayLike, others: ArrayLike, given: ArrayLike) -> float:
    """Return Spearman's correlation of two quantities given a third, from ranks.

    (r_xy − r_xz r_yz) / √((1 − r_xz²)(1 − r_yz²)). NaN if the third determines either of them, or a
    side is constant.
    """
    if not np.shape(values) == np.shape(others) == np.shape(given):
        raise RequestError(
            f"values of the shapes {np.shape(values)}, {np.shape(others)} and {np.shape(given)} "
            "do not belong together"
        )
    stacked = np.stack([np.asarray(one) for one in (values, others, given)])
    return partial(rank_correlations(stacked), 0, 1, 2)


def partial(correlations: ArrayLike, one: int, other: int, given: int) -> float:
    """Return the correlation of two quantities given a third, from a matrix of correlations.

    NaN as `partial_rank_correlation`.
    """
    matrix = np.asarray(correlations)
    direct, left, right = matrix[one, other], matrix[one, given], matrix[other, given]
    rest = (1 - left**2) * (1 - right**2)
    if not rest > 1e-12:
        return float("nan")
    return float((direct - left * right) / np.sqrt(rest))


def _correlation(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    left, right = left - left.mean(), right - right.mean()
    norm = float(np.sqrt((left @ left) * (right @ right)))
    return float("nan") if norm == 0 else float(left @ right) / norm


def _eigenvalues(matrix: Matrix) -> NDArray[np.float64]:
    """Return the variances along the principal components, shape (dimensions,), some of them 0."""
    singular = np.linalg.svd(matrix - matrix.mean(axis=0), compute_uv=False)
    values = np.zeros(matrix.shape[1])
    values[: len(singular)] = singular**2 / (len(matrix) - 1)
    # Rounding errors of equal embeddings are not variance.
    values[values < 1e-24 * max(float((matrix**2).sum(axis=1).max()), 1e-300)] = 0.0
    return values
