"""The paper's results by length: its Figures 7 and 13, and 6, 8 and 14.

Figures 7 and 13 show nDCG@100 of the longest and the shortest 20 % of queries; 6, 8 and 14 show the
accuracy in intervals of 100 in length, with the same number of texts in each. The entropy of
Figure 6 needs predicted probabilities, but results contain predicted labels only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import BASELINE, ordered_policies
from lcbench.reporting.table import Entry, Table, name, number
from lcbench.reporting.tables.changes import (
    FEWEST_ITEMS,
    change_entry,
    relative_changes_of,
    scores_and_changes,
)
from lcbench.reporting.tables.interaction import fifths
from lcbench.reporting.tables.items_by_length import Items, Place, Relevant
from lcbench.reporting.tables.of_lengths import (
    ScoredLengths,
    notes_of_intervals,
    notes_of_units,
    sections_of,
)
from lcbench.uncertainty.sums import RESAMPLES, SEED

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CUT = 100
"""The cutoff of nDCG in the paper's Figures 7 and 13, for tasks of any metric."""

_WIDTH = 100
"""The width of the intervals of lengths in the paper's Figures 6, 8 and 14."""

_MOST_OF_AN_INTERVAL = 500
"""The number of texts in each interval in the paper."""


@dataclass(frozen=True, kw_only=True)
class Reading(ScoredLengths):
    """Scores of some lengths of one model on one task.

    Attributes:
        lengths: names of the parts, from short to long.
        counts: number of items in each part.
    """

    lengths: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


def ndcg_of_queries(
    place: Place, items: Items, resamples: int = RESAMPLES, seed: int = SEED
) -> Reading | None:
    """Return nDCG@100 of the shortest and the longest 20 % of queries; None without queries.

    It is computed from the recorded ranks of relevant documents (Järvelin and Kekäläinen 2002, with
    grades as gains, as in trec_eval); a reranking task ranks its candidates. The longest 20 % are
    rounded up and include all queries as long as the shortest of them, and the shortest 20 %
    likewise.

    Args:
        place: task and model of the items.
        items: items of `items_by_length`.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the draws.
    """
    if items.relevant is None:
        return None
    lengths = items.lengths["query"]
    has_documents = np.zeros(len(lengths), dtype=bool)
    has_documents[items.relevant.items] = True
    known = has_documents & np.isfinite(lengths)
    why = ""
    ends = fifths(lengths, known)
    if ends is None:
        why = "the shortest and the longest 20 % meet"
    elif min(int(chosen.sum()) for chosen in ends) < FEWEST_ITEMS:
        why = f"a fifth has fewer than {FEWEST_ITEMS} queries"
    if why or ends is None:
        return Reading.nothing(place, items, resamples, why)
    gains = {
        policy: _ndcg(items.relevant, ranks, len(lengths))
        for policy, ranks in items.relevant.ranks.items()
        if policy in place.policies
    }
    parts = []
    for chosen in ends:
        columns = {policy: values[chosen] for policy, values in gains.items()}
        scores: dict[str, float | None] = {
            policy: 100 * float(values.mean()) for policy, values in columns.items()
        }
        changes = relative_changes_of(columns, items.clusters[chosen], False, resamples, seed)
        parts.append((scores, changes))
    found = replace(
        Reading.nothing(place, items, resamples),
        by="query",
        lengths=("shortest 20 %", "longest 20 %"),
        counts=tuple(int(chosen.sum()) for chosen in ends),
    )
    return found.filled(place.policies, parts)


def accuracy_of_intervals(
    place: Place, items: Items, resamples: int = RESAMPLES, seed: int = SEED
) -> Reading | None:
    """Return the accuracy of texts in intervals of 100 tokens; None for other types of tasks.

    Each interval has the same number of texts, as in the paper: that of the smallest interval with
    at least `FEWEST_ITEMS`, and at most 500, drawn at random from larger ones. Texts that fill the
    window are left out, since their length in tokens is unknown.

    Args:
        place: task and model of the items.
        items: items of `items_by_length`.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
    """
    if "text" not in items.tokens:
        return None
    tokens = items.tokens["text"]
    known = items.scored & np.isfinite(tokens)
    if place.window is not None:
        known &= tokens < place.window
    number_of = np.where(known, tokens, -1).astype(np.int64) // _WIDTH
    sizes = np.bincount(number_of[known], minlength=1)
    enough = [at for at, size in enumerate(sizes) if size >= FEWEST_ITEMS]
    if len(enough) < 2:
        why = f"fewer than two intervals of {FEWEST_ITEMS} texts"
        return Reading.nothing(place, items, resamples, why)
    each = min(_MOST_OF_AN_INTERVAL, *(int(sizes[at]) for at in enough))
    # Drawn by position, so that all models have the same texts.
    order = np.random.default_rng(seed).permutation(len(tokens))
    parts = []
    for at in enough:
        chosen = np.zeros(len(tokens), dtype=bool)
        chosen[order[(known & (number_of == at))[order]][:each]] = True
        parts.append(scores_and_changes(items, chosen, place.policies, resamples, seed))
    found = replace(
        Reading.nothing(place, items, resamples),
        unit="tokens",
        lengths=tuple(f"{_WIDTH * at}–{_WIDTH * (at + 1) - 1}" for at in enough),
        counts=(each,) * len(enough),
    )
    return found.filled(place.policies, parts)


