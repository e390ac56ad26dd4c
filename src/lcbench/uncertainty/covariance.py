"""The covariance of the main scores of cells of one task.

It is estimated from the items that cells have kept, as read by `items`. `paper` derives the errors
of columns and of relative improvements from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty.clusters import link
from lcbench.uncertainty.items import TaskSamples, paired
from lcbench.uncertainty.variation import Variation, components, variances_of, variations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

# Half a 95 % interval of a normal distribution, in standard errors.
HALF_WIDTH = 1.959964


@dataclass(frozen=True)
class Noise:
    """The variation of the main scores of cells of one task.

    Attributes:
        groups: for each group of cells with the same items, their indices among all cells and the
            variation of their scores.
    """

    groups: tuple[tuple[list[int], list[Variation]], ...]

    def variance(self, weights: Mapping[int, float]) -> float:
        """Return the variance of a weighted sum of the cells' scores, as fractions.

        NaN if unknown: a cell has no items, or items that do not give its score (other metrics); a
        part has a single cluster; or the cells have different items.

        Args:
            weights: weights by index of the cell; 0 for all others.
        """
        if not weights:
            return 0.0
        for places, sources in self.groups:
            if weights.keys() <= set(places):
                gradient = np.array([weights.get(place, 0.0) for place in places])
                return max(float(variances_of(sources, gradient)[0].sum()), 0.0)
        return nan


def standard_error(files: CellFiles, read: TaskSamples) -> float | None:
    """Return the standard error of a cell's main score, as a fraction; None if unknown.

    Args:
        files: files of the cell.
        read: samples of its task's cells, this one among them.
    """
    variance = noise_of([files], read).variance({0: 1.0})
    return None if np.isnan(variance) else float(np.sqrt(variance))


def noise_of(cells: Sequence[CellFiles | None], read: TaskSamples) -> Noise:
    """Return the variation of the main scores of cells of one task over its items.

    It is how much the scores would vary over other clusters of items like the task's own
    (`clusters`), estimated from each cluster's contribution to first order:

    - for the mean of per-item scores (classification, retrieval, reranking), paired over clusters;
      for classification also for the mean over its experiments, each of which is trained on another
      small draw of texts, with the interaction of texts and experiments counted once;
    - for STS, Spearman's correlation (`Correlations.influence`);
    - for clustering, the mean of the V-measures of its sets, each of which is an item.

    A task's score is the mean over splits of the mean over subsets, which are independent unless
    they share clusters. If all subsets of a split have the same ids and labels, they are
    translations of the same texts (Massive): one sample, each item of which is the mean over the
    languages.

    It is not the noise between two runs on the same items, which comes from floating point only.

    Args:
        cells: files of cells of one task; None for a missing cell.
        read: samples of the task's cells, these among them.
    """
    samples = [None if files is None else read.samples[files] for files in cells]
    groups = []
    for group in paired(samples):
        known = [
            (files, one) for place in group if (files := cells[place]) and (one := samples[place])
        ]
        files, _ = known[0]
        clusters = link(read.shares(files).parts)
        if any((of_part == of_part[0]).all() for of_part in clusters):
            continue
        parts = components([one for _, one in known], files.task, clusters)
        groups.append((group, variations(parts)))
    return Noise(tuple(groups))


def ratio_error(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> float | None:
    """Return the standard error of Σ sums / Σ counts over independent units (queries).

    It is estimated by linearisation, the usual method for the variance of a ratio. None for fewer
    than two units.

    Args:
        sums: sum of values of each unit, shape (units,).
        counts: number of values of each unit, shape (units,).
    """
    if len(sums) < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    return float(np.sqrt(len(sums) * residuals.var(ddof=1)) / counts.sum())
