"""`lcbench.reporting.intervals` and `resample`: against scipy, in simulations, on small tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from read_cells import analysed_table
from report_cells import BGE, item_rows, write_cell
from scipy import stats

from lcbench.reporting import intervals
from lcbench.reporting.intervals import compare_pair, holm
from lcbench.reporting.means import TASKS, mean_improvement
from lcbench.reporting.score_table import AVERAGE, ScoreTable
from lcbench.reporting.statistics import Draws, TableStatistics, Uncertainty
from lcbench.reporting.table1 import build_tables
from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant, Policy
from lcbench.uncertainty.bootstrap import Resampled, interval, reach, resample
from lcbench.uncertainty.clusters import numbered
from lcbench.uncertainty.items import Sample
from lcbench.uncertainty.permutation import sign_flip_p
from lcbench.uncertainty.variation import Component

PART = ("test", "default")
E5 = "intfloat/e5-base-v2"
RESAMPLES = 2000
Data = np.ndarray


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


def of_queries(values: Data) -> Sample:
    return Sample(("queries",), np.asarray(values, dtype=float), units="queries")


def of_pairs(gold: Data, cosines: Data) -> Sample:
    return Sample(("pairs",), cosines, gold=gold, units="pairs")


def of_texts(right: Data) -> Sample:
    """A classification: `right` has shape (experiments, texts)."""
    bits = (right.T.astype(np.uint16) << np.arange(len(right), dtype=np.uint16)).sum(axis=1)
    return Sample(
        ("texts",),
        right.mean(axis=0),
        draws=right.mean(axis=1),
        units="texts",
        right=bits.astype(np.uint16),
    )


def bounds(raw: Sample, ours: Sample, seed: int, resamples: int) -> Any:
    """The interval of the relative improvement of one cell, as `analyse` has it."""
    drawn = resample([{PART: raw}, {PART: ours}], resamples, seed)
    assert drawn is not None
    before, after = drawn.scores
    improvements = 100 * (drawn.draws[:, 1] - drawn.draws[:, 0]) / drawn.draws[:, 0]
    gradient = np.array([-100 * after / before**2, 100 / before])
    value = float(100 * (after / before - 1))
    return interval(improvements, drawn.stretch(gradient)[0], value, drawn.deviation(gradient))


def queries(
    results: Results,
    task: str,
    scores: Data,
    policy: Policy = BASELINE,
    model: str = BGE,
    **more: Any,
) -> CellFiles:
    relevant = [[{"id": "d", "grade": 1, "tokens": 3, "rank": 1}]] * len(scores)
    rows = item_rows(list(scores), relevant=relevant)
    return write_cell(results, task, float(np.mean(scores)), rows, policy, model, **more)


def read(results: Results, columns: Mapping[str, Sequence[str]]) -> tuple[ScoreTable, pd.DataFrame]:
    """The one table of all results, its tasks under these columns."""
    column_of = {task: column for column, tasks in columns.items() for task in tasks}

    def warn(message: str) -> None:
        raise AssertionError(message)

    scores = results.read(lambda task, _: column_of[task], warn)
    (table,) = build_tables(scores)
    return table, scores


def analysed(
    results: Results, columns: Mapping[str, Sequence[str]], **more: Any
) -> tuple[ScoreTable, TableStatistics]:
    table, scores = read(results, columns)
    return table, analysed_table(table, scores, **{"resamples": RESAMPLES, **more})


def improvement_interval(table: ScoreTable, *of: Any) -> Uncertainty | None:
    """How sure the mean improvement over columns is, of a single τ."""
    found = mean_improvement(table, *of)
    return None if found is None else found.uncertainty()


# --- the bootstrap of one task ---------------------------------------------------------------


def test_the_difference_of_means_agrees_with_the_bootstrap_of_scipy(
    random: np.random.Generator,
) -> None:
    raw = random.random(150)
    ours = raw + 0.1 * random.standard_normal(150)
    drawn = resample([{PART: of_queries(raw)}, {PART: of_queries(ours)}], 10_000, seed=1)
    assert drawn is not None
    difference = drawn.draws[:, 1].astype(float) - drawn.draws[:, 0]
    wanted = stats.bootstrap(
        (raw, ours),
        lambda a, b, axis: (b - a).mean(axis),
        paired=True,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    _agree(np.percentile(difference, [2.5, 97.5]), wanted)


@pytest.mark.parametrize("samples", [2000, pytest.param(6000, marks=pytest.mark.exhaustive)])
def test_the_difference_of_correlations_agrees_with_the_bootstrap_of_scipy(
    samples: int, random: np.random.Generator
) -> None:
    gold = np.round(5 * random.random(80), 1)
    raw = gold + 1.5 * random.standard_normal(80)
    ours = raw + 0.5 * random.standard_normal(80)
    drawn = resample([{PART: of_pairs(gold, one)} for one in (raw, ours)], samples, seed=1)
    assert drawn is not None
    difference = drawn.draws[:, 1].astype(float) - drawn.draws[:, 0]
    wanted = stats.bootstrap(
        (gold, raw, ours),
        lambda g, a, b: stats.spearmanr(g, b)[0] - stats.spearmanr(g, a)[0],
        paired=True,
        vectorized=False,
        n_resamples=samples,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    _agree(np.percentile(difference, [2.5, 97.5]), wanted)


def _agree(found: Data, wanted: Any) -> None:
    """Two bootstraps have the same percentiles, as far as their number of samples allows."""
    ends = np.array(wanted.confidence_interval)
    # The standard error of a percentile: sqrt(q(1 − q)/n) over the density, about a normal's.
    density = stats.norm.pdf(1.96) / wanted.standard_error
    error = np.sqrt(0.025 * 0.975 / len(wanted.bootstrap_distribution)) / density
    assert np.abs(found - ends).max() < 4 * np.sqrt(2) * error
    assert error < 0.05 * (ends[1] - ends[0])


def test_few_units_reach_as_far_as_students_t() -> None:
    draws = reach(np.array([1.0]), np.array([9.0]), 0.9)
    assert draws == pytest.approx((stats.t.ppf(0.975, 9) * np.sqrt(10 / 9), 9))
    # Hesterberg (2015), table of the expanded percentiles for n = 10: 0.0083.
    assert stats.norm.cdf(-draws[0]) == pytest.approx(0.0083, abs=5e-4)
    assert reach(np.array([2.0, 2.0]), np.array([9.0, 9.0]), 4)[1] == pytest.approx(18)
    assert reach(np.array([0.0]), np.array([9.0]), 0.0)[0] == pytest.approx(1.96, abs=1e-3)


def test_a_single_draw_makes_no_interval_of_few_units() -> None:
    draws = np.append(np.random.default_rng(0).normal(3, 1, 9999), np.inf)
    low, high = interval(draws, 5.3, 3.0, 1.0)
    assert (low, high) == pytest.approx((3 - 5.3, 3 + 5.3))
    # Of many units it is far from the percentile.
    low, high = interval(draws, 1.96, 3.0, 1.0)
    assert (low, high) == pytest.approx((3 - 1.96, 3 + 1.96), abs=0.1)
    draws[:400] = np.inf
    assert interval(draws, 1.96, 3.0, 1.0)[1] == np.inf


def _query_means(random: np.random.Generator) -> tuple[Sample, Sample]:
    raw = random.beta(0.6, 0.8, 200)
    return of_queries(raw), of_queries(raw + random.normal(0.01, 0.1, 200))


def _sets(random: np.random.Generator) -> tuple[Sample, Sample]:
    raw = random.normal(0.4, 0.05, 10)
    return of_queries(raw), of_queries(raw + random.normal(0.004, 0.01, 10))


def _correlations(random: np.random.Generator) -> tuple[Sample, Sample]:
    gold, shared = random.standard_normal((2, 300))
    raw = 0.8 * gold + 0.5 * shared + 0.33 * random.standard_normal(300)
    ours = 0.85 * gold + 0.5 * shared + 0.33 * random.standard_normal(300)
    return of_pairs(gold, raw), of_pairs(gold, ours)


def _classification(random: np.random.Generator) -> tuple[Sample, Sample]:
    # A text is right where a threshold of its own is passed, in each experiment anew.
    easy, drawn = random.normal(0.8, 1, 250), random.random((10, 250))
    training, better = random.normal(0, 0.3, (10, 1)), random.normal(0.02, 0.1, (10, 1))
    raw = drawn < stats.norm.cdf(easy + training)
    return of_texts(raw), of_texts(drawn < stats.norm.cdf(easy + training + better))


def _spearman(slope: float) -> float:
    """Spearman's correlation of a normal pair, from Pearson's."""
    pearson = slope / np.sqrt(slope**2 + 0.5**2 + 0.33**2)
    return float(6 / np.pi * np.arcsin(pearson / 2))


RIGHT = float(stats.norm.cdf(0.8 / np.sqrt(1 + 1 + 0.3**2)))
BETTER = float(stats.norm.cdf(0.82 / np.sqrt(1 + 1 + 0.3**2 + 0.1**2)))


@pytest.mark.parametrize(
    ("simulated", "truth", "times"),
    [
        pytest.param(simulated, truth, count, marks=marks, id=f"{name}, {count} times")
        for simulated, truth, times, name in (
            (_query_means, 100 * 0.01 / (0.6 / 1.4), 2000, "200 queries"),
            (_sets, 1.0, 3000, "10 sets"),
            (_correlations, 100 * (_spearman(0.85) / _spearman(0.8) - 1), 1000, "300 pairs"),
            (_classification, 100 * (BETTER / RIGHT - 1), 1500, "250 texts and 10 experiments"),
        )
        for count, marks in ((200, []), (times, [pytest.mark.exhaustive]))
    ],
)
def test_the_interval_covers_the_truth_in_95_of_100(
    simulated: Callable[[np.random.Generator], tuple[Sample, Sample]], truth: float, times: int
) -> None:
    random = np.random.default_rng(2024)
    covered = 0
    for seed in range(times):
        low, high = bounds(*simulated(random), seed, 600)
        covered += low <= truth <= high
    # A share of 0.95 among 1,000 has a standard error of 0.007, among 200 of 0.015.
    apart = 0.02 if times >= 1000 else 0.04
    assert 0.95 - apart <= covered / times <= 0.95 + apart


def test_without_the_expansion_ten_sets_would_cover_less() -> None:
    random = np.random.default_rng(2024)
    covered = 0
    for seed in range(1000):
        raw, ours = _sets(random)
        drawn = resample([{PART: raw}, {PART: ours}], 600, seed)
        assert drawn is not None
        low, high = np.percentile(100 * (drawn.draws[:, 1] / drawn.draws[:, 0] - 1), [2.5, 97.5])
        covered += low <= 1.0 <= high
    assert covered / 1000 < 0.94


def test_p_of_correlations_is_uniform_where_neither_is_better() -> None:
    random = np.random.default_rng(5)
    found = []
    for _ in range(400):
        gold, shared = random.standard_normal((2, 120))
        cosines = (0.8 * gold + 0.5 * shared + 0.3 * random.standard_normal(120) for _ in range(2))
        drawn = resample([{PART: of_pairs(gold, one)} for one in cosines], 2, seed=0)
        assert drawn is not None
        found.append(drawn.p_value(0, 1))
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("times", [1000, pytest.param(4000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_p_with_experiments_is_not_too_small_where_neither_is_better(
    share: float, times: int
) -> None:
    """Of ten experiments nobody knows the variance well: as if known, 9 times too many."""
    random, texts, found = np.random.default_rng(6), 200, []
    for _ in range(times):
        training = random.normal(0, np.sqrt(10 * share), 10)
        own = random.normal(0, np.sqrt(texts * (1 - share)), texts)
        draws = np.array([np.zeros(10), training + own.mean()])
        values = np.array([np.zeros(texts), training.mean() + own])
        components = (
            Component(values.T, 1.0, numbered(texts, "texts")),
            Component(draws.T, 1.0, numbered(10, "experiments"), deviates=True),
        )
        drawn = Resampled(
            scores=values.mean(axis=1),
            draws=np.zeros((1, 2), dtype=np.float32),
            drawn=np.zeros((2, 2)),
            variations=(),
            components=components,
            places=(0, 1),
            units="texts",
            count=texts,
            clusters=texts,
        )
        found.append(drawn.p_value(0, 1))
    p = np.array(found)
    for level in (0.05, 0.01, 0.001):
        # Three standard errors of a share.
        assert (p <= level).mean() < level + 3 * np.sqrt(level / times)
    assert (p <= 0.05).mean() > 0.7 * 0.05


# --- Holm ------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # 0.01 × 4; 0.02 × 3; 0.03 × 2; 0.04 × 1, and none less than the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


# --- a table ---------------------------------------------------------------------------------


def fill(results: Results, random: np.random.Generator, tasks: Sequence[str]) -> None:
    """Two models at three temperatures: 0.8 gains much, 0.9 next to nothing."""
    for task in tasks:
        hard = random.random(60)
        for model in (BGE, E5):
            raw = np.clip(hard + 0.1 * random.standard_normal(60), 0, 1)
            queries(results, task, raw, model=model)
            for policy, gain in ((Constant(0.8), 0.05), (Constant(0.9), 0.0)):
                ours = raw + gain + 0.02 * random.standard_normal(60)
                queries(results, task, ours, policy, model)


COLUMNS = {"BeirRetr": ["NFCorpus", "SciFact", "ArguAna"], "Rerank": ["SciDocsRR"]}


def test_a_table_of_queries(results: Results, random: np.random.Generator) -> None:
    fill(results, random, [task for tasks in COLUMNS.values() for task in tasks])
    table, found = analysed(results, COLUMNS)
    assert len(found.cells) == 2 * 2 * 4
    one = found.cells["bge-base-en-v1.5", "0.8", "NFCorpus"]
    assert (one.units, one.count, one.note) == ("queries", 60, "")
    assert one.low > 0
    assert one.p is not None
    assert one.p < 1e-6
    assert one.adjusted is not None
    assert one.p < one.adjusted < 1e-4
    assert one.excludes_zero
    for block in table.blocks:
        for task in block.tasks:
            shown = found.cells[block.label, "0.9", task.task]
            raw, ours = task.scores["1"], task.scores["0.9"]
            assert raw is not None
            assert ours is not None
            # The table's own number lies within.
            assert shown.low < 100 * (ours - raw) / raw < shown.high
    assert set(found.means) == {
        (block.label, policy, column)
        for block in table.blocks
        for policy in ("0.8", "0.9")
        for column in ("BeirRetr", "Rerank", AVERAGE)
    }
    mean = found.means["bge-base-en-v1.5", "0.8", "BeirRetr"]
    assert (mean.units, mean.count, mean.p, mean.note) == (TASKS, 3, None, "")
    single = found.means["bge-base-en-v1.5", "0.8", "Rerank"]
    wanted = found.cells["bge-base-en-v1.5", "0.8", "SciDocsRR"]
    # A column of one task is the task, but that two τ were tried.
    assert (single.p, single.alone, single.tried) == (None, (wanted.low, wanted.high), 2)
    assert (single.units, single.count) == (wanted.units, wanted.count)
    assert single.high - single.low > 1.05 * (wanted.high - wanted.low)
    assert set(found.average) == {"BeirRetr", "Rerank", AVERAGE}
    assert found.average[AVERAGE].low > 0
    assert found.notes == ()
    assert (found.seed, found.resamples) == (0, RESAMPLES)


def test_the_draws_are_of_the_tables_own_scores(
    results: Results, random: np.random.Generator
) -> None:
    fill(results, random, ["NFCorpus", "SciFact"])
    table, found = analysed(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    assert found.draws is not None
    for block in table.blocks:
        for task in block.tasks:
            for policy, score in task.scores.items():
                drawn = found.draws.scores[block.label, policy, task.task]
                # Within the noise of a mean over samples.
                error = drawn.std() / np.sqrt(RESAMPLES)
                assert score is not None
                assert drawn.mean() == pytest.approx(score / 100, abs=4 * error)


def test_the_seed_makes_the_numbers(results: Results, random: np.random.Generator) -> None:
    fill(results, random, ["NFCorpus", "SciFact"])
    columns = {"BeirRetr": ["NFCorpus", "SciFact"]}
    first, again = analysed(results, columns)[1], analysed(results, columns)[1]
    assert first == again
    other = analysed(results, columns, seed=1)[1]
    for cell, one in first.cells.items():
        assert other.cells[cell].low != one.low
        assert other.cells[cell].low == pytest.approx(one.low, abs=0.15 * (one.high - one.low))
        # No random number has a part in it.
        assert other.cells[cell].p == one.p
    assert first.draws is not None
    assert other.draws is not None
    assert (first.draws.tasks["BeirRetr"] != other.draws.tasks["BeirRetr"]).any()


def test_the_interval_of_a_task_depends_on_nothing_else(
    tmp_path: Path, random: np.random.Generator
) -> None:
    state = random.bit_generator.state
    small, large = Results(tmp_path / "small"), Results(tmp_path / "large")
    fill(small, random, ["NFCorpus"])
    random.bit_generator.state = state
    fill(large, random, ["NFCorpus", "ArguAna", "SciFact"])
    alone = analysed(small, {"BeirRetr": ["NFCorpus"]})[1]
    among = analysed(large, {"BeirRetr": ["NFCorpus", "ArguAna", "SciFact"]})[1]
    for cell, one in alone.cells.items():
        assert replace(among.cells[cell], adjusted=None) == replace(one, adjusted=None)


def test_another_model_changes_no_interval(tmp_path: Path, random: np.random.Generator) -> None:
    both, one = Results(tmp_path / "both"), Results(tmp_path / "one")
    raw, ours = random.random((2, 50))
    for results in (both, one):
        queries(results, "NFCorpus", raw)
        queries(results, "NFCorpus", ours, Constant(0.8))
    queries(both, "NFCorpus", ours, model=E5)
    queries(both, "NFCorpus", raw, Constant(0.8), E5)
    columns = {"BeirRetr": ["NFCorpus"]}
    cell = "bge-base-en-v1.5", "0.8", "NFCorpus"
    found, wanted = (analysed(results, columns)[1].cells[cell] for results in (both, one))
    assert found.low == pytest.approx(wanted.low, rel=1e-5)
    assert found.high == pytest.approx(wanted.high, rel=1e-5)


def test_identical_items_have_an_improvement_of_exactly_nothing(
    results: Results, random: np.random.Generator
) -> None:
    for task in ("NFCorpus", "SciFact"):
        raw = random.random(40)
        for policy in (BASELINE, Constant(0.9), Constant(0.8)):
            queries(results, task, raw, policy)
    _, found = analysed(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    for one in [*found.cells.values(), *found.means.values()]:
        assert (one.low, one.high, one.excludes_zero) == (0, 0, False)
    assert {one.p for one in found.cells.values()} == {1.0}


def test_no_interval_goes_below_what_a_score_can_lose(results: Results) -> None:
    """Of two or three queries Student's t would reach beyond -100 %, in cells, columns and Avg."""
    for task, raw, ours in (
        ("NFCorpus", [0.9, 0.1], [0.2, 0.3]),
        ("SciFact", [0.1, 0.8, 0.5], [0.9, 0.1, 0.5]),
        ("ArguAna", [0.9, 0.1], [0.2, 0.3]),
    ):
        queries(results, task, np.array(raw))
        queries(results, task, np.array(ours), Constant(0.8))
    columns = {"BeirRetr": ["NFCorpus", "SciFact"], "Retr": ["ArguAna"]}
    _, found = analysed(results, columns)
    every = {**found.cells, **found.means}
    assert {name for *_, name in every} == {"NFCorpus", "SciFact", "ArguAna", *columns, "Avg"}
    assert {one.low for one in every.values()} == {-100.0}
    assert all(one.high > 100 for one in every.values())
    assert found.notes == (
        "too few items for any difference to be significant: NFCorpus (2 queries), SciFact "
        "(3 queries) and ArguAna (2 queries)",
    )


