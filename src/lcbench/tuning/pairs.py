"""Make pseudo-queries of texts: a title or the first sentence asks for the rest of its text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lcbench.measures.sentences import MOST_WORDS, sentences_of

FEWEST_WORDS = 20
"""Shorter rests say too little to be found."""

_ENDS = (".", "!", "?", ":", ",", ";")


@dataclass(frozen=True)
class Pair:
    """A pseudo-query, and the rest of its text.

    Attributes:
        query: title or first sentence.
        document: the text without it.
    """

    query: str
    document: str


def pairs_of(texts: Iterable[str]) -> list[Pair]:
    """Return the pairs of texts that have one, each query and each document once."""
    pairs: list[Pair] = []
    queries: set[str] = set()
    documents: set[str] = set()
    for text in texts:
        pair = pair_of(text)
        if pair is not None and pair.query not in queries and pair.document not in documents:
            queries.add(pair.query)
            documents.add(pair.document)
            pairs.append(pair)
    return pairs


def pair_of(text: str) -> Pair | None:
    """Return the pair of a text; None: it has no sentence, or too little besides."""
    first, _, rest = text.strip().partition("\n")
    title = " ".join(first.split())
    # A line of its own that does not end like a sentence, and is not the first line of a paragraph.
    is_title = rest.startswith("\n") and title and not title.endswith(_ENDS)
    if is_title and len(title.split()) <= MOST_WORDS:
        return _pair(title, " ".join(rest.split()))
    sentences = sentences_of(text)
    if not sentences:
        return None
    whole = " ".join(text.split())
    before, found, after = whole.partition(sentences[0])
    return _pair(sentences[0], " ".join(f"{before} {after}".split())) if found else None


def _pair(query: str, document: str) -> Pair | None:
    return Pair(query, document) if len(document.split()) >= FEWEST_WORDS else None
