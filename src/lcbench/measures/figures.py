"""Figures of the paper (arXiv:2410.24200v1) on embeddings, by their numbers: what each shows.

`make` chooses a figure's texts, gets their embeddings from a `Subject`, and returns values by
length. Nothing here loads a model or draws.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.classes import Classes, drawn_for_training, predictions
from lcbench.measures.crowding import FEWEST
from lcbench.measures.estimates import RESAMPLES
from lcbench.measures.geometry import unit
from lcbench.measures.inner_figures import (
    TEXTS_AN_INTERVAL,
    ratios_by_layer,
    sigmas_by_length,
    theorem_by_length,
)
from lcbench.measures.inside import InsideOptions, choose
from lcbench.measures.intervals import (
    Panel,
    cosines_by_interval,
    cosines_of_repeated,
    distances_by_length,
    intervals,
    means_by_interval,
)
from lcbench.measures.position import FACTS, Cut, by_position
from lcbench.measures.sentences import sentences_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.measures.collapse import CountTokens
    from lcbench.measures.look import Traced

    Matrix = NDArray[np.float32]
    ByLength = dict[str, list[str]]

Number = Literal["1a", "1b", "1c", "2", "3", "4", "5", "6", "12", "position"]

NUMBERS: tuple[Number, ...] = ("1a", "1b", "1c", "2", "3", "4", "5", "6", "12", "position")
"""The figures that can be made, as the paper numbers them, and one that it has not."""

FIGURE_VERSION = 3
"""Raised by hand whenever the same texts and embeddings would give other figures."""

OF_CLASSES: frozenset[Number] = frozenset({"1a", "6"})
"""Those that need a classification task."""

INNER: frozenset[Number] = frozenset({"2", "4", "5"})
"""Those that look into the model."""

SAME: Mapping[str, Number] = {"10": "2", "11": "5"}
"""Figures that are others of further models."""

TEXTS = 3_633
"""Documents of NFCorpus, of which the paper's Figures 1b and 1c are."""

# Of Figure 6: texts of an interval, and intervals.
_TEXTS_AN_INTERVAL, _INTERVALS = 500, 3
# Of Figures 2 and 4, whose texts are not stated; each goes through the model by itself.
_TRACED_TEXTS = 100
# Of Figure 1a: [0, 100) to [400, 500).
_INTERVALS_OF_ACCURACY = 5
# Of Figure 12; how often each is repeated is not stated.
_WORDS = ("dog", "cat")
# Texts of each length in the picture of Figure 1b, which is decoration.
_POINTS = 300
_PERPLEXITY = 30


@dataclass(frozen=True)
class Material:
    """Texts that figures are made of.

    Attributes:
        documents: different texts, none of them empty.
        short: a shorter text on the same by document: its title, or the one query that it answers.
        short_name: what these are: `title` or `query`.
        classes: labelled texts; None: the task is no classification.
    """

    documents: tuple[str, ...]
    short: Mapping[str, str] = field(default_factory=dict)
    short_name: str = "title"
    classes: Classes | None = None


@dataclass(frozen=True)
class Subject:
    """The model that figures are made of.

    Attributes:
        repairs: names of the repairs, the baseline first.
        embed: embeddings of texts under the repair of that name, shape (texts, dimensions).
        word_vectors: mean of the word-embedding rows of each text's tokens, shape (texts,
            dimensions).
        count_tokens: of the model.
        room: most tokens that it reads of a text, special ones not counted.
        window: the same with special ones.
        traced: the model, for figures that look into it; None: they are not made.
        embed_queries: as `embed`, of queries; None: they are read as other texts are.
        by_mean: whether the model pools by the mean.
    """

    repairs: tuple[str, ...]
    embed: Callable[[str, Sequence[str]], Matrix]
    word_vectors: Callable[[Sequence[str]], Matrix]
    count_tokens: CountTokens
    room: int
    window: int
    traced: Traced | None = None
    embed_queries: Callable[[str, Sequence[str]], Matrix] | None = None
    by_mean: bool = True


