"""`uncertainty.covariance` against closed forms, and against the bootstraps of scipy and numpy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_cells import standard_error, task_samples
from report_cells import item_rows, write_cell
from scipy import stats

from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant, Policy
from lcbench.uncertainty.covariance import HALF_WIDTH, noise_of, ratio_error


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


def mean_cell(
    results: Results,
    *parts: tuple[str, str, Sequence[float]],
    policy: Policy = BASELINE,
    gold: Sequence[str] | None = None,
    **more: Any,
) -> CellFiles:
    """A cell whose score is the mean of its items, by split and subset."""
    rows = []
    for split, subset, scores in parts:
        labels = {} if gold is None else {"gold": gold}
        rows += item_rows(scores, split, subset, **labels)
    entries = {(split, subset): {"main_score": np.mean(values)} for split, subset, values in parts}
    return write_cell(results, "NFCorpus", entries, rows, policy=policy, **more)


def pair_cell(
    results: Results, gold: Any, cosines: Any, policy: Policy = BASELINE, **more: Any
) -> CellFiles:
    rows = item_rows(
        list(cosines), gold=[str(one) for one in gold], tokens_2=[5] * len(gold), **more
    )
    score = float(stats.spearmanr(gold, cosines)[0])
    return write_cell(results, "STS13", score, rows, policy=policy)


def covariance(cells: Sequence[CellFiles | None]) -> np.ndarray:
    """The covariances of cells' scores, from the variances of sums of two of them."""
    read = task_samples(files for files in cells if files is not None)
    noise, places = noise_of(cells, read), range(len(cells))
    own = [noise.variance({place: 1.0}) for place in places]
    return np.array(
        [
            [
                own[one]
                if one == two
                else (noise.variance({one: 1.0, two: 1.0}) - own[one] - own[two]) / 2
                for two in places
            ]
            for one in places
        ]
    )


def test_half_a_95_percent_interval() -> None:
    assert pytest.approx(stats.norm.ppf(0.975), abs=1e-6) == HALF_WIDTH


def test_a_mean_of_items_has_the_standard_error_of_the_mean(
    results: Results, random: np.random.Generator
) -> None:
    scores = random.random(60)
    files = mean_cell(results, ("test", "default", scores))
    assert standard_error(files) == pytest.approx(stats.sem(scores), rel=1e-12)


def test_the_errors_of_subsets_and_splits_combine_as_their_means_do(
    results: Results, random: np.random.Generator
) -> None:
    de, fr, other = random.random(40), random.random(25), random.random(30)
    files = mean_cell(results, ("test", "de", de), ("test", "fr", fr), ("dev", "de", other))
    test = np.hypot(stats.sem(de), stats.sem(fr)) / 2
    assert standard_error(files) == pytest.approx(np.hypot(test, stats.sem(other)) / 2, rel=1e-12)


def test_translations_of_the_same_items_are_one_sample(
    results: Results, random: np.random.Generator
) -> None:
    en = random.random(40)
    de = np.clip(en + 0.05 * random.standard_normal(40), 0, 1)
    gold = [f"label {number % 7}" for number in range(40)]
    files = mean_cell(results, ("test", "en", en), ("test", "de", de), gold=gold)
    error = standard_error(files)
    assert error == pytest.approx(stats.sem((en + de) / 2), rel=1e-12)
    # Taken as independent, two nearly equal samples would seem to know more than one.
    assert error > 1.3 * np.hypot(stats.sem(en), stats.sem(de)) / 2


def test_the_draws_that_classifiers_learn_from_are_part_of_the_noise(
    results: Results, random: np.random.Generator
) -> None:
    right = random.random((10, 50)) < np.linspace(0.5, 0.8, 10)[:, None]
    accuracies, shares = right.mean(axis=1), right.mean(axis=0)
    entry = {
        "main_score": right.mean(),
        "scores_per_experiment": [{"accuracy": one} for one in accuracies],
    }
    files = write_cell(
        results, "Banking77Classification", {("test", "default"): entry}, item_rows(list(shares))
    )
    wanted = np.hypot(stats.sem(shares), stats.sem(accuracies))
    assert standard_error(files) == pytest.approx(wanted, rel=1e-12)
    assert wanted > 1.2 * stats.sem(shares)


