"""The measures of semantic shift keep to their identities."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lcbench.errors import RequestError
from lcbench.measures import shift as shifts


def sentences(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((count, 24)) + 0.4


@pytest.mark.parametrize("count", [2, 3, 8, 32])
def test_dilution_follows_from_dispersion(count: int) -> None:
    rows = sentences(count)
    dispersion = shifts.shift(rows).dispersion
    assert shifts.dilution(rows) == pytest.approx(
        shifts.dilution_of_dispersion(dispersion, count), abs=1e-12
    )


def test_a_repeated_sentence_does_not_shift() -> None:
    rows = np.repeat(sentences(1), 6, axis=0)
    found = shifts.shift(rows)
    numbers = [found.local_sum, found.local_mean, found.dispersion, found.shift_by_sum]
    assert numbers == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert shifts.dilution(rows) == pytest.approx(0, abs=1e-12)


def test_a_single_sentence_has_no_shift() -> None:
    assert shifts.shift(sentences(1)) == shifts.Shift(1, 0.0, 0.0, 0.0)
    assert shifts.dilution(sentences(1)) == pytest.approx(0, abs=1e-12)
    assert shifts.dilution_of_dispersion(0.7, 1) == 0


def test_the_order_of_sentences_changes_the_local_change_alone() -> None:
    rows = sentences(9)
    before, after = shifts.shift(rows), shifts.shift(rows[::2].tolist() + rows[1::2].tolist())
    assert after.dispersion == pytest.approx(before.dispersion, abs=1e-12)
    assert after.local_sum != pytest.approx(before.local_sum, abs=1e-3)


def test_the_shift_of_known_vectors() -> None:
    found = shifts.shift([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert (found.local_sum, found.local_mean) == (2.0, 1.0)
    assert found.dispersion == pytest.approx(2 / 3)
    assert found.shift_by_sum == pytest.approx(4 / 3)
    assert found.shift_by_mean == pytest.approx(2 / 3)


def test_a_text_that_is_the_mean_of_its_sentences() -> None:
    rows = sentences(5)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert shifts.pooling_agreement(rows, 7 * unit.mean(axis=0)) == pytest.approx(1)
    assert shifts.pooling_agreement([[1.0, 0.0]], [0.0, 1.0]) == pytest.approx(0)


def test_the_overlap_of_neighbours() -> None:
    corpus = np.eye(4)
    queries = np.array([[1.0, 0.5, 0.1, 0.0], [0.0, 0.1, 0.5, 1.0]])
    others = np.array([[1.0, 0.1, 0.5, 0.0], [0.0, 0.1, 0.6, 1.0]])
    assert shifts.neighbour_overlap(queries, others, corpus, 1).tolist() == [1.0, 1.0]
    assert shifts.neighbour_overlap(queries, others, corpus, 2).tolist() == [0.5, 1.0]
    with pytest.raises(RequestError, match="count=5 neighbours of 4 texts"):
        shifts.neighbour_overlap(queries, others, corpus, 5)


def test_the_dilution_of_evidence() -> None:
    query, chunks = [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]
    assert shifts.evidence_dilution(query, chunks, [1.0, 1.0]) == pytest.approx(1 - 0.5**0.5)
    assert shifts.evidence_dilution(query, chunks, [1.0, 0.0]) == pytest.approx(0)


def test_sentences_that_cancel_out() -> None:
    with pytest.raises(RequestError, match="cancel out"):
        shifts.dilution([[1.0, 0.0], [-1.0, 0.0]])
