"""`tables.by_length`: which item counts where, and scores and intervals by hand and scipy."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cells import item_rows, relevant, write_cell
from scipy.stats import bootstrap, norm, spearmanr, t

from lcbench.reporting.table import Entry
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.by_length import Bucket, LengthBuckets, buckets_of, length_table
from lcbench.reporting.tables.changes import FEWEST_ITEMS, Change
from lcbench.reporting.tables.items_by_length import items_of_tables
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of
from lcbench.tempscale.policy import BASELINE, Constant
from lcbench.uncertainty import sums

OURS = Constant(0.8)
MODEL = "bge-base-en-v1.5"


def values_of(found: LengthBuckets) -> dict[str, tuple[Any, ...]]:
    return {policy: tuple(one.value for one in of) for policy, of in found.changes.items()}


def ends_of(found: LengthBuckets) -> dict[str, tuple[Any, ...]]:
    return {policy: tuple(one.ends for one in of) for policy, of in found.changes.items()}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def found_in(results: Results, **asked: int) -> list[LengthBuckets]:
    scores = results.read(partial(column_of, suites=()), pytest.fail)
    return of_scores(scores, **asked)


def of_scores(scores: Any, **asked: int) -> list[LengthBuckets]:
    return [
        one
        for place, items in items_of_tables(build_tables(scores), scores)
        for one in buckets_of(place, items, **asked)
    ]


def texts(
    scores: Sequence[float], tokens: Sequence[int], subset: str = "default", **more: Sequence[Any]
) -> list[dict[str, Any]]:
    return item_rows(scores, subset=subset, tokens=tokens, gold=["a"] * len(scores), **more)


def test_buckets_end_at_powers_of_two_and_a_full_window_is_one(results: Results) -> None:
    # One text of either end of each bucket, often enough for a score, but for that of 33 to 64.
    tokens = [10] + [32] * 29 + [33, 64] * 14 + [65, 299] * 15 + [300] * 40
    scores = [1.0] * 15 + [0.5] * 15 + [1.0] * 28 + [0.4] * 30 + [0.25] * 40
    ours = [0.9] * 30 + [1.0] * 28 + [0.5] * 30 + [0.3] * 40
    write_cell(results, "Banking77Classification", 0.5, texts(scores, tokens), window=300)
    write_cell(
        results, "Banking77Classification", 0.6, texts(ours, tokens), policy=OURS, window=300
    )
    (found,) = found_in(results)
    assert found.buckets == (
        Bucket(1, 32, 30),
        Bucket(33, 64, 28),
        Bucket(65, 128, 15),
        Bucket(129, 256, 0),
        Bucket(257, 299, 15),
        Bucket(300, None, 40),
    )
    labels = ["≤ 32", "33–64", "65–128", "129–256", "257–299", "≥ 300"]
    assert [bucket.label for bucket in found.buckets] == labels
    assert FEWEST_ITEMS == 30
    assert (found.by, found.metric, found.task) == ("text", "accuracy", "Banking77Classification")
    assert (found.group, found.column, found.label) == ("paper", "Other", MODEL)
    assert found.policies == ("1", "0.8")
    holes = (None, None, None, None)
    assert found.scores == {
        "1": (pytest.approx(75.0), *holes, pytest.approx(25.0)),
        "0.8": (pytest.approx(90.0), *holes, pytest.approx(30.0)),
    }
    assert values_of(found) == {"0.8": (pytest.approx(20.0), *holes, pytest.approx(20.0))}
    # In the last bucket all texts gain the same: no other draw of them would change the ratio.
    (first, *between, last) = ends_of(found)["0.8"]
    assert between == [None] * 4
    assert last == (pytest.approx(20.0), pytest.approx(20.0))
    assert first is not None
    assert first[0] < 20 < first[1]
    assert found.tells_lengths_apart


def test_without_a_window_no_bucket_is_open(results: Results) -> None:
    rows = texts([1.0] * 60, [40] * 30 + [65] * 30)
    write_cell(results, "ImdbClassification", 0.5, rows, window=None)  # type: ignore[arg-type]
    (found,) = found_in(results)
    assert found.buckets == (Bucket(33, 64, 30), Bucket(65, 128, 30))


def test_a_query_counts_by_its_longest_document_and_by_its_own_length(results: Results) -> None:
    documents = (
        [relevant(("a", 20, 1), ("b", 100, 1))] * 30 + [relevant(("c", 50, 1))] * 40 + [[]] * 5
    )
    tokens = [10] * 20 + [40] * 55
    scores = [0.2] * 15 + [0.4] * 15 + [0.6] * 40 + [0.9] * 5
    rows = item_rows(scores, tokens=tokens, relevant=documents)
    entry = {"ndcg_at_1": 0.3, "map_at_10": 0.5, "ndcg_at_10": 0.5, "main_score": 0.5}
    write_cell(results, "SciFact", {("test", "default"): entry}, rows)
    document, query = found_in(results)
    assert (document.by, query.by) == ("document", "query")
    # Of the two metrics that equal the main score the more common one.
    assert document.metric == query.metric == "ndcg_at_10"
    assert document.buckets == (Bucket(33, 64, 40), Bucket(65, 128, 30))
    assert document.scores == {"1": (pytest.approx(60.0), pytest.approx(30.0))}
    assert query.buckets == (Bucket(1, 32, 20), Bucket(33, 64, 55))
    # Of the first thirty queries, the last ten are this long, with 0.4 each.
    assert query.scores == {"1": (None, pytest.approx(100 * (10 * 0.4 + 40 * 0.6 + 5 * 0.9) / 55))}
    assert document.tells_lengths_apart
    assert not query.tells_lengths_apart


def pairs(
    rng: np.random.Generator, count: int, noise: float, tokens: Sequence[int], subset: str
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    gold = rng.integers(0, 6, count)
    cosine = np.round(gold / 5 + noise * rng.normal(size=count), 2)
    rows = item_rows(
        cosine.tolist(),
        subset=subset,
        tokens=tokens,
        tokens_2=[min(token, 7) for token in tokens],
        gold=[str(value) for value in gold],
    )
    return rows, gold, cosine


def test_spearman_of_the_pairs_by_their_longer_text(results: Results) -> None:
    rng = np.random.default_rng(0)
    tokens = [5] * 60 + [50] * 40
    rows, gold, cosine = pairs(rng, 100, 0.3, tokens, "en")
    for row in rows[:60]:
        row["tokens_2"] = 20
    other, other_gold, other_cosine = pairs(rng, 90, 0.9, [10] * 90, "de")
    few, *_ = pairs(rng, 29, 0.9, [10] * 29, "fr")
    entries = {("test", subset): {"main_score": 0.5} for subset in ("en", "de", "fr")}
    write_cell(results, "STS17", entries, rows + other + few)
    (found,) = found_in(results)
    assert (found.by, found.metric) == ("pair", "Spearman")
    assert found.buckets == (Bucket(1, 32, 179), Bucket(33, 64, 40))
    # Within each language, by their numbers of pairs; 29 pairs are too few to count.
    english = spearmanr(gold[:60], cosine[:60]).statistic
    german = spearmanr(other_gold, other_cosine).statistic
    assert found.scores["1"] == (
        pytest.approx(100 * (60 * english + 90 * german) / 150),
        pytest.approx(100 * spearmanr(gold[60:], cosine[60:]).statistic),
    )


def test_a_correlation_with_a_constant_is_a_missing_value(results: Results) -> None:
    rows = item_rows([0.5] * 40, tokens=[5] * 40, tokens_2=[5] * 40, gold=["1", "2"] * 20)
    write_cell(results, "STS13", 0.5, rows)
    write_cell(results, "STS13", 0.5, rows, policy=OURS)
    (found,) = found_in(results)
    assert found.scores == {"1": (None,), "0.8": (None,)}
    assert ends_of(found) == {"0.8": (None,)}


def test_no_length_of_what_has_no_items_or_no_score_of_each(results: Results) -> None:
    clusters = [
        {"split": "test", "subset": "default", "id": "0/0", "tokens": 5, "gold": "a"},
        {"split": "test", "subset": "default", "id": "0/1", "tokens": 5, "gold": "b"},
    ]
    write_cell(results, "RedditClustering", 0.5, clusters)
    write_cell(results, "SummEval", 0.3)
    broken = write_cell(results, "SciFact", 0.5, item_rows([0.5] * 30))
    broken.items.write_bytes(b"no parquet")
    # Of a version that kept no digest of them; with one this is told (`test_folder`).
    known = json.loads(broken.provenance.read_text())
    broken.provenance.write_text(json.dumps({**known, "items_sha256": None}))
    assert found_in(results) == []


def test_other_items_and_scores_that_do_not_count_are_missing_values(results: Results) -> None:
    rows = texts([0.5] * 30, [5] * 30)
    write_cell(results, "ImdbClassification", 0.5, rows)
    others = [{**row, "id": f"other {row['id']}"} for row in rows]
    write_cell(results, "ImdbClassification", 0.5, others, policy=OURS)
    refused = Constant(0.5)
    write_cell(results, "ImdbClassification", 0.9, rows, policy=refused, dataset_revision="another")
    (found,) = found_in(results)
    assert found.scores == {"1": (50.0,), "0.8": (None,), "0.5": (None,)}
    assert values_of(found) == {"0.8": (None,), "0.5": (None,)}


def level(count: int) -> float:
    """The confidence that gives scipy's percentiles the width of ours (Hesterberg 2015)."""
    return float(1 - 2 * norm.cdf(-np.sqrt(count / (count - 1)) * t.ppf(0.975, count - 1)))


