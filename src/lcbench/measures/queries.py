"""Choose queries, the documents that are searched, and chunks of the relevant ones.

The same judgments, tokenizer and options give the same choice. `retrieval` measures it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.crowding import FEWEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.hub.judgments import Judgments

# Words; of scripts without spaces, pieces of 32 characters.
_WORDS = re.compile(r"\S{1,32}")


@dataclass(frozen=True)
class Search:
    """Queries with one relevant document each, and the documents among which it is searched.

    Attributes:
        queries: texts of the queries.
        documents: texts of the documents.
        relevant: number of the relevant document of each query, shape (queries,).
        others: whether a document is searched for a query and not relevant to it, shape (queries,
            documents).
        corpora: number of each document's corpus, shape (documents,).
        lengths: tokens that are read of each document, special ones not counted, shape
            (documents,).
        cut: which documents are longer than the window, shape (documents,).
        chunks: by the number of a relevant document, consecutive pieces of what is read of it.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevant: NDArray[np.int64]
    others: NDArray[np.bool_]
    corpora: NDArray[np.int64]
    lengths: NDArray[np.int64]
    cut: NDArray[np.bool_]
    chunks: dict[int, tuple[str, ...]]


def choose(
    judgments: Judgments,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    window: int,
    queries: int,
    documents: int,
    chunk_tokens: int,
    seed: int = 0,
) -> Search:
    """Draw queries, one relevant document of each, and further documents of the same corpora.

    Args:
        judgments: of a task.
        count_tokens: of the model, without special tokens.
        window: most tokens that the model reads of a text, special ones not counted.
        queries: how many are drawn; all, if there are fewer.
        documents: how many are searched: the relevant ones, and others drawn at random.
        chunk_tokens: most tokens of a chunk, but for the rest of a word.
        seed: seed of the drawing.

    Raises:
        RequestError: the queries have fewer than 30 relevant documents.
    """
    random = np.random.default_rng(seed)
    asked = random.permutation(len(judgments.queries))[:queries]
    wanted = [int(random.choice(judgments.relevant[query])) for query in asked]
    if len(set(wanted)) < FEWEST:
        raise RequestError(
            f"its queries have {len(set(wanted))} relevant documents, and at least {FEWEST} are "
            "needed"
        )
    corpora = np.array(judgments.corpora)
    searched = np.isin(corpora, np.unique(corpora[wanted]))
    searched[wanted] = False
    kept = np.unique(wanted)
    more = random.permutation(np.flatnonzero(searched))[: max(0, documents - len(kept))]
    kept = np.concatenate([kept, more])
    place = {int(number): at for at, number in enumerate(kept)}
    others = corpora[kept] == corpora[wanted][:, None]
    for row, query in enumerate(asked):
        for number in (*judgments.relevant[query], judgments.itself[query]):
            if number in place:
                others[row, place[number]] = False
    texts = tuple(judgments.documents[number] for number in kept)
    sizes = np.asarray(count_tokens(texts), dtype=np.int64)
    relevant = np.array([place[number] for number in wanted])
    return Search(
        queries=tuple(judgments.queries[query] for query in asked),
        documents=texts,
        relevant=relevant,
        others=others,
        corpora=corpora[kept],
        lengths=np.minimum(sizes, window),
        cut=sizes > window,
        chunks={
            int(number): chunks_of(texts[number], count_tokens, chunk_tokens, window)
            for number in np.unique(relevant)
        },
    )


def chunks_of(
    text: str,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    size: int,
    window: int,
) -> tuple[str, ...]:
    """Return consecutive pieces of about equal numbers of tokens of what is read of a text.

    Pieces end between words. A text of one piece is that piece.

    Args:
        text: the text.
        count_tokens: of the model, without special tokens.
        size: most tokens of a piece, but for the rest of a word.
        window: most tokens that the model reads of a text.
    """
    # A word has a token or more.
    words = [match.span() for match in islice(_WORDS.finditer(text), window)]
    ends = np.cumsum(count_tokens([text[start:end] for start, end in words]))
    read = max(int((ends <= window).sum()), 1)
    total = max(int(ends[read - 1]), 1)
    pieces = -(-total // size)
    owner = np.clip((ends[:read] - 1) * pieces // total, 0, pieces - 1)
    firsts = np.flatnonzero(np.diff(owner, prepend=-1))
    lasts = [*(firsts[1:] - 1), read - 1]
    return tuple(
        text[words[first][0] : words[last][1]] for first, last in zip(firsts, lasts, strict=True)
    )
