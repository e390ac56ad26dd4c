"""Texts under the three conditions begin alike, fit the window and are equal in tokens."""

from collections.abc import Sequence

import numpy as np
import pytest

from lcbench.errors import RequestError
from lcbench.measures.conditions import TOLERANCE, Texts, texts_of


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def documents(count: int = 60, sentences: int = 40) -> list[list[str]]:
    random = np.random.default_rng(0)
    return [
        [
            " ".join(f"d{document}s{place}w{word}" for word in range(random.integers(4, 20)))
            for place in range(sentences)
        ]
        for document in range(count)
    ]


@pytest.fixture(scope="module")
def made() -> Texts:
    return texts_of(documents(), words, window=260, texts=100)


def test_all_texts_begin_with_the_sentence_alone(made: Texts) -> None:
    assert len(made.single) == len(made.documents) == 100
    for by_count in made.joined.values():
        assert sorted(by_count) == [2, 4, 8, 16]
        for texts in by_count.values():
            assert all(
                text.startswith(f"{single} ")
                for single, text in zip(made.single, texts, strict=True)
            )


def test_no_text_is_longer_than_the_window(made: Texts) -> None:
    for texts in made.joined["sequential"].values():
        assert max(words(texts)) <= 260
    # Those that are to match it may be longer by the tolerance.
    for by_count in made.joined.values():
        assert all(max(words(texts)) <= 260 * (1 + TOLERANCE) for texts in by_count.values())


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_conditions_are_equal_in_tokens(made: Texts, count: int) -> None:
    wanted = np.array(words(made.joined["sequential"][count]))
    assert made.tokens[count] == wanted.mean()
    assert words(made.joined["repeated"][count]) == wanted.tolist()
    misses = np.abs(np.array(words(made.joined["random"][count])) - wanted) / wanted
    assert np.quantile(misses, 0.98) <= TOLERANCE


def test_sentences_follow_each_other_or_come_from_elsewhere(made: Texts) -> None:
    flat = [sentence for one in documents() for sentence in one]
    for text, single in zip(made.joined["sequential"][8], made.single, strict=True):
        place = flat.index(single)
        assert text == " ".join(flat[place : place + 8])
    for name, by_count in made.sentences.items():
        for count, texts in by_count.items():
            assert [len(text) for text in texts] == [count] * len(texts)
            assert tuple(" ".join(text) for text in texts) == made.joined[name][count]
    for text, single in zip(made.joined["random"][8], made.single, strict=True):
        own = single.split("s")[0]
        others = {word.split("s")[0] for word in text[len(single) :].split()}
        assert own not in others
        assert len(others) > 3
    for text, single in zip(made.joined["repeated"][8], made.single, strict=True):
        assert set(text.split()) == set(single.split())


def test_random_sentences_are_those_of_the_passages_which_are_embedded_anyway(made: Texts) -> None:
    known = {
        one for texts in made.sentences["sequential"].values() for text in texts for one in text
    }
    drawn = {one for texts in made.sentences["random"].values() for text in texts for one in text}
    assert drawn <= known
    # Nearly each of another passage's, and few of them twice.
    assert len(drawn) > 1_000


def test_fewer_passages_may_be_compared_with_the_other_conditions(made: Texts) -> None:
    fewer = texts_of(documents(), words, window=260, texts=100, compared=40)
    assert fewer.single == made.single
    for name, by_count in fewer.joined.items():
        assert {len(texts) for texts in by_count.values()} == {100 if name == "sequential" else 40}
    assert fewer.joined["sequential"] == made.joined["sequential"]
    assert fewer.joined["repeated"][8] == made.joined["repeated"][8][:40]
    assert fewer.tokens == made.tokens


def test_each_document_comes_before_any_comes_again(made: Texts) -> None:
    assert sorted(made.documents[:60]) == list(range(60))
    # Passages of one document do not overlap.
    starts: dict[int, list[int]] = {}
    flat = [sentence for one in documents() for sentence in one]
    for single, document in zip(made.single, made.documents, strict=True):
        starts.setdefault(document, []).append(flat.index(single))
    assert all(abs(a - b) >= 16 for of in starts.values() for a in of for b in of if a != b)


def test_the_same_seed_makes_the_same_texts() -> None:
    first, again = (texts_of(documents(), words, 200, texts=40) for _ in range(2))
    assert first == again
    assert texts_of(documents(), words, 200, texts=40, seed=1).single != first.single


def test_too_few_passages() -> None:
    with pytest.raises(RequestError, match="only 0 passages of 16 sentences fit into 20 tokens"):
        texts_of(documents(), words, window=20)
    with pytest.raises(RequestError, match="only 0 passages"):
        texts_of([], words, window=20)
    with pytest.raises(RequestError, match="only 29 passages"):
        texts_of(documents(count=29, sentences=16), words, window=400)