def test_what_texts_and_draws_share_is_counted_once(
    results: Results, random: np.random.Generator
) -> None:
    """By the mean squares of the two-way layout, as `bootstrap` has it."""
    right = random.random((10, 50)) < np.linspace(0.5, 0.8, 10)[:, None]
    entry = {
        "main_score": right.mean(),
        "scores_per_experiment": [{"accuracy": one} for one in right.mean(axis=1)],
    }
    bits = [int(sum(1 << place for place in np.flatnonzero(column))) for column in right.T]
    rows = item_rows(list(right.mean(axis=0)), right=bits)
    files = write_cell(results, "Banking77Classification", {("test", "default"): entry}, rows)
    left = right - right.mean(axis=0) - right.mean(axis=1)[:, None] + right.mean()
    both = (left**2).sum() / (9 * 49) / 500
    wanted = stats.sem(right.mean(axis=0)) ** 2 + stats.sem(right.mean(axis=1)) ** 2 - both
    assert standard_error(files) == pytest.approx(np.sqrt(wanted), rel=1e-9)
    assert both > 0.1 * wanted


def test_clustering_is_a_mean_over_sets(results: Results) -> None:
    measures = [0.31, 0.35, 0.28, 0.40]
    entry = {"main_score": float(np.mean(measures)), "v_measures": measures}
    files = write_cell(results, "ArxivClusteringP2P", {("test", "default"): entry})
    assert standard_error(files) == pytest.approx(stats.sem(measures), rel=1e-12)


def test_one_set_says_nothing_of_the_noise(results: Results) -> None:
    entry = {"main_score": 0.3, "v_measures": [0.3]}
    files = write_cell(results, "ArxivClusteringP2P", {("test", "default"): entry})
    assert standard_error(files) is None


def test_sts_agrees_with_the_bootstrap_of_scipy(
    results: Results, random: np.random.Generator
) -> None:
    gold = np.round(5 * random.random(150), 1)
    cosines = gold / 5 + 0.2 * random.standard_normal(150)
    wanted = stats.bootstrap(
        (gold, cosines),
        lambda a, b: stats.spearmanr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).standard_error
    files = pair_cell(results, gold, cosines)
    # A bootstrap of 1,000 knows its standard error to some 2 %.
    assert standard_error(files) == pytest.approx(wanted, rel=0.12)
    assert standard_error(files) == standard_error(files)


@pytest.mark.parametrize("missing", ["no items", "another score", "an item without a score", "one"])
def test_what_is_unknown(results: Results, missing: str) -> None:
    scores: list[Any] = [0.2, 0.4, 0.9]
    rows, score = item_rows(scores), 0.5
    if missing == "no items":
        rows = None
    elif missing == "another score":
        score = 0.51
    elif missing == "an item without a score":
        rows[1]["score"] = None
    else:
        rows, score = rows[:1], 0.2
    files = write_cell(results, "SummEval", score, rows)
    assert standard_error(files) is None


def test_a_broken_file_is_unknown_noise(results: Results) -> None:
    files = mean_cell(results, ("test", "default", [0.1, 0.2]))
    files.items.write_bytes(b"PAR1")
    assert standard_error(files) is None


def test_paired_means(results: Results, random: np.random.Generator) -> None:
    raw = random.random(80)
    ours = np.clip(raw + 0.1 * random.standard_normal(80), 0, 1)
    cells = [
        mean_cell(results, ("test", "default", raw)),
        None,
        mean_cell(results, ("test", "default", ours), policy=Constant(0.8)),
    ]
    found = covariance(cells)
    assert found[np.ix_([0, 2], [0, 2])] == pytest.approx(np.cov(raw, ours) / 80, rel=1e-12)
    assert np.isnan(found[1]).all()
    # What pairing is for: the difference is far less noisy than two independent scores'.
    difference = found[0, 0] + found[2, 2] - 2 * found[0, 2]
    assert np.sqrt(difference) == pytest.approx(stats.sem(ours - raw), rel=1e-9)