# Above 1,000 items means are drawn from their normal limit.
@pytest.mark.parametrize("count", [30, 400, 3000])
def test_an_interval_is_scipys_paired_percentile_bootstrap(results: Results, count: int) -> None:
    rng = np.random.default_rng(1)
    raw = rng.beta(2, 1, count)
    ours = np.clip(raw + rng.normal(0.01, 0.1, count), 0, 1)
    tokens = [5] * count
    write_cell(results, "ImdbClassification", 0.5, texts(raw.tolist(), tokens))
    write_cell(results, "ImdbClassification", 0.5, texts(ours.tolist(), tokens), policy=OURS)
    (found,) = found_in(results)
    (interval,), (improvement,) = ends_of(found)["0.8"], values_of(found)["0.8"]
    assert improvement == pytest.approx(100 * (ours.mean() / raw.mean() - 1))
    scipys = bootstrap(
        (raw, ours),
        lambda raw, ours, axis: 100 * (ours.mean(axis=axis) / raw.mean(axis=axis) - 1),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=9999,
        confidence_level=level(count),
        rng=np.random.default_rng(2),
    ).confidence_interval
    width = scipys.high - scipys.low
    assert interval is not None
    assert interval[0] < improvement < interval[1]
    # A sample of few clusters has more of them or fewer, where scipy's has always as many.
    near = 0.08 if count == 30 else 0.06
    assert interval == pytest.approx((scipys.low, scipys.high), abs=near * width)


