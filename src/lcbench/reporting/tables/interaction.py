"""Tests whether long texts gain more, the paper's claim, by task, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import BASELINE, ordered_policies
from lcbench.reporting.table import Entry, Table, interval, name
from lcbench.reporting.tables.changes import (
    FEWEST_ITEMS,
    MISSING_VALUE,
    NOT_DEFINED,
    Change,
    Column,
    additive,
    change_entry,
    changes_of,
)
from lcbench.reporting.tables.items_by_length import Items, Place
from lcbench.reporting.tables.of_lengths import (
    OfLengths,
    notes_of_intervals,
    notes_of_units,
    sections_of,
)
from lcbench.reporting.task_intervals import relative_changes
from lcbench.uncertainty.sums import RESAMPLES, SEED, Function, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class LengthGain(OfLengths):
    """The dependence of a model's gain on a task on length.

    Attributes:
        count: number of items.
        shortest: number of items in the shortest 20 %.
        longest: number of items in the longest 20 %.
        slopes: gain per doubling of length by policy, in % of the baseline's score.
        contrasts: relative gain of the longest 20 % minus that of the shortest 20 %, each over its
            own baseline, by policy, in percentage points.
    """

    count: int = 0
    shortest: int = 0
    longest: int = 0
    slopes: Mapping[str, Change] = field(default_factory=dict)
    contrasts: Mapping[str, Change] = field(default_factory=dict)


def gains_by_length(
    place: Place, items: Items, resamples: int = RESAMPLES, seed: int = SEED
) -> list[LengthGain]:
    """Return the dependence of the gain on length, for each kind of length of the items.

    The gain per doubling is the slope of the items' changes over log₂ of their length (least
    squares), divided by the mean of the baseline. A correlation has no value for a single pair, and
    therefore no slope. The longest 20 % are rounded up and include all items as long as the
    shortest of them, and the shortest 20 % likewise; if the two overlap, there is no contrast.

    Args:
        place: task and model of the items.
        items: items of `items_by_length`.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.
    """
    others = [policy for policy in place.policies if policy in items.values and policy != BASELINE]
    if not others:
        return []
    found = []
    for by, lengths in items.lengths.items():
        # An empty text has no logarithm of its length.
        known = items.scored & (lengths > 0)
        nothing = LengthGain.nothing(place, items, resamples)
        empty = replace(nothing, by=by, count=int(known.sum()))
        if empty.count < FEWEST_ITEMS:
            found.append(replace(empty, why=f"fewer than {FEWEST_ITEMS} items"))
        elif np.ptp(lengths[known]) == 0:
            found.append(replace(empty, why="all of one length"))
        else:
            found.append(_gain(empty, items, lengths, known, others, seed))
    return found


def fifths(
    lengths: NDArray[np.float64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return the shortest and the longest 20 % of items; None if they overlap.

    Args:
        lengths: shape (items,).
        known: mask of the items that count, shape (items,).
    """
    ordered = np.sort(lengths[known])
    fifth = math.ceil(len(ordered) / 5)
    if len(ordered) == 0 or ordered[fifth - 1] >= ordered[-fifth]:
        return None
    return known & (lengths <= ordered[fifth - 1]), known & (lengths >= ordered[-fifth])


def _gain(
    empty: LengthGain,
    items: Items,
    lengths: NDArray[np.float64],
    known: NDArray[np.bool_],
    others: Sequence[str],
    seed: int,
) -> LengthGain:
    slopes: dict[str, Change] = {}
    if items.gold is None:
        slopes = _slopes(empty, items, lengths, known, others, seed)
    ends = fifths(lengths, known)
    if ends is None:
        why = "" if slopes else "the shortest and the longest 20 % meet"
        return replace(empty, slopes=slopes, why=why)
    contrasts = _contrasts(empty, items, ends, others, seed)
    shortest, longest = (int(chosen.sum()) for chosen in ends)
    why = "" if slopes or contrasts else "no score above 0 of enough items"
    return replace(
        empty, slopes=slopes, contrasts=contrasts, shortest=shortest, longest=longest, why=why
    )