def test_a_correlation_may_lose_more_than_all_of_it(
    results: Results, random: np.random.Generator
) -> None:
    gold = random.random(8)
    for policy, sign in ((BASELINE, 1), (Constant(0.8), -1)):
        cosines = sign * gold + random.random(8)
        rows = item_rows(list(cosines), gold=[str(one) for one in gold], tokens_2=[3] * 8)
        write_cell(results, "STS13", float(stats.spearmanr(gold, cosines)[0]), rows, policy)
    _, found = analysed(results, {"STS": ["STS13"]})
    assert found.cells["bge-base-en-v1.5", "0.8", "STS13"].low < -100
    assert found.means["bge-base-en-v1.5", "0.8", "STS"].low < -100


def test_a_task_without_known_items_is_bounded_by_its_column() -> None:
    """Accuracies and precisions are never below 0, correlations may be."""
    lows = {}
    for column in ("PairClass", "STS"):
        scores = {"T0": {"1": 0.6, "0.8": 0.1}, "T1": {"1": 0.4, "0.8": 0.6}}
        draws = {
            ("m", policy, task): np.full(100, score, dtype=np.float32)
            for task, own in scores.items()
            for policy, score in own.items()
        }
        of = dict.fromkeys(scores, column)
        table, kept = _made(scores, draws, np.random.default_rng(0), of)
        kept = replace(kept, signed=intervals._signed(table, {}))
        one = improvement_interval(table, kept, {"m": dict.fromkeys(of, "0.8")}, [column])
        assert one is not None
        lows[column] = one.low
    assert lows["PairClass"] == -100
    assert lows["STS"] < -100


