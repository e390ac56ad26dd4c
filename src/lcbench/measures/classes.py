"""Accuracy and entropy of a classifier on embeddings: Figures 1a and 6 of arXiv:2410.24200."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Values = NDArray[np.float64]

DRAWS, TEXTS_PER_LABEL, MOST_ITERATIONS = 10, 8, 100
"""Of mteb's classification tasks: training sets, texts of a label in each, steps of a fit."""


@dataclass(frozen=True)
class Classes:
    """Labelled texts.

    Attributes:
        train_texts: texts that training sets are drawn from.
        train_labels: their labels.
        texts: texts that are classified.
        labels: their labels.
    """

    train_texts: tuple[str, ...]
    train_labels: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[str, ...]


def drawn_for_training(labels: Sequence[str], seed: int) -> list[NDArray[np.int64]]:
    """Return which texts are in each of 10 training sets of 8 texts a label, drawn at random."""
    random = np.random.default_rng(seed)
    known = np.asarray(labels)
    return [
        np.concatenate(
            [
                random.permutation(np.flatnonzero(known == label))[:TEXTS_PER_LABEL]
                for label in np.unique(known)
            ]
        )
        for _ in range(DRAWS)
    ]


def predictions(
    train: Sequence[tuple[ArrayLike, Sequence[str]]], embeddings: ArrayLike, labels: Sequence[str]
) -> tuple[Values, Values]:
    """Return the accuracy and the entropy of predictions for each text, means over training sets.

    The classifier is mteb's: a logistic regression with at most 100 steps.

    Args:
        train: of each training set its embeddings, shape (texts, dimensions), and labels.
        embeddings: of the classified texts, shape (texts, dimensions).
        labels: of these.

    Returns:
        Share of training sets that give the right label, and mean entropy of the predicted
        probabilities in nats, at most the logarithm of the number of labels; shapes (texts,).
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    right, entropy = [], []
    for rows, known in train:
        with warnings.catch_warnings():
            # After 100 steps it need not have converged; so it is in mteb.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = LogisticRegression(max_iter=MOST_ITERATIONS).fit(rows, known)
        shares = fitted.predict_proba(embeddings)
        right.append(fitted.classes_[shares.argmax(axis=1)] == np.asarray(labels))
        entropy.append(-(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1))
    return np.mean(right, axis=0), np.mean(entropy, axis=0)