def test_the_interval_of_a_correlation_is_scipys_to_first_order(results: Results) -> None:
    rng = np.random.default_rng(3)
    rows, gold, raw = pairs(rng, 250, 0.3, [5] * 250, "default")
    ours = raw + 0.15 * rng.normal(size=250)
    write_cell(results, "STS13", 0.5, rows)
    changed = [{**row, "score": score} for row, score in zip(rows, ours.tolist(), strict=True)]
    write_cell(results, "STS13", 0.5, changed, policy=OURS)
    (found,) = found_in(results)
    (interval,) = ends_of(found)["0.8"]

    def improvement(gold: np.ndarray, raw: np.ndarray, ours: np.ndarray) -> float:
        before, after = (spearmanr(gold, cosine).statistic for cosine in (raw, ours))
        return float(100 * (after / before - 1))

    assert values_of(found)["0.8"] == (pytest.approx(improvement(gold, raw, ours)),)
    scipys = bootstrap(
        (gold, raw, ours),
        improvement,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1500,
        confidence_level=level(250),
        rng=np.random.default_rng(4),
    ).confidence_interval
    assert interval == pytest.approx(
        (scipys.low, scipys.high), abs=0.1 * (scipys.high - scipys.low)
    )


def test_an_interval_does_not_depend_on_the_other_tasks(results: Results) -> None:
    rng = np.random.default_rng(6)
    for task in ("ImdbClassification", "Banking77Classification"):
        for policy in (BASELINE, OURS):
            rows = texts(rng.uniform(size=50).tolist(), [5] * 50)
            write_cell(results, task, 0.5, rows, policy=policy)
    scores = results.read(partial(column_of, suites=()), pytest.fail)
    one, two = of_scores(scores)
    alone = scores[scores["task"] == two.task]
    assert of_scores(alone) == [two]
    assert ends_of(one)["0.8"] != ends_of(two)["0.8"]