def test_models_are_paired_in_the_row_over_models(
    results: Results, random: np.random.Generator
) -> None:
    """What one model gains on a query the other loses: together nothing changes."""
    swing = 0.2 * random.standard_normal(60)
    for model, sign in ((BGE, 1), (E5, -1)):
        queries(results, "NFCorpus", np.full(60, 0.5), model=model)
        queries(results, "NFCorpus", 0.5 + sign * swing, Constant(0.8), model)
    _, found = analysed(results, {"BeirRetr": ["NFCorpus"]})
    one = found.cells["bge-base-en-v1.5", "0.8", "NFCorpus"]
    assert one.high - one.low > 10
    average = found.average["BeirRetr"]
    assert average.high - average.low < 1e-3


def test_other_items_are_not_paired(results: Results, random: np.random.Generator) -> None:
    raw, ours = random.random((2, 30))
    queries(results, "NFCorpus", raw)
    rows = item_rows(list(ours))
    rows[0]["id"] = "another"
    write_cell(results, "NFCorpus", float(ours.mean()), rows, Constant(0.8))
    _, found = analysed(results, {"BeirRetr": ["NFCorpus"]})
    assert found.cells == {}
    assert found.notes == ("no interval for NFCorpus: the items are not those of the baseline",)


def test_a_task_without_known_items_stays_as_it_is_in_all_samples(
    results: Results, random: np.random.Generator
) -> None:
    fill(results, random, ["NFCorpus", "SciDocsRR"])
    for model in (BGE, E5):
        for policy, score in ((BASELINE, 0.4), (Constant(0.8), 0.41), (Constant(0.9), 0.4)):
            write_cell(results, "SciFact", score, policy=policy, model=model)
            write_cell(results, "SummEval", score, policy=policy, model=model)
    _, found = analysed(
        results,
        {"BeirRetr": ["NFCorpus", "SciFact"], "Rerank": ["SciDocsRR"], "Summ": ["SummEval"]},
    )
    model = "bge-base-en-v1.5"
    assert (model, "0.8", "SciFact") not in found.cells
    assert (model, "0.8", "Summ") not in found.means
    assert "Summ" not in found.average
    note = "the interval leaves out the sampling noise of SciFact, whose items are not known"
    assert found.means[model, "0.8", "BeirRetr"].note == note
    # Nothing says how much a column varies whose only task has unknown items.
    assert (model, "0.8", AVERAGE) not in found.means
    assert set(found.average) == {"BeirRetr", "Rerank"}
    assert found.notes == (
        "no interval for SummEval and SciFact: the items are not known",
        "Avg: no interval, since the items of SummEval are not known",
    )
    assert found.draws is not None
    assert set(found.draws.scores[model, "0.8", "SummEval"].tolist()) == {np.float32(0.41)}


