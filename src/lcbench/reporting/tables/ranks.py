"""The ranks of the longest documents and their changes: the paper's Table 3."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import BASELINE, ordered_policies
from lcbench.reporting.statistics import LEAST_CHANGED
from lcbench.reporting.table import Entry, Style, Table, interval, name
from lcbench.reporting.tables.changes import MISSING_VALUE, Change, changes_of
from lcbench.reporting.tables.items_by_length import Items, Place, Relevant, items_of
from lcbench.reporting.tables.of_lengths import OfLengths, notes_of_units, sections_of
from lcbench.reporting.text import TOO_FEW, two_decimals
from lcbench.uncertainty.covariance import ratio_error
from lcbench.uncertainty.sums import RESAMPLES, SEED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.cell_items import CellItems


@dataclass(frozen=True, kw_only=True)
class LongestRanks(OfLengths):
    """The mean rank of the longest relevant documents of one model and task.

    Attributes:
        longest: number of the longest documents.
        documents: number of all documents.
        ranks: mean rank by policy; None if unknown. Empty if all documents are equally long.
        changes: changes of ranks against the baseline by policy; negative is better.
    """

    longest: int = 0
    documents: int = 0
    ranks: Mapping[str, float | None] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)

    @property
    def share(self) -> str:
        """The share of documents in words."""
        return f"{self.longest:,} of {self.documents:,} documents"


def ranks_of(
    place: Place, items: Items, resamples: int = RESAMPLES, seed: int = SEED
) -> LongestRanks | None:
    """Return the ranks of the longest relevant documents; None for items without documents.

    They are undefined if all documents, or all of a split, are equally long, as in needle and
    passkey.

    Args:
        place: task and model of the items.
        items: items of `items_by_length`.
        resamples: number of bootstrap samples of queries, with those of one document drawn
            together; 0: no intervals.
        seed: seed of the draws.
    """
    if items.relevant is None or len(items.relevant.items) == 0:
        return None
    found = LongestRanks.nothing(place, items, resamples)
    long, longest, documents = _longest(items.relevant)
    if items.splits_are_lengths or (longest == documents and documents > 1):
        return found
    ranks = items.relevant.ranks
    others = [policy for policy in place.policies if policy in ranks and policy != BASELINE]
    raw, ours = ranks[BASELINE][long], [ranks[policy][long] for policy in others]
    changes = changes_of(
        [np.ones(len(raw)), raw, *ours],
        [values - raw for values in ours],
        items.clusters[items.relevant.items[long]],
        (_changes,),
        resamples,
        seed,
    )
    return replace(
        found,
        longest=longest,
        documents=documents,
        unit="tokens" if items.relevant.characters is None else "characters",
        ranks={
            policy: float(ranks[policy][long].mean()) if policy in ranks else None
            for policy in place.policies
        },
        changes=dict(zip(others, changes, strict=True)),
    )


def rank_of_longest(cell: CellItems) -> tuple[float, float | None] | None:
    """Return the mean rank of the longest 20 % of the relevant documents, and its standard error.

    The paper (Table 3) does not say how the documents are chosen. Here they are, among the distinct
    documents that are relevant to any query, the fifth (rounded up) with the most characters, and
    all that are as long as the shortest of them. Older results lack characters; then tokens as the
    model reads them are used, and truncation makes many documents equally long. The average is over
    all pairs of a query and such a relevant document; a rank is 1 + the number of documents before
    it in the whole corpus. The standard error is over queries, with those that share documents
    counted as one (`covariance.ratio_error`).

    Args:
        cell: a cell of a retrieval task.

    Returns:
        The two numbers, or None if its items are missing or have no relevant documents.
    """
    items = items_of([(BASELINE, cell)])
    if items is None or items.relevant is None or len(items.relevant.items) == 0:
        return None
    long, _, _ = _longest(items.relevant)
    ranks = items.relevant.ranks[BASELINE][long]
    _, cluster = np.unique(items.clusters[items.relevant.items[long]], return_inverse=True)
    sums, counts = (
        np.asarray(np.bincount(cluster, weights=weights), dtype=np.float64)
        for weights in (ranks, None)
    )
    return float(ranks.mean()), ratio_error(sums, counts)


def rank_table(found: Sequence[LongestRanks]) -> Table | None:
    """Return the table of ranks of the longest documents, with columns by τ.

    Args:
        found: results of `ranks_of`.

    Returns:
        None if there are none.
    """
    shown = [one for one in found if one.ranks]
    if not shown:
        return None
    policies = ordered_policies(policy for one in shown for policy in one.ranks)
    notes = [
        "Lower is better. Of the longest 20 % of the documents that are relevant to a query, and "
        "all as long as the shortest of these. A change is against τ = 1, over the same queries, "
        "with the 95 % interval of a bootstrap that draws queries of one document together; bold: "
        "it excludes zero. Each stands for "
        "itself: of twenty without an effect, one excludes zero by chance. "
        f"“{TOO_FEW}”: fewer than {LEAST_CHANGED} changed.",
    ]
    so = ": all documents that fill the window are equally long, and the share is larger"
    notes += notes_of_units(shown, "documents", so)
    if any(end is None for one in shown for end in (of.ends for of in one.changes.values())):
        notes.append("A change without an interval: of a single query, or document, or not asked.")
    if any(one.column == "Rerank" for one in shown):
        notes.append("Where a task reranks, the rank among the query's candidates.")
    if left_out := dict.fromkeys(one.task for one in found if not one.ranks):
        notes.append(
            "Left out, as all documents, or all of a split, are equally long: "
            f"{', '.join(left_out)}."
        )
    return Table(
        name="ranks",
        title="Mean rank of the longest relevant documents",
        header=("model", "longest 20 %", "", *(label_of(policy) for policy in policies)),
        labels=3,
        sections=sections_of(
            shown, lambda one: one.task, lambda one: _rank_rows(one, policies), found
        ),
        notes=tuple(notes),
    )


def _longest(relevant: Relevant) -> tuple[NDArray[np.bool_], int, int]:
    """Return the pairs with one of the longest documents, their number, and that of all."""
    _, first = np.unique(relevant.documents, return_index=True)
    lengths = relevant.lengths[first]
    least = np.sort(lengths)[-math.ceil(len(lengths) / 5)]
    return relevant.lengths >= least, int((lengths >= least).sum()), len(lengths)


def _changes(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((sums[..., 2:] - sums[..., 1:2]) / sums[..., :1])


def _rank_rows(one: LongestRanks, policies: Sequence[str]) -> Iterator[tuple[Entry, ...]]:
    def row(what: str, entries: Mapping[str, Entry]) -> tuple[Entry, ...]:
        shown = (entries.get(policy, MISSING_VALUE) for policy in policies)
        return (name(one.label), name(one.share), name(what), *shown)

    yield row(
        "rank",
        {
            policy: Entry(two_decimals(rank), rank)
            for policy, rank in one.ranks.items()
            if rank is not None
        },
    )
    if one.changes:
        yield row("change", {policy: _entry(change) for policy, change in one.changes.items()})


def _entry(change: Change) -> Entry:
    """Return an entry with a change of rank and its interval, in bold if that excludes zero."""
    text, known = two_decimals(change.value), change.uncertainty
    if known is None:
        return Entry(text, change.value)
    text += f" ({interval(known)})"
    if known.is_too_few:
        text = f"{TOO_FEW} {text}"
    style: Style = "best" if known.excludes_zero else "inconclusive"
    tooltip = f"{known.up or 0:,} ranks up, {known.down or 0:,} down"
    return Entry(text, change.value, style, tooltip, known.low, known.high)
