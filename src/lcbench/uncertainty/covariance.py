"""How uncertain the main scores of cells of one task are, and how they vary together.

From what the cells kept of their items; `paper` makes errors of columns and of relative
improvements of them. What scores are made of comes from `items`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from lcbench.uncertainty.clusters import link
from lcbench.uncertainty.items import paired, read_samples, read_shares
from lcbench.uncertainty.variation import Variation, components, variances_of, variations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

# Half a 95 % interval of a normal distribution, in standard errors.
HALF_WIDTH = 1.959964


@dataclass(frozen=True)
class Noise:
    """How the main scores of cells of one task vary.

    Attributes:
        groups: of the cells that have the same items, their places among all cells, and how their
            scores vary.
    """

    groups: tuple[tuple[list[int], list[Variation]], ...]

    def variance(self, weights: Mapping[int, float]) -> float:
        """Return the variance of a weighted sum of the cells' scores, as fractions.

        NaN where it is unknown: of a cell without items, of one whose items do not give its score
        (other metrics), of a part of a single cluster; and of cells whose items are not the same.

        Args:
            weights: by the place of a cell; of all others they are 0.
        """
        if not weights:
            return 0.0
        for places, sources in self.groups:
            if weights.keys() <= set(places):
                gradient = np.array([weights.get(place, 0.0) for place in places])
                return max(float(variances_of(sources, gradient)[0].sum()), 0.0)
        return nan


def standard_error(files: CellFiles) -> float | None:
    """Return the standard error of a cell's main score, as a fraction; None where it is unknown."""
    variance = noise_of([files]).variance({0: 1.0})
    return None if np.isnan(variance) else float(np.sqrt(variance))


def noise_of(cells: Sequence[CellFiles | None]) -> Noise:
    """Return how the main scores of cells of one task vary over its items.

    What is measured is how much the scores would vary over other clusters of items like the task's
    own (`clusters`), from what each cluster adds to them to first order:

    - the mean of per-item scores (classification, retrieval, reranking): paired over clusters; for
      classification also that of the mean over its experiments, each of which is trained on another
      small draw of texts, what varies with texts and experiments together being counted once;
    - STS: Spearman's correlation (`Correlations.influence`);
    - clustering: the mean of the V-measures of its sets, each set an item.

    A task's score is the mean over splits of the mean over subsets; those are independent unless
    they share clusters. If all subsets of a split have the same ids and labels, translations of the
    same texts (Massive), they are one sample, of which each item is the mean over the languages.

    It is not the noise between two runs on the same items, which is that of floating point alone.

    Args:
        cells: the files of cells of one task; None where there is no such cell.
    """
    samples = [None if files is None else read_samples(files) for files in cells]
    groups = []
    for group in paired(samples):
        known = [
            (files, one) for place in group if (files := cells[place]) and (one := samples[place])
        ]
        files, first = known[0]
        clusters = link(read_shares(files, first).parts)
        if any((of_part == of_part[0]).all() for of_part in clusters):
            continue
        parts = components([one for _, one in known], files.task, clusters)
        groups.append((group, variations(parts)))
    return Noise(tuple(groups))


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
