"""Whether a hidden fact is found, by where it stands and how long the document is.

Facts (passkeys and needles of `tasks.docs.haystacks`) are searched by their questions among
documents of the same length that have other facts at the same depth. Three things are told apart:

- truncation: the fact stands beyond the window, and cannot be found;
- position bias: of one length, within the window, some depths are found less often;
- collapse: with length facts are found less often wherever they stand.

Bias and collapse are given by the index 1 − min/max of the share that is found: over depths of one
length, and over lengths of the mean of their depths. 0: no difference; 1: some are never found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.estimates import resampled
from lcbench.measures.geometry import unit
from lcbench.measures.intervals import Panel, Place, lines_of
from lcbench.tasks.docs.names import NEEDLE, PASSKEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.measures.collapse import CountTokens

    Matrix = NDArray[np.float32]

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where a fact stands: 0 at the document's beginning, 1 at its end."""

FACTS = 30
"""Facts of each kind. LongEmbed has 50 at each length, which take 1.7 times as long."""

SHORTEST = 64
"""Tokens of the shortest documents, of which a fact is about a third."""

# Kinds of facts, by what panels call them.
_KINDS = {"passkey": PASSKEY, "needle": NEEDLE}


@dataclass(frozen=True)
class Cut:
    """Which facts stand beyond the window.

    Attributes:
        kind: of the facts, `passkey` or `needle`.
        lengths: of documents in tokens.
        shares: of facts that end beyond the window, by length, then by depth.
    """

    kind: str
    lengths: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]


def lengths_for(window: int) -> tuple[int, ...]:
    """Return lengths of documents: a quarter, half and all of the window, and twice as many.

    Raises:
        RequestError: the window is too short for a fact.
    """
    found = tuple(part for part in (window // 4, window // 2, window) if part >= SHORTEST)
    if not found:
        raise RequestError(
            f"a window of {window} tokens is too short for hidden facts, which need {SHORTEST}"
        )
    return (*found, 2 * window)


def by_position(
    repairs: Sequence[str],
    embed: Callable[[str, Sequence[str]], Matrix],
    embed_queries: Callable[[str, Sequence[str]], Matrix],
    count_tokens: CountTokens,
    room: int,
    window: int,
    resamples: int,
    seed: int,
) -> tuple[tuple[Panel, ...], tuple[Cut, ...]]:
    """Return the share of facts that are found by depth, a line a length, a panel a repair.

    Args:
        repairs: names of repairs, the baseline first.
        embed: embeddings of documents under a repair, shape (texts, dimensions).
        embed_queries: the same of queries.
        count_tokens: of the model, without special tokens.
        room: most tokens that it reads of a text, special ones not counted.
        window: the same with special ones.
        resamples: bootstrap samples over facts.
        seed: of the bootstrap.

    Raises:
        RequestError: the window is too short for a fact.
    """
    from lcbench.tasks.docs.haystacks import placed

    lengths = lengths_for(window)
    drawn = resampled(FACTS, resamples, seed)
    panels, cuts = [], []
    for kind, task in _KINDS.items():
        documents = placed(task, lengths, DEPTHS, FACTS)
        ends = {
            place: [one.document[: one.document.index(one.fact) + len(one.fact)] for one in some]
            for place, some in documents.items()
        }
        shares = {
            place: float(np.mean(np.asarray(count_tokens(some)) > room))
            for place, some in ends.items()
        }
        cuts.append(
            Cut(
                kind,
                lengths,
                tuple(tuple(shares[length, depth] for depth in DEPTHS) for length in lengths),
            )
        )
        queries = [one.query for one in documents[lengths[0], DEPTHS[0]]]
        places = tuple(Place(f"{100 * depth:.0f} %", 0.0, FACTS) for depth in DEPTHS)
        for repair in repairs:
            asked = unit(embed_queries(repair, queries))
            texts = [one.document for some in documents.values() for one in some]
            rows = np.split(unit(embed(repair, texts)), len(documents))
            found = {
                place: _is_found(asked, matrix)
                for place, matrix in zip(documents, rows, strict=True)
            }
            values = {
                f"{length:,} tokens": [
                    drawn @ found[length, depth] / drawn.sum(axis=1) for depth in DEPTHS
                ]
                for length in lengths
            }
            panels.append(
                Panel(
                    f"share found, {kind}, {repair}",
                    "depth of the fact",
                    places,
                    lines_of(values, [FACTS] * len(DEPTHS)),
                )
            )
    return tuple(panels), tuple(cuts)


def index(shares: Sequence[float]) -> float:
    """Return 1 − min/max of shares that are found: 0 if all are equal, 1 if one is 0.

    As PSI of arXiv:2601.08363, of any two or more shares; 0 where none is found at all.
    """
    most = max(shares)
    return 1 - min(shares) / most if most > 0 else 0.0


def _is_found(queries: NDArray[np.float64], documents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where a query's own document has the highest cosine, shape (queries,)."""
    cosines = queries @ documents.T
    own = np.diagonal(cosines).copy()
    np.fill_diagonal(cosines, -np.inf)
    found: NDArray[np.float64] = (own > cosines.max(axis=1)).astype(np.float64)
    return found


def indices(panel: Panel, cut: Cut) -> Mapping[int, float]:
    """Return the index over depths of each length, of those that no fact stands beyond the window.

    A length with fewer than two such depths has none.
    """
    found = {}
    for length, line, shares in zip(cut.lengths, panel.lines, cut.shares, strict=True):
        inside = [one.value for one, share in zip(line.values, shares, strict=True) if share == 0]
        if len(inside) > 1:
            found[length] = index(inside)
    return found


def collapse_index(panel: Panel, cut: Cut) -> float:
    """Return the index over lengths of mean shares, of lengths of which nothing is cut."""
    means = [
        float(np.mean([one.value for one in line.values]))
        for line, shares in zip(panel.lines, cut.shares, strict=True)
        if max(shares) == 0
    ]
    return index(means) if means else 0.0
