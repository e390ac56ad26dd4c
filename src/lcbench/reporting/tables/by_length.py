"""Scores by length: of what was asked, found, classified or compared, in buckets of tokens.

Takes tables and the files of their cells, and makes `Sheet`s of what it finds; `figures` draws it.
Figures 1a, 7, 8, 13 and 14 of the paper are by length, its Table 3 has the ranks of the longest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr, stdtrit

from lcbench.reporting.sheet import Entry, Section, Sheet, improvement, number
from lcbench.reporting.statistics import Uncertainty
from lcbench.reporting.table import BASELINE, Table, relative_improvement
from lcbench.reporting.tables.items_by_length import (
    By,
    Items,
    counted_cells,
    files_by_key,
    items_of,
)
from lcbench.reporting.task_intervals import possible, relative_changes

if TYPE_CHECKING:
    from numpy.typing import NDArray


FEWEST_ITEMS = 30
"""A bucket of fewer has no score: one query more or less would move it by 3 points of 100."""

RESAMPLES = 2_000
"""Bootstrap samples of a bucket: the ends of its interval are then sure to 3 % of its width."""

SEED = 0

# The first bucket ends here, and each of the following at twice the one before.
_SHORTEST = 32

# Resampled means of more items are drawn from their normal limit: at this many the two differ by
# less than the bootstrap does from one seed to another, and 100,000 items cost no more than these.
_MOST_DRAWN = 1_000


HOLE = Entry("–")

_WHOSE: Mapping[By, str] = {
    "document": "by the tokens of the relevant document",
    "query": "by the tokens of the query",
    "text": "by the tokens of the text",
    "pair": "by the tokens of the longer text",
}


@dataclass(frozen=True)
class Bucket:
    """A range of lengths.

    Attributes:
        low: the fewest tokens.
        high: the most; None where the bucket holds what fills the window, and may be longer.
        count: how many items are of this length.
    """

    low: int
    high: int | None
    count: int

    @property
    def label(self) -> str:
        """The range in words: ≤ 32, 33–64, ≥ 512."""
        if self.high is None:
            return f"≥ {self.low}"
        return f"{self.low}–{self.high}" if self.low > 1 else f"≤ {self.high}"


@dataclass(frozen=True)
class LengthBuckets:
    """The scores of one model on one task by length.

    Scores are × 100, improvements and their intervals in %. All three are by policy and then one a
    bucket; None is a hole: too few items, a score that does not count in the table, or one that is
    not defined.

    Attributes:
        group: of the table.
        column: of the task.
        task: its name.
        label: of the model.
        by: whose length.
        metric: what is averaged over a bucket's items, or taken of them all (`Spearman`).
        policies: as in the table, the baseline among them.
        buckets: from short to long, without the empty ones at either end.
        scores: of all policies.
        improvements: over the baseline, of the others.
        intervals: of 95 %, of the improvements.
        resamples: of the bootstrap that they come from; 0: there are none.
        seed: of its draws.
    """

    group: str
    column: str
    task: str
    label: str
    by: By
    metric: str
    policies: tuple[str, ...]
    buckets: tuple[Bucket, ...]
    scores: Mapping[str, tuple[float | None, ...]]
    improvements: Mapping[str, tuple[float | None, ...]]
    intervals: Mapping[str, tuple[tuple[float, float] | None, ...]]
    resamples: int = RESAMPLES
    seed: int = SEED

    @property
    def heading(self) -> str:
        """What it is of, in one line."""
        return f"{self.task}, {self.label}, {_WHOSE[self.by]}"

    @property
    def tells_lengths_apart(self) -> bool:
        """Whether two buckets or more have a score."""
        return sum(score is not None for score in self.scores[BASELINE]) > 1


def by_length(
    tables: Sequence[Table],
    scores: pd.DataFrame,
    progress: Callable[[int, int], None] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[LengthBuckets]:
    """Return the scores of all that the tables count by length.

    The buckets end at 32, 64, 128 … tokens, as the model reads them. A text that fills the window
    was cut, or just fits; those are a bucket of their own, the last.

    A query counts once, by the longest of its relevant documents; and, apart from that, by its own
    length. A bucket's score is the mean over its items, whatever their subset; Spearman's
    correlation is taken within each subset that has `FEWEST_ITEMS` pairs of that length, and
    averaged by their number. Clusterings and summaries have no score of a single length.

    An interval is that of a paired bootstrap over the bucket's items: the percentiles, widened for
    few items (Hesterberg 2015). A correlation is resampled to first order, by its influence
    function. That a classifier was trained on a small draw of texts is not in it, and there is no
    correction for the number of intervals.

    Args:
        tables: of `table1.build_tables`; they say which cells count.
        scores: the frame that they were built from.
        progress: told how many tasks of a model are done, of how many.
        resamples: of a bucket's items; 0: no intervals.
        seed: of the draws.

    Returns:
        in the order of the tables: by task, then by model; those without an item are left out.
    """
    files = files_by_key(scores)
    places = [
        (table, block, column.name, task)
        for table in tables
        for column in table.columns
        for task in column.tasks
        for block in table.blocks
    ]
    found = []
    for done, (table, block, column, task) in enumerate(places, start=1):
        cells = counted_cells(files, table, block, task)
        for by, metric, items in items_of(cells):
            buckets = _buckets(items, block.window)
            if buckets:
                empty = LengthBuckets(
                    group=table.group,
                    column=column,
                    task=task,
                    label=block.label,
                    by=by,
                    metric=metric,
                    policies=block.policies,
                    buckets=tuple(buckets),
                    scores={},
                    improvements={},
                    intervals={},
                    resamples=resamples,
                    seed=seed,
                )
                found.append(_scored(empty, items))
        if progress is not None:
            progress(done, len(places))
    return found


def length_sheet(
    found: Sequence[LengthBuckets], policies: Mapping[str, Sequence[str]] | None = None
) -> Sheet | None:
    """Return the scores by length: a section a task and model, a column a bucket, rows by τ.

    Args:
        found: of `by_length`; only those of two lengths or more are shown.
        policies: to be shown, by label of the model; by default all.

    Returns:
        None if there is nothing to show.
    """
    shown = [one for one in found if one.tells_lengths_apart]
    if not shown:
        return None
    several = len({one.group for one in shown}) > 1
    columns = sorted({_column(bucket) for one in shown for bucket in one.buckets})
    sections = [
        Section(
            f"{one.group}: {one.heading}" if several else one.heading,
            tuple(_length_rows(one, columns, None if policies is None else policies[one.label])),
        )
        for one in shown
    ]
    notes = [
        f"A bucket of fewer than {FEWEST_ITEMS} items has no score.",
        "The last bucket of a model (≥) holds what fills its window, and may be longer; the one "
        "before it ends one token below.",
    ]
    if shown[0].resamples:
        notes.append(
            f"▲ ▼: the 95 % interval of a paired bootstrap ({shown[0].resamples:,} samples, seed "
            f"{shown[0].seed}) over the items of the bucket excludes zero; △ ▽: it does not. Each "
            "stands for itself: of twenty without an effect, one excludes zero by chance. Where "
            "the baseline may be 0, differences are divided by it as it is, as in Table 1."
        )
        if any(one.by == "text" for one in shown):
            notes.append(
                "Of classified texts the intervals leave out that each classifier learned from a "
                "random draw of texts, so that marks by length may claim too much."
            )
    left_out = dict.fromkeys(
        f"{one.task} (by {one.by})" for one in found if not one.tells_lengths_apart
    )
    if left_out:
        notes.append(f"Left out, fewer than two lengths with a score: {', '.join(left_out)}.")
    return Sheet(
        name="by-length",
        title="Scores by length in tokens",
        header=("τ", "", *map(_column_name, columns)),
        labels=2,
        sections=tuple(sections),
        notes=tuple(notes),
    )


def _buckets(items: Items, window: int | None) -> tuple[Bucket, ...]:
    """Return the buckets from the shortest to the longest item; none without items."""
    if len(items.tokens) == 0:
        return ()
    longest = int(items.tokens.max())
    ranges: list[tuple[int, int | None]] = []
    low, high = 1, _SHORTEST
    while low <= longest and (window is None or low < window):
        ranges.append((low, high if window is None else min(high, window - 1)))
        low, high = high + 1, 2 * high
    if window is not None and longest >= window:
        ranges.append((window, None))
    buckets = [
        Bucket(low, high, int(_inside(items.tokens, low, high).sum())) for low, high in ranges
    ]
    first = next(place for place, bucket in enumerate(buckets) if bucket.count)
    return tuple(buckets[first:])


def _inside(tokens: NDArray[np.int64], low: int, high: int | None) -> NDArray[np.bool_]:
    return (tokens >= low) & (tokens <= high) if high is not None else tokens >= low


def _scored(empty: LengthBuckets, items: Items) -> LengthBuckets:
    """Return buckets with the scores of the items in them."""
    policies = list(items.values)
    others = [policy for policy in policies if policy != BASELINE]
    scores: dict[str, list[float | None]] = {policy: [] for policy in empty.policies}
    improvements: dict[str, list[float | None]] = {
        policy: [] for policy in empty.policies if policy != BASELINE
    }
    intervals: dict[str, list[tuple[float, float] | None]] = {one: [] for one in improvements}
    for bucket in empty.buckets:
        inside = items.where(_inside(items.tokens, bucket.low, bucket.high))
        additive = _additive(inside)
        means = dict(zip(policies, additive.mean(axis=0) if len(additive) else (), strict=False))
        shown = {policy: _or_hole(100 * means.get(policy, math.nan)) for policy in scores}
        # Of the task: an interval does not depend on what else is in the table.
        seed = (empty.seed, zlib.crc32(empty.task.encode()), bucket.low)
        known = [policy for policy in others if shown[policy] is not None]
        ends: dict[str, tuple[float, float] | None] = {}
        if shown[BASELINE] is not None and known and empty.resamples:
            places = [policies.index(policy) for policy in (BASELINE, *known)]
            drawn = _intervals(additive[:, places], empty.resamples, seed)
            if items.gold is None and (additive >= 0).all():
                drawn = [None if one is None else possible(*one) for one in drawn]
            ends = dict(zip(known, drawn, strict=True))
        for policy, score in shown.items():
            scores[policy].append(score)
            if policy != BASELINE:
                improvements[policy].append(relative_improvement(score, shown[BASELINE]))
                intervals[policy].append(ends.get(policy))
    return replace(
        empty,
        scores={policy: tuple(values) for policy, values in scores.items()},
        improvements={policy: tuple(values) for policy, values in improvements.items()},
        intervals={policy: tuple(values) for policy, values in intervals.items()},
    )


def _or_hole(score: float) -> float | None:
    return None if math.isnan(score) else float(score)


def _additive(items: Items) -> NDArray[np.float64]:
    """Return values whose mean is the score and whose resampled means are the resampled scores.

    Of a mean these are the items' own; of a correlation to first order (`_influence`).

    Returns:
        Shape (items, policies); (0, policies) where they are too few.
    """
    values = np.stack(list(items.values.values()), axis=1)
    none = values[:0]
    if len(values) < FEWEST_ITEMS:
        return none
    if items.gold is None:
        return values
    sizes = np.bincount(items.parts)
    enough = [part for part, size in enumerate(sizes) if size >= FEWEST_ITEMS]
    if not enough:
        return none
    found = []
    total = np.zeros(values.shape[1])
    for part in enough:
        here = items.parts == part
        correlations, influences = _influence(items.gold[here], values[here])
        total += correlations * sizes[part]
        found.append(influences)
    return np.asarray(np.concatenate(found) + total / sizes[enough].sum())


def _influence(
    gold: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Spearman's correlations with `gold`, and how each pair's weight moves them.

    The correlation is that of the ranks a and b, as shares of all pairs, of which ties have the
    mean, less ½: N / √(A·B), with the means N, A and B of ab, a² and b². One more pair like k moves
    the ranks of all pairs above it, so that N changes by a_k b_k + mean_i(b_i [k below i]) +
    mean_i(a_i [k below i]), where ties count by half, and A by a_k² + 2 mean_i(a_i [k below i]).

    Args:
        gold: shape (pairs,).
        values: shape (pairs, policies).

    Returns:
        correlations, shape (policies,), NaN where one side is constant; and influences, shape
        (pairs, policies), with mean 0.
    """
    wanted = _Ranks(gold)
    of_wanted = wanted.ranks**2 + 2 * wanted.above(wanted.ranks)
    correlations, influences = [], []
    for column in values.T:
        ours = _Ranks(column)
        norms = (wanted.ranks**2).mean(), (ours.ranks**2).mean()
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt(norms[0] * norms[1])
            correlation = (wanted.ranks * ours.ranks).mean() / scale
            product = wanted.ranks * ours.ranks
            product = product + wanted.above(ours.ranks) + ours.above(wanted.ranks)
            of_ours = ours.ranks**2 + 2 * ours.above(ours.ranks)
            influence = product / scale - correlation / 2 * (
                of_wanted / norms[0] + of_ours / norms[1]
            )
        correlations.append(correlation)
        influences.append(influence - influence.mean())
    return np.array(correlations), np.stack(influences, axis=1)


