"""Builds the texts of the synthetic tasks: facts hidden in plain sentences, at given lengths.

They follow LongEmbed's passkey and needle tasks (arXiv:2404.12096), with different wording and the
docstrings as filler. Everything is determined by sizes, hashes and the docstrings, without random
numbers. This imports neither mteb nor torch; the task classes are in `synthetic`.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import accumulate, chain, cycle
from types import MappingProxyType

from lcbench.errors import RequestError
from lcbench.tasks.docs.names import NEEDLE, PASSKEY
from lcbench.tasks.docs.selection import SHORTEST, SyntheticSizes, collection, hash_of
from lcbench.tasks.sizes import SPECIAL_TOKENS

# A word, one or two digits, or a mark: what every tokenizer reads as at least one token.
_UNIT = re.compile(r"[^\W\d]+|\d{1,2}|[^\w\s]")
# Tokens per unit. In stretches of 85 words of the sentences below MiniLM's
# tokenizer reads 1.00 to 1.14 tokens a unit (to 1.17 with the docstrings in another order), 1.04 in
# the middle: this is the most, so that nothing of a document is cut off.
TOKENS_PER_UNIT = 1.17

# A sentence of at least five short words in lower case. Identifiers, formulas and long words are
# tokenised differently by models; without them a length in tokens means the same for all.
_PLAIN = re.compile(r"(?:^|(?<=[.:!?] ))[A-Z][a-z]{0,8}(?:[,;:]?[ -]\(?[a-z]{1,9}\)?){4,}\.(?= |$)")
# Words of the text that a passkey's haystack repeats.
_FEWEST_REPEATED, _MOST_REPEATED = 40, 80


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GIVEN_NAMES = _words(
    "Adam Alice Anna Arthur Clara Daniel David Edward Elena Emma Frank George Grace Helen Henry "
    "Hugo Ivan Jack James Jane Laura Lucy Maria Martin Oscar Paul Peter Rosa Sarah Simon Thomas "
    "Victor"
)
_SURNAMES = _words(
    "Baker Barnes Bell Black Brown Carter Clark Cole Cooper Cross Fisher Fox Gray Green Hall Hill "
    "Hunter King Lake Marsh Mason Miller Moore Page Parker Reed Rivers Rose Stone Taylor Wood "
    "Young"
)
_ADJECTIVES = _words(
    "Amber Ancient Blue Broken Copper Crooked Crystal Distant Empty Golden Green Grey Hidden "
    "Hollow Iron Little Lonely Lost Merry Narrow Northern Old Painted Quiet Red Round Royal "
    "Silent Silver Stone Western White"
)
_HOUSES = _words(
    "Anchor Bell Bridge Castle Chapel Crown Eagle Falcon Fountain Garden Gate Hammer Harbour Horse "
    "House Island Key Lantern Lion Mill Moon Owl Palace Rose School Ship Star Swan Theatre Tower "
    "Well Wheel"
)
# The most documents that can have distinct names.
MOST_DOCUMENTS = len(_GIVEN_NAMES) * len(_SURNAMES)


@dataclass(frozen=True)
class _Template:
    """A made-up fact and the question that it answers."""

    fact: str
    question: str
    values: tuple[str, ...]


_TEMPLATES = (
    _Template(
        "On the first evening every guest of the {house} is given a bowl of {value} soup.",
        "Which soup are guests of the {house} given on the first evening?",
        ("carrot", "onion", "potato", "bean", "fish", "mushroom", "apple"),
    ),
    _Template(
        "{person} never leaves home without a {value} in the left pocket.",
        "What does {person} always carry in the left pocket?",
        ("candle", "coin", "whistle", "button", "feather", "pencil", "spoon"),
    ),
    _Template(
        "The door of the {house} has been painted {value} ever since the great storm.",
        "What colour is the door of the {house}?",
        ("red", "yellow", "purple", "orange", "pink", "black", "green"),
    ),
    _Template(
        "{person} learned to play the {value} in a single winter by the sea.",
        "Which instrument did {person} learn to play by the sea?",
        ("piano", "violin", "flute", "guitar", "trumpet", "drum", "harp"),
    ),
    _Template(
        "The tall clock in the {house} stands still for an hour every {value}.",
        "On which day does the tall clock in the {house} stand still?",
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ),
    _Template(
        "{person} once crossed the bay in a boat that was made of {value}.",
        "What was the boat made of in which {person} crossed the bay?",
        ("paper", "glass", "cork", "leather", "tin", "straw", "rubber"),
    ),
    _Template(
        "An old {value} lives in the cellar of the {house} and is fed by the cook.",
        "Which animal lives in the cellar of the {house}?",
        ("cat", "wolf", "turtle", "rabbit", "snake", "goose", "bear"),
    ),
    _Template(
        "{person} planted seven {value} trees on the day of the wedding.",
        "What kind of trees did {person} plant on the day of the wedding?",
        ("oak", "pine", "cherry", "lemon", "willow", "maple", "palm"),
    ),
)


@dataclass(frozen=True)
class Hidden:
    """A document, the fact that is hidden in it, and the query that asks for the fact.

    Attributes:
        document: haystack with the fact.
        fact: fact as it appears in the document.
        depth: position of the fact: 0 at the document's beginning, 1 at its end.
        query: query that only this document answers.
    """

    document: str
    fact: str
    depth: float
    query: str


def units(text: str) -> int:
    """Return the number of words and marks in a text (`TOKENS_PER_UNIT` tokens each)."""
    return len(_UNIT.findall(text))


def hidden(task: str, sizes: SyntheticSizes) -> Mapping[int, Sequence[Hidden]]:
    """Return the documents of a synthetic task by length.

    A document of length n has at most n tokens for MiniLM's tokenizer, special tokens included: a
    needle's (of 24 to 1,024) 79 to 100 % of n at 64 tokens, 84 to 97 % at 128 and 86 to 94 % at
    512, a passkey's 84 to 91 %, 88 to 92 % and 91 to 92 %. Facts and queries are the same at every
    length, the haystack of a document grows with the length from the same beginning, and the
    facts' depths are spread evenly from 0 to 1 over the documents of a length.

    Args:
        task: name of a synthetic task.
        sizes: with lengths in tokens, as `SyntheticSizes.at` gives them.

    Raises:
        RequestError: more documents than names, or no length that has room for a fact.
    """
    if sizes.documents > MOST_DOCUMENTS:
        raise RequestError(
            f"docs.synthetic_documents={sizes.documents} exceeds the number of distinct names, "
            f"{MOST_DOCUMENTS}."
        )
    if not sizes.lengths:
        raise RequestError(
            "docs.synthetic_lengths=auto: this model's window is too short for a hidden fact; the "
            f"shortest length is {SHORTEST} tokens. Give lengths, or choose tasks without "
            f"{PASSKEY} and {NEEDLE}."
        )
    return _hidden(task, sizes.lengths, sizes.documents)


def placed(
    task: str, lengths: Sequence[int], depths: Sequence[float], facts: int
) -> Mapping[tuple[int, float], Sequence[Hidden]]:
    """Return documents with each fact at each depth, by length and depth.

    Args:
        task: name of a synthetic task.
        lengths: in tokens, as of `hidden`.
        depths: from 0, the document's beginning, to 1, its end.
        facts: number of facts, and of documents of each length and depth.

    Raises:
        RequestError: as `hidden`.
    """
    made = {}
    for length, documents in hidden(task, SyntheticSizes(tuple(lengths), facts)).items():
        for depth in depths:
            made[length, depth] = [
                replace(
                    one,
                    document=_hide(_without(one).split(), one.fact, depth),
                    depth=depth,
                )
                for one in documents
            ]
    return made


def _without(one: Hidden) -> str:
    """Return a document's haystack."""
    return " ".join(one.document.replace(one.fact, " ", 1).split())


