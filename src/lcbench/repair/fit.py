"""Fits corrections of embeddings, and applies them.

Every correction is an affine map of each embedding by itself, scaled to length 1 afterwards: the
result does not depend on which other embeddings are corrected along with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.errors import LcbenchError, RequestError
from lcbench.repair.added import load, package_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.repair.correction import Correction

# Embeddings at a time, in float64.
_ROWS = 4096
# Rows of each product with the matrix, and a divisor of its columns; both are filled up with zeros.
# BLAS may add up in another order for another number of rows, or in what is left over of its
# blocks, and a corrected embedding must not depend on its batch.
_BLOCK = 64
# A covariance whose smallest kept variance is this share of the largest is taken as singular:
# embeddings in float32 determine nothing below it.
_SINGULAR = 1e-9
# Of embeddings in float32, less than this share of their squared lengths is rounding.
_NOTHING = 1e-12


class FitError(LcbenchError):
    """A correction cannot be fitted on these texts."""


@dataclass(frozen=True)
class Fitted:
    """A fitted correction: x ↦ (x − mean of its length) · matrix, scaled to length 1.

    Attributes:
        means: a mean for each bin by length, [bins, dimensions].
        begins: lengths in tokens at which the bins after the first begin, ascending: [bins − 1].
        matrix: [dimensions, kept dimensions]; None: the identity.
        shrinkage: share of the covariance's estimate that is a multiple of the identity.
    """

    means: NDArray[np.float64]
    begins: NDArray[np.int64]
    matrix: NDArray[np.float64] | None
    shrinkage: float = 0.0

    @property
    def by_length(self) -> bool:
        """Whether the mean depends on the length of a text."""
        return len(self.means) > 1

    def mapped(
        self, embeddings: NDArray[Any], lengths: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return the map's values before they are scaled.

        Args:
            embeddings: [texts, dimensions].
            lengths: of the texts in tokens; needed if `by_length`.

        Returns:
            [texts, kept dimensions]
        """
        bins = np.zeros(len(embeddings), dtype=np.int64)
        if self.by_length:
            if lengths is None:
                raise ValueError("a correction by length needs the lengths of the texts")
            bins = np.searchsorted(self.begins, np.asarray(lengths), side="right")
        centred = np.asarray(embeddings, dtype=np.float64) - self.means[bins]
        return centred if self.matrix is None else _product(centred, self.matrix)

    @property
    def dimensions(self) -> int:
        """The dimensions of a corrected embedding."""
        return int(self.means.shape[1] if self.matrix is None else self.matrix.shape[1])

    def apply(
        self,
        embeddings: NDArray[np.float32],
        lengths: Sequence[int] | None = None,
        into: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Return corrected embeddings of length 1; one of which nothing remains is zero.

        Args:
            embeddings: as the model returned them, [texts, dimensions].
            lengths: of the texts in tokens; needed if `by_length`.
            into: where to write them, which may be `embeddings`; None: a new array.

        Returns:
            [texts, kept dimensions]
        """
        corrected = into
        if corrected is None:
            corrected = np.empty((len(embeddings), self.dimensions), dtype=np.float32)
        for first in range(0, len(embeddings), _ROWS):
            some = slice(first, first + _ROWS)
            values = self.mapped(embeddings[some], None if lengths is None else lengths[some])
            norms = np.linalg.norm(values, axis=1, keepdims=True)
            corrected[some] = values / np.where(norms > 0, norms, 1.0)
        return corrected


def fit(
    correction: Correction, embeddings: NDArray[np.float32], lengths: Sequence[int] | None = None
) -> Fitted:
    """Fit a correction on embeddings.

    A covariance that is singular, since there are fewer texts than dimensions, is shrunk towards a
    multiple of the identity (Ledoit and Wolf 2004).

    Args:
        correction: which.
        embeddings: of distinct unlabelled texts, as the model returns them: [texts, dimensions].
        lengths: of the texts in tokens; needed for bins by length.

    Raises:
        FitError: there are too few texts, or hardly anything would be left of their embeddings.
        RequestError: more components are removed or kept than there are dimensions.
    """
    count, dimensions = embeddings.shape if embeddings.ndim == 2 else (0, 0)
    if count < (least := _fewest(correction)):
        raise FitError(
            f"correct={correction}: it is fitted on {count} distinct texts and needs at least "
            f"{least}. A set of texts can be named: {correction.example}."
        )
    if correction.package is not None:
        return _fit_added(correction, embeddings)
    correction.check(dimensions)
    mean = _mean(embeddings)
    none = np.empty(0, dtype=np.int64)
    found = Fitted(mean[None], none, None)
    if correction.kind == "centre" and correction.number is not None:
        if lengths is None:
            raise ValueError("bins by length need the lengths of the texts")
        found = _by_length(embeddings, np.asarray(lengths), correction.number)
    _refuse_nothing(correction, found, embeddings, lengths)
    if correction.kind == "centre":
        return found
    covariance = _covariance(embeddings, mean)
    shrinkage = 0.0
    kept = correction.number if correction.kind == "whiten" else None
    variances, components = _principal(covariance)
    if correction.kind == "abtt":
        removed = components[:, : correction.number]
        found = Fitted(mean[None], none, np.eye(dimensions) - removed @ removed.T)
        _refuse_nothing(correction, found, embeddings, lengths)
        return found
    last = dimensions if kept is None else kept
    if count <= dimensions or variances[last - 1] <= _SINGULAR * variances[0]:
        from sklearn.covariance import ledoit_wolf

        centred = np.asarray(embeddings, dtype=np.float64) - mean
        covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
        variances, components = _principal(covariance)
    if variances[last - 1] <= _SINGULAR * variances[0]:
        raise FitError(
            f"correct={correction}: the embeddings of the {count} texts that it is fitted on "
            f"differ in fewer than {last} directions."
        )
    matrix = components[:, :last] / np.sqrt(variances[:last])
    return Fitted(mean[None], none, matrix, float(shrinkage))


def _fewest(correction: Correction) -> int:
    """Return how many texts a correction needs, so that something is left of their embeddings."""
    if correction.number is None or correction.package is not None:
        return 2
    # n centred embeddings have n - 1 components at most.
    return {"abtt": correction.number + 2, "centre": 2 * correction.number}.get(correction.kind, 2)


def _by_length(embeddings: NDArray[Any], sizes: NDArray[Any], number: int) -> Fitted:
    """Return means of bins with about equal numbers of texts, at least two in each.

    Texts of the same length are in one bin, so there may be fewer bins.

    Args:
        embeddings: [texts, dimensions].
        sizes: lengths of the texts in tokens.
        number: of bins, at most half the number of texts.
    """
    shares = np.arange(1, number) / number
    ordered, begins, last = np.sort(sizes), [], 0
    for begin in np.unique(np.quantile(sizes, shares, method="higher")).astype(np.int64):
        place = int(np.searchsorted(ordered, begin))
        # A text by itself would be its own mean.
        if place - last >= 2:
            begins.append(begin)
            last = place
    bins = np.searchsorted(begins, sizes, side="right")
    means = [_mean(embeddings[bins == one]) for one in range(len(begins) + 1)]
    return Fitted(np.stack(means), np.array(begins, dtype=np.int64), None)


def _refuse_nothing(
    correction: Correction,
    found: Fitted,
    embeddings: NDArray[Any],
    lengths: Sequence[int] | None,
) -> None:
    """Refuse a map that leaves of the embeddings that it is fitted on no more than rounding.

    Raises:
        FitError: it does.
    """
    left = whole = 0.0
    for first in range(0, len(embeddings), _ROWS):
        some = slice(first, first + _ROWS)
        mapped = found.mapped(embeddings[some], None if lengths is None else lengths[some])
        left += float(np.square(mapped).sum())
        whole += float(np.square(embeddings[some], dtype=np.float64).sum())
    if left <= _NOTHING * whole:
        raise FitError(
            f"correct={correction} would leave hardly anything of the embeddings that it is "
            "fitted on, since they differ too little."
        )


def _product(rows: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product of each row with a matrix, to the bit the same among any other rows."""
    kept = matrix.shape[1]
    matrix = np.pad(matrix, ((0, 0), (0, -kept % _BLOCK)))
    found = np.empty((len(rows), kept))
    for first in range(0, len(rows), _BLOCK):
        some = rows[first : first + _BLOCK]
        count = len(some)
        whole = np.pad(some, ((0, _BLOCK - count), (0, 0)))
        found[first : first + count] = (whole @ matrix)[:count, :kept]
    return found


def _fit_added(correction: Correction, embeddings: NDArray[np.float32]) -> Fitted:
    """Fit a correction of an installed package.

    Args:
        correction: which.
        embeddings: of distinct unlabelled texts, [texts, dimensions].

    Raises:
        FitError: its function fails, or returns no map of finite numbers.
        RequestError: the package is not the one of the request.
    """
    if package_of(correction.kind) != correction.package:
        raise RequestError(
            f"correct={correction}: installed is {package_of(correction.kind)}. Install that "
            "version, or ask anew, without manifest=."
        )
    added = load(correction.kind)
    rows = np.asarray(embeddings, dtype=np.float64)
    try:
        mean, matrix = added.fit(rows, correction.number)
        mean = np.asarray(mean, dtype=np.float64)
        matrix = None if matrix is None else np.asarray(matrix, dtype=np.float64)
    except Exception as error:
        raise FitError(f"correct={correction}: {type(error).__name__}: {error}") from error
    dimensions = rows.shape[1]
    shapes = mean.shape == (dimensions,) and (
        matrix is None or (matrix.ndim == 2 and len(matrix) == dimensions and matrix.size > 0)
    )
    if not shapes or not all(np.isfinite(one).all() for one in (mean, matrix) if one is not None):
        raise FitError(
            f"correct={correction}: the package returned no mean of {dimensions} dimensions and "
            "matrix of as many rows, of finite numbers."
        )
    return Fitted(mean[None], np.empty(0, dtype=np.int64), matrix)


def _mean(embeddings: NDArray[Any]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = embeddings.mean(axis=0, dtype=np.float64)
    return mean


def _covariance(embeddings: NDArray[Any], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance over all rows, divided by their number: [dimensions, dimensions]."""
    found = np.zeros((len(mean), len(mean)))
    for first in range(0, len(embeddings), _ROWS):
        centred = np.asarray(embeddings[first : first + _ROWS], dtype=np.float64) - mean
        found += centred.T @ centred
    return found / len(embeddings)


def _principal(
    covariance: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return variances in descending order, and the components as columns."""
    variances, components = np.linalg.eigh(covariance)
    components = components[:, ::-1]
    # An eigenvector's sign is arbitrary: the largest entry is made positive.
    largest = np.abs(components).argmax(axis=0)
    signs = np.sign(components[largest, np.arange(len(components))])
    return np.maximum(variances[::-1], 0.0), components * signs
