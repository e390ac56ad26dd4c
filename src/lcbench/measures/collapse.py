"""Measure a model's length collapse on texts: the verdict, the space by length, semantic shift.

`prepare` chooses the texts, `embed` gets their embeddings from any model, and `measure` compares
them. Nothing here loads a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures import added_measures, every_measure
from lcbench.measures.causes import Cause, ShiftByCount, shift_and_causes
from lcbench.measures.conditions import COUNTS, Texts, texts_of
from lcbench.measures.crowding import (
    FEWEST,
    Change,
    Condition,
    CosineByLength,
    Crowding,
    Embedded,
    change,
    cosine_by_length,
    crowding,
)
from lcbench.measures.estimates import RESAMPLES, Estimate, defined, samples
from lcbench.measures.geometry import hubness, rank_correlation, unit
from lcbench.measures.queries import Search, choose
from lcbench.measures.retrieval import Retrieval, measure_retrieval
from lcbench.measures.sentences import FEWEST_WORDS, MOST_WORDS, SPLITTER, sentences_of
from lcbench.measures.weighting import Weights, weights_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lcbench.hub.judgments import Judgments

    Matrix = NDArray[np.float32]

COLLAPSE_VERSION = 5
"""Raised by hand whenever the same texts and embeddings would give other numbers."""

# Neighbours of which hubs are counted.
_NEIGHBOURS = 10

Embed = Callable[[Sequence[str]], "Matrix"]
"""Returns the embeddings of texts, shape (texts, dimensions)."""

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""Returns the number of tokens of each text, without special tokens, however many there are."""


@dataclass(frozen=True)
class Options:
    """What is measured; each field is part of what identifies a measurement.

    Attributes:
        passages: number of passages of consecutive sentences, which the verdict is based on.
        compared: number of these that are also made of a repeated sentence and of random ones.
        counts: numbers of sentences, each above 1, ascending; None: the most of 2, 4, 8 and 16
            that fit into the window in so many passages, and a quarter of it.
        documents: whole texts that are compared by length, those that are searched first; at most
            one bin of them is longer than the window.
        bins: bins by length, with equal numbers of texts.
        queries: queries of a retrieval task whose relevant documents are searched.
        corpus: documents that are searched, the relevant ones among them.
        chunk_tokens: most tokens of a chunk of a relevant document.
        resamples: bootstrap samples.
        seed: of which texts are drawn, and of the bootstrap.
    """

    passages: int = 60
    compared: int = 30
    counts: tuple[int, ...] | None = None
    documents: int = 90
    bins: int = 3
    queries: int = 60
    corpus: int = 90
    chunk_tokens: int = 64
    resamples: int = RESAMPLES
    seed: int = 0

    def digest(self, documents: Sequence[str]) -> str:
        """Return 40 hexadecimal digits over texts and options: what a measurement is of."""
        content: list[object] = [COLLAPSE_VERSION, SPLITTER, asdict(self), list(documents)]
        # Measures of packages; without any, the digest is that of lcbench's own.
        if added := added_measures():
            content.append(added)
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Space:
    """How the texts of one bin by length lie in the space.

    Attributes:
        shortest: tokens that are read of its shortest text.
        longest: tokens that are read of its longest text.
        texts: number of texts.
        cut: number of texts that are longer than the window, and are read in part.
        measures: by the names of `every_measure`; None: undefined for so few texts.
        occurrences: mean number of texts, of all bins, among whose 10 nearest neighbours a text of
            this bin is; 10 where no length is preferred.
    """

    shortest: int
    longest: int
    texts: int
    cut: int
    measures: Mapping[str, float | None]
    occurrences: float


@dataclass(frozen=True)
class Hubs:
    """Whether some texts are the neighbours of very many, and whether these are the long ones.

    Attributes:
        k: number of neighbours.
        skewness: of how often texts are neighbours; 0: evenly.
        never: share of texts that are nobody's neighbour.
        by_length: rank correlation of how often a text is a neighbour with its length; None: one
            of the two is the same for all texts.
    """

    k: int
    skewness: float
    never: float
    by_length: Estimate | None


@dataclass(frozen=True)
class WeightsByCount:
    """What embeddings of texts hold of each of their sentences: bias by position.

    Attributes:
        condition: what follows the first sentence.
        sentences: their number, k.
        weights: by place.
    """

    condition: Condition
    sentences: int
    weights: Weights


