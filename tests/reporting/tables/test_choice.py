"""`tables.choice`: the paper's rule, tasks held out, and what the difference is."""

import csv as csv_format
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_cells import BGE, item_rows, write_cell
from scipy import stats

from lcbench.reporting import sheet as sheets
from lcbench.reporting.intervals import analyse
from lcbench.reporting.table import Table
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables import choice as choice_module
from lcbench.reporting.tables.choice import Choice, choose, sheet
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant

# By task and policy.
Scores = Mapping[str, Mapping[str, float]]


def table_of(models: Mapping[str, Scores], columns: Mapping[str, Sequence[str]]) -> Table:
    rows = [
        {
            "group": "g",
            "window": 512,
            "model": model,
            "revision": "r",
            "policy": policy,
            "task": task,
            "column": column,
            "split": "test",
            "subset": "default",
            "score": score,
            "conditions": {},
        }
        for model, scores in models.items()
        for column, tasks in columns.items()
        for task in tasks
        for policy, score in scores.get(task, {}).items()
    ]
    (table,) = build_tables(pd.DataFrame(rows), columns)
    return table


def made(table: Table) -> Choice:
    choice = choose(table)
    assert choice is not None
    return choice


THREE: Scores = {
    "A": {"1": 0.50, "0.9": 0.51, "0.8": 0.56},
    "B": {"1": 0.50, "0.9": 0.52, "0.8": 0.49},
    "C": {"1": 0.50, "0.9": 0.51, "0.8": 0.51},
}


def test_by_hand() -> None:
    choice = made(table_of({"m": THREE}, {"X": ["A", "B", "C"]}))
    (model,) = choice.models
    assert model.candidates == ("1", "0.9", "0.8")
    # 0.8 is best over all: (0.56 + 0.49 + 0.51) / 3 = 0.52. Without A it is 0.9.
    assert (model.tau, model.gain) == ("0.8", pytest.approx(4))
    assert model.held_out == {"A": "0.9", "B": "0.8", "C": "0.8"}
    # (0.51 + 0.49 + 0.51) / 3 = 0.50333
    assert model.honest_gain == pytest.approx(100 * (1.51 / 1.5 - 1))
    assert model.optimism == pytest.approx(4 - 100 * 0.01 / 1.5)
    assert model.gains == pytest.approx({"1": 0, "0.9": 100 * 0.04 / 1.5, "0.8": 4})
    assert model.usual_regret == 0
    assert (model.honest_low, model.honest_high) == (None, None)
    assert (choice.one_tau, choice.one_gain) == ("0.8", pytest.approx(4))


def test_a_column_left_empty_has_no_part_in_the_choice() -> None:
    scores = {**THREE, "D": {"1": 0.4, "0.9": 0.2, "0.8": 0.4}}
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B", "C"], "Y": ["D"]})).models
    # Without D the column X alone decides, for 0.8; with D 0.9 is out of the question.
    assert model.held_out == {"A": "1", "B": "0.8", "C": "0.8", "D": "0.8"}
    # Avg is the mean of the two columns: (0.52 + 0.4) / 2 over (0.5 + 0.4) / 2.
    assert model.gain == pytest.approx(100 * (0.92 / 0.90 - 1))
    honest = (np.mean([0.50, 0.49, 0.51]) + 0.4) / 0.9
    assert model.honest_gain == pytest.approx(100 * (honest - 1))


def test_equals_go_to_the_one_nearest_to_one() -> None:
    scores = {task: {"1": 0.5, "0.9": 0.6, "0.8": 0.6} for task in "AB"}
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B"]})).models
    assert model.tau == "0.9"
    assert set(model.held_out.values()) == {"0.9"}


def test_where_every_temperature_loses_none_is_chosen() -> None:
    scores = {task: {"1": 0.5, "0.9": 0.4, "0.8": 0.3} for task in "AB"}
    choice = made(table_of({"m": scores}, {"X": ["A", "B"]}))
    (model,) = choice.models
    assert (model.tau, model.gain, model.honest_gain, model.optimism) == ("1", 0, 0, 0)
    assert model.usual_regret == pytest.approx(40)
    assert choice.one_tau == "1"


def test_only_constant_temperatures_with_all_tasks_are_candidates() -> None:
    scores = {
        "A": {"1": 0.5, "0.9": 0.6, "0.7": 0.4, "0.8": 0.7, "query=0.8,document=1": 0.9},
        "B": {"1": 0.5, "0.9": 0.6, "0.7": 0.4, "query=0.8,document=1": 0.9},
    }
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B"]})).models
    assert model.candidates == ("1", "0.9", "0.7")
    assert model.usual_regret is None


