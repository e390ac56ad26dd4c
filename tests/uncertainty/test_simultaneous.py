"""`lcbench.uncertainty.simultaneous`: against known quantiles, by enumeration, in simulations."""

import itertools

import numpy as np
import pytest
from scipy import stats

from lcbench.uncertainty.simultaneous import critical_values, critical_values_of_means

NORMAL = float(stats.norm.ppf(0.975))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(4)


def test_of_one_quantity_it_is_the_normal_value(random: np.random.Generator) -> None:
    assert critical_values(random.standard_normal((100, 1)), 0.95) == [NORMAL]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_of_independent_quantities_it_is_sidaks(count: int, random: np.random.Generator) -> None:
    draws = 5.0 + np.array([0.1, 3.0, 20.0] * 2)[:count] * random.standard_normal((200_000, count))
    each = 0.95 ** (1 / count)
    assert critical_values(draws, 0.95) == pytest.approx([stats.norm.ppf((1 + each) / 2)], abs=0.02)


def test_of_equal_quantities_it_is_that_of_one(random: np.random.Generator) -> None:
    draws = np.repeat(random.standard_normal((200_000, 1)), 5, axis=1)
    assert critical_values(draws, 0.95) == pytest.approx([NORMAL], abs=0.01)


def test_what_does_not_vary_is_left_out(random: np.random.Generator) -> None:
    draws = random.standard_normal((1000, 3))
    still = np.concatenate([draws, np.full((1000, 2), 7.0)], axis=1)
    assert critical_values(still, 0.95) == critical_values(draws, 0.95)
    assert critical_values(np.zeros((1000, 4)), 0.95) == [NORMAL]


def test_of_means_it_is_the_largest_of_all_choices(random: np.random.Generator) -> None:
    groups = [random.standard_normal((4000, 3)) * [1, 2, 5], random.standard_normal((4000, 2))]
    sums = [
        groups[0][:, first] + groups[1][:, second]
        for first, second in itertools.product(range(3), range(2))
    ]
    largest = np.max([np.abs(one - one.mean()) / one.std() for one in sums], axis=0)
    wanted = float(np.quantile(largest, 0.95))
    assert critical_values_of_means(groups, 0.95) == pytest.approx([wanted], rel=1e-9)


def test_of_means_of_one_choice_it_is_the_normal_value(random: np.random.Generator) -> None:
    groups = [random.standard_normal((100, 1))] * 3
    assert critical_values_of_means(groups, 0.95) == [NORMAL]


def test_of_too_many_choices_it_is_bonferronis(random: np.random.Generator) -> None:
    groups = [random.standard_normal((100, 6))] * 10
    wanted = stats.norm.isf(0.025 / 6**10)
    assert critical_values_of_means(groups, 0.95) == pytest.approx([wanted])
