"""How uncertain a main score is, measured from what the cell kept of its items.

Gives variances and covariances of the scores of one task; `paper` makes errors of columns and of
relative improvements of them. Reads files and loads no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results import CellFiles

# Half a 95 % interval of a normal distribution, in standard errors.
HALF_WIDTH = 1.959964

RESAMPLES = 1000
_SEED = 0
# Counts of a resample's items that are held at once.
_COUNTS_AT_ONCE = 2**21

# mteb rounds the means of retrieval metrics to five decimals and what it writes to six.
_ROUNDING = 1e-5

# Of the items' columns; the others are far larger.
_COLUMNS = ["split", "subset", "id", "gold", "tokens_2", "score"]


@dataclass(frozen=True)
class _Sample:
    """What the score of one split and subset of a cell is made of.

    Attributes:
        keys: what tells the items apart, the same for the same items of another cell.
        values: of each item: its part of the score, or a pair's cosine; shape (items,).
        gold: what the values of pairs are correlated with; None where the score is their mean.
        draws: the score in each of a classification's experiments, shape (experiments,); else None.
    """

    keys: tuple[Any, ...]
    values: NDArray[np.float64]
    gold: NDArray[np.float64] | None = None
    draws: NDArray[np.float64] | None = None


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
        items (SummEval), of one whose items do not give its score (other metrics), of a single
        item; and between cells whose items are not the same.
    """
    samples = [None if files is None else _samples(files) for files in cells]
    groups: list[list[int]] = []
    for place, sample in enumerate(samples):
        if sample is None:
            continue
        for group in groups:
            if _same_items(sample, samples[group[0]]):
                group.append(place)
                break
        else:
            groups.append([place])
    found = np.full((len(cells), len(cells)), np.nan)
    for group in groups:
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


_Samples = Mapping[tuple[str, str], _Sample]  # by split and subset


def _samples(files: CellFiles) -> _Samples | None:
    """Return what a cell's score is made of; None where that cannot be known."""
    try:
        result = json.loads(files.result.read_text(encoding="utf-8"))
        entries = {
            (split, entry["hf_subset"]): entry
            for split, found in result["scores"].items()
            for entry in found
        }
        if all(isinstance(entry.get("v_measures"), list) for entry in entries.values()):
            samples = {part: _of_sets(part, entry) for part, entry in entries.items()}
        else:
            samples = _of_items(pq.read_table(files.items, columns=_COLUMNS), entries)
    # A missing or broken file, or one of another layout.
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    if samples.keys() != entries.keys():
        return None
    revision = str(result.get("dataset_revision"))
    for part, entry in entries.items():
        if not abs(_score(samples[part]) - entry["main_score"]) <= _ROUNDING:
            return None
    return {
        part: _Sample((revision, *sample.keys), sample.values, sample.gold, sample.draws)
        for part, sample in samples.items()
    }


def _of_sets(part: tuple[str, str], entry: Mapping[str, Any]) -> _Sample:
    # mteb's own list of them: its predictions, of which items are made, lack sets of one label.
    values = np.array(entry["v_measures"], dtype=float)
    return _Sample((*part, len(values)), values)


def _of_items(
    table: pa.Table, entries: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[tuple[str, str], _Sample]:
    samples = {}
    for (split, subset), entry in entries.items():
        here = pc.and_(pc.equal(table["split"], split), pc.equal(table["subset"], subset))
        part = table.filter(here).sort_by("id")
        values = part["score"].to_numpy().astype(float)
        # Only pairs have a second text.
        pairs = part["tokens_2"].null_count < len(part)
        experiments = entry.get("scores_per_experiment")
        samples[split, subset] = _Sample(
            (part.select(["id", "gold"]),),
            values,
            gold=part["gold"].to_numpy().astype(float) if pairs else None,
            draws=None if experiments is None else _draws(experiments, entry["main_score"]),
        )
    return samples


def _draws(
    experiments: Sequence[Mapping[str, Any]], main_score: float
) -> NDArray[np.float64] | None:
    """Return the main score in each experiment: that of accuracy, as items are right or wrong."""
    values = np.array([experiment["accuracy"] for experiment in experiments], dtype=float)
    return values if abs(values.mean() - main_score) <= _ROUNDING else None


def _score(sample: _Sample) -> float:
    """Return the score that the items give; NaN if one of them has none."""
    if len(sample.values) == 0:
        return float("nan")
    if sample.gold is None:
        return float(sample.values.mean())
    once = np.ones((1, len(sample.values)), dtype=np.int64)
    return float(_spearman(sample.gold, sample.values[:, None], once)[0, 0])


def _same_items(sample: _Samples, other: _Samples | None) -> bool:
    return (
        other is not None
        and sample.keys() == other.keys()
        and all(sample[part].keys == other[part].keys for part in sample)
    )


def _of_task(cells: Sequence[_Samples]) -> NDArray[np.float64]:
    """Return the covariances of cells with the same items, shape (cells, cells)."""
    total = np.zeros((len(cells), len(cells)))
    splits = list(dict.fromkeys(split for split, _ in cells[0]))
    for split in splits:
        parts = [part for part in cells[0] if part[0] == split]
        first = cells[0][parts[0]]
        if first.gold is None and all(cells[0][part].keys == first.keys for part in parts):
            found = _of_means([[cell[part] for part in parts] for cell in cells])
        else:
            of_parts = [_of_part([cell[part] for cell in cells]) for part in parts]
            found = np.sum(of_parts, axis=0) / len(parts) ** 2
        total += found / len(splits) ** 2
    return total


def _of_part(cells: Sequence[_Sample]) -> NDArray[np.float64]:
    gold = cells[0].gold
    if gold is None:
        return _of_means([[sample] for sample in cells])
    values = np.stack([sample.values for sample in cells], axis=1)
    return _covariance(_resampled(gold, values))


def _of_means(cells: Sequence[Sequence[_Sample]]) -> NDArray[np.float64]:
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
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        found.append(_spearman(gold, values, counts))
    return np.concatenate(found)


def _spearman(
    gold: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return Spearman's correlations of samples that have each pair so many times.

    Counting instead of drawing lets the pairs be sorted once for all samples.

    Args:
        gold: shape (pairs,).
        values: shape (pairs, cells).
        counts: shape (samples, pairs).

    Returns:
        Shape (samples, cells); NaN where one side is constant.
    """
    # The mean of the ranks 1 … n, whatever the ties.
    middle = (counts.sum(axis=1, keepdims=True) + 1) / 2
    wanted = _ranks(gold, counts) - middle
    norm = (counts * wanted**2).sum(axis=1)
    found = []
    for column in values.T:
        ranks = _ranks(column, counts) - middle
        with np.errstate(invalid="ignore"):
            found.append(
                (counts * wanted * ranks).sum(axis=1)
                / np.sqrt(norm * (counts * ranks**2).sum(axis=1))
            )
    return np.stack(found, axis=1)


def _ranks(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean rank of each value among samples that have it so many times, as `counts`."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    tied = np.add.reduceat(counts[:, order], starts, axis=1)
    mean = np.cumsum(tied, axis=1) - (tied - 1) / 2
    sizes = np.diff(np.append(starts, len(values)))
    ranks = np.empty(counts.shape)
    ranks[:, order] = np.repeat(mean, sizes, axis=1)
    return ranks
