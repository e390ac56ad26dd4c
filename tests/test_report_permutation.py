"""`lcbench.report.permutation` against enumeration, the sign test, and Monte Carlo."""

import numpy as np
import pytest
from scipy import stats

from lcbench.report import permutation
from lcbench.report.permutation import LEAST, sign_flip_p


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


def sampled(differences: np.ndarray, spread: np.ndarray, times: int) -> float:
    """The share of random sign patterns that make as much of it."""
    random = np.random.default_rng(5)
    units = np.concatenate([differences, spread])
    reached = 0
    for _ in range(times // 10_000):
        signs = random.choice([-1.0, 1.0], (10_000, len(units)))
        reached += int((np.abs(signs @ units) >= abs(differences.sum()) - 1e-9).sum())
    return reached / times


@pytest.mark.parametrize("units", [2, 5, 9, 12])
def test_few_units_agree_with_scipys_enumeration(random: np.random.Generator, units: int) -> None:
    differences = random.normal(0.4, 1, units)
    wanted = stats.permutation_test(
        (differences,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("units", [20, 100, 1000, 20_000])
def test_right_and_wrong_answers_agree_with_the_sign_test(
    random: np.random.Generator, units: int
) -> None:
    differences = random.choice([-1, 0, 1], units, p=[0.24, 0.5, 0.26])
    up, unequal = int((differences > 0).sum()), int((differences != 0).sum())
    wanted = stats.binomtest(up, unequal).pvalue
    assert sign_flip_p(differences / units) == pytest.approx(wanted, rel=1e-8)


def test_a_lattice_agrees_with_enumeration(random: np.random.Generator) -> None:
    numbers = random.integers(-5, 8, 22)
    observed = abs(float(numbers.sum())) - 1e-9
    shifts = permutation._sums(random.normal(0, 3, 4))
    exact = permutation._enumerated(numbers.astype(float), observed)
    assert permutation._on_lattice(numbers, observed, np.zeros(1)) == pytest.approx(exact, rel=1e-9)
    everywhere = [
        np.mean(np.abs(permutation._sums(numbers[numbers != 0].astype(float)) + one) >= observed)
        for one in shifts
    ]
    found = permutation._on_lattice(numbers, observed, shifts)
    assert found == pytest.approx(np.mean(everywhere), rel=1e-9)


def test_the_characteristic_function_agrees_with_enumeration(random: np.random.Generator) -> None:
    units = random.normal(0.25, 1, 26)
    observed, deviation = abs(float(units.sum())), float(np.sqrt(units @ units))
    exact = permutation._enumerated(units, observed - 1e-9)
    found = permutation._inverted(units, observed, deviation)
    assert 1e-3 < exact < 0.5
    assert found == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("kind", ["nDCG", "accuracy", "accuracy and experiments", "one outweighs"])
def test_many_units_agree_with_monte_carlo(random: np.random.Generator, kind: str) -> None:
    spread = np.zeros(0)
    if kind == "nDCG":
        levels = np.append(0, 1 / np.log2(np.arange(2, 12)))
        differences = random.choice(levels, 300) - random.choice(levels, 300) + 0.02
    elif kind == "one outweighs":
        differences = np.append(random.normal(0, 0.1, 60), [3.0, -1])
    else:
        differences = random.integers(-3, 4, 200) / 10
        differences[:12] = 0.3
        if kind == "accuracy and experiments":
            spread = random.normal(0, 0.8, 10)
    found, times = sign_flip_p(differences, spread), 100_000
    wanted = sampled(differences, spread, times)
    assert 0.001 < wanted < 0.9
    assert found == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / times))


def test_a_step_is_found_where_there_is_one() -> None:
    found = permutation._lattice(np.array([0.2, -0.3, 1.1, 0.7]) / 51)
    assert found is not None
    numbers, step = found
    assert numbers.tolist() == [2, -3, 11, 7]
    assert step == pytest.approx(0.1 / 51)
    assert permutation._lattice(np.array([1.0, np.sqrt(2), np.e])) is None


def test_what_does_not_differ_has_a_p_of_one() -> None:
    assert sign_flip_p([]) == 1
    assert sign_flip_p(np.zeros(50)) == 1
    assert sign_flip_p([0.1] * 40 + [-0.1] * 40) == 1
    # Only in floating point do these not add up to zero.
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1


def test_a_single_unit_says_nothing() -> None:
    assert sign_flip_p([0.4]) == 1


def test_p_is_never_zero() -> None:
    assert sign_flip_p(np.ones(5000)) == LEAST
    assert sign_flip_p(np.linspace(1, 2, 5000)) == LEAST
    assert sign_flip_p(np.ones(20)) == pytest.approx(2 / 2**20, rel=1e-12)


@pytest.mark.parametrize("units", [25, 400])
def test_the_spread_of_experiments_makes_p_larger(random: np.random.Generator, units: int) -> None:
    differences = random.integers(-3, 5, units) / 10 / units
    without = sign_flip_p(differences)
    spread = 2 * np.sqrt(differences @ differences) * np.linspace(-1, 1, 10)
    assert sign_flip_p(differences, spread) > without
    assert sign_flip_p(differences, spread * 0) == without


def test_p_is_uniform_where_there_is_no_difference(random: np.random.Generator) -> None:
    found = [sign_flip_p(random.normal(0, 1, 40)) for _ in range(500)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
