"""Pseudo-queries: a title or the first sentence, and the rest of the text without it."""

import pytest

from lcbench.tuning.pairs import Pair, pair_of, pairs_of

REST = "It is long enough to be found by what it says. " * 3
SENTENCE = "The first sentence has several words."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SENTENCE} {REST}", Pair(SENTENCE, REST.strip())),
        (f"A title\n\n{REST}", Pair("A title", REST.strip())),
        (f"  A  title \n\n{REST}", Pair("A title", REST.strip())),
        # A first line of a paragraph, or one that ends like a sentence, is no title.
        (f"The first sentence\nhas several words. {REST}", Pair(SENTENCE, REST.strip())),
        (f"{SENTENCE}\n\n{REST}", Pair(SENTENCE, REST.strip())),
        # What is before the first sentence belongs to the rest.
        (f"Notes:\n\n{SENTENCE} {REST}", Pair(SENTENCE, f"Notes: {REST.strip()}")),
        (SENTENCE, None),
        (f"{SENTENCE} Too short.", None),
        ("A title\n\nToo short.", None),
        ("", None),
        ("word " * 100, None),
    ],
)
def test_a_text_and_its_pair(text: str, expected: Pair | None) -> None:
    assert pair_of(text) == expected


def test_queries_and_documents_are_distinct() -> None:
    texts = [
        f"{SENTENCE} {REST}",
        f"{SENTENCE} Another text with the same first sentence. {REST}",
        f"Some other sentence has the same rest. {REST}",
        f"Some other sentence has another rest. And here it is. {REST}",
        "Nothing.",
    ]
    assert [pair.query for pair in pairs_of(texts)] == [
        SENTENCE,
        "Some other sentence has another rest.",
    ]