@lru_cache(maxsize=8)
def digest(sizes: SyntheticSizes) -> str:
    """Return 40 hexadecimal digits over all texts of the synthetic tasks: their data's revision.

    Raises:
        RequestError: as `hidden`.
    """
    content = hashlib.sha256()
    for task in (PASSKEY, NEEDLE):
        for length, documents in hidden(task, sizes).items():
            texts = [[one.document, one.query] for one in documents]
            content.update(json.dumps([task, length, texts]).encode())
    return content.hexdigest()[:40]


@lru_cache(maxsize=8)
def _hidden(
    task: str, lengths: tuple[int, ...], documents: int
) -> Mapping[int, tuple[Hidden, ...]]:
    facts = [_passkey(i) if task == PASSKEY else _needle(i) for i in range(documents)]
    made: dict[int, tuple[Hidden, ...]] = {}
    for length in lengths:
        room = int((length - SPECIAL_TOKENS) / TOKENS_PER_UNIT)
        made[length] = tuple(
            Hidden(
                document=_hide(_haystack(task, i, documents, room - units(fact)), fact, depth),
                fact=fact,
                depth=depth,
                query=query,
            )
            for i, (fact, query) in enumerate(facts)
            for depth in [i / (documents - 1) if documents > 1 else 0.5]
        )
    return MappingProxyType(made)


