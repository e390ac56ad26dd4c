"""`uncertainty.bootstrap` where items are linked: clusters are what is drawn and flipped."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from read_cells import analysed_table, samples_of
from report_cells import BGE, item_rows, relevant, share, write_cell
from scipy import stats

from lcbench.reporting.intervals import compare_pair
from lcbench.reporting.statistics import TableStatistics
from lcbench.reporting.table1 import build_tables
from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant
from lcbench.uncertainty.bootstrap import Resampled, interval, resample, weights
from lcbench.uncertainty.clusters import numbered
from lcbench.uncertainty.items import Sample

Data = np.ndarray
PART = ("test", "default")
LABEL = "bge-base-en-v1.5"


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


# --- weights ---------------------------------------------------------------------------------


def test_weights_are_poisson_and_independent() -> None:
    drawn = weights(numbered(400, "clusters"), slice(0, 5000), 0).astype(float)
    assert drawn.shape == (400, 5000)
    for times in range(6):
        chance = stats.poisson.pmf(times, 1)
        # Of two million, within five standard errors.
        assert abs((drawn == times).mean() - chance) < 5 * np.sqrt(chance / drawn.size)
    # Sums of clusters and of samples vary as sums of independent values.
    assert drawn.sum(axis=0).var() == pytest.approx(400, rel=0.1)
    assert drawn.sum(axis=1).var() == pytest.approx(5000, rel=0.3)
    for lag in (1, 2, 3, 4, 8):
        first, second = drawn[:, :-lag].ravel(), drawn[:, lag:].ravel()
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
    first, second = drawn[:-1].ravel(), drawn[1:].ravel()
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)


def test_a_weight_goes_by_seed_cluster_and_sample_alone() -> None:
    clusters = numbered(7, "clusters")
    whole = weights(clusters, slice(0, 103), 5)
    some = weights(clusters[[4, 2]], slice(40, 90), 5)
    assert np.array_equal(some, whole[[4, 2], 40:90])
    assert not np.array_equal(weights(clusters, slice(0, 103), 6), whole)


# --- means over clusters ---------------------------------------------------------------------


def grouped(
    raw: Data, ours: Data, clusters: Sequence[Any], resamples: int = 500, seed: int = 0
) -> Resampled:
    """Two cells whose items are of clusters of these numbers."""
    cells = [{PART: Sample(("i",), values, units="queries")} for values in (raw, ours)]
    numbers = numbered(int(np.max(clusters)) + 1, "clusters")[np.asarray(clusters)]
    drawn = resample(cells, resamples, seed, "task", [numbers])
    assert drawn is not None
    return drawn


def cluster_variance(values: Data, clusters: Data) -> float:
    """The usual cluster-robust variance of a mean: C / (C − 1) Σ (sum of residuals)² / N²."""
    residuals = pd.Series(values - values.mean()).groupby(clusters).sum()
    many = len(residuals)
    return float(many / (many - 1) * (residuals**2).sum() / len(values) ** 2)


def test_a_draw_is_the_ratio_of_weighted_sums(random: np.random.Generator) -> None:
    clusters = random.permutation(np.arange(40) % 9)
    raw, ours = random.random((2, 40))
    found = grouped(raw, ours, clusters, 40_000)
    times = weights(numbered(9, "clusters"), slice(0, 40_000), 0)[clusters]
    for cell, values in enumerate((raw, ours)):
        sums, counts = (times * values[:, None]).sum(axis=0), times.sum(axis=0)
        # Where nothing was drawn: the score itself.
        wanted = np.where(counts > 0, sums / np.maximum(counts, 1), values.mean())
        assert found.draws[:, cell] == pytest.approx(wanted, rel=1e-6)
        assert (counts == 0).any()
    assert (found.count, found.clusters, found.grouped) == (40, 9, "documents")


def test_the_variance_is_that_of_clusters(random: np.random.Generator) -> None:
    clusters = np.sort(random.integers(0, 60, 500))
    raw = random.random(500) + 0.3 * random.standard_normal(60)[clusters]
    ours = raw + 0.1 * random.standard_normal(60)[clusters] + 0.1 * random.standard_normal(500)
    found = grouped(raw, ours, clusters, 8000)
    (one,) = found.variations
    gradient = np.array([-1.0, 1.0])
    wanted = cluster_variance(ours - raw, clusters)
    assert gradient @ one.covariance @ gradient == pytest.approx(wanted, rel=1e-9)
    assert one.degrees == len(np.unique(clusters)) - 1
    assert np.diff(found.draws).var() == pytest.approx(wanted, rel=0.06)
    # Had each query been drawn by itself, much less.
    alone = grouped(raw, ours, np.arange(500), 8000)
    assert np.diff(alone.draws).var() == pytest.approx((ours - raw).var() / 500, rel=0.06)
    assert wanted > 1.5 * (ours - raw).var() / 500


@pytest.mark.parametrize(
    ("many", "times"),
    [(40, 300), pytest.param(40, 3000, marks=pytest.mark.exhaustive)]
    + [pytest.param(many, 2000, marks=pytest.mark.exhaustive) for many in (6, 12, 100, 200)],
)
def test_the_interval_of_clustered_queries_covers_the_truth_in_95_of_100(
    many: int, times: int
) -> None:
    """Documents with 1 to 15 queries, which fare alike; queries alone would cover 80 of 100."""
    random, covered = np.random.default_rng(11), 0
    for seed in range(times):
        clusters = np.repeat(np.arange(many), random.integers(1, 16, many))
        raw = np.full(len(clusters), 0.5)
        noise = random.normal(0, 0.03, many)[clusters] + random.normal(0, 0.05, len(clusters))
        found = grouped(raw, raw + 0.01 + noise, clusters, 600, seed)
        before, after = found.scores
        gradient = np.array([-100 * after / before**2, 100 / before])
        improvements = 100 * (found.draws[:, 1] - found.draws[:, 0]) / found.draws[:, 0]
        low, high = interval(
            improvements.astype(float),
            found.stretch(gradient)[0],
            100 * (after / before - 1),
            found.deviation(gradient),
        )
        covered += low <= 2.0 <= high
    apart = 0.04 if times < 1000 else 0.02
    assert covered / times >= 0.95 - apart
    assert many < 20 or covered / times <= 0.95 + apart


def test_p_flips_clusters(random: np.random.Generator) -> None:
    clusters = np.array([0, 0, 0, 1, 2, 2, 3, 4, 5, 5, 5, 5, 6, 7, 7])
    raw = random.random(15)
    ours = raw + 0.05 + 0.1 * random.standard_normal(15)
    sums = np.bincount(clusters, weights=ours - raw)
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=8)]
    wanted = np.mean(np.array(flipped) >= abs(sums.sum()) - 1e-12)
    assert grouped(raw, ours, clusters).p_value(0, 1) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("times", [100, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_p_is_uniform_where_clusters_do_not_gain(times: int) -> None:
    random, found = np.random.default_rng(5), []
    for _ in range(times):
        clusters = np.repeat(np.arange(30), random.integers(1, 8, 30))
        swing = random.normal(0, 0.05, 30)[clusters] + random.normal(0, 0.02, len(clusters))
        raw = random.random(len(clusters))
        found.append(grouped(raw, raw + swing, clusters, 4).p_value(0, 1))
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_pairs_of_one_cluster_come_together(random: np.random.Generator) -> None:
    """Each pair twice: the bootstrap varies as that of the pairs once, and p is the same."""
    gold = random.random(60)
    cosines = [gold + 0.5 * random.standard_normal(60) for _ in range(2)]
    found = []
    for times in (1, 2):
        cells = [
            {PART: Sample(("i",), np.tile(one, times), gold=np.tile(gold, times), units="pairs")}
            for one in cosines
        ]
        drawn = resample(cells, 3000, 0, "t", [np.tile(numbered(60, "pairs"), times)])
        assert drawn is not None
        found.append(drawn)
    once, twice = found
    assert twice.draws == pytest.approx(once.draws, abs=1e-6)
    assert twice.variations[0].covariance == pytest.approx(once.variations[0].covariance, rel=1e-3)
    assert twice.p_value(0, 1) == pytest.approx(once.p_value(0, 1), rel=1e-6)
    assert (twice.count, twice.clusters, twice.grouped) == (120, 60, "groups")


def test_parts_that_share_clusters_vary_together(random: np.random.Generator) -> None:
    """Three lengths with the same queries are one sample of queries, not three."""
    hard = random.standard_normal(24)
    parts = {(f"test_{length}", "default"): None for length in (64, 128, 256)}
    cells = [
        {
            part: Sample((part, "i"), 0.5 + scale * hard + 0.01 * place, units="queries")
            for place, part in enumerate(parts)
        }
        for scale in (0.1, 0.13)
    ]
    same = numbered(24, "queries")
    found = resample(cells, 4000, 0, "t", [same] * 3)
    apart = resample(cells, 4000, 0, "t")
    assert found is not None
    assert apart is not None
    # The same values in all: as of one part.
    wanted = 0.03**2 * hard.var(ddof=1) / 24
    gradient = np.array([-1.0, 1.0])
    (one,) = found.variations
    assert gradient @ one.covariance @ gradient == pytest.approx(wanted)
    assert one.degrees == 23
    assert np.diff(found.draws).var() == pytest.approx(wanted, rel=0.12)
    assert [v.degrees for v in apart.variations] == [23] * 3
    assert sum(gradient @ v.covariance @ gradient for v in apart.variations) == pytest.approx(
        wanted / 3
    )
    assert (found.count, found.clusters, found.grouped) == (72, 24, "groups")
    assert (apart.count, apart.clusters) == (72, 72)


# --- texts and experiments -------------------------------------------------------------------


def of_texts(right: Data) -> Sample:
    """A classification; `right` has shape (texts, experiments)."""
    bits = (right.astype(np.uint16) << np.arange(right.shape[1], dtype=np.uint16)).sum(axis=1)
    return Sample(
        ("texts",), right.mean(axis=1), None, right.mean(axis=0), "texts", bits.astype(np.uint16)
    )


def crossed_variance(values: Data, clusters: Data) -> float:
    """(MS of texts + MS of experiments − MS of both) / (texts × experiments).

    Of clusters of texts; no less than texts, or experiments, show by themselves.
    """
    count, times = values.shape
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    of_texts = cluster_variance(values.mean(axis=1), clusters)
    of_experiments = values.mean(axis=0).var(ddof=1) / times
    sums = pd.DataFrame(left).groupby(clusters).sum().to_numpy()
    many = len(sums)
    of_both = (sums**2).sum() / count**2 * many / (many - 1) / times / (times - 1)
    return float(max(of_texts + of_experiments - of_both, of_texts, of_experiments))


@pytest.mark.parametrize("groups", [150, 60])
def test_what_texts_and_experiments_share_is_counted_once(
    random: np.random.Generator, groups: int
) -> None:
    clusters = np.arange(150) % groups
    easy, drawn = random.normal(0.5, 1, (150, 1)), random.random((150, 10))
    swing = random.normal(0, 0.1, (1, 10))
    raw = drawn < stats.norm.cdf(easy)
    ours = np.where(
        random.random((150, 10)) < 0.2, random.random((150, 10)), drawn
    ) < stats.norm.cdf(easy + 0.05 + swing)
    numbers = numbered(groups, "texts")[clusters]
    found = resample([{PART: of_texts(raw)}, {PART: of_texts(ours)}], 400, 0, "t", [numbers])
    assert found is not None
    gradient = np.array([-1.0, 1.0])
    wanted = crossed_variance(ours.astype(float) - raw, clusters)
    assert found.error(gradient) == pytest.approx(np.sqrt(wanted), rel=1e-9)
    twice = [one for one in found.variations if one.source != "both"]
    assert sum(gradient @ one.covariance @ gradient for one in twice) > 1.2 * wanted
    # Of a score by itself as well.
    wanted = crossed_variance(raw.astype(float), clusters)
    assert found.error(np.array([1.0, 0.0])) == pytest.approx(np.sqrt(wanted), rel=1e-9)


def test_an_estimate_below_what_texts_alone_show_is_that(random: np.random.Generator) -> None:
    # In every experiment as many texts are right, others in each: experiments do not vary at all.
    right = np.array([np.roll(np.arange(40) < 20, 4 * shift) for shift in range(10)]).T
    ours = ~right
    found = resample([{PART: of_texts(right)}, {PART: of_texts(ours)}], 400, 0, "t")
    assert found is not None
    score = np.array([1.0, 0.0])
    by_source = {one.source: score @ one.covariance @ score for one in found.variations}
    assert by_source["experiments"] == pytest.approx(0)
    assert by_source["both"] > 0
    assert found.error(score) ** 2 == pytest.approx(by_source["items"])


def test_right_answers_are_read_of_bits_and_of_older_predictions(results: Results) -> None:
    random = np.random.default_rng(1)
    right = random.random((30, 10)) < 0.7
    entry = {
        "main_score": float(right.mean()),
        "scores_per_experiment": [{"accuracy": float(one)} for one in right.mean(axis=0)],
    }
    bits = [int(sum(1 << place for place in np.flatnonzero(row))) for row in right]
    labels = ["a" if place % 2 else "b" for place in range(30)]
    predictions = [
        [label if one else "c" for one in row] for label, row in zip(labels, right, strict=True)
    ]
    values = list(right.mean(axis=1))
    newer = item_rows(values, gold=labels, right=bits, predictions=predictions)
    older = item_rows(values, gold=labels, predictions=predictions)
    for rows in (newer, older):
        samples = samples_of(write_cell(results, "Banking77Classification", {PART: entry}, rows))
        assert samples is not None
        found = samples[PART].right
        assert found is not None
        assert found.tolist() == bits
    # Predictions in another order than the accuracies say nothing of the experiments.
    turned = item_rows(values, gold=labels, predictions=[row[::-1] for row in predictions])
    samples = samples_of(write_cell(results, "Banking77Classification", {PART: entry}, turned))
    assert samples is not None
    assert samples[PART].right is None


# --- tables ----------------------------------------------------------------------------------


def read(results: Results, columns: dict[str, list[str]], resamples: int = 2000) -> TableStatistics:
    column_of = {task: column for column, tasks in columns.items() for task in tasks}

    def warn(message: str) -> None:
        raise AssertionError(message)

    scores = results.read(lambda task, _: column_of[task], warn)
    (table,) = build_tables(scores)
    return analysed_table(table, scores, resamples)


def cells_of(
    results: Results, task: str, raw: Data, ours: Data, shares: Sequence[Any], **more: Any
) -> list[CellFiles]:
    documents = more.pop("documents", [relevant(("d", 5, 1))] * len(raw))
    found = []
    for policy, values in ((BASELINE, raw), (Constant(0.8), ours)):
        rows = item_rows(list(values), shares=shares, relevant=documents)
        found.append(write_cell(results, task, float(np.mean(values)), rows, policy, BGE))
    return found


def test_tasks_that_share_queries_are_drawn_together(
    results: Results, random: np.random.Generator
) -> None:
    """What Retr gains on a query Rerank loses: together they hardly vary."""
    swing, noise = random.normal(0, 0.1, (2, 80))
    half = np.full(80, 0.5)
    queries = [[share("query", i)] for i in range(80)]
    cells_of(results, "NFCorpus", half, half + 0.02 + swing, queries)
    cells_of(results, "SciDocsRR", half[:60], half[:60] + 0.02 - swing[:60], queries[:60])
    cells_of(results, "SummEval", half, half + noise, [[share("other", i)] for i in range(80)])
    found = read(results, {"BeirRetr": ["NFCorpus"], "Rerank": ["SciDocsRR"], "Summ": ["SummEval"]})
    assert found.draws is not None
    drawn = {
        task: found.draws.scores[LABEL, "0.8", task].astype(float)
        for task in ("NFCorpus", "SciDocsRR", "SummEval")
    }
    # 60 of 80 in common: √(60/80).
    assert np.corrcoef(drawn["NFCorpus"], drawn["SciDocsRR"])[0, 1] == pytest.approx(
        -np.sqrt(0.75), abs=0.04
    )
    assert abs(np.corrcoef(drawn["NFCorpus"], drawn["SummEval"])[0, 1]) < 0.09
    assert found.draws.families == {
        "NFCorpus": "NFCorpus",
        "SciDocsRR": "NFCorpus",
        "SummEval": "SummEval",
    }


def test_linked_tasks_with_the_same_items_have_the_same_draws(
    results: Results, random: np.random.Generator
) -> None:
    raw, ours = random.random((2, 50))
    shares = [[share(i // 2)] for i in range(50)]
    for task in ("NFCorpus", "SciFact"):
        cells_of(results, task, raw, ours, shares)
    found = read(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    assert found.draws is not None
    for policy in ("1", "0.8"):
        first, second = (
            found.draws.scores[LABEL, policy, task] for task in ("NFCorpus", "SciFact")
        )
        assert np.array_equal(first, second)
    one, other = found.cells.values()
    assert one == other
    assert one.sample == "50 queries in 25 documents"
    assert one.independent == 25


def test_a_pair_is_compared_over_clusters_as_the_table_does(
    results: Results, random: np.random.Generator
) -> None:
    raw, swing = random.random(60), random.normal(0, 0.1, 12)
    files = cells_of(
        results, "NFCorpus", raw, raw + np.repeat(swing, 5), [[share(i // 5)] for i in range(60)]
    )
    (one,) = read(results, {"BeirRetr": ["NFCorpus"]}).cells.values()
    assert compare_pair(*files, 2000) == replace(one, adjusted=None)
    assert one.sample == "60 queries in 12 documents"
    changes = 100 * np.repeat(swing, 5) / raw.mean()
    error = np.sqrt(cluster_variance(changes, np.repeat(np.arange(12), 5)))
    half = stats.t.ppf(0.975, 11) * error
    assert (one.high - one.low) / 2 == pytest.approx(half, rel=0.2)


def test_queries_that_are_all_of_one_document_say_nothing_of_others(
    results: Results, random: np.random.Generator
) -> None:
    raw, ours = random.random((2, 30))
    cells_of(results, "NFCorpus", raw, ours, [[share("one")]] * 30)
    found = read(results, {"BeirRetr": ["NFCorpus"]})
    assert found.cells == {}
    assert found.notes[0] == (
        "no interval for NFCorpus: all items are linked by texts that they share: a single unit "
        "says nothing of others"
    )


def test_items_without_word_of_what_they_share_are_by_themselves_and_named(
    results: Results, random: np.random.Generator
) -> None:
    raw, ours = random.random((2, 30))
    shares = [[share(i // 10)] if i % 10 < 9 else [] for i in range(30)]
    cells_of(results, "NFCorpus", raw, ours, shares)
    found = read(results, {"BeirRetr": ["NFCorpus"]})
    (one,) = found.cells.values()
    assert one.sample == "30 queries in 6 documents"
    assert found.notes == ("3 items of NFCorpus do not say what they share: taken by themselves",)


def test_older_items_are_linked_by_their_relevant_documents_and_that_is_noted(
    results: Results, random: np.random.Generator
) -> None:
    raw, ours = random.random((2, 30))
    documents = [relevant((f"d{i // 3}", 5, 1)) for i in range(30)]
    for task in ("NFCorpus", "SciFact"):
        cells_of(results, task, raw, ours, [None] * 30, documents=documents)
    found = read(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    assert {one.sample for one in found.cells.values()} == {"30 queries in 10 documents"}
    assert found.draws is not None
    assert not np.array_equal(
        *(found.draws.scores[LABEL, "0.8", task] for task in ("NFCorpus", "SciFact"))
    )
    (note,) = found.notes
    assert note.startswith("items of NFCorpus and SciFact do not say which texts they share")


def test_cells_right_in_other_experiments_are_two(random: np.random.Generator) -> None:
    """As often right in every text and experiment, but not about the same texts in each."""
    right = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 1, 0, 1]] * 6, dtype=bool)
    other = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0]] * 6, dtype=bool)
    assert (right.mean(axis=0) == other.mean(axis=0)).all()
    assert (right.mean(axis=1) == other.mean(axis=1)).all()
    cells = [{PART: of_texts(one)} for one in (right, other, right)]
    found = resample(cells, 200, 0, "t")
    assert found is not None
    assert found.places == (0, 1, 0)
    both = next(one.covariance for one in found.variations if one.source == "both")
    # Where one is right the other is wrong.
    assert both[0, 1] == pytest.approx(-both[0, 0])
    assert both[0, 0] > 0
