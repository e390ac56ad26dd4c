"""`uncertainty.sums`: intervals by scipy, by hand, and by how often they cover the truth."""

import numpy as np
import pytest
from scipy.stats import t

from lcbench.uncertainty.sums import Function, Interval, changed, estimates
from lcbench.uncertainty.variation import Grouped


def numbered(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)


def intervals(
    columns: list[np.ndarray],
    clusters: np.ndarray,
    functions: tuple[Function, ...],
    resamples: int = 2_000,
) -> list[Interval | None]:
    found = estimates(columns, Grouped.of(clusters), functions, resamples)
    return [ends for _, ends in found]


def mean(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 1:2] / sums[..., 0:1])


def ratio(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 1:2] / sums[..., 0:1] - 1)


def test_clusters_are_drawn_and_not_their_items() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=80)
    values, clusters = np.repeat(effects, 5), np.repeat(numbered(80), 5)
    ((low, high),) = intervals([np.ones(400), values], clusters, (mean,))
    # Five equal items say no more than one: the interval of 80.
    half = t.ppf(0.975, 79) * effects.std(ddof=1) / np.sqrt(80)
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)
    ((narrow_low, narrow_high),) = intervals([np.ones(400), values], numbered(400), (mean,))
    assert (high - low) / (narrow_high - narrow_low) == pytest.approx(np.sqrt(5), rel=0.08)


def test_few_clusters_have_students_t() -> None:
    values, clusters = (
        np.array([1.0, 3.0, 2.0, 6.0, 4.0]),
        np.array([0, 0, 1, 1, 2], dtype=np.uint64),
    )
    ((low, high),) = intervals([np.ones(5), values], clusters, (mean,))
    # A ratio of two sums over three clusters, by linearisation.
    residuals = np.array([4 - 2 * 3.2, 8 - 2 * 3.2, 4 - 1 * 3.2])
    half = t.ppf(0.975, 2) * np.sqrt(3 * residuals.var(ddof=1)) / 5
    assert (low, high) == pytest.approx((3.2 - half, 3.2 + half), rel=1e-6)
    assert intervals([np.ones(5), values], np.zeros(5, dtype=np.uint64), (mean,)) == [None]


def test_texts_and_draws_are_crossed_and_their_interaction_counts_once() -> None:
    rng = np.random.default_rng(1)
    raw = (rng.random((60, 10)) < 0.7).astype(float)
    ours = np.where(rng.random((60, 10)) < 0.2, rng.random((60, 10)) < 0.9, raw).astype(float)
    ours[:, 3] = 1
    ((low, high),) = intervals([raw, ours], numbered(60), (ratio,))
    # By the mean squares of a two-way layout, of the linearised ratio.
    y = ours / raw.mean() - raw * ours.mean() / raw.mean() ** 2
    rows, columns, grand = y.mean(axis=1), y.mean(axis=0), y.mean()
    of_text = 10 * ((rows - grand) ** 2).sum() / 59
    of_draw = 60 * ((columns - grand) ** 2).sum() / 9
    rest = ((y - rows[:, None] - columns + grand) ** 2).sum() / (59 * 9)
    assert min(of_text, of_draw) > rest
    variance = (of_text + of_draw - rest) / 600
    degrees = (of_text + of_draw - rest) ** 2 / (
        of_text**2 / 59 + of_draw**2 / 9 + rest**2 / (59 * 9)
    )
    value, half = ours.mean() / raw.mean() - 1, t.ppf(0.975, degrees) * np.sqrt(variance)
    assert (low, high) == pytest.approx((value - half, value + half), rel=1e-5)


def test_a_function_that_gives_no_number_is_followed_by_the_next() -> None:
    rng = np.random.default_rng(2)
    raw, ours = (rng.random((2, 40)) < 0.04).astype(float)
    raw[0] = 1

    def over_own(sums: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(sums[..., 1:2] / sums[..., 0:1])

    def over_as_it_is(sums: np.ndarray) -> np.ndarray:
        return np.asarray(sums[..., 1:2] / raw.sum())

    columns, clusters = [raw, ours + 1], numbered(40)
    assert intervals(columns, clusters, (over_own,)) == [None]
    (ends,) = intervals(columns, clusters, (over_own, over_as_it_is))
    assert ends is not None
    assert ends == intervals(columns, clusters, (over_as_it_is,))[0]


def test_sums_and_changes_count_units() -> None:
    column = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    sums = estimates([np.ones(3), column], Grouped.of(numbered(3)), (np.asarray,), resamples=0)
    assert sums == [(3, None), (1.5, None)]
    change = np.array([0.1, 0.2, -0.3, 0.5, -0.5, 0, 0.0, -1])
    # The first three cancel, but for rounding; so do the next two.
    clusters = np.array([0, 0, 0, 1, 1, 2, 3, 3], dtype=np.uint64)
    assert changed(change, Grouped.of(clusters)) == (0, 1)
    assert changed(change, Grouped.of(numbered(8))) == (3, 3)


@pytest.mark.parametrize("draws", [0, 10])
def test_95_of_100_intervals_cover_the_truth(draws: int) -> None:
    """A slope over 200 clusters, and over 60 texts crossed with 10 draws; 2,000 runs."""
    rng = np.random.default_rng(3)
    runs, covered = 2_000, 0
    for _ in range(runs):
        count = 60 if draws else 200
        x = rng.normal(size=count)
        noise = rng.normal(size=count) * (1 + 0.5 * np.abs(x))
        y = 0.3 * x + noise
        across = x
        if draws:
            of_draw = rng.normal(size=draws)
            y = y[:, None] + 0.3 * of_draw * x[:, None] + rng.normal(size=(count, draws))
            across = x[:, None]

        def slope(sums: np.ndarray) -> np.ndarray:
            one, x, xx, y, xy = np.moveaxis(sums, -1, 0)
            return np.asarray(((one * xy - x * y) / (one * xx - x**2))[..., None])

        columns = [np.ones(count), x, x**2, y, y * across]
        ((low, high),) = intervals(columns, numbered(count), (slope,), resamples=1_000)
        covered += low <= 0.3 <= high
    assert covered / runs > 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs) - 0.01