def test_a_model_without_a_choice_is_left_out_with_a_note() -> None:
    alone = {task: {"1": 0.5} for task in "ABC"}
    choice = made(table_of({"m": THREE, "n": alone}, {"X": ["A", "B", "C"]}))
    assert [model.label for model in choice.models] == ["m"]
    assert choice.notes == ("n: fewer than two temperatures beside τ = 1 have all tasks",)
    # One that was asked for and tried was not chosen among others.
    single = {task: {"1": 0.5, "0.8": 0.6} for task in "ABC"}
    assert choose(table_of({"n": single}, {"X": ["A", "B", "C"]})) is None
    assert choose(table_of({"n": alone}, {"X": ["A", "B", "C"]})) is None
    assert choose(table_of({"m": {"A": THREE["A"]}}, {"X": ["A"]})) is None


def test_needles_are_no_part_of_the_average_and_none_of_the_choice() -> None:
    scores = {**THREE, "N": {"1": 0.1, "0.9": 0.9, "0.8": 0.1}}
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B", "C"], "Needle": ["N"]})).models
    assert model.tau == "0.8"
    assert set(model.held_out) == {"A", "B", "C"}


def test_one_temperature_for_all_models_is_the_one_of_the_highest_mean_gain() -> None:
    other = {task: {"1": 0.5, "0.9": 0.5, "0.8": 0.4} for task in "ABC"}
    choice = made(table_of({"m": THREE, "n": other}, {"X": ["A", "B", "C"]}))
    assert choice.one_tau == "0.9"
    assert choice.one_gain == pytest.approx((100 * 0.04 / 1.5 + 0) / 2)


def test_in_pure_noise_the_papers_rule_gains_and_the_held_out_choice_does_not() -> None:
    random = np.random.default_rng(12)
    columns = {"X": [f"x{n}" for n in range(5)], "Y": [f"y{n}" for n in range(4)], "Z": ["z"]}
    policies = ["0.95", "0.9", "0.8", "0.7", "0.6", "0.5"]
    paper, honest = [], []
    for _ in range(400):
        scores = {
            task: {"1": 0.5, **{policy: 0.5 + random.normal(0, 0.01) for policy in policies}}
            for tasks in columns.values()
            for task in tasks
        }
        (model,) = made(table_of({"m": scores}, columns)).models
        paper.append(model.gain)
        honest.append(model.honest_gain)
    error = np.std(honest, ddof=1) / np.sqrt(len(honest))
    assert abs(np.mean(honest)) < 2 * error
    assert np.mean(paper) > 20 * np.std(paper, ddof=1) / np.sqrt(len(paper))
    # What the noise alone is taken for: about a standard deviation of an Avg.
    assert np.mean(paper) > 0.5


@pytest.fixture
def analysed(tmp_path: Path) -> tuple[Table, Choice]:
    """One model whose τ = 0.8 gains clearly on every task."""
    random, results = np.random.default_rng(1), Results(tmp_path / "runs")
    tasks = ["ArguAna", "NFCorpus", "SciFact"]
    for task in tasks:
        raw = random.random(60)
        for policy, gain in ((BASELINE, 0.0), (Constant(0.9), 0.0), (Constant(0.8), 0.05)):
            values = raw + gain + (0.01 * random.standard_normal(60) if gain else 0)
            write_cell(results, task, float(values.mean()), item_rows(list(values)), policy, BGE)

    def warn(message: str) -> None:
        raise AssertionError(message)

    scores = results.read(lambda task, _: "BeirRetr", warn)
    (table,) = build_tables(scores)
    choice = choose(table, analyse(table, scores, resamples=2000))
    assert choice is not None
    return table, choice


def test_the_held_out_gain_has_an_interval(analysed: tuple[Table, Choice]) -> None:
    table, choice = analysed
    (model,) = choice.models
    assert set(model.held_out.values()) == {"0.8"}
    assert model.honest_low is not None
    assert model.honest_high is not None
    assert 0 < model.honest_low < model.honest_gain < model.honest_high
    # All tasks at one τ: the gain is the table's own, and its optimism nothing.
    assert model.honest_gain == pytest.approx(table.blocks[0].improvements["0.8"]["Avg"])
    assert model.optimism == pytest.approx(0)


