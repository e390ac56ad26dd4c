"""Measure what the length of documents does to retrieval: who is found, who stands in the way.

Everything is computed from cosines of queries with documents and with chunks of documents. No
direction is assumed: each measure says as well that short or that long documents are preferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures import shift as shifts
from lcbench.measures.crowding import FEWEST, Answer
from lcbench.measures.estimates import Estimate, defined, resampled, samples, spread
from lcbench.measures.geometry import average_ranks, order, rank_correlation, unit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lcbench.measures.queries import Search

    Matrix = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Numbers = NDArray[np.int64]

SLOPE_MARGIN = 0.1
"""Slope, in standard deviations of ranks, below which an effect on the rank is taken as none."""

_NEIGHBOURS = 10
# Of two embeddings of the same text in other batches.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class SearchBin:
    """Queries whose relevant document is of one length, or all queries.

    Attributes:
        shortest: tokens that are read of the shortest relevant document.
        longest: tokens that are read of the longest.
        queries: number of queries.
        documents: number of documents of this length, relevant or not.
        cut: number of these that are longer than the window, and are read in part.
        score: mean cosine of a query and its relevant document.
        alignment: mean squared distance of the two, 2 − 2 cos (`geometry.alignment`).
        reciprocal_rank: mean reciprocal rank of the relevant document.
        beaten: by the length of the other document, in the order of the bins: share of pairs of a
            query and such a document in which it scores above the relevant one; None: no pairs.
            Empty if there are no bins.
        dilution: mean of best chunk − whole, in cosine with the query, of the relevant document.
        dilution_of_others: the same of documents of this length that are relevant to other queries;
            the best of several chunks is high by chance as well. None: there are none.
        better_chunk: share of relevant documents with a chunk that scores above the whole.
    """

    shortest: int
    longest: int
    queries: int
    documents: int
    cut: int
    score: Estimate
    alignment: Estimate
    reciprocal_rank: Estimate
    beaten: tuple[Estimate | None, ...]
    dilution: Estimate
    dilution_of_others: Estimate | None
    better_chunk: Estimate


@dataclass(frozen=True)
class Moderation:
    """Whether anisotropy harms retrieval only where shift is strong (claim of arXiv:2603.21437).

    Slopes are those of `moderation`: the outcome is how early the relevant document is found, the
    cause how close it lies to all other documents (mean cosine), the moderator the shift of its
    chunks, given its length. One model on one corpus has one anisotropy, so this compares
    documents, not spaces.

    Attributes:
        local: whether Local is a `mean` or a `sum` in the shift.
        answer: "yes": the slope at strong shift and the interaction are significantly below 0, and
            that at weak shift is not; "no": the slope is below 0 at weak shift as well, or at
            strong shift it is above −`SLOPE_MARGIN`; else "cannot be told".
        weak: slope of anisotropy at a shift of one standard deviation below the mean.
        strong: slope at one standard deviation above the mean.
        interaction: half the difference of the two.
    """

    local: Literal["mean", "sum"]
    answer: Answer
    weak: Estimate | None
    strong: Estimate | None
    interaction: Estimate | None


@dataclass(frozen=True)
class Retrieval:
    """What the length of documents does to retrieval.

    All intervals draw relevant documents, together with their queries; those of `hubs_by_length`
    and `closeness_by_length` draw documents. None: undefined, as where all documents are read to
    one length.

    Attributes:
        queries: number of queries.
        relevant: number of their relevant documents.
        documents: number of documents that are searched.
        overall: of all queries.
        bins: by length of the relevant document, from short to long; empty if there is no more than
            one.
        score_by_length: rank correlation of cos(query, relevant document) with its length.
        rank_by_length: rank correlation of the relevant document's rank with its length; above 0:
            longer ones are found later.
        hubs_by_length: rank correlation of how often a document is among the 10 best that are not
            relevant to a query with its length.
        closeness_by_length: rank correlation of a document's mean cosine with the queries that it
            is not relevant to with its length.
        shorter: share of documents in shorter bins that score above a longer relevant one.
        longer: share of documents in longer bins that score above a shorter relevant one.
        difference: `shorter` − `longer`; above 0: short documents are preferred.
        moderations: of anisotropy by shift, for Local as a mean and as a sum.
    """

    queries: int
    relevant: int
    documents: int
    overall: SearchBin
    bins: tuple[SearchBin, ...]
    score_by_length: Estimate | None
    rank_by_length: Estimate | None
    hubs_by_length: Estimate | None
    closeness_by_length: Estimate | None
    shorter: Estimate | None
    longer: Estimate | None
    difference: Estimate | None
    moderations: tuple[Moderation, ...]


def beating(scores: ArrayLike, relevant: ArrayLike, others: ArrayLike) -> Mask:
    """Return which documents score above the relevant one of each query.

    Args:
        scores: of queries with documents, shape (queries, documents).
        relevant: number of the relevant document of each query, shape (queries,).
        others: which documents are searched for a query and not relevant to it, shape (queries,
            documents).

    Returns:
        Shape (queries, documents).

    Raises:
        RequestError: the shapes do not belong together.
    """
    values, wanted = np.asarray(scores, dtype=np.float64), np.asarray(relevant)
    searched = np.asarray(others, dtype=bool)
    if values.ndim != 2 or searched.shape != values.shape or wanted.shape != values.shape[:1]:
        raise RequestError(
            f"scores, relevant and others have the shapes {values.shape}, {wanted.shape} and "
            f"{searched.shape}: expected (queries, documents), (queries,), (queries, documents)"
        )
    found: Mask = searched & (values > values[np.arange(len(values)), wanted][:, None])
    return found


def ranks(scores: ArrayLike, relevant: ArrayLike, others: ArrayLike) -> Numbers:
    """Return the rank of the relevant document of each query: 1 + how many score above it.

    Arguments and errors are those of `beating`. Shape (queries,).
    """
    found: Numbers = 1 + beating(scores, relevant, others).sum(axis=1)
    return found


def beaten_by_length(
    scores: ArrayLike, relevant: ArrayLike, others: ArrayLike, bins: ArrayLike
) -> tuple[Matrix, Matrix]:
    """Return how often documents of each length score above the relevant one, and of how many.

    Args:
        scores: as in `beating`.
        relevant: as in `beating`.
        others: as in `beating`.
        bins: number of each document's bin by length, shape (documents,).

    Returns:
        Numbers of documents that score above the relevant one, and of all that are not relevant, by
        query and bin, shape (queries, bins) each.
    """
    ahead, searched = beating(scores, relevant, others), np.asarray(others, dtype=np.float64)
    member = np.eye(int(np.max(bins)) + 1)[np.asarray(bins)]
    return ahead @ member, searched @ member


def occurrences(scores: ArrayLike, others: ArrayLike, k: int = _NEIGHBOURS) -> Numbers:
    """Return among how many queries' k best documents each is, relevant ones left out.

    This is N_k of Radovanović et al. 2010 (JMLR 11) between queries and documents. Ties go to the
    document that comes first. Shape (documents,).

    Args:
        scores: shape (queries, documents).
        others: which documents are searched for a query and not relevant to it, same shape.
        k: number of documents.
    """
    searched = np.asarray(others, dtype=bool)
    values = np.where(searched, np.asarray(scores, dtype=np.float64), -np.inf)
    best = np.argsort(-values, axis=1, kind="stable")[:, :k]
    rows = np.repeat(np.arange(len(values)), best.shape[1])
    there = searched[rows, best.ravel()]
    found: Numbers = np.bincount(best.ravel()[there], minlength=values.shape[1])
    return found


def best_chunks(queries: ArrayLike, chunks: Mapping[int, ArrayLike], documents: int) -> Matrix:
    """Return the cosine of each query with the best chunk of each document: max over j of q·c_j.

    Less the cosine with the document it is the dilution of evidence (`shift.evidence_dilution`,
    after arXiv:2606.18781).

    Args:
        queries: shape (queries, dimensions).
        chunks: embeddings of the chunks by number of the document, shape (chunks, dimensions) each.
        documents: number of documents.

    Returns:
        Shape (queries, documents), NaN for documents without chunks.
    """
    asked = unit(queries, least=1)
    found = np.full((len(asked), documents), np.nan)
    for number, rows in chunks.items():
        found[:, number] = (asked @ unit(rows, least=1).T).max(axis=1)
    return found


def closeness(documents: ArrayLike, corpora: ArrayLike) -> Matrix:
    """Return the mean cosine of each document with the others of its corpus, its local anisotropy.

    Args:
        documents: embeddings, shape (documents, dimensions).
        corpora: number of each document's corpus, shape (documents,).

    Returns:
        Shape (documents,); NaN for the only document of a corpus.
    """
    rows, owners = unit(documents, least=1), np.asarray(corpora)
    found = np.full(len(rows), np.nan)
    for corpus in np.unique(owners):
        members = np.flatnonzero(owners == corpus)
        if len(members) > 1:
            total = rows[members].sum(axis=0)
            found[members] = (rows[members] @ total - 1) / (len(members) - 1)
    return found


def moderation(
    outcome: ArrayLike, cause: ArrayLike, moderator: ArrayLike, given: ArrayLike
) -> tuple[float, float]:
    """Return the slope of a cause, and how much a moderator changes it, from ranks.

    Least squares of z(outcome) = b₀ + b₁ z(cause) + b₂ z(moderator) + b₃ z(cause) z(moderator)
    + b₄ z(given), z being standardised ranks. A quantity that is the same for all is left out, but
    for the first three.

    Args:
        outcome: shape (observations,), as are the others.
        cause: whose effect is looked at.
        moderator: which may change the effect.
        given: what is held fixed.

    Returns:
        b₁ and b₃: the slope is b₁ + b₃ at a moderator one standard deviation above its mean, and
        b₁ − b₃ at one below. NaN where outcome, cause or moderator is the same for all.
    """
    scaled = [_standardised(one) for one in (outcome, cause, moderator, given)]
    if any(one is None for one in scaled[:3]):
        return float("nan"), float("nan")
    known = [one for one in scaled if one is not None]
    columns = [np.ones(len(known[0])), known[1], known[1] * known[2], *known[2:]]
    slopes = np.linalg.lstsq(np.stack(columns, axis=1), known[0], rcond=None)[0]
    return float(slopes[1]), float(slopes[2])


def length_bins(lengths: ArrayLike, bins: int, fewest: int = FEWEST) -> tuple[int, ...]:
    """Return the least length of each of at most so many bins of about equal numbers of texts.

    Texts of one length are in one bin, so that there may be fewer bins.

    Args:
        lengths: of the texts, shape (texts,).
        bins: most bins.
        fewest: texts that a bin needs.
    """
    ordered = np.sort(np.asarray(lengths))
    count = max(1, min(bins, len(ordered) // fewest))
    starts = [int(ordered[0])]
    for part in np.array_split(ordered, count)[1:]:
        before = int((ordered >= starts[-1]).sum() - (ordered >= part[0]).sum())
        if before >= fewest and (ordered >= part[0]).sum() >= fewest:
            starts.append(int(part[0]))
    return tuple(starts)


def measure_retrieval(
    search: Search,
    queries: ArrayLike,
    documents: ArrayLike,
    chunks: Mapping[int, ArrayLike],
    bins: int,
    resamples: int,
    seed: int,
) -> Retrieval:
    """Measure what the length of documents does to retrieval.

    Args:
        search: queries, documents and their lengths.
        queries: embeddings, shape (queries, dimensions).
        documents: embeddings, shape (documents, dimensions).
        chunks: embeddings of the relevant documents' chunks by number of the document, shape
            (chunks, dimensions) each.
        bins: most bins by length of the relevant documents.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.
    """
    asked, there = unit(queries), unit(documents)
    scores = asked @ there.T
    rows, relevant, others = np.arange(len(asked)), search.relevant, search.others
    lengths = search.lengths
    starts = length_bins(lengths[np.unique(relevant)], bins)
    bin_of = np.maximum(np.searchsorted(starts, lengths, side="right") - 1, 0)
    own = bin_of[relevant]
    found = ranks(scores, relevant, others)
    ahead, compared = beaten_by_length(scores, relevant, others, bin_of)
    score = scores[rows, relevant]
    losses = best_chunks(asked, chunks, len(there)) - scores
    loss = losses[rows, relevant]
    # Of the same length, so that they have as many chunks to choose from.
    alike = others & np.isfinite(losses) & (bin_of == own[:, None])
    count = alike.sum(axis=1)
    loss_of_others = np.where(alike, losses, 0).sum(axis=1) / np.maximum(count, 1)
    _, owners = np.unique(relevant, return_inverse=True)
    means = _Means(owners, resamples, seed)
    ones = np.ones(len(asked))

    def mean(values: Matrix, here: Mask) -> Estimate:
        # Of 30 documents or more, so that a sample without any does not occur.
        return spread(means.draws(values * here, ones * here), means.count)

    def bin_of_queries(here: Mask, members: Mask) -> SearchBin:
        sizes = lengths[relevant][here]
        return SearchBin(
            shortest=int(sizes.min()),
            longest=int(sizes.max()),
            queries=int(here.sum()),
            documents=int(members.sum()),
            cut=int(search.cut[members].sum()),
            score=mean(score, here),
            alignment=mean(2 - 2 * score, here),
            reciprocal_rank=mean(1 / found, here),
            beaten=tuple(
                means.of(ahead[:, other] * here, compared[:, other] * here)
                for other in range(len(starts))
                if len(starts) > 1
            ),
            dilution=mean(loss, here),
            dilution_of_others=means.of(loss_of_others * here, ones * (count > 0) * here),
            better_chunk=mean((loss > _ROUNDING).astype(np.float64), here),
        )

    shorter, longer = (
        np.arange(len(starts)) < own[:, None],
        np.arange(len(starts)) > own[:, None],
    )
    of_shorter, of_longer = (
        means.draws((ahead * side).sum(axis=1), (compared * side).sum(axis=1))
        for side in (shorter, longer)
    )
    documents_drawn = list(samples(np.arange(len(there)), resamples, seed))
    queries_drawn = list(samples(owners, resamples, seed))

    def correlated(values: Matrix | Numbers) -> Estimate | None:
        """Return the rank correlation with length, of queries or of documents."""
        of_queries = len(values) == len(asked)
        sizes = lengths[relevant] if of_queries else lengths
        drawn = queries_drawn if of_queries else documents_drawn
        texts = means.count if of_queries else len(there)
        places, by_length = order(values), order(sizes)
        return defined([rank_correlation(places[one], by_length[one]) for one in drawn], texts)

    hubs = occurrences(scores, others)
    close = np.where(others, scores, 0).sum(axis=0) / np.maximum(others.sum(axis=0), 1)
    return Retrieval(
        queries=len(asked),
        relevant=means.count,
        documents=len(there),
        overall=bin_of_queries(np.ones(len(asked), dtype=bool), np.ones(len(there), dtype=bool)),
        bins=tuple(
            bin_of_queries(own == number, bin_of == number)
            for number in range(len(starts))
            if len(starts) > 1
        ),
        score_by_length=correlated(score),
        rank_by_length=correlated(found),
        hubs_by_length=correlated(hubs),
        closeness_by_length=correlated(close),
        shorter=defined(of_shorter, means.count),
        longer=defined(of_longer, means.count),
        difference=defined(of_shorter - of_longer, means.count),
        moderations=_moderations(search, there, chunks, found, queries_drawn, means.count),
    )


def _moderations(
    search: Search,
    documents: Matrix,
    chunks: Mapping[int, ArrayLike],
    found: Numbers,
    drawn: list[Numbers],
    count: int,
) -> tuple[Moderation, ...]:
    relevant = search.relevant
    near = closeness(documents, search.corpora)[relevant]
    moved = {number: shifts.shift(rows) for number, rows in chunks.items()}
    readings: dict[Literal["mean", "sum"], Matrix] = {
        "mean": np.array([moved[int(number)].shift_by_mean for number in relevant]),
        "sum": np.array([moved[int(number)].shift_by_sum for number in relevant]),
    }
    made = []
    outcome, cause, given = map(order, (-found, near, search.lengths[relevant]))
    for local, shift in readings.items():
        moderator = order(shift)
        slopes = np.array(
            [moderation(outcome[one], cause[one], moderator[one], given[one]) for one in drawn]
        )
        weak, strong, interaction = (
            defined(slopes @ np.array(of), count) for of in ([1, -1], [1, 1], [0, 1])
        )
        made.append(Moderation(local, _harms(weak, strong, interaction), weak, strong, interaction))
    return tuple(made)


def _harms(weak: Estimate | None, strong: Estimate | None, interaction: Estimate | None) -> Answer:
    """Return whether anisotropy harms only where shift is strong."""
    if weak is None or strong is None or interaction is None:
        return "cannot be told"
    if weak.high < 0 or strong.low > -SLOPE_MARGIN:
        return "no"
    return "yes" if strong.high < 0 and interaction.high < 0 else "cannot be told"


class _Means:
    """Means over queries with intervals from drawing the documents that they are about."""

    def __init__(self, owners: Numbers, resamples: int, seed: int) -> None:
        self._owners = owners
        self.count = int(owners.max()) + 1
        self._drawn = resampled(self.count, resamples, seed)

    def draws(self, totals: Matrix, counts: Matrix) -> Matrix:
        """Return Σ totals / Σ counts of each sample, NaN where nothing is counted."""
        total, count = (
            self._drawn @ np.bincount(self._owners, weights=one, minlength=self.count)
            for one in (totals, counts)
        )
        found: Matrix = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return found

    def of(self, totals: Matrix, counts: Matrix) -> Estimate | None:
        """Return Σ totals / Σ counts with its interval; None: nothing is counted."""
        return defined(self.draws(totals, counts), self.count)


def _standardised(values: ArrayLike) -> Matrix | None:
    """Return the ranks of values less their mean, in standard deviations; None: all are equal."""
    found = average_ranks(values)
    found = found - found.mean()
    deviation = float(np.sqrt((found**2).mean()))
    return None if deviation == 0 else found / deviation
