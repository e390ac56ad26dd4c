"""Split texts into sentences by fixed rules, so that the same text always gives the same ones."""

from __future__ import annotations

import re

SPLITTER = "rules-1"
"""Version of the rules, which is part of what a measurement is identified by."""

FEWEST_WORDS, MOST_WORDS = 4, 60
"""Shorter and longer pieces are headings, code and tables rather than sentences."""

# After these a full stop does not end a sentence.
_ABBREVIATIONS = re.compile(
    r"""(?: e\.g | i\.e | etc | vs | cf | al | fig | eq | no | vol | pp | eds? | refs? | sec
      | approx | resp | dr | mrs? | ms | prof | st | [js]r | inc | ltd | co | corp | u\.s | u\.k
      | jan | feb | mar | apr | jun | jul | aug | sept? | oct | nov | dec )\.""",
    flags=re.VERBOSE | re.IGNORECASE,
)
_PARAGRAPHS = re.compile(r"\n\s*\n")
# A heading with its underline, as reStructuredText and Markdown have them; examples of Python.
_HEADINGS = re.compile(r"^.*\n[ \t]*([-=~*^\"'`#+])\1{2,}[ \t]*$", flags=re.MULTILINE)
_EXAMPLES = re.compile(r"^[ \t]*(?:>>>|\.\.\.).*$", flags=re.MULTILINE)
# The end of a sentence, what may close it, and the beginning of the next. Chinese and Japanese have
# no spaces between sentences, nor between words: each character counts as one.
_ENDS = re.compile(
    r"""(?<=[.!?…])([\"'”’)\]]*)\s+(?=[\"'“‘(\[]*[^\W\d_a-z]|[\"'“‘(\[]*\d)
      | (?<=[。！？])([”’」』）]*)\s*(?=[^\s。！？])""",
    flags=re.VERBOSE,
)
_WITHOUT_SPACES = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]\s*|[^\s{_WITHOUT_SPACES}]+\s*")
_INITIAL = re.compile(r"(?:^|\s)[^\W\d_]\.$")


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text in order, each on one line, without headings and code.

    A sentence ends at a full stop, question or exclamation mark before a capital letter or a digit,
    unless after an abbreviation or an initial; at 。, ！ and ？; and at an empty line. Pieces of
    fewer than 4 or more than 60 words (characters of Chinese and Japanese) are left out, and so are
    underlined headings and lines of Python examples.
    """
    found = []
    for paragraph in _PARAGRAPHS.split(_EXAMPLES.sub("\n", _HEADINGS.sub("\n", text))):
        begun = ""
        for piece in _pieces(" ".join(paragraph.split())):
            begun = f"{begun} {piece}" if begun else piece
            if not _goes_on(begun):
                found.append(begun)
                begun = ""
        if begun:
            found.append(begun)
    return [one for one in found if FEWEST_WORDS <= len(words_of(one)) <= MOST_WORDS]


def words_of(sentence: str) -> list[str]:
    """Return the words of a sentence, or characters of Chinese and Japanese, with spaces after."""
    return _WORD.findall(sentence)


def _pieces(paragraph: str) -> list[str]:
    pieces, start = [], 0
    for match in _ENDS.finditer(paragraph):
        pieces.append(paragraph[start : max(match.end(1), match.end(2))])
        start = match.end()
    return [*pieces, paragraph[start:]] if paragraph[start:] else pieces


def _goes_on(piece: str) -> bool:
    """Return whether the full stop at the end is that of an abbreviation or an initial."""
    last = piece.rpartition(" ")[2].lstrip("\"'“‘([")
    return bool(_ABBREVIATIONS.fullmatch(last) or _INITIAL.search(piece))