@dataclass(frozen=True)
class Collapse:
    """What is measured of a model on texts.

    Attributes:
        tokens: mean number of tokens by number of sentences, without special ones.
        crowding: the verdict, and mean cosines by number of sentences; None: only embeddings and
            lengths are known, and no texts.
        change: how much the repair changes the verdict's numbers; None: of the baseline itself.
        by_length: mean cosines of whole texts by length in tokens; None: too few texts, or all of
            one length.
        space: of whole texts by length, in the bins of `by_length`.
        hubs: of whole texts; None where `by_length` is.
        shift: by condition and number of sentences.
        causes: of dilution and of lost neighbours.
        notes: what could not be measured, and why.
        retrieval: by length of the documents; None: no task with queries.
        without_retrieval: why a task's retrieval is not measured; empty: it is, or there is no
            task.
        weights: of sentences, by condition and number of sentences.
    """

    tokens: Mapping[int, float]
    crowding: Crowding | None
    change: Change | None
    by_length: CosineByLength | None
    space: tuple[Space, ...]
    hubs: Hubs | None
    shift: tuple[ShiftByCount, ...]
    causes: tuple[Cause, ...]
    notes: tuple[str, ...] = ()
    retrieval: Retrieval | None = None
    without_retrieval: str = ""
    weights: tuple[WeightsByCount, ...] = ()

    @property
    def pools_by_mean(self) -> bool:
        """Whether the model is known to pool by the mean; of a matrix it is not known."""
        return self.crowding is not None and self.crowding.verdict.weighted is None


@dataclass(frozen=True)
class Prepared:
    """The texts of a measurement.

    Attributes:
        passages: texts under the three conditions.
        documents: whole texts.
        lengths: tokens that are read of each of them, special ones not counted.
        cut: which of them are longer than the window.
        options: of the measurement.
        search: queries and documents of a retrieval task; None: there are none.
        without_search: why there are none; empty: there are, or no task was given.
    """

    passages: Texts
    documents: tuple[str, ...]
    lengths: NDArray[np.int64]
    cut: NDArray[np.bool_]
    options: Options
    search: Search | None = None
    without_search: str = ""

    @property
    def texts(self) -> list[str]:
        """All texts to be embedded, each once, without the queries."""
        joined = [
            text
            for by_count in self.passages.joined.values()
            for texts in by_count.values()
            for text in texts
        ]
        sentences = [
            sentence
            for by_count in self.passages.sentences.values()
            for texts in by_count.values()
            for text in texts
            for sentence in text
        ]
        searched: list[str] = []
        if self.search is not None:
            searched += self.search.documents
            for chunks in self.search.chunks.values():
                searched += chunks
        return list(
            dict.fromkeys([*self.passages.single, *joined, *sentences, *self.documents, *searched])
        )

    @property
    def whole_texts(self) -> list[str]:
        """Distinct whole texts that are compared by length or searched."""
        searched = () if self.search is None else self.search.documents
        return list(dict.fromkeys([*self.documents, *searched]))

    @property
    def digest(self) -> str:
        """Digest of all texts, queries and options: measurements of the same have the same."""
        queries = () if self.search is None else self.search.queries
        return self.options.digest([*self.texts, *queries])