def test_a_table_without_any_items(results: Results) -> None:
    for task in ("NFCorpus", "SciFact"):
        for policy, score in ((BASELINE, 0.4), (Constant(0.8), 0.41)):
            write_cell(results, task, score, policy=policy)
    _, found = analysed(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    assert found.cells == {}
    assert found.notes == ("no interval for any task: no items are known",)
    assert found.means["bge-base-en-v1.5", "0.8", AVERAGE].note == (
        "the interval leaves out the sampling noise of items, none of which are known"
    )


def test_items_that_do_not_give_the_tables_score_are_unknown(
    results: Results, random: np.random.Generator
) -> None:
    fill(results, random, ["NFCorpus"])
    table, scores = read(results, {"BeirRetr": ["NFCorpus"]})
    moved = scores.assign(score=scores["score"] + 1e-3)
    (other,) = build_tables(moved)
    assert len(analysed_table(table, scores, RESAMPLES).cells) == 4
    assert analysed_table(other, moved, RESAMPLES).cells == {}


def test_a_baseline_that_may_be_zero_is_taken_as_it_is(
    results: Results, random: np.random.Generator
) -> None:
    gold = random.random(12)
    for policy, seed in ((BASELINE, 3), (Constant(0.8), 4)):
        cosines = 0.2 * gold + np.random.default_rng(seed).random(12)
        rows = item_rows(list(cosines), gold=[str(one) for one in gold], tokens_2=[3] * 12)
        write_cell(results, "STS13", float(stats.spearmanr(gold, cosines)[0]), rows, policy)
    table, found = analysed(results, {"STS": ["STS13"]})
    value = table.blocks[0].improvements["0.8"]["STS"]
    one = found.cells["bge-base-en-v1.5", "0.8", "STS13"]
    assert value is not None
    assert one.low < value < one.high
    assert one.note == "the baseline is not significantly different from 0 and taken as fixed"
    assert found.draws is not None
    raw, ours = (
        found.draws.scores["bge-base-en-v1.5", policy, "STS13"].astype(float)
        for policy in ("1", "0.8")
    )
    assert raw.min() < 0
    score = table.blocks[0].tasks[0].scores["1"]
    assert score is not None
    low, high = np.quantile(10_000 * (ours - raw) / score, [0.025, 0.975])
    # Somewhat wider, as of 12 pairs.
    assert low * 1.25 < one.low < low
    assert high < one.high < high * 1.25
    assert one.p is not None
    assert 0.05 < one.p < 1
    assert found.notes == ()


def test_a_rare_draw_below_zero_costs_a_mean_nothing() -> None:
    """The rule of cells: an interval is made otherwise only where an end of it is infinite."""
    random = np.random.default_rng(4)
    scores = {f"T{n}": {"1": 0.1, "0.8": 0.11 + 0.002 * n} for n in range(3)}
    draws = {
        ("m", policy, task): (score + 0.001 * random.standard_normal(2000)).astype(np.float32)
        for task, own in scores.items()
        for policy, score in own.items()
    }
    table, kept = _made(scores, draws, random)
    picks = {"m": dict.fromkeys(scores, "0.8")}
    wanted = improvement_interval(table, kept, picks, ["C"])
    for one in draws.values():
        one[kept.picks["C"][0, 0]] = -1.0
    found = improvement_interval(table, kept, picks, ["C"])
    assert wanted is not None
    assert found is not None
    assert found.note == wanted.note == ""
    assert np.isfinite([found.low, found.high]).all()
    for one in draws.values():
        one[:1000] = -1.0
    found = improvement_interval(table, kept, picks, ["C"])
    assert found is not None
    assert found.note == "the baseline is not significantly different from 0 and taken as fixed"
    assert np.isfinite([found.low, found.high]).all()


def test_columns_of_one_task_leave_out_variation_between_tasks(
    results: Results, random: np.random.Generator
) -> None:
    fill(results, random, ["NFCorpus", "SciFact", "SciDocsRR", "SummEval"])
    three = {"BeirRetr": ["NFCorpus", "SciFact"], "Rerank": ["SciDocsRR"], "Summ": ["SummEval"]}
    _, found = analysed(results, three)
    model = "bge-base-en-v1.5"
    one = found.means[model, "0.8", AVERAGE]
    assert (one.units, one.count) == (TASKS, 4)
    assert one.note == (
        "the interval leaves out variation between tasks in Summ and Rerank (one task each)"
    )
    assert found.means[model, "0.8", "Rerank"].note == ""
    assert found.means[model, "0.8", "BeirRetr"].note == ""
    average = found.average["Rerank"]
    assert (average.units, average.count, average.note) == ("queries", 60, "")
    assert found.average[AVERAGE].note == one.note


def test_an_average_of_single_tasks_is_over_their_items(
    results: Results, random: np.random.Generator
) -> None:
    fill(results, random, ["NFCorpus", "SciDocsRR"])
    _, found = analysed(results, {"BeirRetr": ["NFCorpus"], "Rerank": ["SciDocsRR"]})
    one = found.means["bge-base-en-v1.5", "0.8", AVERAGE]
    assert (one.units, one.count) == ("queries", 120)
    assert one.note == "the interval leaves out variation between tasks: each column has only one"
    two = {"BeirRetr": ["NFCorpus", "SciDocsRR"]}
    one = analysed(results, two)[1].means["bge-base-en-v1.5", "0.8", AVERAGE]
    assert (one.units, one.count, one.note) == (TASKS, 2, "")


def experiments(
    results: Results, right: Data, policy: Policy = BASELINE, model: str = BGE, kept: bool = True
) -> None:
    """A classification; `right` has shape (experiments, texts)."""
    entry: dict[str, Any] = {"main_score": float(right.mean())}
    if kept:
        entry["scores_per_experiment"] = [{"accuracy": float(one)} for one in right.mean(axis=1)]
    write_cell(
        results, "Banking77", {PART: entry}, item_rows(list(right.mean(axis=0))), policy, model
    )


def test_an_average_of_one_task_of_few_changes_is_no_more_certain_than_the_task(
    results: Results,
) -> None:
    raw, ours = np.full(40, 0.5), np.full(40, 0.5)
    ours[:6] = 0.1
    queries(results, "One", raw)
    queries(results, "One", ours, Constant(0.8))
    _, known = analysed(results, {"Retr": ["One"]})
    label = "bge-base-en-v1.5"
    column, average = (known.means[label, "0.8", name] for name in ("Retr", AVERAGE))
    assert average.high < 0
    assert average == column
    assert average.is_too_few
    assert not average.excludes_zero


def test_a_model_without_experiments_takes_none_from_the_others(
    tmp_path: Path, random: np.random.Generator
) -> None:
    levels = random.normal(0, 0.15, (3, 10, 1))
    right = random.random((3, 10, 60)) < 0.6 + levels
    one, both = Results(tmp_path / "one"), Results(tmp_path / "both")
    for results in (one, both):
        experiments(results, right[0])
        experiments(results, right[1], Constant(0.8))
    for place, policy in enumerate((BASELINE, Constant(0.8))):
        experiments(both, right[place], policy, E5, kept=False)
    cell = "bge-base-en-v1.5", "0.8", "Banking77"
    alone, among = (analysed(of, {"Class": ["Banking77"]})[1].cells for of in (one, both))
    assert replace(among[cell], adjusted=None) == replace(alone[cell], adjusted=None)
    other = among["e5-base-v2", "0.8", "Banking77"]
    assert other.high - other.low < 0.8 * (among[cell].high - among[cell].low)
    experiments(one, right[2], Constant(0.7), kept=False)
    notes = analysed(one, {"Class": ["Banking77"]})[1].notes
    assert notes == (
        "no interval for Banking77 in 1 of 2 cells: the experiments are not as many as the "
        "baseline's",
    )


def test_a_subset_of_a_single_item_stays_as_it_is(
    results: Results, random: np.random.Generator
) -> None:
    raw, gain = random.random(40), 0.05 + 0.01 * random.standard_normal(40)
    for policy, values in ((BASELINE, raw), (Constant(0.8), raw + gain)):
        entries = {
            ("test", "de"): {"main_score": float(values.mean())},
            ("test", "fr"): {"main_score": 0.5},
        }
        rows = item_rows(list(values), subset="de") + item_rows([0.5], subset="fr")
        write_cell(results, "NFCorpus", entries, rows, policy)
    table, found = analysed(results, {"BeirRetr": ["NFCorpus"]})
    one = found.cells["bge-base-en-v1.5", "0.8", "NFCorpus"]
    value = table.blocks[0].improvements["0.8"]["BeirRetr"]
    assert value is not None
    assert 0 < one.low < value < one.high < 2 * value
    assert one.count == 40
    assert one.note == "the interval leaves out the sampling noise of fr, of a single item"
    assert one.p == sign_flip_p(gain)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("a single item", "a single item says nothing of others"),
        ("no score", "some items have no score"),
        ("another metric", "the items do not give the score"),
        ("no items", "the items are not known"),
        ("no items of the baseline", "of the baseline, the items are not known"),
    ],
)
def test_reasons_are_the_true_ones(
    results: Results, random: np.random.Generator, wrong: str, reason: str
) -> None:
    fill(results, random, ["SciFact"])
    for model in (BGE, E5):
        for policy in (BASELINE, Constant(0.8), Constant(0.9)):
            rows: Any = item_rows([0.4, 0.6])
            score = 0.5
            if wrong == "a single item":
                rows, score = rows[:1], 0.4
            elif wrong == "no score":
                rows[1]["score"] = None
            elif wrong == "another metric":
                score = 0.6
            elif wrong == "no items" or policy == BASELINE:
                rows = None
            write_cell(results, "NFCorpus", score, rows, policy, model)
    _, found = analysed(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    assert found.notes == (f"no interval for NFCorpus: {reason}",)


def test_a_table_of_some_subsets_says_so(results: Results, random: np.random.Generator) -> None:
    fill(results, random, ["NFCorpus"])
    _, scores = read(results, {"BeirRetr": ["NFCorpus"]})
    moved = scores.assign(score=scores["score"] + 1e-3)
    (other,) = build_tables(moved)
    assert analysed_table(other, moved, RESAMPLES).notes[0] == (
        "no interval for NFCorpus: the table's score is not that of all items, as where it takes "
        "some subsets only"
    )


def test_tasks_are_drawn_before_their_items(results: Results, random: np.random.Generator) -> None:
    """Tasks that differ much make the interval of their mean wide, however sure each one is."""
    gains = np.array([0.0, 0.02, 0.05, 0.08, 0.1])
    tasks = ["ArguAna", "FiQA2018", "NFCorpus", "SciFact", "Touche2020"]
    for task, gain in zip(tasks, gains, strict=True):
        raw = 0.5 + 1e-4 * random.standard_normal(30)
        queries(results, task, raw)
        queries(results, task, raw + gain, Constant(0.8))
    _, found = analysed(results, {"BeirRetr": tasks}, resamples=20_000)
    one = found.means["bge-base-en-v1.5", "0.8", "BeirRetr"]
    shares = 100 * gains / 0.5
    half = stats.t.ppf(0.975, 4) * stats.sem(shares)
    # As wide as Student's t.
    assert (one.high - one.low) / 2 == pytest.approx(half, rel=0.03)
    assert one.low == pytest.approx(shares.mean() - half, abs=0.03 * half)
    sure = found.cells["bge-base-en-v1.5", "0.8", "SciFact"]
    assert sure.high - sure.low < 0.01 * (one.high - one.low)


def test_an_interval_leaves_the_range_of_few_tasks(
    results: Results, random: np.random.Generator
) -> None:
    """Three that all gain do not tell that tasks gain: Student's t has zero among its values."""
    gains = np.array([0.50, 0.61, 3.98])
    tasks = ["ArguAna", "NFCorpus", "SciFact"]
    for task, gain in zip(tasks, gains, strict=True):
        raw = 0.5 + 1e-5 * random.standard_normal(30)
        queries(results, task, raw)
        for policy in (Constant(0.9), Constant(0.8)):
            queries(results, task, raw * (1 + gain / 100), policy)
    _, found = analysed(results, {"BeirRetr": tasks}, resamples=10_000)
    half = stats.t.ppf(0.975, 2) * stats.sem(gains)
    one = found.means["bge-base-en-v1.5", "0.8", "BeirRetr"]
    assert one.low == pytest.approx(gains.mean() - half, abs=0.1)
    assert one.high == pytest.approx(gains.mean() + half, abs=0.1)
    assert not one.excludes_zero


@pytest.mark.parametrize(
    ("times", "most"), [(200, 0.1), pytest.param(500, 0.08, marks=pytest.mark.exhaustive)]
)
@pytest.mark.parametrize("columns", [(2,), (3,), (4,), (2, 2, 2)])
def test_few_tasks_without_effect_seldom_seem_to_have_one(
    columns: Sequence[int], times: int, most: float
) -> None:
    random, excluded = np.random.default_rng(8), 0
    names = [[f"T{n}.{place}" for place in range(count)] for n, count in enumerate(columns)]
    of = {task: f"C{n}" for n, own in enumerate(names) for task in own}
    for _ in range(times):
        scores = {task: {"1": 0.5, "0.8": 0.5 + random.normal(0, 0.01)} for task in of}
        draws = {
            ("m", policy, task): np.full(1000, score, dtype=np.float32)
            for task, own in scores.items()
            for policy, score in own.items()
        }
        table, kept = _made(scores, draws, random, of)
        picks = {"m": dict.fromkeys(of, "0.8")}
        one = improvement_interval(table, kept, picks, sorted(set(of.values())))
        assert one is not None
        excluded += one.excludes_zero
    # With 5 % each, more than 8 % of 500 or 10 % of 200 come about once in a thousand.
    assert excluded / times <= most


@pytest.mark.parametrize("sets", [2, 3])
def test_few_sets_without_effect_seldom_seem_to_have_one(sets: int) -> None:
    random, excluded, times = np.random.default_rng(8), 0, 500
    for seed in range(times):
        raw = random.normal(0.4, 0.05, sets)
        ours = raw + random.normal(0, 0.01, sets)
        low, high = bounds(of_queries(raw), of_queries(ours), seed, 1000)
        excluded += low > 0 or high < 0
    assert excluded / times <= 0.08


# A share of 0.95 has a standard error of 0.022 among 100.
@pytest.mark.parametrize(
    ("times", "least"), [(100, 0.9), pytest.param(300, 0.94, marks=pytest.mark.exhaustive)]
)
def test_intervals_of_means_cover_the_truth_at_least_as_often(times: int, least: float) -> None:
    """A column of six tasks that differ, each with its noise: the truth is the mean of all such."""
    random = np.random.default_rng(3)
    covered, tasks = 0, [f"T{number}" for number in range(6)]
    for seed in range(times):
        block_scores: dict[str, dict[str, float]] = {}
        draws: dict[tuple[str, str, str], Data] = {}
        for task in tasks:
            raw = random.normal(0.5, 0.1, 40)
            ours = raw + random.normal(0.01, 0.006) + random.normal(0, 0.05, 40)
            cells = [{PART: of_queries(raw)}, {PART: of_queries(ours)}]
            drawn = resample(cells, 500, seed, task)
            assert drawn is not None
            block_scores[task] = {"1": float(raw.mean()), "0.8": float(ours.mean())}
            for place, policy in enumerate(("1", "0.8")):
                draws["m", policy, task] = drawn.draws[:, place]
        table, kept = _made(block_scores, draws, random)
        one = improvement_interval(table, kept, {"m": dict.fromkeys(tasks, "0.8")}, ["C"])
        assert one is not None
        covered += one.low <= 2.0 <= one.high
    # Items are part of the spread of the tasks already: 95 % is the least.
    assert covered / times >= least


def _made(
    scores: Mapping[str, Mapping[str, float]],
    draws: Mapping[tuple[str, str, str], Data],
    random: np.random.Generator,
    column_of: Mapping[str, str] | None = None,
) -> tuple[ScoreTable, Any]:
    column_of = column_of or dict.fromkeys(scores, "C")
    rows = [
        {
            "group": "g",
            "window": 512,
            "model": "m",
            "revision": "r",
            "policy": policy,
            "task": task,
            "column": column_of[task],
            "split": "test",
            "subset": "default",
            "score": score,
            "conditions": {},
        }
        for task, of in scores.items()
        for policy, score in of.items()
    ]
    (table,) = build_tables(pd.DataFrame(rows))
    resamples = len(next(iter(draws.values())))
    shapes = {one.name: (resamples, len(one.tasks)) for one in table.columns}
    kept = Draws(
        scores=draws,
        cells=dict.fromkeys(draws, ("queries", 40, 40)),
        tasks={name: random.integers(0, shape[1], shape) for name, shape in shapes.items()},
        picks={name: random.integers(0, resamples, shape) for name, shape in shapes.items()},
    )
    return table, kept


def test_translations_are_one_sample_in_the_table_as_well(
    results: Results, random: np.random.Generator
) -> None:
    languages, gold = ("de", "en", "fr"), [str(number % 4) for number in range(80)]
    found = {}
    for name, spread in (("MassiveIntent", 0.0), ("MassiveScenario", 1.0)):
        shared = random.random(80)
        for policy in (BASELINE, Constant(0.8)):
            swing, entries, rows = random.standard_normal(80), {}, []
            for language in languages:
                # With a spread, each language swings by itself.
                own = random.standard_normal(80) if spread else swing
                values = np.clip(shared + 0.1 * own, 0, 1)
                entries["test", language] = {"main_score": float(values.mean())}
                rows += item_rows(list(values), subset=language, gold=gold)
            write_cell(results, name, entries, rows, policy)
    _, statistics = analysed(results, {"Class": ["MassiveIntent", "MassiveScenario"]})
    for name in ("MassiveIntent", "MassiveScenario"):
        one = statistics.cells["bge-base-en-v1.5", "0.8", name]
        assert one.count == 80
        found[name] = one.high - one.low
    # The same swing in all languages is no less for their number.
    assert found["MassiveIntent"] > 1.4 * found["MassiveScenario"]


def test_progress_tells_every_task(results: Results, random: np.random.Generator) -> None:
    fill(results, random, ["NFCorpus", "SciFact"])
    told: list[tuple[int, int]] = []
    table, scores = read(results, {"BeirRetr": ["NFCorpus", "SciFact"]})
    analysed_table(table, scores, 100, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_scores_without_files_have_no_intervals() -> None:
    rows = {"test": {"1": 0.5, "0.8": 0.51}}
    frame_table, _ = _made(rows, {("m", "1", "test"): np.zeros(2)}, np.random.default_rng(0))
    scores = pd.DataFrame({"group": ["g"], "window": [512]})
    found = analysed_table(frame_table, scores, 100)
    assert (found.cells, found.means) == ({}, {})


def test_a_pair_has_what_the_table_has(results: Results, random: np.random.Generator) -> None:
    raw, ours = random.random((2, 40))
    first = queries(results, "NFCorpus", raw)
    second = queries(results, "NFCorpus", ours, Constant(0.8))
    _, found = analysed(results, {"BeirRetr": ["NFCorpus"]})
    pair = compare_pair(first, second, RESAMPLES)
    (one,) = found.cells.values()
    assert pair == replace(one, adjusted=None)
    assert isinstance(pair, Uncertainty)
    back = compare_pair(second, first, RESAMPLES)
    assert back is not None
    assert (back.low < 0) == (pair.high > 0)
    assert back.p == pair.p
    other = queries(results, "NFCorpus", ours, Constant(0.9), dataset_revision="moved")
    assert compare_pair(first, other, RESAMPLES) is None
    assert compare_pair(first, replace(second, task="absent"), RESAMPLES) is None
