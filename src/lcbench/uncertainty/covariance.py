"""How uncertain a main score is, measured from what the cell kept of its items.

Gives variances and covariances of the scores of one task; `paper` makes errors of columns and of
relative improvements of them. What scores are made of comes from `items`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty.clusters import link
from lcbench.uncertainty.items import Samples, paired, read_samples, read_shares
from lcbench.uncertainty.variation import components, variations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

# Half a 95 % interval of a normal distribution, in standard errors.
HALF_WIDTH = 1.959964


def standard_error(files: CellFiles) -> float | None:
    """Return the standard error of a cell's main score, as a fraction; None where it is unknown."""
    variance = covariance([files])[0, 0]
    return None if np.isnan(variance) else float(np.sqrt(variance))


def covariance(cells: Sequence[CellFiles | None]) -> NDArray[np.float64]:
    """Return the covariances of the main scores of cells of one task, over its items.

    What is measured is how much the scores would vary over other clusters of items like the task's
    own (`clusters`), from what each cluster adds to them to first order:

    - the mean of per-item scores (classification, retrieval, reranking): paired over clusters; for
      classification also that of the mean over its experiments, each of which is trained on another
      small draw of texts;
    - STS: Spearman's correlation (`Correlations.influence`);
    - clustering: the mean of the V-measures of its sets, each set an item.

    A task's score is the mean over splits of the mean over subsets; those are independent unless
    they share clusters. If all subsets of a split have the same ids and labels, translations of the
    same texts (Massive), they are one sample, of which each item is the mean over the languages.

    It is not the noise between two runs on the same items, which is that of floating point alone.

    Args:
        cells: the files of cells of one task; None where there is no such cell.

    Returns:
        Shape (cells, cells), of scores as fractions. NaN where it is unknown: of a cell without
        items, of one whose items do not give its score (other metrics), of a part
        of a single cluster; and between cells whose items are not the same.
    """
    samples = [None if files is None else read_samples(files) for files in cells]
    found = np.full((len(cells), len(cells)), np.nan)
    for group in paired(samples):
        known = [(cells[place], one) for place in group if (one := samples[place]) is not None]
        (files, *_), of_group = zip(*known, strict=True)
        if files is not None:
            found[np.ix_(group, group)] = _of_group(files, of_group)
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


def _of_group(files: CellFiles, cells: Sequence[Samples]) -> NDArray[np.float64]:
    """Return the covariances of cells with the same items, shape (cells, cells).

    Args:
        files: of the first of them.
        cells: what their scores are made of.
    """
    clusters = link(read_shares(files, cells[0]).parts)
    if any((of_part == of_part[0]).all() for of_part in clusters):
        return np.full((len(cells), len(cells)), np.nan)
    parts = components(cells, files.task, clusters)
    # What varies with texts and experiments together is in both of them, and stays in both: without
    # it some sum of scores could vary less than nothing.
    sources = [one.covariance for one in variations(parts) if one.source != "both"]
    total: NDArray[np.float64] = np.sum(sources, axis=0)
    return total