@dataclass(frozen=True)
class Points:
    """Places of texts in a plane, which have no scale: decoration.

    Attributes:
        name: length of the texts.
        at: places, shape (texts, 2).
    """

    name: str
    at: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper, made of a model and texts.

    Attributes:
        number: the paper's.
        model: name of the model.
        task: whose texts it is made of.
        panels: values by length.
        points: of Figure 1b.
        sizes: texts of this figure, and those of the paper's.
        cuts: of `position`, which facts stand beyond the window.
    """

    number: Number
    model: str
    task: str
    panels: tuple[Panel, ...]
    points: tuple[Points, ...] = ()
    sizes: str = ""
    cuts: tuple[Cut, ...] = ()


@dataclass(frozen=True)
class FigureOptions:
    """How figures are made.

    Attributes:
        texts: most documents of a figure.
        resamples: bootstrap samples.
        seed: of the choice of texts, of the bootstrap, and of t-SNE.
    """

    texts: int = TEXTS
    resamples: int = RESAMPLES
    seed: int = 0

    def digest(self, content: Sequence[str]) -> str:
        """Return 40 hexadecimal digits over the options and further strings."""
        whole = ["figure", FIGURE_VERSION, asdict(self), list(content)]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:40]


def make(
    number: Number,
    subject: Subject,
    material: Material,
    options: FigureOptions = FigureOptions(),
    *,
    model: str = "the model",
    task: str = "texts",
) -> PaperFigure:
    """Return a figure of the paper for a model and texts.

    Args:
        number: the paper's.
        subject: the model.
        material: the texts.
        options: how many texts, and which.
        model: name of the model.
        task: name of the texts.

    Raises:
        RequestError: the texts are too few, too short, or lack labels.
    """
    if number == "position":
        found, cuts = by_position(
            subject.repairs,
            subject.embed,
            subject.embed_queries or subject.embed,
            subject.count_tokens,
            subject.room,
            subject.window,
            options.resamples,
            options.seed,
        )
        sizes = f"{FACTS} facts of each kind, length and depth"
        return PaperFigure(number, model, task, found, sizes=sizes, cuts=cuts)
    panels, points, sizes = _MAKERS[number](subject, material, options)
    return PaperFigure(number, model, task, panels, points, sizes)


_Made = tuple[tuple[Panel, ...], tuple[Points, ...], str]


def _chosen(
    documents: Sequence[str], subject: Subject, options: FigureOptions
) -> tuple[list[int], NDArray[np.int64]]:
    """Return which documents a figure is made of, and their tokens; those cut are left out.

    Documents longer than the window would all be of one length, whatever their own.
    """
    order = np.random.default_rng(options.seed).permutation(len(documents))[: 2 * options.texts]
    lengths = np.asarray(subject.count_tokens([documents[at] for at in order]), dtype=np.int64)
    kept = np.flatnonzero((lengths > 0) & (lengths <= subject.room))[: options.texts]
    return order[kept].tolist(), lengths[kept]


def _cosines(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 1c: mean pairwise cosine of documents by length, a line for each τ."""
    places, lengths = _chosen(material.documents, subject, options)
    texts = [material.documents[at] for at in places]
    parts = intervals(lengths)
    embeddings = {name: subject.embed(name, texts) for name in subject.repairs}
    panel = cosines_by_interval(
        embeddings, lengths, parts, options.resamples, options.seed, by_mean=subject.by_mean
    )
    return (panel,), (), f"{len(texts):,} texts (the paper: NFCorpus, {TEXTS:,})"