def test_items_are_paired_by_their_ids_and_not_by_their_places(
    results: Results, random: np.random.Generator
) -> None:
    raw, ours = random.random(30), random.random(30)
    first = mean_cell(results, ("test", "default", raw))
    rows = item_rows(list(ours))
    second = write_cell(results, "NFCorpus", float(ours.mean()), rows[::-1], policy=Constant(0.8))
    assert covariance([first, second]) == pytest.approx(np.cov(raw, ours) / 30, rel=1e-12)


@pytest.mark.parametrize("other", ["ids", "gold", "dataset"])
def test_other_items_are_not_paired(
    results: Results, other: str, random: np.random.Generator
) -> None:
    raw, ours = random.random(30), random.random(30)
    first = write_cell(results, "NFCorpus", raw.mean(), item_rows(list(raw), gold=["a"] * 30))
    rows = item_rows(list(ours), gold=["b" if other == "gold" else "a"] * 30)
    if other == "ids":
        rows[0]["id"] = "another"
    second = write_cell(
        results,
        "NFCorpus",
        ours.mean(),
        rows,
        policy=Constant(0.8),
        dataset_revision="moved" if other == "dataset" else "data",
    )
    found = covariance([first, second])
    assert np.sqrt(np.diag(found)) == pytest.approx([stats.sem(raw), stats.sem(ours)], rel=1e-12)
    assert np.isnan(found[0, 1])
    assert np.isnan(found[1, 0])


def test_paired_sts_agrees_with_the_bootstrap_of_scipy(
    results: Results, random: np.random.Generator
) -> None:
    gold = random.random(120)
    raw = gold + 0.4 * random.standard_normal(120)
    ours = raw + 0.1 * random.standard_normal(120)
    found = covariance(
        [pair_cell(results, gold, raw), pair_cell(results, gold, ours, policy=Constant(0.8))]
    )
    wanted = stats.bootstrap(
        (gold, raw, ours),
        lambda g, a, b: stats.spearmanr(g, b)[0] - stats.spearmanr(g, a)[0],
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).standard_error
    paired = np.sqrt(found[0, 0] + found[1, 1] - 2 * found[0, 1])
    assert paired == pytest.approx(wanted, rel=0.12)
    assert paired < 0.5 * np.sqrt(found[0, 0] + found[1, 1])


def test_paired_clusterings(results: Results) -> None:
    raw, ours = [0.31, 0.35, 0.28, 0.40], [0.33, 0.36, 0.31, 0.41]
    cells = [
        write_cell(
            results,
            "ArxivClusteringP2P",
            {("test", "default"): {"main_score": float(np.mean(values)), "v_measures": values}},
            policy=policy,
        )
        for values, policy in ((raw, BASELINE), (ours, Constant(0.8)))
    ]
    assert covariance(cells) == pytest.approx(np.cov(raw, ours) / 4, rel=1e-12)


def test_a_ratio_of_equal_counts_is_a_mean_of_means(random: np.random.Generator) -> None:
    sums = random.random(25) * 4
    assert ratio_error(sums, np.full(25, 4.0)) == pytest.approx(stats.sem(sums / 4), rel=1e-12)
    assert ratio_error(sums[:1], np.ones(1)) is None


def test_a_ratio_agrees_with_the_bootstrap_of_scipy(random: np.random.Generator) -> None:
    counts = random.integers(1, 6, 200).astype(float)
    sums = counts * (10 + 3 * random.standard_normal(200))
    wanted = stats.bootstrap(
        (sums, counts),
        lambda s, c, axis: s.sum(axis) / c.sum(axis),
        paired=True,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).standard_error
    assert ratio_error(sums, counts) == pytest.approx(wanted, rel=0.06)
