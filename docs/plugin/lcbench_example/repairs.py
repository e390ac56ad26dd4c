"""A correction: an affine map of each embedding, fitted on unlabelled embeddings."""

import numpy as np

from lcbench.repair.added import AddedCorrection


def fit(embeddings: np.ndarray, power: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean, and a matrix that divides each dimension by its standard deviation.

    Args:
        embeddings: shape (texts, dimensions).
        power: of the standard deviation, in percent; None: 100.
    """
    deviations = embeddings.std(axis=0)
    share = 1.0 if power is None else power / 100
    return embeddings.mean(axis=0), np.diag(np.where(deviations > 0, deviations, 1.0) ** -share)


STANDARDISE = AddedCorrection(fit, number="power")