def query_table(found: Sequence[Reading]) -> Table | None:
    """Return the table of nDCG@100 of the shortest and longest queries, with columns by τ.

    Args:
        found: results of `ndcg_of_queries`.

    Returns:
        None if there is nothing to show.
    """
    notes = [
        f"nDCG@{_CUT}, as in the paper's Figures 7 and 13, whatever the task's own metric, of the "
        "20 % of the queries and all as long as the last of these. Where a task reranks, over the "
        "query's candidates.",
    ]
    return _sheet(
        found,
        "by-query-length",
        f"nDCG@{_CUT} of the shortest and the longest queries",
        ("Queries", "Count"),
        f"nDCG@{_CUT}",
        [*notes, *notes_of_units([one for one in found if not one.why], "queries")],
        "queries",
    )


def interval_table(found: Sequence[Reading]) -> Table | None:
    """Return the table of accuracy by intervals of 100 tokens, with columns by τ.

    Args:
        found: results of `accuracy_of_intervals`.

    Returns:
        None if there is nothing to show.
    """
    notes = [
        f"Intervals of {_WIDTH} with equal numbers of texts, as in the paper's Figures 6, 8 and 14 "
        f"({_MOST_OF_AN_INTERVAL} there); in tokens as the model reads them, which is assumed: the "
        "paper says it of its Figure 1a. Intervals of fewer than "
        f"{FEWEST_ITEMS} texts are left out, and texts that fill the window. The entropy of "
        "Figure 6 is not known: results keep predicted labels, not their probabilities.",
    ]
    return _sheet(
        found,
        "by-hundreds",
        f"Accuracy of texts by intervals of {_WIDTH} tokens",
        ("Tokens", "Count"),
        "accuracy",
        notes,
        "texts",
    )


def _ndcg(relevant: Relevant, ranks: NDArray[np.float64], queries: int) -> NDArray[np.float64]:
    """Return nDCG@100 of each query, shape (queries,); NaN without relevant documents."""
    gains = np.where(ranks <= _CUT, relevant.grades / np.log2(ranks + 1), 0)
    found = np.bincount(relevant.items, weights=gains, minlength=queries)
    # The best order has the grades from high to low.
    order = np.lexsort((-relevant.grades, relevant.items))
    items = relevant.items[order]
    starts = np.searchsorted(items, items)
    best = np.arange(len(items)) - starts + 1
    ideal = np.where(best <= _CUT, relevant.grades[order] / np.log2(best + 1), 0)
    most = np.bincount(items, weights=ideal, minlength=queries)
    with np.errstate(invalid="ignore"):
        return np.asarray(found / most)


def _sheet(
    found: Sequence[Reading],
    file: str,
    title: str,
    labels: tuple[str, str],
    metric: str,
    notes: list[str],
    units: str,
) -> Table | None:
    shown = [one for one in found if not one.why]
    if not shown:
        return None
    every = ordered_policies(policy for one in shown for policy in one.scores)
    notes += notes_of_intervals("the part", shown)
    if left_out := dict.fromkeys(f"{one.task} ({one.why})" for one in found if one.why):
        notes.append(f"Left out: {', '.join(left_out)}.")
    return Table(
        name=file,
        title=title,
        header=(*labels, "", *(label_of(policy) for policy in every)),
        labels=3,
        sections=sections_of(
            shown,
            lambda one: f"{one.task}, {one.label}",
            lambda one: _rows(one, every, metric),
            found,
        ),
        notes=tuple(notes),
    )


def _rows(one: Reading, policies: Sequence[str], metric: str) -> Iterator[tuple[Entry, ...]]:
    for part, (lengths, count) in enumerate(zip(one.lengths, one.counts, strict=True)):
        first = (name(lengths), name(f"{count:,}"))
        scores = (one.scores[policy][part] if policy in one.scores else None for policy in policies)
        yield (*first, name(metric), *map(number, scores))
        if one.changes:
            yield (
                *(*first, name("relative (%)")),
                *(
                    Entry("") if policy == BASELINE else change_entry(one.change(policy, part))
                    for policy in policies
                ),
            )
