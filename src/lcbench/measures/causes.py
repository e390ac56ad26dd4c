"""Tell whether shift or length goes with what a text's embedding loses of its sentences.

Semantic shift (`shift`) grows with the number of sentences, so each is correlated with an outcome
while the other is held fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lcbench.measures import shift as shifts
from lcbench.measures.crowding import CONDITIONS, Condition
from lcbench.measures.estimates import Estimate, defined, samples
from lcbench.measures.geometry import partial, rank_correlations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.measures.conditions import Texts
    from lcbench.measures.crowding import Embedded

Outcome = Literal["dilution", "overlap"]
"""What shift is held to cause: `dilution` (mean of 1 − cos(e_i, t) over a text's sentences, t the
embedding of the text) and the loss of neighbours (`overlap`: whether the nearest neighbour of the
first sentence is still that of the text)."""


@dataclass(frozen=True)
class ShiftByCount:
    """Semantic shift of texts of one number of sentences; means over texts.

    Attributes:
        condition: what follows the first sentence.
        sentences: their number, k.
        local: mean cosine distance of neighbouring sentences (Local, as a mean).
        local_sum: their sum, which grows with k (Local, as a sum).
        dispersion: mean cosine distance of all pairs of sentences.
        shift: Local · Dispersion, Local as a mean.
        shift_by_sum: Local · Dispersion, Local as a sum.
        dilution: mean of 1 − cos(sentence, text).
        overlap: share of texts whose nearest neighbour is that of their first sentence.
        agreement: mean cosine of the mean of the sentences and the embedding of the text.
    """

    condition: Condition
    sentences: int
    local: float
    local_sum: float
    dispersion: float
    shift: float
    shift_by_sum: float
    dilution: float
    overlap: float
    agreement: float


@dataclass(frozen=True)
class Cause:
    """Which of shift and length goes with an outcome, the other held fixed.

    Attributes:
        outcome: see `Outcome`.
        local: whether Local is a `mean` or a `sum`.
        shift: rank correlation of shift with the outcome, given the number of sentences; None:
            undefined, as where the outcome is the same for all texts.
        length: rank correlation of the number of sentences with the outcome, given the shift.
    """

    outcome: Outcome
    local: Literal["mean", "sum"]
    shift: Estimate | None
    length: Estimate | None


EmbeddingsOf = Callable[[Sequence[str]], "NDArray[np.float64]"]
"""Returns the unit embeddings of sentences, shape (sentences, dimensions)."""


def shift_and_causes(
    texts: Texts, embedding_of: EmbeddingsOf, passages: Embedded, resamples: int, seed: int
) -> tuple[tuple[ShiftByCount, ...], tuple[Cause, ...]]:
    """Return the shift of sequential and random texts, and what goes with its outcomes.

    Args:
        texts: the texts.
        embedding_of: of their sentences.
        passages: embeddings of the texts.
        resamples: number of bootstrap samples over texts.
        seed: seed of the bootstrap.
    """
    rows = _shift_rows(texts, embedding_of, passages)
    return _shift_means(rows), _causes(rows, resamples, seed)


@dataclass(frozen=True)
class _ShiftRows:
    """A row a text of sequential and of random sentences."""

    conditions: tuple[Condition, ...]
    values: NDArray[np.float64]
    """Columns: number of the text, sentences, then the fields of `ShiftByCount` from `local`."""


_TEXT, _SENTENCES, _LOCAL = 0, 1, 2
_SHIFT, _SHIFT_BY_SUM, _DILUTION, _OVERLAP = 5, 6, 7, 8


def _shift_rows(texts: Texts, embedding_of: EmbeddingsOf, passages: Embedded) -> _ShiftRows:
    single = np.asarray(passages.single)
    places = np.arange(len(single))
    conditions: list[Condition] = []
    rows = []
    for name in CONDITIONS:
        # Sentences that are all the same do not shift.
        if name == "repeated":
            continue
        for count, by_text in texts.sentences[name].items():
            joined = np.asarray(passages.joined[name][count])
            own = places[: len(joined)]
            kept = shifts.neighbour_overlap(single[own], joined, single, own=own)
            for place, sentences in enumerate(by_text):
                parts = embedding_of(sentences)
                moved = shifts.shift(parts)
                rows.append(
                    [
                        place,
                        count,
                        moved.local_mean,
                        moved.local_sum,
                        moved.dispersion,
                        moved.shift_by_mean,
                        moved.shift_by_sum,
                        float(np.mean(1 - parts @ joined[place])),
                        kept[place],
                        shifts.pooling_agreement(parts, joined[place]),
                    ]
                )
                conditions.append(name)
    return _ShiftRows(tuple(conditions), np.array(rows))


def _shift_means(rows: _ShiftRows) -> tuple[ShiftByCount, ...]:
    conditions = np.array(rows.conditions)
    counts = rows.values[:, _SENTENCES]
    return tuple(
        ShiftByCount(name, int(count), *map(float, rows.values[here][:, _LOCAL:].mean(axis=0)))
        for name in CONDITIONS
        for count in np.unique(counts)
        if (here := (conditions == name) & (counts == count)).any()
    )


def _causes(rows: _ShiftRows, resamples: int, seed: int) -> tuple[Cause, ...]:
    owners = rows.values[:, _TEXT].astype(np.int64)
    columns = [_SENTENCES, _SHIFT, _SHIFT_BY_SUM, _DILUTION, _OVERLAP]
    place = {column: number for number, column in enumerate(columns)}
    values = rows.values[:, columns].T
    # Of each sample once: every pair of columns is in several partial correlations.
    correlations = [
        rank_correlations(values[:, taken]) for taken in samples(owners, resamples, seed)
    ]
    count = int(owners.max()) + 1

    def given(outcome: int, cause: int, other: int) -> Estimate | None:
        chosen = (place[outcome], place[cause], place[other])
        return defined([partial(matrix, *chosen) for matrix in correlations], count)

    outcomes: tuple[tuple[Outcome, int], ...] = (("dilution", _DILUTION), ("overlap", _OVERLAP))
    readings: tuple[tuple[Literal["mean", "sum"], int], ...] = (
        ("mean", _SHIFT),
        ("sum", _SHIFT_BY_SUM),
    )
    return tuple(
        Cause(
            outcome,
            local,
            given(column, shift, _SENTENCES),
            given(column, _SENTENCES, shift),
        )
        for outcome, column in outcomes
        for local, shift in readings
    )
