"""Sentences are the same ones for the same text, and neither headings nor code."""

import pytest

from lcbench.measures.sentences import sentences_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two three four. Five six seven eight!", 2),
        ("Is this one sentence or two? It is two of them.", 2),
        (
            "Dr. Smith and Mr. Jones met J. R. Tolkien, e.g. at home. They left at once, it seems.",
            2,
        ),
        ("The value is 3.5 and the version is 2.0.1 of it. 42 is another one, they say.", 2),
        ('He said: "It is late now." (Nobody had asked him that.) Then he left the room.', 3),
        ("without any capital. letters it stays one sentence", 1),
        ("The first paragraph is one\n\nand the second is another", 2),
        ("A line that is\nbroken is one sentence.", 1),
        ("Too short. This one is long enough.", 1),
        ("Über allen Gipfeln ist Ruh. Ähnlich ist es in allen Wipfeln.", 2),
        (" ".join(["word"] * 61), 0),
        ("", 0),
    ],
)
def test_there_are_so_many(text: str, expected: int) -> None:
    assert len(sentences_of(text)) == expected


def test_headings_and_examples_are_left_out() -> None:
    text = (
        "Return the sum of all elements.\n\nParameters and more of it\n----------\n"
        "a is an array of numbers.\n>>> print('this is no sentence at all')\n"
        "... nor is this line of it\n\n# Notes are kept here too\n"
    )
    assert sentences_of(text) == [
        "Return the sum of all elements.",
        "a is an array of numbers.",
        "# Notes are kept here too",
    ]


def test_white_space_is_one_space() -> None:
    assert sentences_of("One  two\n\tthree   four.") == ["One two three four."]