def _passkey(i: int) -> tuple[str, str]:
    """Return the i-th passkey's sentences and its query; no two share a person or a key."""
    person = _pair(i, _GIVEN_NAMES, _SURNAMES)
    # 38,639 and 90,000 are coprime, so the keys differ and look unrelated.
    key = 10_000 + 38_639 * (i + 1) % 90_000
    return (
        f"The pass key of {person} is {key}. Note it well: {key} belongs to {person}.",
        f"Which pass key does {person} have?",
    )


def _needle(i: int) -> tuple[str, str]:
    """Return the i-th made-up fact and its question; no two share a person or a house."""
    template = _TEMPLATES[i % len(_TEMPLATES)]
    value = template.values[int(hash_of(f"value {i}"), 16) % len(template.values)]
    names = {
        "person": _pair(i, _GIVEN_NAMES, _SURNAMES),
        "house": _pair(i, _ADJECTIVES, _HOUSES),
    }
    return template.fact.format(value=value, **names), template.question.format(**names)


def _pair(i: int, first: Sequence[str], second: Sequence[str]) -> str:
    """Return the i-th pair of names; neighbours in number share neither."""
    return f"{first[i % len(first)]} {second[(i + i // len(first)) % len(second)]}"


@dataclass(frozen=True)
class _Passage:
    """The plain sentences of a docstring's body: words, and the units up to and with each."""

    words: tuple[str, ...]
    counted: tuple[int, ...]


def _haystack(task: str, i: int, documents: int, room: int) -> list[str]:
    """Return the words of the i-th document's haystack: as many as `room` units hold."""
    words: list[str] = []
    for passage in _repeated() if task == PASSKEY else _dealt(i, documents):
        whole = passage.counted[-1]
        if whole > room:
            words += passage.words[: bisect_right(passage.counted, room)]
            break
        words += passage.words
        room -= whole
    return words


def _repeated() -> Iterator[_Passage]:
    """Yield one short passage again and again: the haystack of every passkey."""
    bodies = (_plain(body) for body in _bodies())
    fits = range(_FEWEST_REPEATED, _MOST_REPEATED + 1)
    return cycle([next(one for one in bodies if len(one.words) in fits)])


def _dealt(i: int, documents: int) -> Iterator[_Passage]:
    """Yield the i-th needle's passages: dealt in turn like cards, so that no two share one.

    Once its share is used up, a haystack goes on with those of its neighbours.
    """
    bodies = _bodies()
    shares = (bodies[(i + k) % documents :: documents] for k in range(documents))
    passages = (_plain(body) for body in cycle(chain.from_iterable(shares)))
    return (passage for passage in passages if passage.words)


def _hide(words: Sequence[str], fact: str, depth: float) -> str:
    """Return the haystack with the fact at that depth, between two sentences."""
    ends = [i for i, word in enumerate(words, start=1) if word.endswith(".")]
    position = min([0, *ends, len(words)], key=lambda end: abs(end - depth * len(words)))
    return " ".join([*words[:position], fact, *words[position:]])


@lru_cache(maxsize=1)
def _bodies() -> tuple[str, ...]:
    ordered = sorted(collection(), key=lambda doc: hash_of("haystack " + doc.id))
    return tuple(doc.body for doc in ordered)


@cache
def _plain(body: str) -> _Passage:
    sentences = (
        sentence
        for paragraph in body.split("\n\n")
        for sentence in _PLAIN.findall(" ".join(paragraph.split()))
    )
    words = tuple(" ".join(sentences).split())
    return _Passage(words, tuple(accumulate(map(units, words))))