def test_the_held_out_gain_of_few_tasks_leaves_their_range(tmp_path: Path) -> None:
    """Three tasks that gain 0.50, 0.61 and 3.98 %: Student's t has zero among its values."""
    results, gains = Results(tmp_path / "runs"), np.array([0.50, 0.61, 3.98])
    for task, gain in zip(("ArguAna", "NFCorpus", "SciFact"), gains, strict=True):
        raw = 0.5 + 1e-5 * np.random.default_rng(2).standard_normal(30)
        for policy, share in ((BASELINE, 0.0), (Constant(0.9), gain / 2), (Constant(0.8), gain)):
            values = raw * (1 + share / 100)
            write_cell(results, task, float(values.mean()), item_rows(list(values)), policy, BGE)
    scores = results.read(lambda task, _: "BeirRetr", print)
    (table,) = build_tables(scores)
    choice = choose(table, analyse(table, scores, resamples=2000))
    assert choice is not None
    (model,) = choice.models
    assert model.honest_gain == pytest.approx(gains.mean(), abs=1e-3)
    half = stats.t.ppf(0.975, 2) * stats.sem(gains)
    assert model.honest_low == pytest.approx(gains.mean() - half, abs=0.2)
    assert model.honest_high == pytest.approx(gains.mean() + half, abs=0.2)


def test_the_sheet(analysed: tuple[Table, Choice]) -> None:
    _, choice = analysed
    found = sheet("paper", choice)
    assert (found.name, found.title, found.labels) == ("choice", "Choosing τ: protocol paper", 1)
    ((row,),) = (section.rows for section in found.sections)
    assert len(row) == len(found.header)
    texts = [entry.text for entry in row]
    model = choice.models[0]
    gain = f"▲ {model.gain:.2f}"
    ends = f"{model.honest_low:.2f} to {model.honest_high:.2f}"
    assert texts == ["bge-base-en-v1.5", "0.8", gain, gain, ends, "0.00", "0.8 ×3", gain, "0.00"]
    assert found.header[3:5] == ("Held-out gain (%)", "95 % interval")
    assert row[3].look == "up"
    assert row[3].more == f"95 % interval {ends}"
    assert row[3].value == model.honest_gain
    assert (row[3].low, row[3].high) == (model.honest_low, model.honest_high)
    low, high = model.intervals["0.8"]
    (read,) = csv_format.DictReader(io.StringIO(sheets.csv(found)))
    assert read["Held-out gain (%) low"] == repr(model.honest_low)
    assert read["Held-out gain (%) high"] == repr(model.honest_high)
    for column in ("Gain (%)", "At 0.8 (%)"):
        assert (read[f"{column} low"], read[f"{column} high"]) == (repr(low), repr(high))
    assert "Optimism low" not in read


def test_the_sheet_tells_unsure_gains_and_ends_with_one_temperature() -> None:
    other = {task: {"1": 0.5, "0.9": 0.5, "0.7": 0.4} for task in "ABC"}
    choice = made(table_of({"m": THREE, "n": other}, {"X": ["A", "B", "C"]}))
    first = choice.models[0]
    changed = type(first)(**{**vars(first), "honest_low": -0.5, "honest_high": 1.5})
    found = sheet("g", Choice((changed, choice.models[1]), "0.9", 1.25, ("a note",)))
    rows = found.sections[0].rows
    assert (rows[0][3].text, rows[0][3].look) == ("△ 0.67", "unsure")
    assert rows[0][3].more == "95 % interval -0.50 to 1.50"
    assert [row[4].text for row in rows] == ["-0.50 to 1.50", "–", "–"]
    assert [entry.text for entry in rows[1][7:]] == ["–", "–"]
    assert [entry.text for entry in rows[2][:3]] == ["one τ for all", "0.9", "▲ 1.25"]
    assert all(len(row) == len(found.header) for row in rows)
    assert found.notes[-1] == "a note"


def test_a_gain_that_reads_zero_has_an_arrow_only_if_it_is_significant() -> None:
    assert (choice_module._gain(0.004).text, choice_module._gain(-0.004).text) == ("0.00", "0.00")
    assert choice_module._gain(0.004, -0.5, 0.5).text == "0.00"
    assert choice_module._gain(0.004, 0.001, 0.5).text == "▲ 0.00"
    assert choice_module._gain(-0.3, -0.5, 0.5).text == "▽ 0.30"
