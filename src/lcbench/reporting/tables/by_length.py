"""Scores by length of queries, documents, texts and pairs, in buckets of tokens.

Takes items and returns `Table`s; `figures` draws them. Each bucket is twice as wide as the one
before. The length ranges of the paper's figures are in `paper_lengths`, its Table 3 is in `ranks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lcbench.reporting.score_table import BASELINE, policy_column
from lcbench.reporting.table import Entry, Table, number
from lcbench.reporting.tables.changes import (
    FEWEST_ITEMS,
    MISSING_VALUE,
    change_entry,
    scores_and_changes,
)
from lcbench.reporting.tables.items_by_length import By, Items, Place
from lcbench.reporting.tables.of_lengths import ScoredLengths, notes_of_intervals, sections_of
from lcbench.uncertainty.sums import RESAMPLES, SEED

if TYPE_CHECKING:
    from numpy.typing import NDArray


# The first bucket ends here, each of the following at twice the end of the one before.
_SHORTEST = 32

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
        low: minimum number of tokens.
        high: maximum number of tokens; None for texts that fill the window, and may be longer.
        count: number of items of this length.
    """

    low: int
    high: int | None
    count: int

    @property
    def label(self) -> str:
        """The range as text: ≤ 32, 33–64, ≥ 512."""
        if self.high is None:
            return f"≥ {self.low}"
        return f"{self.low}–{self.high}" if self.low > 1 else f"≤ {self.high}"


@dataclass(frozen=True, kw_only=True)
class LengthBuckets(ScoredLengths):
    """The scores of a model on a task by length, one part per bucket.

    Attributes:
        metric: metric that is averaged over a bucket's items, or computed on all of them
            (`Spearman`).
        policies: policies of the table, including the baseline.
        buckets: buckets from short to long, without empty ones at either end.
    """

    metric: str = ""
    policies: tuple[str, ...] = ()
    buckets: tuple[Bucket, ...] = ()

    @property
    def heading(self) -> str:
        """The heading of its section: model, task and kind of length."""
        return f"{self.task}, {self.label}, {_WHOSE[self.by]}"

    @property
    def tells_lengths_apart(self) -> bool:
        """Whether at least two buckets have a score."""
        return sum(score is not None for score in self.scores[BASELINE]) > 1


def buckets_of(
    place: Place, items: Items, resamples: int = RESAMPLES, seed: int = SEED
) -> list[LengthBuckets]:
    """Return the scores of one task and model by length.

    The buckets end at 32, 64, 128 … tokens, as the model reads them. Texts that fill the window,
    which were truncated or just fit, are in the last bucket.

    A query is placed by its longest relevant document, and separately by its own length. A bucket's
    score is the mean over its items of all subsets. Spearman's correlation is computed within each
    subset that has `FEWEST_ITEMS` pairs of that length, and averaged with their numbers as weights.
    Clustering and summarization have no score by length.

    Intervals are those of `sums.intervals`: items that share a text are one unit, training draws
    are a source of variation, and a correlation is resampled to first order, by its influence
    function. There is no correction for the number of intervals.

    Args:
        place: task and model of the items.
        items: items of `items_by_length`.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.
    """
    found = []
    for by, tokens in items.tokens.items():
        lengths = np.where(items.scored, tokens, np.nan)
        buckets = _buckets(lengths, place.window)
        if buckets:
            empty = replace(
                LengthBuckets.nothing(place, items, resamples),
                unit="tokens",
                by=by,
                metric=items.metric,
                policies=place.policies,
                buckets=buckets,
            )
            chosen = [_inside(lengths, bucket.low, bucket.high) for bucket in buckets]
            parts = [
                scores_and_changes(items, mask, place.policies, resamples, seed) for mask in chosen
            ]
            found.append(empty.filled(place.policies, parts))
    return found


def length_table(found: Sequence[LengthBuckets]) -> Table | None:
    """Return the table of scores by length, with sections by task and model, columns by bucket.

    Args:
        found: results of `buckets_of`; only those with scores at two lengths or more are shown.

    Returns:
        None if there is nothing to show.
    """
    shown = [result for result in found if result.tells_lengths_apart]
    if not shown:
        return None
    columns = sorted({_column(bucket) for result in shown for bucket in result.buckets})
    heading, written = policy_column(policy for result in shown for policy in result.policies)

    notes = [
        f"A bucket of fewer than {FEWEST_ITEMS} items has no score.",
        "The last bucket of a model (≥) holds what fills its window, and may be longer; the one "
        "before it ends one token below.",
    ]
    notes += notes_of_intervals("the bucket", shown)
    left_out = dict.fromkeys(
        f"{result.task} (by {result.by})" for result in found if not result.tells_lengths_apart
    )
    if left_out:
        notes.append(f"Left out, fewer than two lengths with a score: {', '.join(left_out)}.")
    return Table(
        name="by-length",
        title="Scores by length in tokens",
        header=(heading, "", *map(_column_name, columns)),
        labels=2,
        sections=sections_of(
            shown,
            lambda result: result.heading,
            lambda result: _length_rows(result, columns, written),
            shown,
        ),
        notes=tuple(notes),
    )


def _buckets(lengths: NDArray[np.float64], window: int | None) -> tuple[Bucket, ...]:
    """Return the buckets from the shortest to the longest item; none without items."""
    known = lengths[np.isfinite(lengths)]
    if len(known) == 0:
        return ()
    longest = int(known.max())
    ranges: list[tuple[int, int | None]] = []
    low, high = 1, _SHORTEST
    while low <= longest and (window is None or low < window):
        ranges.append((low, high if window is None else min(high, window - 1)))
        low, high = high + 1, 2 * high
    if window is not None and longest >= window:
        ranges.append((window, None))
    buckets = [Bucket(low, high, int(_inside(known, low, high).sum())) for low, high in ranges]
    first = next(place for place, bucket in enumerate(buckets) if bucket.count)
    return tuple(buckets[first:])


def _inside(lengths: NDArray[np.float64], low: int, high: int | None) -> NDArray[np.bool_]:
    return (lengths >= low) & (lengths <= high) if high is not None else lengths >= low


def _column(bucket: Bucket) -> tuple[int, float]:
    """Return the column of a bucket, identified by its ends."""
    return bucket.low, math.inf if bucket.high is None else bucket.high


def _column_name(column: tuple[int, float]) -> str:
    low, high = column
    return Bucket(low, None if math.isinf(high) else int(high), 0).label


def _length_rows(
    result: LengthBuckets, columns: Sequence[tuple[int, float]], written: Callable[[str], str]
) -> Iterator[tuple[Entry, ...]]:
    places = {_column(bucket): place for place, bucket in enumerate(result.buckets)}

    def row(label: str, what: str, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        own = list(entries)
        shown = (own[places[column]] if column in places else MISSING_VALUE for column in columns)
        return (Entry(label, label), Entry(what, what), *shown)

    counts = (
        Entry(f"{bucket.count:,}", bucket.count, tooltip=f"{bucket.label} tokens")
        for bucket in result.buckets
    )
    yield row("", "items", counts)
    for policy in result.policies:
        yield row(written(policy), result.metric, map(number, result.scores[policy]))
        if policy != BASELINE:
            yield row(written(policy), "relative (%)", map(change_entry, result.changes[policy]))
