"""Sentences are the same ones for the same text, and neither headings nor code."""

import pytest

from lcbench.measures.sentences import sentences_of, words_of


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
        ("研究长度。文本很长吗？是的，很长！", 3),
        ("彼は「もう遅い。」と言った。それから部屋を出た。", 3),
        ("真的吗！？我们不知道。", 2),
        ("Mixed with 中文的句子。然后是这一句. And one more sentence follows.", 3),
        ("字" * 61 + "。", 0),
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


def test_words_of_any_language_make_the_sentence_again() -> None:
    sentence = "We read 很长 的文本, all of it。"
    assert "".join(words_of(sentence)) == sentence
    assert [word.strip() for word in words_of("a bc d.")] == ["a", "bc", "d."]
    assert words_of("很长。") == ["很", "长", "。"]