def _slopes(
    empty: LengthGain,
    items: Items,
    lengths: NDArray[np.float64],
    known: NDArray[np.bool_],
    others: Sequence[str],
    seed: int,
) -> dict[str, Change]:
    rows = np.flatnonzero(known)
    doublings = np.log2(lengths[rows])
    doublings = doublings - doublings.mean()
    raw = items.column(BASELINE, known)
    before = float(raw.mean(dtype=np.float64))
    if before <= 0:
        return {}
    gains = [Term(items.column(policy, known) - raw) for policy in others]
    columns: list[Column | Term] = [
        *(np.ones(len(rows)), doublings, doublings**2, raw),
        *(column for gain in gains for column in (gain, Term(gain.values, doublings))),
    ]

    def slope(sums: NDArray[np.float64], mean: NDArray[np.float64] | float) -> NDArray[np.float64]:
        one, x, xx = sums[..., 0:1], sums[..., 1:2], sums[..., 2:3]
        gain, gain_x = sums[..., 4::2], sums[..., 5::2]
        # A sample whose items all have one length has no slope.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(100 * (one * gain_x - x * gain) / (one * xx - x**2) / mean)

    def over_own(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = sums[..., 3:4] / sums[..., 0:1]
        return slope(sums, np.where(mean > 0, mean, np.nan))

    def over_as_it_is(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return slope(sums, before)

    return _changes(empty, items, rows, columns, gains, others, (over_own, over_as_it_is), seed)


def _contrasts(
    empty: LengthGain,
    items: Items,
    ends: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    others: Sequence[str],
    seed: int,
) -> dict[str, Change]:
    (short_rows, short), (long_rows, long) = (additive(items, chosen) for chosen in ends)
    if not short or not long or min(short[BASELINE].mean(), long[BASELINE].mean()) <= 0:
        return {}
    if not all(np.isfinite(values[BASELINE]).all() for values in (short, long)):
        return {}
    rows = np.concatenate([short_rows, long_rows])

    def padded(values: Column, is_long: bool) -> Column:
        other = short_rows if is_long else long_rows
        nothing = np.zeros((len(other), *values.shape[1:]), values.dtype, order="F")
        return np.concatenate([nothing, values] if is_long else [values, nothing])

    columns = [
        padded(values[policy], is_long)
        for policy in (BASELINE, *others)
        for values, is_long in ((short, False), (long, True))
    ]
    gains = [
        np.concatenate([values[policy] - values[BASELINE] for values in (short, long)])
        for policy in others
    ]

    def contrast(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(
            relative_changes(sums[..., 1:2], sums[..., 3::2])
            - relative_changes(sums[..., 0:1], sums[..., 2::2])
        )

    return _changes(empty, items, rows, columns, gains, others, (contrast,), seed)


def _changes(
    empty: LengthGain,
    items: Items,
    rows: NDArray[np.int64],
    columns: Sequence[Column | Term],
    gains: Sequence[Column | Term],
    others: Sequence[str],
    functions: Sequence[Function],
    seed: int,
) -> dict[str, Change]:
    clusters = items.clusters[rows]
    found = changes_of(columns, gains, clusters, functions, empty.resamples, seed)
    return {
        policy: change
        for policy, change in zip(others, found, strict=True)
        if change.value is not None and np.isfinite(change.value)
    }


_TITLE = "Do long texts gain more? Gain by length"


def gain_table(found: Sequence[LengthGain]) -> Table | None:
    """Return the table of gains by length: sections by model, two rows per task, columns by τ.

    Args:
        found: results of `gains_by_length`.

    Returns:
        None if there is nothing to show.
    """
    shown = [one for one in found if one.slopes or one.contrasts]
    if not shown:
        return None
    every = ordered_policies(policy for one in shown for policy in (*one.slopes, *one.contrasts))
    notes = [
        "Per doubling: the slope of the items' changes over log₂ of their length, in % of the "
        "score at τ = 1. Longest − shortest: the relative gain of the longest 20 % of the items "
        "(and all as long as the shortest of these) less that of the shortest 20 %, in percentage "
        "points. Above zero: long texts gain more, as the paper claims.",
    ]
    notes += notes_of_units(shown, "texts", ": texts that fill the window count as equally long")
    if any(one.by == "pair" for one in shown):
        notes.append("A correlation has no value of a single pair, and so no slope.")
    notes += notes_of_intervals("the task", shown)
    reasons = dict.fromkeys(f"{one.task} by {one.by} ({one.why})" for one in found if one.why)
    if reasons:
        notes.append(f"Left out: {', '.join(reasons)}.")
    return Table(
        name="gain-by-length",
        title=_TITLE,
        header=("Task", "Length of", "Items", "", *(label_of(policy) for policy in every)),
        labels=4,
        sections=sections_of(shown, lambda one: one.label, lambda one: _rows(one, every), found),
        notes=tuple(notes),
    )


def _rows(one: LengthGain, policies: Sequence[str]) -> Iterator[tuple[Entry, ...]]:
    def row(items: str, what: str, changes: Mapping[str, Change]) -> tuple[Entry, ...]:
        shown = (_entry(changes.get(policy, NOT_DEFINED)) for policy in policies)
        return (name(one.task), name(one.by), name(items), name(what), *shown)

    if one.slopes:
        yield row(f"{one.count:,}", "per doubling (%)", one.slopes)
    if one.contrasts:
        items = f"{one.longest:,} − {one.shortest:,}"
        yield row(items, "longest − shortest 20 % (points)", one.contrasts)


def _entry(change: Change) -> Entry:
    """Return an entry with a change, its mark and its interval."""
    if change.value is None:
        return MISSING_VALUE
    entry = change_entry(change)
    if change.uncertainty is None:
        return entry
    return replace(entry, text=f"{entry.text} ({interval(change.uncertainty)})")