def test_the_intervals_are_those_of_the_samples_and_seed_that_were_asked_for(
    results: Results,
) -> None:
    random = np.random.default_rng(3)
    raw, tokens = random.random(80), [20] * 40 + [40] * 40
    for policy in (BASELINE, OURS):
        scores = raw if policy is BASELINE else raw + 0.1 * random.standard_normal(80)
        rows = texts(list(scores), tokens)
        write_cell(results, "Banking77Classification", float(scores.mean()), rows, policy=policy)

    def of(resamples: int, seed: int) -> LengthBuckets:
        (found,) = found_in(results, resamples=resamples, seed=seed)
        return found

    usual = of(sums.RESAMPLES, sums.SEED)
    assert usual == found_in(results)[0]
    assert ends_of(of(sums.RESAMPLES, 1)) != ends_of(usual)
    none = of(0, 0)
    assert ends_of(none) == {"0.8": (None, None)}
    assert values_of(none) == values_of(usual)
    built = length_table([none])
    assert built is not None
    assert not any("bootstrap" in note for note in built.notes)


def lengths(task: str = "T", intervals: Mapping[str, Any] | None = None) -> LengthBuckets:
    policies = {"0.9": (51.0, None, 19.9), "0.8": (50.5, None, 20.0008)}
    improvements = {"0.9": (2.0, None, -0.5), "0.8": (1.0, None, 0.004)}
    ends = intervals or {
        "0.9": ((1.5, 2.5), None, (-0.7, -0.1)),
        "0.8": ((-0.5, 2.5), None, None),
    }
    return LengthBuckets(
        group="paper",
        column="Class",
        task=task,
        label="m",
        by="text",
        metric="accuracy",
        policies=("1", *policies),
        buckets=(Bucket(1, 32, 1200), Bucket(33, 64, 3), Bucket(65, 99, 30)),
        scores={"1": (50.0, None, 20.0), **policies},
        changes={
            policy: tuple(map(Change, improvements[policy], ends[policy]))
            for policy in improvements
        },
    )


def test_the_table_has_a_column_a_bucket_and_marks_what_is_significant(results: Results) -> None:
    long = LengthBuckets(
        **{
            **lengths("Long").__dict__,
            "buckets": (Bucket(33, 64, 30), Bucket(65, 99, 40), Bucket(100, None, 50)),
        }
    )
    alone = LengthBuckets(**{**lengths("Alone").__dict__, "scores": {"1": (50.0, None, None)}})
    built = length_table([lengths(), long, alone])
    assert built is not None
    assert built.name == "by-length"
    assert built.header == ("τ", "", "≤ 32", "33–64", "65–99", "≥ 100")
    assert built.labels == 2
    first, second = built.sections
    assert first.heading == "T, m, by the tokens of the text"
    assert second.heading == "Long, m, by the tokens of the text"
    shown = [[entry.text for entry in row] for row in first.rows]
    assert shown == [
        ["", "items", "1,200", "3", "30", "–"],
        ["1", "accuracy", "50.00", "–", "20.00", "–"],
        ["0.9", "accuracy", "51.00", "–", "19.90", "–"],
        ["0.9", "relative (%)", "▲ 2.00", "–", "▼ 0.50", "–"],
        ["0.8", "accuracy", "50.50", "–", "20.00", "–"],
        ["0.8", "relative (%)", "△ 1.00", "–", "0.00", "–"],
    ]
    assert first.rows[0][4] == Entry("30", 30, tooltip="65–99 tokens")
    assert first.rows[3][2] == Entry("▲ 2.00", 2.0, "gain", "95 % interval 1.50 to 2.50", 1.5, 2.5)
    assert first.rows[3][4] == Entry(
        "▼ 0.50", -0.5, "loss", "95 % interval -0.70 to -0.10", -0.7, -0.1
    )
    assert first.rows[5][2] == Entry(
        "△ 1.00", 1.0, "inconclusive", "95 % interval -0.50 to 2.50", -0.5, 2.5
    )
    assert [entry.text for entry in second.rows[0]][2:] == ["–", "30", "40", "50"]
    left_out = "Left out, fewer than two lengths with a score: Alone (by text)."
    assert left_out in built.notes
    assert any("fewer than 30" in note for note in built.notes)


