"""The measures of the space keep to their formulas and to the values that are known of them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from lcbench.errors import RequestError
from lcbench.measures import MEASURES, geometry


def sphere(texts: int, size: int, seed: int = 0) -> NDArray[np.float64]:
    rows = np.random.default_rng(seed).standard_normal((texts, size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def with_offset(texts: int, size: int, offset: float) -> NDArray[np.float64]:
    rows = sphere(texts, size)
    return rows + offset * sphere(1, size, seed=9)


def test_the_mean_cosine_is_that_of_all_pairs() -> None:
    rows = with_offset(40, 12, 0.7)
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [scaled[i] @ scaled[j] for i in range(40) for j in range(40) if i != j]
    assert geometry.mean_cosine(rows) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert geometry.mean_distance(rows) == pytest.approx(1 - np.mean(pairs), abs=1e-12)


def test_the_mean_cosine_is_the_share_of_the_mean_but_for_the_pairs_with_itself() -> None:
    rows, count = with_offset(500, 64, 0.5), 500
    share = geometry.mean_share(rows)
    assert geometry.mean_cosine(rows) == pytest.approx((count * share - 1) / (count - 1), abs=1e-12)


def test_pythagoras_for_the_distance_to_the_centroid() -> None:
    rows = sphere(30, 8) * np.arange(1, 31)[:, None]
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    squared = (np.linalg.norm(scaled - scaled.mean(axis=0), axis=1) ** 2).mean()
    assert squared == pytest.approx(1 - geometry.mean_share(rows), abs=1e-12)
    assert geometry.centroid_distance(rows) <= np.sqrt(squared)


@pytest.mark.parametrize(("size", "expected"), [(32, -3.75), (384, -3.98)])
def test_uniformity_of_a_sphere(size: int, expected: float) -> None:
    assert geometry.uniformity(sphere(1_500, size)) == pytest.approx(expected, abs=0.005)


def test_uniformity_of_equal_embeddings_is_0() -> None:
    assert geometry.uniformity(np.ones((5, 3))) == pytest.approx(0.0, abs=1e-12)


def test_uniformity_over_several_blocks_is_that_of_all_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = sphere(50, 6)
    whole = geometry.uniformity(rows)
    monkeypatch.setattr(geometry, "_ROWS_AT_ONCE", 7)
    assert geometry.uniformity(rows) == pytest.approx(whole, abs=1e-12)
    assert geometry.hubness(rows, 3).occurrences.sum() == 150


def test_alignment_of_pairs() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert geometry.alignment(rows, rows) == 0
    # One pair at right angles, ‖x − y‖² = 2, and one that is equal.
    assert geometry.alignment(rows, np.array([[0.0, 1.0], [0.0, 1.0]])) == pytest.approx(1.0)


def test_the_effective_rank_is_bounded_by_texts_and_dimensions() -> None:
    # 50 random texts in 384 dimensions: the number of texts, and nothing of the space.
    assert geometry.effective_rank(sphere(50, 384)) == pytest.approx(49, abs=0.6)
    assert geometry.effective_rank(np.eye(7)) == pytest.approx(7)
    assert geometry.effective_rank(np.ones((9, 4))) == pytest.approx(1, abs=1e-6)
    assert geometry.effective_rank(np.zeros((9, 4))) == 0


def test_the_participation_ratio_counts_dimensions() -> None:
    assert geometry.participation_ratio(sphere(20_000, 16)) == pytest.approx(16, rel=0.01)
    line = np.outer(np.arange(10.0), [1.0, 2.0, 3.0])
    assert geometry.participation_ratio(line) == pytest.approx(1)
    assert geometry.first_component_share(line) == pytest.approx(1)
    assert geometry.participation_ratio(np.ones((9, 4))) == 0
    assert geometry.first_component_share(np.ones((9, 4))) == 0


def test_isoscore() -> None:
    assert geometry.isoscore(sphere(20_000, 16)) == pytest.approx(0.999, abs=0.001)
    line = np.outer(np.arange(10.0), [1.0, 2.0, 3.0])
    assert geometry.isoscore(line) == pytest.approx(0, abs=1e-9)
    with pytest.raises(RequestError, match=r"50 texts in 384 dimensions.*participation_ratio"):
        geometry.isoscore(sphere(50, 384))
    with pytest.raises(RequestError, match="all equal"):
        geometry.isoscore(np.ones((9, 4)))


def test_isoscore_by_the_papers_steps() -> None:
    rows = sphere(400, 5) * np.array([3.0, 2.0, 1.0, 1.0, 0.5])
    # Rudman et al., Algorithm 1: principal components, normalised variances, distance to (1, …, 1).
    variances = np.linalg.eigvalsh(np.cov(rows, rowvar=False))
    scaled = np.sqrt(5) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - np.ones(5)) / np.sqrt(2 * (5 - np.sqrt(5)))
    share = (5 - defect**2 * (5 - np.sqrt(5))) ** 2 / 25
    assert geometry.isoscore(rows) == pytest.approx((5 * share - 1) / 4, abs=1e-9)


def test_a_common_offset_makes_hubs_and_centring_undoes_it() -> None:
    even = geometry.hubness(sphere(1_500, 384, seed=3), 10)
    rows = sphere(1_500, 384)
    # Embeddings of unequal length with a common direction, as those of a cone are.
    scaled = rows * np.exp(0.3 * np.random.default_rng(1).standard_normal((1_500, 1)))
    cone = scaled + sphere(1, 384, seed=9)
    hubs = geometry.hubness(cone, 10)
    centred = geometry.hubness(cone - cone.mean(axis=0), 10)
    assert even.occurrences.sum() == hubs.occurrences.sum() == 15_000
    assert even.skewness == pytest.approx(0.34, abs=0.01)
    assert even.never == 0
    assert hubs.skewness > 2
    assert hubs.never > 0.03
    assert centred.skewness < 0.6


def test_hubness_of_a_star() -> None:
    # The centre is everyone's nearest neighbour; its own is the first of the others.
    rows = np.vstack([np.ones(3), np.ones(3) + np.eye(3)])
    found = geometry.hubness(rows, 1)
    assert found.occurrences.tolist() == [3, 1, 0, 0]
    assert found.never == 0.5


def test_rotations_leave_the_space_as_it_is() -> None:
    rows = with_offset(200, 12, 0.5)
    turned = rows @ np.linalg.qr(np.random.default_rng(3).standard_normal((12, 12)))[0]
    for measure in MEASURES:
        assert measure.compute(turned) == pytest.approx(measure.compute(rows), abs=1e-8)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 150])
def test_ranks_are_scipys(count: int) -> None:
    random = np.random.default_rng(count)
    for largest in (1, count // 2 + 1, 10**9):
        values = random.integers(-largest, largest, count).astype(float)
        expected = rankdata(values)
        assert np.array_equal(geometry.average_ranks(values), expected)
        assert np.array_equal(geometry.average_ranks(values.astype(int)), expected)
        drawn = random.integers(0, max(count, 1), count)
        sampled = geometry.average_ranks(geometry.order(values)[drawn])
        assert np.array_equal(sampled, rankdata(values[drawn]))
    ends = [np.inf, 0.0, -0.0, -np.inf, np.inf]
    assert geometry.average_ranks(ends).tolist() == [4.5, 2.5, 2.5, 1, 4.5]
    for values in ([1, np.nan], geometry.order([1, np.nan])):
        assert np.isnan(geometry.average_ranks(values)).all()


def test_partial_rank_correlations() -> None:
    random = np.random.default_rng(0)
    given = random.standard_normal(4_000)
    left, right = given + random.standard_normal(4_000), given + random.standard_normal(4_000)
    assert geometry.rank_correlation(left, right) > 0.4
    assert abs(geometry.partial_rank_correlation(left, right, given)) < 0.05
    assert geometry.rank_correlation([1, 2, 3], [3, 4, 9]) == pytest.approx(1)
    assert np.isnan(geometry.rank_correlation([1, 1, 1], [1, 2, 3]))
    assert np.isnan(geometry.partial_rank_correlation([1, 2, 3], [2, 1, 3], [1, 2, 3]))
    with pytest.raises(RequestError, match="not pairs"):
        geometry.rank_correlation([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, float("nan")], [1.0, 1.0]], "not finite, first in row 0"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([[1.0, 2.0]], "1 rows: at least 2"),
        ([[1.0, 2.0], [0.0, 0.0]], "row of zeros, first row 1"),
    ],
)
def test_embeddings_that_cannot_be_measured(rows: list[list[float]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        geometry.mean_cosine(rows)


def test_neighbours_that_there_are_not() -> None:
    with pytest.raises(RequestError, match="k=9 neighbours of 5 texts: k must be from 1 to 4"):
        geometry.hubness(sphere(5, 3), 9)
    with pytest.raises(RequestError, match="row i of both must be one pair"):
        geometry.alignment(sphere(5, 3), sphere(4, 3))
