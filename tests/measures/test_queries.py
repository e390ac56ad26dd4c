"""The choice of queries, documents and chunks is what it says, and the same each time."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lcbench.errors import RequestError
from lcbench.hub.judgments import Judgments
from lcbench.measures.queries import Search, choose, chunks_of


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def letters(texts: Sequence[str]) -> list[int]:
    """Count a token a character that is no space."""
    return [len(text) - text.count(" ") for text in texts]


# Two corpora of 60 and 40; query i has the documents i and i + 1, and its own id is that of i + 2.
DOCUMENTS = tuple(f"{'word ' * (1 + i % 50)}text {i}" for i in range(100))
JUDGMENTS = Judgments(
    queries=tuple(f"query {i}" for i in range(50)),
    documents=DOCUMENTS,
    corpora=(0,) * 60 + (1,) * 40,
    relevant=tuple((i, i + 1) for i in range(50)),
    itself=tuple(i + 2 for i in range(50)),
)


def chosen(**changes: int) -> Search:
    keys = {"window": 30, "queries": 45, "documents": 55, "chunk_tokens": 8, "seed": 3}
    return choose(JUDGMENTS, words, **{**keys, **changes})  # type: ignore[arg-type]


def test_queries_are_searched_among_their_corpus() -> None:
    found = chosen()
    assert len(found.queries) == len(set(found.queries)) == 45
    assert len(found.documents) == len(set(found.documents)) == 55
    assert found.others.shape == (45, 55)
    for query, relevant, others in zip(found.queries, found.relevant, found.others, strict=True):
        number = int(query.split()[1])
        assert found.documents[relevant] in DOCUMENTS[number : number + 2]
        for document, searched in zip(found.documents, others, strict=True):
            place = DOCUMENTS.index(document)
            # Of the second corpus nothing is searched: no query is about it.
            assert place < 60
            assert searched == (place not in (number, number + 1, number + 2))
    assert set(found.corpora) == {0}


def test_lengths_are_what_is_read() -> None:
    found = chosen()
    sizes = np.array(words(found.documents))
    assert (found.lengths == np.minimum(sizes, 30)).all()
    assert (found.cut == (sizes > 30)).all()
    assert set(found.chunks) == set(found.relevant.tolist())
    for number, chunks in found.chunks.items():
        read = found.documents[number].split()[:30]
        assert " ".join(chunks).split() == read
        assert len(chunks) == -(-len(read) // 8)
        assert max(words(chunks)) - min(words(chunks)) <= 1


def test_the_same_seed_chooses_the_same() -> None:
    assert chosen().queries == chosen().queries
    assert chosen().documents == chosen().documents
    assert chosen().documents != chosen(seed=4).documents
    # All relevant documents are there, even if fewer are asked for.
    assert len(chosen(documents=30).documents) == len(set(chosen().relevant.tolist()))


def test_too_few_relevant_documents_are_refused() -> None:
    few = replace(JUDGMENTS, relevant=((0, 1),) * 50)
    with pytest.raises(RequestError, match="have 2 relevant documents, and at least 30"):
        choose(few, words, 30, 45, 55, 8)
    with pytest.raises(RequestError, match="have 0 relevant documents"):
        choose(Judgments((), (), (), (), ()), words, 30, 45, 55, 8)


def test_a_text_of_one_piece_is_that_piece() -> None:
    assert chunks_of("a b c", words, 8, 30) == ("a b c",)
    assert chunks_of("a b c d", words, 2, 30) == ("a b", "c d")
    # What is not read is in no piece.
    assert chunks_of("a b c d", words, 2, 3) == ("a b", "c")


def test_words_are_not_cut_but_in_scripts_without_spaces() -> None:
    assert chunks_of("four four four four", letters, 8, 100) == ("four four", "four four")
    text = "字" * 100
    chunks = chunks_of(text, letters, 32, 100)
    assert "".join(chunks) == text
    # A piece may be longer by the rest of a word, here of 32 characters.
    assert len(chunks) > 1
    assert max(letters(chunks)) < 64
    assert chunks_of("unreadable", letters, 4, 5) == ("unreadable",)