def _words(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 3: as 1c, of means of word-embedding rows instead of embeddings."""
    places, lengths = _chosen(material.documents, subject, options)
    texts = [material.documents[at] for at in places]
    parts = intervals(lengths)
    vectors = {"word embeddings": subject.word_vectors(texts)}
    panel = cosines_by_interval(vectors, lengths, parts, options.resamples, options.seed)
    return (panel,), (), f"{len(texts):,} texts (of the paper's, not stated)"


def _three_lengths(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 1b: title, first sentence and whole text as three lengths of one text."""
    by_length = _by_length(material, subject, options)
    count = len(next(iter(by_length.values())))
    tokens = {
        name: float(np.mean(subject.count_tokens(texts))) for name, texts in by_length.items()
    }
    embeddings = {
        repair: {name: subject.embed(repair, texts) for name, texts in by_length.items()}
        for repair in subject.repairs
    }
    panel = distances_by_length(embeddings, tokens, options.resamples, options.seed)
    drawn = {
        name: unit(matrix)[:_POINTS] for name, matrix in embeddings[subject.repairs[0]].items()
    }
    return (
        (panel,),
        _plane(drawn, options.seed),
        f"{count:,} texts in {len(by_length)} lengths (the paper: NFCorpus, {TEXTS:,}, and two "
        "rewrites of each by a language model)",
    )


def _by_length(material: Material, subject: Subject, options: FigureOptions) -> ByLength:
    places, _ = _chosen(material.documents, subject, options)
    rows = []
    for document in (material.documents[at] for at in places):
        short = material.short.get(document, "")
        sentences = sentences_of(document.removeprefix(short).strip())
        if len(sentences) > 1:
            rows.append((short, sentences[0], document))
    titled = [row for row in rows if row[0]]
    with_titles = len(titled) >= FEWEST
    rows = titled if with_titles else rows
    if len(rows) < FEWEST:
        raise RequestError(
            f"{len(rows)} texts of two sentences or more fit into the window: at least {FEWEST} "
            "are needed"
        )
    titles, first, whole = map(list, zip(*rows, strict=True))
    found = {material.short_name: titles} if with_titles else {}
    return {**found, "first sentence": first, "whole text": whole}


def _plane(rows: Mapping[str, NDArray[np.float64]], seed: int) -> tuple[Points, ...]:
    """Return texts of all lengths in one plane by t-SNE, which keeps no distances."""
    from sklearn.manifold import TSNE

    every = np.concatenate(list(rows.values()))
    # sklearn needs more texts than the perplexity.
    perplexity = min(_PERPLEXITY, (len(every) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, random_state=seed).fit_transform(every)
    ends = np.cumsum([len(one) for one in rows.values()])[:-1]
    return tuple(
        Points(name, tuple((float(x), float(y)) for x, y in at))
        for name, at in zip(rows, np.split(found, ends), strict=True)
    )


def _accuracy(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 1a: accuracy of a classifier by length of the text."""
    lengths, right, _, count = _predicted(subject, material, options, None, _INTERVALS_OF_ACCURACY)
    parts = intervals(lengths, last=_INTERVALS_OF_ACCURACY)
    panel = means_by_interval("accuracy", right, lengths, parts, options.resamples, options.seed)
    return (panel,), (), f"{count:,} texts (the paper: IMDB)"


def _entropy(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 6: entropy of predicted probabilities, and accuracy, by length and τ."""
    lengths, right, entropy, count = _predicted(
        subject, material, options, _TEXTS_AN_INTERVAL, _INTERVALS
    )
    parts = intervals(lengths, _TEXTS_AN_INTERVAL, _INTERVALS)
    panels = tuple(
        means_by_interval(quantity, scores, lengths, parts, options.resamples, options.seed)
        for quantity, scores in (("entropy (nats)", entropy), ("accuracy", right))
    )
    return (
        panels,
        (),
        f"{count:,} texts (the paper: AmazonPolarity, {_TEXTS_AN_INTERVAL} an interval)",
    )


_Scores = dict[str, "NDArray[np.float64]"]


def _predicted(
    subject: Subject,
    material: Material,
    options: FigureOptions,
    most: int | None,
    last: int,
) -> tuple[NDArray[np.int64], _Scores, _Scores, int]:
    """Return tokens, accuracy and entropy of texts, by repair, and how many texts these are."""
    classes = material.classes
    if classes is None:
        raise RequestError("there are no labels: a classification task is needed")
    places, lengths = _chosen(classes.texts, subject, options)
    taken = np.sort(np.concatenate(list(intervals(lengths, most, last).values())))
    texts = [classes.texts[places[at]] for at in taken]
    labels = [classes.labels[places[at]] for at in taken]
    drawn = drawn_for_training(classes.train_labels, options.seed)
    # Each is encoded once, however many training sets it is in.
    needed = np.unique(np.concatenate(drawn))
    right, entropy = {}, {}
    for name in subject.repairs:
        rows = subject.embed(name, [classes.train_texts[at] for at in needed])
        train = [
            (rows[np.searchsorted(needed, one)], [classes.train_labels[at] for at in one])
            for one in drawn
        ]
        right[name], entropy[name] = predictions(train, subject.embed(name, texts), labels)
    return lengths[taken], right, entropy, len(texts)


def _repeated(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 12: cosine of two words, each repeated k times."""
    longest = subject.room // max(subject.count_tokens(_WORDS))
    counts = [2**power for power in range(int(math.log2(longest)) + 1)]
    if counts[-1] < longest:
        counts.append(longest)
    cosines = {}
    for name in subject.repairs:
        embeddings = subject.embed(name, [" ".join([word] * k) for k in counts for word in _WORDS])
        rows = unit(embeddings)
        cosines[name] = [
            float(one @ other) for one, other in zip(rows[::2], rows[1::2], strict=True)
        ]
    return (
        (cosines_of_repeated(cosines, counts),),
        (),
        f"1 to {longest} times (of the paper's, not stated)",
    )


def _ratios(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 2: log ratio of each layer, and the bounds."""
    places, _ = _chosen(material.documents, subject, options)
    texts = [material.documents[at] for at in places[:_TRACED_TEXTS]]
    if len(texts) < FEWEST:
        raise RequestError(f"{len(texts)} texts fit into the window: at least {FEWEST} are needed")
    panels = ratios_by_layer(
        _traced(subject), subject.repairs, texts, options.resamples, options.seed
    )
    return panels, (), f"{len(texts):,} texts (of the paper's, not stated)"


def _theorem(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 4: Theorem 3, σ_a and simulations, by length."""
    traced = _traced(subject)
    asked = InsideOptions(("attention",), _TRACED_TEXTS // 2, None, seed=options.seed)
    chosen = choose(material.documents, subject.count_tokens, traced.window, subject.room, asked)
    panels = theorem_by_length(traced, subject.repairs, chosen, options.resamples, options.seed)
    return panels, (), f"{len(chosen.texts):,} texts cut to {len(chosen.lengths)} lengths"


def _sigmas(subject: Subject, material: Material, options: FigureOptions) -> _Made:
    """Figure 5: σ_a of the last layer by length, a line for each τ."""
    places, lengths = _chosen(material.documents, subject, options)
    texts = [material.documents[at] for at in places]
    panel, count = sigmas_by_length(
        _traced(subject), subject.repairs, texts, lengths, options.resamples, options.seed
    )
    return (
        (panel,),
        (),
        f"{count:,} texts (the paper: NFCorpus, {TEXTS_AN_INTERVAL} an interval)",
    )


def _traced(subject: Subject) -> Traced:
    if subject.traced is None:
        raise RequestError("figures of what happens inside a model need the model itself")
    return subject.traced


_MAKERS: Mapping[Number, Callable[[Subject, Material, FigureOptions], _Made]] = {
    "1a": _accuracy,
    "1b": _three_lengths,
    "1c": _cosines,
    "2": _ratios,
    "4": _theorem,
    "5": _sigmas,
    "3": _words,
    "6": _entropy,
    "12": _repeated,
}