def test_repairs_of_several_kinds_have_their_names() -> None:
    found, other = lengths(), "0.9 + correct=centre"
    renamed: dict[str, Any] = {
        name: {policy.replace("0.8", other): one for policy, one in getattr(found, name).items()}
        for name in ("scores", "changes")
    }
    renamed["policies"] = ("1", "0.9", other)
    built = length_table([replace(found, **renamed)])
    assert built is not None
    assert built.header[0] == "Repair"
    shown = [row[0].text for row in built.sections[0].rows]
    assert shown == ["", "τ = 1", "τ = 0.9", "τ = 0.9", *["τ = 0.9 + centre"] * 2]


def test_a_column_is_named_by_what_its_bucket_holds() -> None:
    """A window of 512 ends the bucket before it at 511, one of 300 at 299: none is 257–512."""
    buckets = {
        "long": (Bucket(129, 256, 30), Bucket(257, 511, 30), Bucket(512, None, 30)),
        "short": (Bucket(129, 256, 30), Bucket(257, 299, 30), Bucket(300, None, 30)),
    }
    found = [
        LengthBuckets(**{**lengths(task).__dict__, "buckets": own}) for task, own in buckets.items()
    ]
    built = length_table(found)
    assert built is not None
    assert built.header == ("τ", "", "129–256", "257–299", "257–511", "≥ 300", "≥ 512")
    counts = [[entry.text for entry in section.rows[0][2:]] for section in built.sections]
    assert counts == [["30", "–", "30", "–", "30"], ["30", "30", "–", "30", "–"]]


def test_a_bucket_whose_baseline_may_be_zero_is_compared_with_it_as_it_is(
    results: Results,
) -> None:
    """The rule of Table 1. A few of 32 texts are right: some samples have none of them."""
    raw, ours = [1.0] * 3 + [0.0] * 29, [0.0] * 3 + [1.0] * 5 + [0.0] * 24
    for policy, scores in ((BASELINE, raw), (OURS, ours)):
        rows = texts(scores * 2, [20] * 32 + [40] * 32)
        write_cell(results, "Banking77Classification", np.mean(scores), rows, policy=policy)
    (found,) = found_in(results)
    assert values_of(found)["0.8"][0] == pytest.approx(100 * 2 / 3)
    ends = ends_of(found)["0.8"][0]
    assert ends is not None
    assert np.isfinite(ends).all()
    # A difference of 5 and 3 texts of 32, over 3/32: by the normal, 66.7 ± 1.96 · 91.
    assert ends[0] == -100
    assert ends[1] == pytest.approx(66.7 + 1.96 * 91, abs=25)
    built = length_table([found])
    assert built is not None
    assert any("divided by it as it is, as in Table 1" in note for note in built.notes)
    assert any("random draw of texts, and may claim too much" in note for note in built.notes)


def test_what_was_found_in_items_can_be_shown(results: Results) -> None:
    """From the items to the built: the numbers on the way are numpy's."""
    random = np.random.default_rng(5)
    raw, tokens = random.random(80), [20] * 40 + [40] * 40
    for policy, more in ((BASELINE, 0.0), (OURS, 0.1)):
        scores = np.clip(raw + more, 0, 1)
        rows = texts(list(scores), tokens)
        write_cell(results, "Banking77Classification", float(scores.mean()), rows, policy=policy)
    built = length_table(found_in(results))
    assert built is not None
    (section,) = built.sections
    change = section.rows[-1]
    assert [entry.style for entry in change[2:4]] == ["gain", "gain"]
    assert all(type(entry.value) is float for entry in change[2:4])


def test_nothing_by_length_is_no_table() -> None:
    assert length_table([]) is None


def test_items_in_another_order_are_the_same_items(results: Results) -> None:
    random = np.random.default_rng(3)
    raw, tokens = random.random(80), [20] * 40 + [40] * 40
    ours = np.clip(raw + 0.1 * random.standard_normal(80), 0, 1)
    rows = texts(list(ours), tokens)
    write_cell(results, "Banking77Classification", float(raw.mean()), texts(list(raw), tokens))
    write_cell(
        results,
        "Banking77Classification",
        float(ours.mean()),
        [rows[place] for place in random.permutation(80)],
        policy=OURS,
    )
    (found,) = found_in(results)
    halves = ours[:40].mean(), ours[40:].mean()
    assert found.scores["0.8"] == pytest.approx([100 * half for half in halves])
