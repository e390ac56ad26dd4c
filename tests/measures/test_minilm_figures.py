"""Values of the paper's figures that were computed on MiniLM in another way, to their digits."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from lcbench.measures.figures import Material, Subject, make
from lcbench.measures.intervals import Panel
from lcbench.run.figures import word_vectors
from lcbench.run.reader import counter_of

# The texts of Figure 12: "dog" and "cat", each so many times.
COUNTS = (1, 8, 64, 256, 510)
DIGEST = "86969dad35fc2f69a76ddd961929a62790419fa7b80b5defece237c3bb542e54"
PRINTED = {
    "mean": (0.661, 0.555, 0.468, 0.541, 0.593),
    "cls": (0.80, 0.82),
}


def _texts() -> list[str]:
    return [" ".join([word] * count) for count in COUNTS for word in ("dog", "cat")]


@pytest.fixture(scope="module")
def minilm(minilm_folder: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(minilm_folder), device="cpu").double()
    model.max_seq_length = 512
    return model


def _figure(model: SentenceTransformer) -> Panel:
    subject = Subject(
        ("τ = 1",),
        lambda _, texts: model.encode(list(texts)),
        lambda texts: word_vectors(model, texts),
        counter_of(model),
        510,
        512,
    )
    (panel,) = make("12", subject, Material(())).panels
    return panel


def _at(panel: Panel) -> list[float]:
    by_count = {
        int(place.name): value.value
        for place, value in zip(panel.places, panel.lines[0].values, strict=True)
    }
    return [by_count[count] for count in COUNTS]


def test_the_texts_are_those_that_the_values_are_of() -> None:
    assert hashlib.sha256("\n".join(_texts()).encode()).hexdigest() == DIGEST


def test_cosines_of_repeated_words(minilm: SentenceTransformer) -> None:
    """Figure 12: the paper says that they go to 1; of MiniLM they fall, then rise."""
    assert [round(value, 3) for value in _at(_figure(minilm))] == list(PRINTED["mean"])


@pytest.mark.exhaustive
def test_cosines_of_repeated_words_at_the_first_token(minilm: SentenceTransformer) -> None:
    pooling = minilm[1]
    before = pooling.pooling_mode
    pooling.pooling_mode = "cls"
    try:
        found = _at(_figure(minilm))
    finally:
        pooling.pooling_mode = before
    assert (round(min(found), 2), round(max(found), 2)) == PRINTED["cls"]


def test_cosine_of_word_embeddings(minilm: SentenceTransformer) -> None:
    """Figure 3: neither positions nor LayerNorm, and a repeated word is the word itself."""
    dog, cat, dogs = word_vectors(minilm, ["dog", "cat", "dog dog dog"])
    cosine = dog @ cat / np.linalg.norm(dog) / np.linalg.norm(cat)
    assert round(float(cosine), 3) == 0.424
    assert dogs == pytest.approx(dog, rel=1e-6)
