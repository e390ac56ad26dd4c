"""`uncertainty.correlations`: Spearman's correlations of counted pairs, and what a pair adds."""

import numpy as np
import pytest
from scipy import stats

from lcbench.uncertainty.correlations import Correlations


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("grades", [2, 5, 10**9])
def test_counting_pairs_is_the_same_as_drawing_them(
    random: np.random.Generator, decimals: int, grades: int
) -> None:
    gold = random.integers(0, grades, 30).astype(float)
    values = np.round(3 * random.random((30, 2)), decimals)
    drawn = random.integers(0, 30, (5, 30))
    counts = np.stack([np.bincount(one, minlength=30) for one in drawn]).astype(np.int32)
    found = Correlations(gold, values).over(counts.T)
    for sample, row in zip(drawn, found, strict=True):
        wanted = [stats.spearmanr(gold[sample], values[sample, cell])[0] for cell in (0, 1)]
        assert row == pytest.approx(wanted, abs=1e-12)


def test_samples_of_unequal_size() -> None:
    gold, values = np.array([1.0, 2, 3, 4]), np.array([[1.0], [3], [2], [4]])
    found = Correlations(gold, values).over(np.array([[1, 1, 1, 0], [1, 1, 1, 1]]).T)
    assert found[:, 0] == pytest.approx([0.5, 0.8])


def test_a_constant_side_has_no_correlation() -> None:
    gold, values = np.array([1.0, 2, 3]), np.array([[5.0, 1], [5, 2], [5, 3]])
    found = Correlations(gold, values).over(np.array([[1, 1, 1], [0, 3, 0]]).T)
    assert np.isnan(found).tolist() == [[True, False], [True, True]]
    assert found[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("decimals", [0, 9])
def test_what_a_pair_adds_is_the_change_by_one_more_of_it(
    random: np.random.Generator, decimals: int
) -> None:
    gold = random.integers(0, 4, 25).astype(float)
    values = np.round(gold[:, None] + random.standard_normal((25, 2)), decimals)
    added = Correlations(gold, values).influence()
    # Of pairs that are there a thousand times, one more is next to a derivative.
    times = 1000 * np.ones(25, dtype=int)
    for pair in (0, 7, 24):
        more = np.repeat(np.arange(25), times + (np.arange(25) == pair))
        for cell in (0, 1):
            before = stats.spearmanr(gold, values[:, cell])[0]
            after = stats.spearmanr(gold[more], values[more, cell])[0]
            assert 1000 * (after - before) == pytest.approx(added[pair, cell], abs=2e-4)
    assert added.sum(axis=0) == pytest.approx([0, 0], abs=1e-12)


def test_what_pairs_add_is_how_much_a_bootstrap_varies(random: np.random.Generator) -> None:
    """Of few pairs a bootstrap, whose samples have pairs twice, varies more than the truth."""
    count = 400
    gold = np.round(5 * random.random(count), 1)
    first = gold + 2 * random.standard_normal(count)
    values = np.stack([first, first + 0.3 * random.standard_normal(count)], axis=1)
    added = Correlations(gold, values).influence()
    drawn = []
    for _ in range(1500):
        some = random.integers(0, count, count)
        drawn.append([stats.spearmanr(gold[some], column[some])[0] for column in values.T])
    wanted = np.cov(drawn, rowvar=False)
    difference = np.array([-1.0, 1.0])
    for gradient in (np.array([1.0, 0.0]), difference):
        found = np.sqrt(gradient @ (added.T @ added) @ gradient)
        assert found == pytest.approx(np.sqrt(gradient @ wanted @ gradient), rel=0.08)


@pytest.mark.parametrize("decimals", [1, 4, 9])
def test_of_many_pairs_single_precision_is_enough(
    random: np.random.Generator, decimals: int
) -> None:
    """Of ten thousand pairs, those that few others or many equal."""
    gold = np.round(random.standard_normal(10_001), 1)
    values = np.round(gold[:, None] + random.standard_normal((10_001, 1)), decimals)
    correlations = Correlations(gold, values)
    counts = random.poisson(1, (10_001, 3)).astype(np.uint8)
    found = correlations.over(counts)[:, 0]
    for sample, one in zip(counts.T, found, strict=True):
        wanted = stats.spearmanr(np.repeat(gold, sample), np.repeat(values[:, 0], sample))[0]
        assert one == pytest.approx(wanted, abs=1e-7)
    whole = stats.spearmanr(gold, values[:, 0])[0]
    assert correlations.whole() == pytest.approx([whole], abs=1e-14)
