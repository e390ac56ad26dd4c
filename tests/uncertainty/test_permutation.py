"""`lcbench.uncertainty.permutation` against enumeration, the sign test, and Monte Carlo."""

import numpy as np
import pytest
from scipy import stats

from lcbench.uncertainty import permutation
from lcbench.uncertainty.permutation import LEAST, sign_flip_p


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


NDCG = np.append(0, 1 / np.log2(np.arange(2, 12)))


def sampled(differences: np.ndarray, noise: float, times: int) -> float:
    """The share of random sign patterns, and of normal noise, that make as much of it."""
    random = np.random.default_rng(5)
    reached, observed = 0, abs(differences.sum()) - 1e-9
    for _ in range(times // 10_000):
        signs = random.choice([-1.0, 1.0], (10_000, len(differences)))
        sums = signs @ differences + noise * random.standard_normal(10_000)
        reached += int((np.abs(sums) >= observed).sum())
    return reached / times


def enumerated(values: np.ndarray, observed: float, at_most: int = 2**20) -> float:
    """From all sums, of which there are at most so many of each half."""
    sizes, times = permutation._sizes(values)
    halves = permutation._halves(times, at_most)
    assert halves is not None
    return permutation._enumerated(sizes, times, halves, observed)


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
    numbers = numbers[numbers != 0]
    observed = abs(float(numbers.sum())) - 1e-9
    exact = enumerated(numbers.astype(float), observed)
    assert permutation._on_lattice(numbers, observed) == pytest.approx(exact, rel=1e-9)


def test_every_sign_pattern_is_counted_once(random: np.random.Generator) -> None:
    """Sizes that come often are counted together; here each pattern by itself."""
    values = random.choice([0.3, -0.3, 1.0, np.pi], 14)
    signs = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    wanted = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-9)
    assert sign_flip_p(values) == pytest.approx(wanted, rel=1e-12)
    assert enumerated(values, abs(values.sum()) - 1e-9) == pytest.approx(wanted, rel=1e-12)


def test_few_units_of_few_values_are_exact(random: np.random.Generator) -> None:
    """Differences of nDCG: single sums are likely, half of which an inversion takes away."""
    found = []
    for units in (31, 33, 35, 38):
        for levels in (4, 6):
            of = NDCG[:levels]
            differences = random.choice(of, units) - random.choice(of, units) + 0.0
            differences[: units // 4] = np.abs(differences[: units // 4])
            if np.any(differences):
                values = differences[differences != 0]
                observed = abs(values.sum()) - 1e-10 * np.abs(values).sum()
                exact = min(1.0, enumerated(values, observed, 2**22))
                assert sign_flip_p(differences) == pytest.approx(exact, rel=1e-9)
                found.append(abs(permutation._inverted(values, observed) / exact - 1))
    # What it would be otherwise.
    assert max(found) > 0.005


def test_many_units_of_few_values_are_exact(random: np.random.Generator) -> None:
    differences = random.choice([1.0, -0.9, np.sqrt(2), -np.sqrt(2)], 300)
    found = sign_flip_p(differences)
    wanted = sampled(differences, 0.0, 100_000)
    assert found == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / 100_000))


@pytest.mark.parametrize("units", [36, 40])
def test_the_inversion_is_as_good_as_it_says(random: np.random.Generator, units: int) -> None:
    for _ in range(5):
        differences = random.choice(NDCG, units) - random.choice(NDCG, units)
        differences[:9] = np.abs(differences[:9])
        values = differences[differences != 0]
        observed = abs(values.sum()) - 1e-10 * np.abs(values).sum()
        exact = enumerated(values, observed, 2**21)
        if exact < 1 and permutation._halves(permutation._sizes(values)[1], 2**17) is None:
            assert permutation._inverted(values, observed) == pytest.approx(exact, rel=3e-3)


def test_the_characteristic_function_agrees_with_enumeration(random: np.random.Generator) -> None:
    units = random.normal(0.25, 1, 26)
    observed = abs(float(units.sum()))
    exact = enumerated(units, observed - 1e-9)
    assert 1e-3 < exact < 0.5
    # Never less: what made it fall to nothing is paid for.
    assert exact * (1 - 1e-6) <= permutation._inverted(units, observed) < exact * 1.02


@pytest.mark.parametrize("kind", ["nDCG", "accuracy", "one outweighs"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_many_units_agree_with_monte_carlo(
    random: np.random.Generator, kind: str, share: float
) -> None:
    if kind == "nDCG":
        differences = random.choice(NDCG, 300) - random.choice(NDCG, 300) + 0.02
    elif kind == "one outweighs":
        differences = np.append(random.normal(0, 0.1, 60), [3.0, -1])
    else:
        differences = random.integers(-3, 4, 200) / 10
        differences[:12] = 0.3
    noise = share * float(np.sqrt(differences @ differences))
    found, times = sign_flip_p(differences, noise), 100_000
    wanted = sampled(differences, noise, times)
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
def test_noise_makes_p_larger_and_noise_of_unknown_size_more_so(
    random: np.random.Generator, units: int
) -> None:
    differences = random.integers(-3, 5, units) / 10 / units
    noise = 0.6 * float(np.sqrt(differences @ differences))
    known = sign_flip_p(differences, noise)
    assert sign_flip_p(differences) < known < sign_flip_p(differences, noise, 20)
    # The same quantile of another distribution.
    quantile = stats.norm.isf(known / 2)
    assert sign_flip_p(differences, noise, 20) == pytest.approx(2 * stats.t.sf(quantile, 20))


def test_noise_of_unknown_size_alone_is_students_t() -> None:
    differences = np.append(np.full(1000, 1e-3), 0.0)
    found = sign_flip_p(differences, 0.4, 9)
    assert found == pytest.approx(2 * stats.t.sf(2.5, 9), rel=0.02)


def test_p_is_uniform_where_there_is_no_difference(random: np.random.Generator) -> None:
    found = [sign_flip_p(random.normal(0, 1, 40)) for _ in range(500)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