def prepare(
    documents: Sequence[str],
    count_tokens: CountTokens,
    window: int,
    options: Options = Options(),
    judgments: Judgments | None = None,
    without_judgments: str = "",
) -> Prepared:
    """Choose the texts of a measurement, the same for the same documents, tokenizer and options.

    Args:
        documents: the user's texts; equal ones count once.
        count_tokens: of the model.
        window: most tokens that the model reads of a text, special ones not counted.
        options: how many texts, and which.
        judgments: of a retrieval task.
        without_judgments: why a task has none.

    Raises:
        RequestError: no texts, an empty one, or fewer than 30 passages can be made of them.
    """
    documents = list(dict.fromkeys(documents))
    empty = [number for number, text in enumerate(documents) if not text.strip()]
    if empty:
        raise RequestError(
            f"text {empty[0]} is empty: remove it, for it says nothing that could be embedded"
        )
    if not documents:
        raise RequestError("there are no texts to measure")
    order = np.random.default_rng(options.seed).permutation(len(documents))
    split = [sentences_of(documents[place]) for place in order]
    count_tokens = _remembered(count_tokens)
    passages = _passages(split, count_tokens, window, options)
    search: Search | None = None
    if judgments is not None:
        try:
            search = choose(
                judgments,
                count_tokens,
                window,
                options.queries,
                options.corpus,
                options.chunk_tokens,
                options.seed,
            )
        except RequestError as error:
            without_judgments = str(error)
    drawn = [documents[place] for place in order]
    # What is searched is embedded anyway.
    searched = frozenset() if search is None else frozenset(search.documents)
    first = [text for text in drawn if text in searched]
    candidates = list(dict.fromkeys([*first, *drawn[: 10 * options.documents]]))
    lengths = np.asarray(count_tokens(candidates), dtype=np.int64)
    # Texts that are cut are all of one length as far as they are read: no more than one bin.
    cut = np.flatnonzero(lengths > window)[: options.documents // options.bins]
    uncut = np.flatnonzero(lengths <= window)[: options.documents - len(cut)]
    chosen = np.concatenate([uncut, cut])
    return Prepared(
        passages,
        tuple(candidates[place] for place in chosen),
        np.minimum(lengths[chosen], window),
        lengths[chosen] > window,
        options,
        search,
        without_judgments,
    )


def _passages(
    split: Sequence[Sequence[str]], count_tokens: CountTokens, window: int, options: Options
) -> Texts:
    """Return passages of as many sentences as fit into the window in so many passages.

    Raises:
        RequestError: not even 30 passages can be made.
    """

    def made(counts: Sequence[int]) -> Texts:
        long = [sentences for sentences in split if len(sentences) >= counts[-1]]
        if not long:
            raise RequestError(
                f"no text of {len(split):,} has {counts[-1]} sentences, of which passages "
                f"are made: {FEWEST_WORDS} to {MOST_WORDS} words that end with a full stop, a "
                "question mark or an exclamation mark"
            )
        # Each gives a passage or more, if it has short sentences.
        long = long[: 10 * options.passages]
        return texts_of(
            long,
            count_tokens,
            window,
            options.passages,
            counts,
            options.seed,
            options.compared,
        )

    if options.counts is not None:
        return made(options.counts)
    fewer: Texts | None = None
    for last in range(len(COUNTS), 0, -1):
        with suppress(RequestError):
            # A quarter as well, for the curve; the verdict is at the most.
            found = made(COUNTS[last - 1 :: -2][::-1])
            if len(found.single) == options.passages:
                return found
            fewer = fewer or found
    # The last says what is missing.
    return fewer or made(COUNTS[:1])


def _remembered(count_tokens: CountTokens) -> CountTokens:
    """Return a counter that counts each text once."""
    known: dict[str, int] = {}

    def count(texts: Sequence[str]) -> list[int]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, count_tokens(new), strict=True))
        return [known[text] for text in texts]

    return count


