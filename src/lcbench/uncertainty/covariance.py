"""How uncertain a main score is, measured from what the cell kept of its items.

Gives variances and covariances of the scores of one task; `paper` makes errors of columns and of
relative improvements of them. What scores are made of comes from `items`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty.items import (
    Sample,
    Samples,
    independent_parts,
    paired,
    read_samples,
    spearman,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

# Half a 95 % interval of a normal distribution, in standard errors.
HALF_WIDTH = 1.959964

RESAMPLES = 1000
_SEED = 0
# Counts of a resample's items that are held at once.
_COUNTS_AT_ONCE = 2**21


def standard_error(files: CellFiles) -> float | None:
    """Return the standard error of a cell's main score, as a fraction; None where it is unknown."""
    variance = covariance([files])[0, 0]
    return None if np.isnan(variance) else float(np.sqrt(variance))


def covariance(cells: Sequence[CellFiles | None]) -> NDArray[np.float64]:
    """Return the covariances of the main scores of cells of one task, over its items.

    What is measured is how much the scores would vary over other items like the task's own:

    - the mean of per-item scores (classification, retrieval, reranking): the covariance of the
      means of paired items; for classification also that of the mean over its experiments, each of
      which is trained on another small draw of texts;
    - STS: of Spearman's correlation over 1,000 bootstrap samples of the pairs, with a fixed seed;
    - clustering: the mean of the V-measures of its sets, each set an item.

    A task's score is the mean over splits of the mean over subsets; those are taken as independent,
    unless all subsets of a split have the same ids and labels: translations of the same texts
    (Massive) are one sample, of which each item is the mean over the languages.

    It is not the noise between two runs on the same items, which is that of floating point alone.

    Args:
        cells: the files of cells of one task; None where there is no such cell.

    Returns:
        Shape (cells, cells), of scores as fractions. NaN where it is unknown: of a cell without
        items, of one whose items do not give its score (other metrics), of a single
        item; and between cells whose items are not the same.
    """
    samples = [None if files is None else read_samples(files) for files in cells]
    found = np.full((len(cells), len(cells)), np.nan)
    for group in paired(samples):
        found[np.ix_(group, group)] = _of_task([samples[place] or {} for place in group])
    return found


def ratio_error(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> float | None:
    """Return the standard error of Σ sums / Σ counts over independent units (queries).

    By linearisation, the usual estimator of the variance of a ratio: what a query adds to the
    difference between the ratio and its mean. None for fewer than two units.

    Args:
        sums: of each unit, shape (units,).
        counts: how many values each sum is of, shape (units,).
    """
    if len(sums) < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(len(sums) * residuals.var(ddof=1)) / counts.sum())


def _of_task(cells: Sequence[Samples]) -> NDArray[np.float64]:
    """Return the covariances of cells with the same items, shape (cells, cells)."""
    total = np.zeros((len(cells), len(cells)))
    for parts, weight in independent_parts(cells[0]):
        samples = [[cell[part] for part in parts] for cell in cells]
        gold = samples[0][0].gold
        if gold is None:
            found = _of_means(samples)
        else:
            values = np.stack([sample.values for (sample,) in samples], axis=1)
            found = _covariance(_resampled(gold, values))
        total += weight**2 * found
    return total


def _of_means(cells: Sequence[Sequence[Sample]]) -> NDArray[np.float64]:
    """Return the covariances of means: of items, and of the draws that classifiers learned from.

    Args:
        cells: of each the samples of the same items; an item's value is the mean over them.
    """
    values = np.stack([np.mean([s.values for s in samples], axis=0) for samples in cells], axis=1)
    found = _covariance(values) / len(values)
    draws = [[s.draws for s in samples if s.draws is not None] for samples in cells]
    if all(draws) and len({len(one) for several in draws for one in several}) == 1:
        means = np.stack([np.mean(several, axis=0) for several in draws], axis=1)
        found = found + _covariance(means) / len(means)
    return found


def _covariance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariances of columns, shape (columns, columns); NaN for a single row."""
    if len(values) < 2:
        return np.full((values.shape[1],) * 2, np.nan)
    return np.atleast_2d(np.cov(values, rowvar=False))


def _resampled(gold: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlations with `gold` over bootstrap samples, (resamples, cells).

    Args:
        gold: of each pair, shape (pairs,).
        values: the cosines of each pair, shape (pairs, cells).
    """
    count = len(gold)
    random = np.random.default_rng(_SEED)
    step = max(1, _COUNTS_AT_ONCE // count)
    found = []
    for start in range(0, RESAMPLES, step):
        drawn = random.integers(0, count, (min(step, RESAMPLES - start), count))
        drawn += np.arange(len(drawn))[:, None] * count
        counts = (
            np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.int32)
        )
        found.append(spearman(gold, values, counts))
    return np.concatenate(found)
