"""A measure: one number of a set of embeddings, shape (texts, dimensions)."""

import numpy as np

from lcbench.measures import Measure


def median_cosine(embeddings: np.ndarray) -> float:
    """Return the median cosine of all pairs of embeddings."""
    rows = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return float(np.median((rows @ rows.T)[np.triu_indices(len(rows), 1)]))


MEDIAN_COSINE = Measure("median_cosine", "Median cosine", median_cosine)