class Embeddings:
    """Embeddings of a measurement's texts."""

    def __init__(
        self,
        prepared: Prepared,
        embed: Embed,
        embed_queries: Embed | None = None,
        *,
        by_mean: bool = True,
    ) -> None:
        """Embed all texts of a measurement at once, each of them once.

        Args:
            prepared: the texts.
            embed: of texts, which are documents where there are queries.
            embed_queries: of queries; None: as other texts.
            by_mean: whether the model pools by the mean, so that averaging counts all sentences
                alike; else it weights them as the model does.
        """
        texts = prepared.texts
        self._rows = unit(embed(texts), least=1)
        self._place = {text: place for place, text in enumerate(texts)}
        self._passages = prepared.passages
        self.documents = self.of(prepared.documents)
        self.queries: NDArray[np.float64] | None = None
        if prepared.search is not None:
            self.queries = unit((embed_queries or embed)(prepared.search.queries))
        self.passages, self.weights = self._compared(by_mean=by_mean)

    def of(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the embeddings of some of the texts, shape (texts, dimensions), of length 1."""
        return self._rows[[self._place[text] for text in texts]]

    def _compared(self, *, by_mean: bool) -> tuple[Embedded, tuple[WeightsByCount, ...]]:
        """Return embeddings of passages, as `crowding` takes them, and the sentences' weights."""
        passages = self._passages
        joined = {
            name: {count: self.of(texts) for count, texts in by_count.items()}
            for name, by_count in passages.joined.items()
        }
        weights: list[WeightsByCount] = []
        pooled: dict[Condition, dict[int, ArrayLike]] = {}
        sentences: dict[Condition, dict[int, ArrayLike]] = {}
        for name, by_count in passages.sentences.items():
            pooled[name], sentences[name] = {}, {}
            for count, texts in by_count.items():
                # [texts, sentences, dimensions]
                parts = np.stack([self.of(text) for text in texts])
                one = weights_of(parts, joined[name][count])
                weights.append(WeightsByCount(name, count, one))
                pooled[name][count] = parts.mean(axis=1)
                sentences[name][count] = parts
        single = self.of(passages.single)
        return Embedded(single, joined, pooled, None if by_mean else sentences), tuple(weights)


def measure(
    prepared: Prepared, embeddings: Embeddings, baseline: Embeddings | None = None
) -> Collapse:
    """Measure collapse from the embeddings of prepared texts.

    Args:
        prepared: the texts.
        embeddings: of them, by the model that is measured.
        baseline: of them, by the model without its repair; None: the model is not repaired.
    """
    options = prepared.options
    passages = embeddings.passages
    compared = None
    if baseline is not None:
        compared = change(passages, baseline.passages, options.resamples, options.seed)
    by_length, space, hubs, notes = measure_lengths(
        embeddings.documents, prepared.lengths, prepared.cut, options
    )
    shift, causes = shift_and_causes(
        prepared.passages, embeddings.of, passages, options.resamples, options.seed
    )
    retrieval: Retrieval | None = None
    search = prepared.search
    if search is not None and embeddings.queries is not None:
        retrieval = measure_retrieval(
            search,
            embeddings.queries,
            embeddings.of(search.documents),
            {number: embeddings.of(chunks) for number, chunks in search.chunks.items()},
            options.bins,
            options.resamples,
            options.seed,
        )
    return Collapse(
        tokens=prepared.passages.tokens,
        crowding=crowding(
            passages.single,
            passages.joined,
            passages.pooled,
            options.resamples,
            options.seed,
            passages.sentences,
        ),
        change=compared,
        by_length=by_length,
        space=space,
        hubs=hubs,
        shift=shift,
        causes=causes,
        notes=notes,
        retrieval=retrieval,
        without_retrieval=prepared.without_search,
        weights=embeddings.weights,
    )


def measure_matrix(embeddings: ArrayLike, lengths: ArrayLike, options: Options) -> Collapse:
    """Measure collapse from embeddings and lengths alone, as of a model behind an API.

    Only whole texts can be compared, and averaging is that of independent parts.

    Args:
        embeddings: shape (texts, dimensions).
        lengths: of the texts, in any unit, shape (texts,).
        options: bins, bootstrap samples and seed.

    Raises:
        RequestError: rows do not match, values are not finite, or too few texts or lengths.
    """
    rows = unit(embeddings)
    # Checks the lengths, and refuses what cannot be compared.
    cosine_by_length(rows, lengths, options.bins, resamples=1_000)
    uncut = np.zeros(len(rows), dtype=bool)
    by_length, space, hubs, notes = measure_lengths(rows, lengths, uncut, options)
    return Collapse({}, None, None, by_length, space, hubs, (), (), notes)


def measure_lengths(
    embeddings: ArrayLike,
    lengths: ArrayLike,
    cut: NDArray[np.bool_],
    options: Options,
) -> tuple[CosineByLength | None, tuple[Space, ...], Hubs | None, tuple[str, ...]]:
    """Measure how texts of each length lie in the space; for embeddings of any origin.

    Args:
        embeddings: shape (texts, dimensions).
        lengths: of the texts, in any unit, shape (texts,).
        cut: which of the texts were read in part, shape (texts,).
        options: bins, bootstrap samples and seed.

    Returns:
        Mean cosines by length, the space of each bin, hubs, and notes on what is left out.
    """
    rows, sizes = unit(embeddings), np.asarray(lengths)
    bins = min(options.bins, len(rows) // FEWEST)
    if bins < 2 or sizes.min() == sizes.max():
        why = (
            f"all {len(rows)} texts are of one length"
            if bins >= 2
            else f"{len(rows)} texts are too few for 2 bins of {FEWEST}"
        )
        return None, (), None, (f"whole texts are not compared by length: {why}",)
    notes = []
    if bins < options.bins:
        notes.append(
            f"{len(rows)} whole texts in {bins} bins by length instead of {options.bins}: a bin "
            f"needs {FEWEST}"
        )
    by_length = cosine_by_length(rows, sizes, bins, options.resamples, options.seed)
    k = min(_NEIGHBOURS, len(rows) - 1)
    found = hubness(rows, k)
    # As `cosine_by_length` forms its bins.
    order = np.lexsort((np.arange(len(rows)), sizes))
    space = tuple(
        Space(
            shortest=int(sizes[part[0]]),
            longest=int(sizes[part[-1]]),
            texts=len(part),
            cut=int(cut[part].sum()),
            measures={
                one.name: None
                if one.more_texts_than_dimensions and len(part) <= rows.shape[1]
                else one.compute(rows[part])
                for one in every_measure()
            },
            occurrences=float(found.occurrences[part].mean()),
        )
        for part in np.array_split(order, bins)
    )
    correlation = defined(
        [
            rank_correlation(found.occurrences[taken], sizes[taken])
            for taken in samples(np.arange(len(rows)), options.resamples, options.seed)
        ],
        len(rows),
    )
    return by_length, space, Hubs(k, found.skewness, found.never, correlation), tuple(notes)
