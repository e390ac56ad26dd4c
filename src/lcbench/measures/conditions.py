"""Make texts of several sentences that are equally long and differ in what follows the first one.

Three conditions after the same first sentence: the sentence itself repeated, the sentences that
follow it in its document, and sentences of other documents at random. `crowding` compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.crowding import CONDITIONS, FEWEST, Condition
from lcbench.measures.sentences import words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

COUNTS = (2, 4, 8, 16)
"""Numbers of sentences that are compared with one."""

TOLERANCE = 0.05
"""Share by which a text may be longer or shorter in tokens than its sequential counterpart."""

# Maximum number of exchanges of single random sentences until the number of tokens fits.
_MOST_EXCHANGES = 50


@dataclass(frozen=True)
class Texts:
    """Texts of one sentence, and of several sentences under each condition.

    Attributes:
        single: first sentence of each text.
        joined: by condition and number of sentences, in the order of `single`; repeated and random
            texts may be there for the first sentences only.
        sentences: for sequential and random texts, the sentences of each text, in the same order.
        tokens: mean number of tokens of sequential texts, by number of sentences.
        documents: number of the document of each text, shape (texts,).
    """

    single: tuple[str, ...]
    joined: Mapping[Condition, Mapping[int, tuple[str, ...]]]
    sentences: Mapping[Condition, Mapping[int, tuple[tuple[str, ...], ...]]]
    tokens: Mapping[int, float]
    documents: tuple[int, ...]


def texts_of(
    documents: Sequence[Sequence[str]],
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    window: int,
    texts: int = 200,
    counts: Sequence[int] = COUNTS,
    seed: int = 0,
    compared: int | None = None,
) -> Texts:
    """Return texts under the three conditions, all within a window and equal in tokens.

    Texts begin with sentences of different documents; if there are not enough documents, with
    further sentences that do not overlap.

    Args:
        documents: sentences of each document, in order.
        count_tokens: returns the number of tokens of sentences, without special tokens.
        window: maximum number of tokens of a text, without special tokens. Longer texts would be
            truncated, and the effect of truncation measured.
        texts: number of texts; fewer are made if the documents do not suffice.
        counts: numbers of sentences per text, each above 1, ascending.
        seed: seed of the drawing of sentences.
        compared: number of texts that are made under the other two conditions; None: all.

    Raises:
        RequestError: fewer than 30 texts can be made.
    """
    flat = [sentence for sentences in documents for sentence in sentences]
    owners = np.repeat(np.arange(len(documents)), [len(one) for one in documents])
    sizes = np.asarray(count_tokens(flat), dtype=np.int64) if flat else np.zeros(0, dtype=np.int64)
    random = np.random.default_rng(seed)
    starts = _starts(owners, sizes, counts[-1], window, texts, random)
    if len(starts) < FEWEST:
        raise RequestError(
            f"only {len(starts)} passages of {counts[-1]} sentences fit into {window} tokens, and "
            f"at least {FEWEST} are needed: take more or longer documents, fewer sentences a "
            "passage (sentences=), or a larger window"
        )
    repeated: dict[int, list[str]] = {count: [] for count in counts}
    sentences: dict[Condition, dict[int, list[tuple[str, ...]]]] = {
        name: {count: [] for count in counts} for name in CONDITIONS if name != "repeated"
    }
    tokens: dict[int, list[int]] = {count: [] for count in counts}
    # Random sentences are those of sequential texts, which are embedded alone anyway.
    known = np.unique(np.add.outer(starts, np.arange(counts[-1])))
    known = known[sizes[known] > 0]
    for number, start in enumerate(starts):
        drawn = known[owners[known] != owners[start]]
        drawn = random.permutation(drawn)[: counts[-1] + _MOST_EXCHANGES]
        for count in counts:
            wanted = int(sizes[start : start + count].sum())
            tokens[count].append(wanted)
            sentences["sequential"][count].append(tuple(flat[start : start + count]))
            if compared is not None and number >= compared:
                continue
            repeated[count].append(_repeated(flat[start], int(sizes[start]), wanted))
            chosen = _fitting(drawn, sizes, count - 1, wanted - int(sizes[start]))
            sentences["random"][count].append((flat[start], *(flat[at] for at in chosen)))
    joined: dict[Condition, dict[int, tuple[str, ...]]] = {
        "repeated": {count: tuple(texts) for count, texts in repeated.items()}
    }
    for name, by_count in sentences.items():
        joined[name] = {
            count: tuple(" ".join(text) for text in texts) for count, texts in by_count.items()
        }
    return Texts(
        single=tuple(flat[start] for start in starts),
        joined=joined,
        sentences={
            name: {count: tuple(rows) for count, rows in by_count.items()}
            for name, by_count in sentences.items()
        },
        tokens={count: float(np.mean(rows)) for count, rows in tokens.items()},
        documents=tuple(int(owners[start]) for start in starts),
    )


def _starts(
    owners: NDArray[np.int64],
    sizes: NDArray[np.int64],
    most: int,
    window: int,
    texts: int,
    random: np.random.Generator,
) -> list[int]:
    """Return the starts of passages that fit into the window, one per document first."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    places = np.arange(max(len(sizes) - most + 1, 0))
    last = places + most - 1
    fits = (
        (owners[places] == owners[last])
        & (ends[last + 1] - ends[places] <= window)
        & (sizes[places] > 0)
    )
    by_document: dict[int, list[int]] = {}
    for place in random.permutation(places[fits]):
        taken = by_document.setdefault(int(owners[place]), [])
        if all(abs(place - other) >= most for other in taken):
            taken.append(int(place))
    rounds = [
        taken[number]
        for number in range(max(map(len, by_document.values()), default=0))
        for taken in by_document.values()
        if number < len(taken)
    ]
    return rounds[:texts]


def _repeated(sentence: str, size: int, wanted: int) -> str:
    """Return a sentence repeated to a number of tokens, the last time cut between words."""
    whole, rest = divmod(wanted, size)
    words = words_of(sentence)
    kept = round(len(words) * rest / size)
    return " ".join([sentence] * whole + (["".join(words[:kept]).rstrip()] if kept else []))


def _fitting(
    drawn: NDArray[np.int64], sizes: NDArray[np.int64], count: int, wanted: int
) -> list[int]:
    """Return drawn sentences with about a given total of tokens.

    While the total misses it by more than the tolerance, the next drawn sentence replaces the one
    that brings the total closest.
    """
    chosen = list(drawn[:count])
    total = int(sizes[chosen].sum())
    for candidate in drawn[count:]:
        if abs(total - wanted) <= TOLERANCE * wanted:
            break
        misses = np.abs(total - sizes[chosen] + sizes[candidate] - wanted)
        nearest = int(np.argmin(misses))
        if misses[nearest] < abs(total - wanted):
            total += int(sizes[candidate] - sizes[chosen[nearest]])
            chosen[nearest] = candidate
    return [int(place) for place in chosen]
