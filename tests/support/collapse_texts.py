"""Texts, and models that are made to average or to collapse, for tests of collapse."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcbench.hub.judgments import Judgments
from lcbench.measures.collapse import Embeddings, Options, measure, measure_matrix, prepare
from lcbench.measures.figures import FigureOptions, Material, PaperFigure, Subject, make
from lcbench.measures.files import InsideMeasurement, Measurement
from lcbench.measures.inside import PAIRED, Inside, InsideOptions, by_tokens, shares_of
from lcbench.measures.sentences import sentences_of

SIZE = 48
OPTIONS = Options(
    passages=60, counts=(2, 8), documents=120, bins=3, queries=200, corpus=400, resamples=1_000
)
COMMON = np.eye(SIZE)[0]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def texts(count: int = 120) -> list[str]:
    random = np.random.default_rng(0)
    return [
        " ".join(
            f"Sentence {number} of text {place} says {'so ' * random.integers(1, 5)}much."
            for number in range(random.integers(9, 20))
        )
        for place in range(count)
    ]


def vector(sentence: str) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:4], "little")
    drawn = np.random.default_rng(seed).standard_normal(SIZE)
    drawn[0] = 0
    return 0.4 * COMMON + np.sqrt(1 - 0.16) * drawn / np.linalg.norm(drawn)


def embed(texts: Sequence[str], pull: float = 0.0) -> NDArray[np.float32]:
    """Embed as the mean of sentences, drawn to a common direction by `pull` a doubling of them."""
    rows = []
    for text in texts:
        sentences = sentences_of(text)
        # The last repetition of a repeated sentence may be a few words.
        mean = np.mean([vector(sentence) for sentence in sentences or [text]], axis=0)
        mean /= np.linalg.norm(mean)
        rows.append(mean + pull * np.log2(max(1, len(sentences))) * COMMON)
    return np.array(rows, dtype=np.float32)


def made_figures() -> list[PaperFigure]:
    """Return Figures 1b and 1c of a model that draws long texts together at τ = 1."""
    subject = Subject(
        ("τ = 1", "τ = 0.8"),
        lambda repair, some: embed(some, 0.15 if repair == "τ = 1" else 0.0),
        embed,
        # Two tokens a word: there are texts in three intervals of 100.
        lambda some: [2 * count for count in words(some)],
        400,
        402,
    )
    options = FigureOptions(resamples=1_000)
    return [
        make(number, subject, Material(tuple(texts())), options, model="org/toy", task="120 texts")
        for number in ("1b", "1c")
    ]


def judgments() -> Judgments:
    """Return the texts as documents, with their first sentences as queries."""
    documents = texts()
    places = range(len(documents))
    return Judgments(
        queries=tuple(sentences_of(text)[0] for text in documents),
        documents=tuple(documents),
        corpora=(0,) * len(documents),
        relevant=tuple((place,) for place in places),
        itself=(None,) * len(documents),
    )


def identity(policy: str) -> dict[str, Any]:
    """Return what measurements of a model and of a matrix have in common."""
    fixed = {"revision": "", "task": "120 texts", "protocol": "", "data": "", "window": 120}
    return {"model": "org/toy" if policy else "matrix", "policy": policy, "record": {}, **fixed}


def made_inside() -> list[InsideMeasurement]:
    """Return what happens inside a model of two layers, at τ = 1 and 0.8."""
    options, lengths, texts = InsideOptions(("attention", "signal"), 30, (64, 128)), (64, 128), 30
    random = np.random.default_rng(0)
    shares = shares_of(texts, options)
    base = random.standard_normal((len(PAIRED), 2, len(lengths), texts))
    found = []
    for policy, change in (("1", 0.0), ("0.8", 0.3)):
        layers = tuple(
            by_tokens(layer, part, name, values + change * (1 + 0.1 * values), shares)
            for (part, name), rows in zip(PAIRED, base, strict=True)
            for layer, values in enumerate(rows)
        )
        inside = Inside(texts, lengths, layers, (), (float(policy),) * 2)
        found.append(InsideMeasurement(**identity(policy), options=options, inside=inside))
    return found


def made_measurements() -> list[Measurement]:
    """Return measurements of a model at two temperatures, and of a matrix."""
    prepared = prepare(texts(), words, 120, OPTIONS, judgments())
    averages = Embeddings(prepared, embed)
    pulled = Embeddings(prepared, lambda some: embed(some, 0.15))
    rows = np.random.default_rng(0).standard_normal((150, SIZE)) + 2 * COMMON
    measured = {
        "1": measure(prepared, averages),
        "0.8": measure(prepared, pulled, averages),
        "": measure_matrix(rows, np.arange(1, 151), OPTIONS),
    }
    return [
        Measurement(**identity(policy), options=OPTIONS, texts="", collapse=collapse)
        for policy, collapse in measured.items()
    ]
