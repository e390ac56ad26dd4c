"""Values by length in tokens, by repair, with intervals: what a figure of the paper shows.

The intervals of length are the paper's, of 100 tokens each, in contrast to the bins of equal
numbers of texts that `crowding.cosine_by_length` compares. Differences are taken within each
bootstrap sample, since all repairs and lengths share their texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.averages import averaged, mean_cosines
from lcbench.measures.crowding import FEWEST
from lcbench.measures.estimates import Estimate, resampled, spread
from lcbench.measures.geometry import unit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Draws = NDArray[np.float64]

WIDTH = 100
"""Tokens of an interval, as in Figures 1a and 6 of arXiv:2410.24200; those of 1c are not stated."""

# Samples whose distances are computed together: 8 MB for 4,000 texts.
_SAMPLES_AT_ONCE = 256


@dataclass(frozen=True)
class Place:
    """Texts of one length.

    Attributes:
        name: the length: an interval of tokens, a number of words, or which part of a text.
        tokens: mean number of tokens.
        texts: number of texts.
    """

    name: str
    tokens: float
    texts: int


@dataclass(frozen=True)
class Line:
    """Values of one repair.

    Attributes:
        name: of the repair.
        values: one for each place.
        change: the last minus the first.
        against: each minus that of the first line; empty in the first line.
    """

    name: str
    values: tuple[Estimate, ...]
    change: Estimate
    against: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A quantity by length.

    Attributes:
        quantity: what the values are.
        along: what the lengths are.
        places: from short to long.
        lines: one for each repair, the baseline first.
        averaging: mean cosines if longer texts were averages of more independent parts; empty for
            other quantities.
        at_most: whether averaging may give less than that, since parts need not count alike.
    """

    quantity: str
    along: str
    places: tuple[Place, ...]
    lines: tuple[Line, ...]
    averaging: tuple[Estimate, ...] = ()
    at_most: bool = False


def intervals(
    lengths: ArrayLike, most: int | None = None, last: int | None = None, width: int = WIDTH
) -> dict[str, NDArray[np.int64]]:
    """Return which texts are in each interval of tokens; those with fewer than 30 are left out.

    Args:
        lengths: of the texts in tokens, shape (texts,).
        most: most texts of an interval, the first ones; None: all.
        last: number of intervals; None: as many as there are.
        width: of an interval, in tokens.

    Raises:
        RequestError: fewer than two intervals have so many texts.
    """
    numbers = np.asarray(lengths) // width
    found = {}
    for number in range(int(numbers.max(initial=0)) + 1 if last is None else last):
        inside = np.flatnonzero(numbers == number)[:most]
        if len(inside) >= FEWEST:
            found[f"[{width * number}, {width * (number + 1)})"] = inside
    if len(found) < 2:
        raise RequestError(
            f"the {len(numbers)} texts that fit into the window do not give two intervals of "
            f"{width} tokens with {FEWEST} texts each: take longer or more texts, or a larger "
            "window"
        )
    return found


def cosines_by_interval(
    embeddings: Mapping[str, ArrayLike],
    lengths: ArrayLike,
    parts: Mapping[str, NDArray[np.int64]],
    resamples: int,
    seed: int = 0,
    *,
    by_mean: bool = True,
) -> Panel:
    """Return the mean pairwise cosine of the texts of each interval: Figures 1c and 3.

    Args:
        embeddings: by repair, the baseline first, each of shape (texts, dimensions).
        lengths: of the texts in tokens, shape (texts,).
        parts: which texts are in each interval (`intervals`).
        resamples: bootstrap samples over texts.
        seed: of the bootstrap.
        by_mean: whether the embeddings are means of tokens that count alike; else averaging gives
            at most what the panel has.

    Raises:
        RequestError: as `geometry.unit`.
    """
    sizes = np.asarray(lengths)
    drawn = resampled(len(sizes), resamples, seed)
    values: dict[str, list[Draws]] = {}
    for name, matrix in embeddings.items():
        rows = unit(matrix)
        values[name] = [mean_cosines(rows[part], drawn[:, part]) for part in parts.values()]
    places = _places(parts, sizes)
    first = next(iter(values.values()))[0]
    longer = [place.tokens / places[0].tokens for place in places]
    averaging = [averaged(first, count) for count in longer]
    counts = [place.texts for place in places]
    return Panel(
        "mean cosine",
        "tokens",
        places,
        lines_of(values, counts),
        tuple(map(spread, averaging, counts)),
        at_most=not by_mean,
    )