class _Ranks:
    """The ranks of values as shares of all, ties at their mean, less ½."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        _, self._place, self._sizes = np.unique(values, return_inverse=True, return_counts=True)
        middles = np.cumsum(self._sizes) - self._sizes / 2
        self.ranks = np.asarray(middles[self._place] / len(values) - 0.5, dtype=np.float64)

    def above(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return of each value the mean, over all, of the weights of those above it.

        Those equal to it count by half.
        """
        sums = np.bincount(self._place, weights=weights, minlength=len(self._sizes))
        higher = np.cumsum(sums[::-1])[::-1] - sums / 2
        return np.asarray(higher[self._place] / len(weights))


def _intervals(
    additive: NDArray[np.float64], resamples: int, seed: tuple[int, ...]
) -> list[tuple[float, float] | None]:
    """Return the 95 % intervals of the improvements (%) of columns over the first.

    Args:
        additive: values whose resampled means are resampled scores, shape (items, policies).
        resamples: how many samples.
        seed: of the draws.

    Returns:
        one a column but the first. Where a resampled baseline may be 0, differences are divided by
        the baseline as it is, as `intervals.improvement_interval` does; None where that is not
        above 0.
    """
    count = len(additive)
    random = np.random.default_rng(seed)
    if count > _MOST_DRAWN:
        spread = np.atleast_2d(np.cov(additive, rowvar=False, ddof=0)) / count
        means = random.multivariate_normal(additive.mean(axis=0), spread, resamples)
    else:
        drawn = random.integers(0, count, (resamples, count), dtype=np.int32)
        drawn += np.arange(resamples, dtype=np.int32)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means = counts.astype(np.float64) @ additive / count
    # The "expanded percentiles": those of Student's t, as far out as the variance is too small.
    tail = ndtr(-math.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975))
    raw, over = means[:, 0], additive[:, 0].mean()
    found: list[tuple[float, float] | None] = []
    for ours in means.T[1:]:
        ends = (math.nan, math.nan)
        if over > 0:
            for fixed in (None, float(over)):
                changes = relative_changes(raw, ours, over=fixed)
                # Between two draws one of which is infinite there is no number.
                with np.errstate(invalid="ignore"):
                    low, high = np.quantile(changes, (tail, 1 - tail))
                ends = (float(low), float(high))
                if np.isfinite(ends).all():
                    break
        found.append(ends if np.isfinite(ends).all() else None)
    return found


