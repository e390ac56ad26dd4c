"""`lcbench.uncertainty.power`: against simulated experiments."""

import numpy as np
import pytest
from scipy import stats

from lcbench.uncertainty.power import bound, detectable, needed, probability

NORMAL = float(stats.norm.ppf(0.975))


def test_a_detectable_effect_is_found_in_four_of_five_runs() -> None:
    error = 0.354
    effect = detectable(error, NORMAL)
    # The audit's figure for the demo's Avg: an error of 0.354 finds 0.99 %.
    assert effect == pytest.approx(0.99, abs=0.005)
    seen = effect + error * np.random.default_rng(0).standard_normal(100_000)
    assert np.mean(seen - NORMAL * error > 0) == pytest.approx(0.8, abs=0.005)
    assert probability(effect, error, NORMAL) == pytest.approx(0.8)


def test_the_papers_gain_would_be_seen_in_a_third_of_such_runs() -> None:
    assert probability(0.53, 0.354, NORMAL) == pytest.approx(0.32, abs=0.005)
    assert probability(-0.53, 0.354, NORMAL) == probability(0.53, 0.354, NORMAL)


def test_without_noise_any_effect_is_found() -> None:
    assert (probability(0.1, 0.0, NORMAL), probability(0.0, 0.0, NORMAL)) == (1.0, 0.0)


def test_items_are_needed_by_the_square() -> None:
    # 260 queries find 1.51 %: 2,400 are needed for 0.5 %.
    assert needed(260, 1.51, 0.5) == pytest.approx(2400, abs=30)


def test_the_true_effect_is_beyond_the_bound_in_at_most_one_of_twenty() -> None:
    random, error, critical = np.random.default_rng(1), 1.0, float(stats.norm.ppf(0.95))
    for effect in (0.0, 0.7, 3.0):
        seen = effect + error * random.standard_normal(50_000)
        beyond = np.mean([abs(effect) > bound(float(one), error, critical) for one in seen])
        assert beyond <= 0.053