def means_by_interval(
    quantity: str,
    scores: Mapping[str, ArrayLike],
    lengths: ArrayLike,
    parts: Mapping[str, NDArray[np.int64]],
    resamples: int,
    seed: int = 0,
) -> Panel:
    """Return the mean score of the texts of each interval: Figures 1a and 6.

    Args:
        quantity: what the scores are.
        scores: by repair, the baseline first, each of shape (texts,).
        lengths: of the texts in tokens, shape (texts,).
        parts: which texts are in each interval (`intervals`).
        resamples: bootstrap samples over texts.
        seed: of the bootstrap.
    """
    sizes = np.asarray(lengths)
    drawn = resampled(len(sizes), resamples, seed)
    values = {
        name: [
            drawn[:, part] @ np.asarray(found)[part] / drawn[:, part].sum(axis=1)
            for part in parts.values()
        ]
        for name, found in scores.items()
    }
    places = _places(parts, sizes)
    return Panel(quantity, "tokens", places, lines_of(values, [place.texts for place in places]))


def distances_by_length(
    embeddings: Mapping[str, Mapping[str, ArrayLike]],
    tokens: Mapping[str, float],
    resamples: int,
    seed: int = 0,
) -> Panel:
    """Return the mean distance of unit embeddings to their centroid, by length: D of Figure 1b.

    Args:
        embeddings: by repair, the baseline first, and by length, from short to long, of the same
            texts, shape (texts, dimensions).
        tokens: mean number of tokens by length.
        resamples: bootstrap samples over texts.
        seed: of the bootstrap.

    Raises:
        RequestError: as `geometry.unit`.
    """
    values: dict[str, list[Draws]] = {}
    count = 0
    for name, by_length in embeddings.items():
        matrices = [unit(matrix) for matrix in by_length.values()]
        count = len(matrices[0])
        drawn = resampled(count, resamples, seed)
        values[name] = [_centroid_distances(rows, drawn) for rows in matrices]
    places = tuple(Place(name, tokens[name], count) for name in tokens)
    return Panel(
        "distance to the centroid", "length", places, lines_of(values, [count] * len(places))
    )


def cosines_of_repeated(cosines: Mapping[str, Sequence[float]], tokens: Sequence[int]) -> Panel:
    """Return cosines of two words, each repeated: Figure 12. They are exact and have no interval.

    Args:
        cosines: by repair, the baseline first, one for each number of repetitions.
        tokens: the numbers of repetitions, ascending.
    """
    values = {name: [np.array([one]) for one in found] for name, found in cosines.items()}
    places = tuple(Place(str(count), count, 2) for count in tokens)
    return Panel("cosine", "times", places, lines_of(values, [2] * len(places)))


def _places(parts: Mapping[str, NDArray[np.int64]], sizes: NDArray[np.int64]) -> tuple[Place, ...]:
    return tuple(Place(name, float(sizes[part].mean()), len(part)) for name, part in parts.items())


def lines_of(values: Mapping[str, Sequence[Draws]], texts: Sequence[int]) -> tuple[Line, ...]:
    """Return lines with intervals and differences.

    Args:
        values: by the name of the line, the one that others are compared with first; of each place
            the value itself, then that of each bootstrap sample.
        texts: of each place.
    """
    baseline = next(iter(values.values()))
    lines: list[Line] = []
    for name, found in values.items():
        against = [one - other for one, other in zip(found, baseline, strict=True)]
        lines.append(
            Line(
                name,
                tuple(map(_estimate, found, texts)),
                _estimate(found[-1] - found[0], min(texts[0], texts[-1])),
                tuple(map(_estimate, against, texts)) if lines else (),
            )
        )
    return tuple(lines)


def _estimate(values: Draws, texts: int) -> Estimate:
    if len(values) == 1:
        only = float(values[0])
        return Estimate(only, only, only)
    return spread(values, texts)


def _centroid_distances(rows: NDArray[np.float64], drawn: Draws) -> Draws:
    """Return the mean distance to the centroid in each sample, shape (samples,)."""
    found = []
    samples = iter(drawn)
    while block := list(islice(samples, _SAMPLES_AT_ONCE)):
        shares = np.stack(block)
        shares /= shares.sum(axis=1, keepdims=True)
        centroids = shares @ rows
        # ‖u − m‖² = 1 − 2 u·m + ‖m‖², all of them from one product of matrices.
        squares = 1 - 2 * centroids @ rows.T + (centroids**2).sum(axis=1, keepdims=True)
        found.append((shares * np.sqrt(np.maximum(squares, 0))).sum(axis=1))
    return np.concatenate(found)