def _column(bucket: Bucket) -> tuple[int, float]:
    """Return the column of a bucket: its ends, so that each column holds what its name says."""
    return bucket.low, math.inf if bucket.high is None else bucket.high


def _column_name(column: tuple[int, float]) -> str:
    low, high = column
    return Bucket(low, None if math.isinf(high) else int(high), 0).label


def _length_rows(
    one: LengthBuckets, columns: Sequence[tuple[int, float]], policies: Sequence[str] | None
) -> Iterator[tuple[Entry, ...]]:
    places = {_column(bucket): place for place, bucket in enumerate(one.buckets)}

    def row(policy: str, what: str, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        own = list(entries)
        shown = (own[places[column]] if column in places else HOLE for column in columns)
        return (Entry(policy, policy), Entry(what, what), *shown)

    counts = (
        Entry(f"{bucket.count:,}", bucket.count, more=f"{bucket.label} tokens")
        for bucket in one.buckets
    )
    yield row("", "items", counts)
    for policy in one.policies:
        if policies is not None and policy not in (BASELINE, *policies):
            continue
        yield row(policy, one.metric, map(number, one.scores[policy]))
        if policy != BASELINE:
            changes = map(_change, one.improvements[policy], one.intervals[policy])
            yield row(policy, "relative (%)", changes)


def _change(value: float | None, ends: tuple[float, float] | None) -> Entry:
    """Return a relative improvement with the mark of what is known of it."""
    return improvement(value, None if ends is None else Uncertainty(*ends))
