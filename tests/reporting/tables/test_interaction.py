"""`tables.interaction` and `tables.paper_lengths`: made-up items by a few lines of numpy."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cells import item_rows, write_cell
from scipy.stats import spearmanr

from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.interaction import LengthGain, gain_table, gains_by_length
from lcbench.reporting.tables.items_by_length import Items, Place, items_of_tables
from lcbench.reporting.tables.paper_lengths import (
    accuracy_of_intervals,
    interval_table,
    ndcg_of_queries,
    query_table,
)
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of
from lcbench.tempscale.policy import BASELINE, Constant

OURS = Constant(0.8)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def items_in(results: Results) -> list[tuple[Place, Items]]:
    scores = results.read(partial(column_of, suites=()), pytest.fail)
    return list(items_of_tables(build_tables(scores), scores))


def gains_in(results: Results) -> list[LengthGain]:
    return [one for place, items in items_in(results) for one in gains_by_length(place, items)]


def test_the_gain_per_doubling_and_that_of_the_longest_fifth(results: Results) -> None:
    rng = np.random.default_rng(0)
    characters = rng.integers(100, 5000, 300)
    raw = rng.uniform(0.3, 0.7, 300)
    ours = raw + 0.02 * np.log2(characters / 100) + rng.normal(0, 0.02, 300)
    for policy, values in ((BASELINE, raw), (OURS, ours)):
        rows = item_rows(
            values.tolist(),
            gold=["a"] * 300,
            tokens=np.minimum(characters // 5, 512).tolist(),
            characters=characters.tolist(),
        )
        write_cell(results, "ImdbClassification", 0.5, rows, policy=policy)
    (found,) = gains_in(results)
    assert (found.by, found.unit, found.count) == ("text", "characters", 300)
    slope, _ = np.polyfit(np.log2(characters), ours - raw, 1)
    assert found.slopes["0.8"].value == pytest.approx(100 * slope / raw.mean())
    order = np.argsort(characters, kind="stable")
    gains = [100 * (ours[part].mean() / raw[part].mean() - 1) for part in (order[:60], order[-60:])]
    assert (found.shortest, found.longest) == (60, 60)
    assert found.contrasts["0.8"].value == pytest.approx(gains[1] - gains[0])
    for change in (found.slopes["0.8"], found.contrasts["0.8"]):
        assert change.ends is not None
        assert 0 < change.ends[0] < (change.value or 0) < change.ends[1]
    # The error of a slope, not of the bootstrap: over residuals, robust to unequal variances.
    x = np.log2(characters) - np.log2(characters).mean()
    residuals = ours - raw - (ours - raw).mean() - slope * x
    error = 100 * np.sqrt(((x * residuals) ** 2).sum()) / (x**2).sum() / raw.mean()
    low, high = found.slopes["0.8"].ends or (0, 0)
    assert (high - low) / 2 == pytest.approx(1.97 * error, rel=0.08)
    shown = gain_table([found])
    assert shown is not None
    assert (shown.name, shown.header[:4]) == ("gain-by-length", ("Task", "Length of", "Items", ""))
    per_doubling, contrast = shown.sections[0].rows
    assert [entry.text for entry in per_doubling[1:4]] == ["text", "300", "per doubling (%)"]
    assert contrast[2].text == "60 − 60"
    assert per_doubling[4].text == f"▲ {found.slopes['0.8'].value:.2f} ({low:.2f} to {high:.2f})"
    assert (per_doubling[4].low, per_doubling[4].high) == (low, high)
    # What they learned from is not known of these.
    assert any("leave out that each classifier" in note for note in shown.notes)


def test_what_has_no_answer_is_noted_and_has_no_number(results: Results) -> None:
    def write(task: str, values: list[float], characters: list[int]) -> None:
        for policy in (BASELINE, OURS):
            more = {"characters": characters, "tokens": characters}
            rows = item_rows(values, gold=["a"] * len(values), **more)
            write_cell(results, task, 0.5, rows, policy=policy)

    write("ImdbClassification", [0.5], [10])
    write("Banking77Classification", [0.5, 1.0] * 30, [10] * 60)
    write("EmotionClassification", [0.0] * 60, list(range(1, 61)))
    write("ToxicConversationsClassification", [0.25, 0.75] * 100, list(range(1, 201)))
    found = {one.task: one for one in gains_in(results)}
    assert found["ImdbClassification"].why == "fewer than 30 items"
    assert found["Banking77Classification"].why == "all of one length"
    assert found["EmotionClassification"].why == "no score above 0 of enough items"
    assert found["EmotionClassification"].slopes == {}
    equal = found["ToxicConversationsClassification"]
    assert (equal.slopes["0.8"].value, equal.slopes["0.8"].ends) == (0, (0, 0))
    assert equal.slopes["0.8"].changed == (0, 0)
    shown = gain_table(list(found.values()))
    assert shown is not None
    assert [row[0].text for row in shown.sections[0].rows] == [equal.task] * 2
    # Nothing changed: no mark.
    assert shown.sections[0].rows[0][4].text == "0.00 (0.00 to 0.00)"
    assert shown.notes[-1].startswith("Left out: Banking77Classification by text (all of one")
    assert gain_table([found["ImdbClassification"]]) is None
    assert all(
        accuracy_of_intervals(place, items) is not None and ndcg_of_queries(place, items) is None
        for place, items in items_in(results)
    )


def test_a_correlation_has_a_contrast_and_no_slope(results: Results) -> None:
    rng = np.random.default_rng(1)
    gold, characters = rng.integers(0, 6, 400), np.arange(10, 410)
    cosines = {
        policy: np.round(gold / 5 + noise * rng.normal(size=400), 3)
        for policy, noise in ((BASELINE, 0.4), (OURS, 0.3))
    }
    for policy, values in cosines.items():
        rows = item_rows(
            values.tolist(),
            gold=[str(one) for one in gold],
            **{"tokens": [5] * 400, "tokens_2": [5] * 400},
            **{"characters": characters.tolist(), "characters_2": [3] * 400},
        )
        write_cell(results, "STS13", 0.5, rows, policy=policy)
    (found,) = gains_in(results)
    assert (found.by, found.slopes) == ("pair", {})
    changes = []
    for part in (slice(0, 80), slice(320, 400)):
        raw, ours = (spearmanr(gold[part], values[part]).statistic for values in cosines.values())
        changes.append(100 * (ours / raw - 1))
    assert found.contrasts["0.8"].value == pytest.approx(changes[1] - changes[0])
    shown = gain_table([found])
    assert shown is not None
    assert "A correlation has no value of a single pair, and so no slope." in shown.notes


def test_training_draws_count(results: Results) -> None:
    """One draw of ten makes all the difference: over texts alone it would be significant."""
    rng = np.random.default_rng(2)
    raw = rng.random((200, 10)) < 0.6
    ours = raw.copy()
    ours[:100, 4] = True
    write_classified(results, raw, BASELINE)
    write_classified(results, ours, OURS)
    ((place, items),) = items_in(results)
    assert (items.right["0.8"] == ours).all()
    (found,) = gains_by_length(place, items)
    low, high = found.slopes["0.8"].ends or (0, 0)
    assert found.has_draws
    assert low < 0 < high
    (texts_alone,) = gains_by_length(place, replace(items, right={}))
    low, high = texts_alone.slopes["0.8"].ends or (0, 0)
    assert high < 0


def write_classified(results: Results, right: np.ndarray, policy: Any, older: bool = False) -> None:
    texts, draws = right.shape
    scores = right.mean(axis=1)
    more: dict[str, Any] = {"right": [sum(1 << j for j in range(draws) if row[j]) for row in right]}
    if older:
        more = {"predictions": [["a" if one else "b" for one in row] for row in right]}
    tokens = [50 + 2 * place for place in range(texts)]
    rows = item_rows(scores.tolist(), gold=["a"] * texts, tokens=tokens, characters=tokens, **more)
    experiments = [{"accuracy": float(value)} for value in right.mean(axis=0)]
    entry = {"main_score": float(scores.mean()), "scores_per_experiment": experiments}
    write_cell(results, "ImdbClassification", {("test", "default"): entry}, rows, policy=policy)


def test_older_predictions_say_what_was_right(results: Results) -> None:
    rng = np.random.default_rng(3)
    right = rng.random((40, 10)) < 0.6
    write_classified(results, right, BASELINE, older=True)
    ((_, items),) = items_in(results)
    assert (items.right["1"] == right).all()


def test_intervals_of_100_have_equal_numbers_of_texts(results: Results) -> None:
    rng = np.random.default_rng(4)
    right = rng.random((240, 10)) < 0.6
    ours = right | (rng.random((240, 10)) < 0.1)
    write_classified(results, right, BASELINE)
    write_classified(results, ours, OURS)
    ((place, items),) = items_in(results)
    found = accuracy_of_intervals(place, items)
    assert found is not None
    # From 50 to 528 tokens by two: 25 below 100, fifty in each of the following, and 512 is full.
    assert found.lengths == ("100–199", "200–299", "300–399", "400–499")
    assert found.counts == (50, 50, 50, 50)
    tokens = items.tokens["text"]
    for part, low in enumerate((100, 200, 300, 400)):
        inside = (tokens >= low) & (tokens < low + 100)
        assert found.scores["1"][part] == pytest.approx(100 * right[inside].mean())
        change = found.changes["0.8"][part]
        assert change.value == pytest.approx(100 * (ours[inside].mean() / right[inside].mean() - 1))
    shown = interval_table([found])
    assert shown is not None
    assert shown.name == "by-hundreds"
    assert [entry.text for entry in shown.sections[0].rows[0][:3]] == ["100–199", "50", "accuracy"]
    assert any("in tokens as the model reads them" in note for note in shown.notes)
    assert any("entropy of Figure 6 is not known" in note for note in shown.notes)
    # With fewer texts in one of them all have as few; an interval of fewer than 30 is left out.
    fewer = replace(items, tokens={"text": np.where(tokens > 430, 50, tokens)})
    found = accuracy_of_intervals(place, fewer)
    assert found is not None
    assert found.lengths == ("0–99", "100–199", "200–299", "300–399")
    assert found.counts == (50, 50, 50, 50)
    fewer = replace(items, tokens={"text": np.where(tokens >= 370, 512, tokens)})
    found = accuracy_of_intervals(place, fewer)
    assert found is not None
    assert (found.lengths[-1], found.counts) == ("300–399", (35, 35, 35))
    nothing = accuracy_of_intervals(place, replace(items, tokens={"text": tokens * 0 + 20}))
    assert nothing is not None
    assert nothing.why == "fewer than two intervals of 30 texts"
    assert interval_table([nothing]) is None


def test_ndcg_at_100_is_that_of_trec_eval(results: Results) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng = np.random.default_rng(5)
    rows, qrels, run = [], {}, {}
    for query in range(160):
        count = int(rng.integers(1, 6))
        ranks = rng.choice(np.arange(1, 200), count, replace=False)
        grades = rng.integers(1, 4, count)
        qrels[f"{query}"] = {
            f"d{one}": int(grade) for one, grade in zip(ranks, grades, strict=True)
        }
        run[f"{query}"] = {f"d{rank}": float(-rank) for rank in range(1, 201)}
        rows.append(
            [
                {
                    "id": f"d{rank}",
                    "grade": int(grade),
                    "tokens": 9,
                    "characters": 40,
                    "rank": int(rank),
                }
                for rank, grade in zip(ranks, grades, strict=True)
            ]
        )
    characters = [10 + place for place in range(160)]
    items = item_rows([0.5] * 160, relevant=rows, tokens=[9] * 160, characters=characters)
    write_cell(results, "SciFact", 0.5, items)
    ((place, found_items),) = items_in(results)
    found = ndcg_of_queries(place, found_items)
    assert found is not None
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.100"})
    values = [evaluator.evaluate(run)[str(query)]["ndcg_cut_100"] for query in range(160)]
    assert found.counts == (32, 32)
    assert found.scores["1"] == pytest.approx(
        (100 * np.mean(values[:32]), 100 * np.mean(values[-32:]))
    )
    shown = query_table([found])
    assert shown is not None
    assert [row[0].text for row in shown.sections[0].rows] == ["shortest 20 %", "longest 20 %"]
    alike = replace(found_items, characters={**found_items.characters, "query": np.full(160, 9.0)})
    nothing = ndcg_of_queries(place, alike)
    assert nothing is not None
    assert nothing.why == "the shortest and the longest 20 % meet"
