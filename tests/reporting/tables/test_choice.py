"""`tables.choice`: the paper's rule, tasks held out, and what the difference is."""

import csv as csv_format
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from read_cells import analysed_table
from report_cells import BGE, item_rows, write_cell

from lcbench.reporting import formats
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import NOTHING, Draws, TableStatistics, Uncertainty
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.choice import Choice, choice_table, choose
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant

# By task and policy.
Scores = Mapping[str, Mapping[str, float]]


def table_of(models: Mapping[str, Scores], columns: Mapping[str, Sequence[str]]) -> ScoreTable:
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


def made(table: ScoreTable) -> Choice:
    choice = choose(table, NOTHING)
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
    assert model.held_out_gain == pytest.approx(100 * (1.51 / 1.5 - 1))
    assert model.optimism == pytest.approx(4 - 100 * 0.01 / 1.5)
    assert model.gains == pytest.approx({"1": 0, "0.9": 100 * 0.04 / 1.5, "0.8": 4})
    assert model.default_regret == 0
    assert (choice.common_tau, choice.common_gain) == ("0.8", pytest.approx(4))


def with_families(families: Mapping[str, str]) -> TableStatistics:
    return replace(NOTHING, draws=Draws({}, {}, {}, {}, families=families))


def test_tasks_that_share_items_are_held_out_together() -> None:
    table = table_of({"m": THREE}, {"X": ["A", "B", "C"]})
    choice = choose(table, with_families({"A": "A", "B": "A", "C": "C"}))
    assert choice is not None
    # A and B have only C to choose on, where 0.9 and 0.8 are equal; C has both.
    assert choice.models[0].held_out == {"A": "0.9", "B": "0.9", "C": "0.8"}


def test_where_all_tasks_share_items_none_is_left_to_choose_on() -> None:
    table = table_of({"m": THREE, "n": THREE}, {"X": ["A", "B", "C"]})
    assert choose(table, with_families(dict.fromkeys("ABC", "A"))) is None


def test_a_column_left_empty_has_no_part_in_the_choice() -> None:
    scores = {**THREE, "D": {"1": 0.4, "0.9": 0.2, "0.8": 0.4}}
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B", "C"], "Y": ["D"]})).models
    # Without D the column X alone decides, for 0.8; with D 0.9 is out of the question.
    assert model.held_out == {"A": "1", "B": "0.8", "C": "0.8", "D": "0.8"}
    # Avg is the mean of the two columns: (0.52 + 0.4) / 2 over (0.5 + 0.4) / 2.
    assert model.gain == pytest.approx(100 * (0.92 / 0.90 - 1))
    honest = (np.mean([0.50, 0.49, 0.51]) + 0.4) / 0.9
    assert model.held_out_gain == pytest.approx(100 * (honest - 1))


def test_equals_go_to_the_one_nearest_to_one() -> None:
    scores = {task: {"1": 0.5, "0.9": 0.6, "0.8": 0.6} for task in "AB"}
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B"]})).models
    assert model.tau == "0.9"
    assert set(model.held_out.values()) == {"0.9"}


def test_where_every_temperature_loses_none_is_chosen() -> None:
    scores = {task: {"1": 0.5, "0.9": 0.4, "0.8": 0.3} for task in "AB"}
    choice = made(table_of({"m": scores}, {"X": ["A", "B"]}))
    (model,) = choice.models
    assert (model.tau, model.gain, model.held_out_gain, model.optimism) == ("1", 0, 0, 0)
    assert model.default_regret == pytest.approx(40)
    assert choice.common_tau == "1"


def test_only_constant_temperatures_with_all_tasks_are_candidates() -> None:
    scores = {
        "A": {"1": 0.5, "0.9": 0.6, "0.7": 0.4, "0.8": 0.7, "query=0.8,document=1": 0.9},
        "B": {"1": 0.5, "0.9": 0.6, "0.7": 0.4, "query=0.8,document=1": 0.9},
    }
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B"]})).models
    assert model.candidates == ("1", "0.9", "0.7")
    assert model.default_regret is None


def test_a_model_without_a_choice_is_left_out_with_a_note() -> None:
    alone = {task: {"1": 0.5} for task in "ABC"}
    choice = made(table_of({"m": THREE, "n": alone}, {"X": ["A", "B", "C"]}))
    assert [model.label for model in choice.models] == ["m"]
    assert choice.notes == ("n: fewer than two temperatures other than τ = 1 have all tasks",)
    # One that was asked for and tried was not chosen among others.
    single = {task: {"1": 0.5, "0.8": 0.6} for task in "ABC"}
    assert choose(table_of({"n": single}, {"X": ["A", "B", "C"]}), NOTHING) is None
    assert choose(table_of({"n": alone}, {"X": ["A", "B", "C"]}), NOTHING) is None
    assert choose(table_of({"m": {"A": THREE["A"]}}, {"X": ["A"]}), NOTHING) is None


def test_needles_are_no_part_of_the_average_and_none_of_the_choice() -> None:
    scores = {**THREE, "N": {"1": 0.1, "0.9": 0.9, "0.8": 0.1}}
    (model,) = made(table_of({"m": scores}, {"X": ["A", "B", "C"], "Needle": ["N"]})).models
    assert model.tau == "0.8"
    assert set(model.held_out) == {"A", "B", "C"}


def test_one_temperature_for_all_models_is_the_one_of_the_highest_mean_gain() -> None:
    other = {task: {"1": 0.5, "0.9": 0.5, "0.8": 0.4} for task in "ABC"}
    choice = made(table_of({"m": THREE, "n": other}, {"X": ["A", "B", "C"]}))
    assert choice.common_tau == "0.9"
    assert choice.common_gain == pytest.approx((100 * 0.04 / 1.5 + 0) / 2)


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
        honest.append(model.held_out_gain)
    error = np.std(honest, ddof=1) / np.sqrt(len(honest))
    assert abs(np.mean(honest)) < 2 * error
    assert np.mean(paper) > 20 * np.std(paper, ddof=1) / np.sqrt(len(paper))
    # What the noise alone is taken for: about a standard deviation of an Avg.
    assert np.mean(paper) > 0.5


@pytest.fixture
def analysed(tmp_path: Path) -> tuple[ScoreTable, Choice]:
    """One model whose τ = 0.8 gains clearly on every task."""
    random, results = np.random.default_rng(1), Results(tmp_path / "runs")
    tasks = ["ArguAna", "NFCorpus", "SciFact"]
    for task in tasks:
        raw = random.random(60)
        for policy, gain in ((BASELINE, 0.0), (Constant(0.9), 0.0), (Constant(0.8), 0.05)):
            values = raw + gain + (policy != BASELINE) * 0.01 * random.standard_normal(60)
            write_cell(results, task, float(values.mean()), item_rows(list(values)), policy, BGE)

    def warn(message: str) -> None:
        raise AssertionError(message)

    scores = results.read(lambda task, _: "BeirRetr", warn)
    (table,) = build_tables(scores)
    choice = choose(table, analysed_table(table, scores, resamples=2000))
    assert choice is not None
    return table, choice


def test_the_gain_has_a_band_over_all_that_was_tried(analysed: tuple[ScoreTable, Choice]) -> None:
    table, choice = analysed
    (model,) = choice.models
    assert set(model.held_out.values()) == {"0.8"}
    known = model.intervals["0.8"]
    assert known.tried == 2
    assert known.alone is not None
    assert 0 < known.low < known.alone[0] < model.gain < known.alone[1] < known.high
    # All tasks at one τ: the gain is the table's own, and its optimism nothing.
    assert model.held_out_gain == pytest.approx(table.blocks[0].improvements["0.8"]["Avg"])
    assert model.optimism == pytest.approx(0)


def test_the_table(analysed: tuple[ScoreTable, Choice]) -> None:
    _, choice = analysed
    found = choice_table("paper", choice)
    assert (found.name, found.title, found.labels) == ("choice", "Choosing τ: protocol paper", 1)
    ((row,),) = (section.rows for section in found.sections)
    assert len(row) == len(found.header)
    texts = [entry.text for entry in row]
    model = choice.models[0]
    gain = f"▲ {model.gain:.2f}"
    low, high = model.intervals["0.8"].low, model.intervals["0.8"].high
    ends, honest = f"{low:.2f} to {high:.2f}", f"{model.held_out_gain:.2f}"
    assert texts == ["bge-base-en-v1.5", "0.8", gain, ends, honest, "0.00", "0.8 ×3", gain, "0.00"]
    assert found.header[2:5] == ("Gain (%)", "95 % interval", "Held-out gain (%)")
    assert row[2].style == "gain"
    assert row[2].tooltip.startswith(
        f"95 % band over the 2 tried {ends}; interval of this one alone "
    )
    assert row[4].value == model.held_out_gain
    (read,) = csv_format.DictReader(io.StringIO(formats.csv(found)))
    for column in ("Gain (%)", "At 0.8 (%)"):
        assert (read[f"{column} low"], read[f"{column} high"]) == (repr(low), repr(high))
    assert "Held-out gain (%) low" not in read
    assert "Optimism low" not in read


def test_the_table_marks_inconclusive_gains_and_ends_with_one_temperature() -> None:
    other = {task: {"1": 0.5, "0.9": 0.5, "0.7": 0.4} for task in "ABC"}
    choice = made(table_of({"m": THREE, "n": other}, {"X": ["A", "B", "C"]}))
    first = choice.models[0]
    intervals = {first.tau: Uncertainty(-0.5, 1.5)}
    found = choice_table(
        "g", Choice((replace(first, intervals=intervals), choice.models[1]), "0.9", 1.25, ("a",))
    )
    rows = found.sections[0].rows
    assert (rows[0][2].text[:1], rows[0][2].style) == ("△", "inconclusive")
    assert rows[0][2].tooltip == "95 % interval -0.50 to 1.50"
    assert [row[3].text for row in rows] == ["-0.50 to 1.50", "–", "–"]
    assert [entry.text for entry in rows[1][7:]] == ["–", "–"]
    assert [entry.text for entry in rows[2][:3]] == ["one τ for all", "0.9", "▲ 1.25"]
    assert all(len(row) == len(found.header) for row in rows)
    assert found.notes[-1] == "a"


REPAIRS: Scores = {
    "A": {"1": 0.50, "0.9": 0.51, "correct=centre": 0.56, "0.9 + correct=centre": 0.56},
    "B": {"1": 0.50, "0.9": 0.52, "correct=centre": 0.49, "0.9 + correct=centre": 0.49},
    "C": {"1": 0.50, "0.9": 0.51, "correct=centre": 0.51, "0.9 + correct=centre": 0.51},
}
ONE_COLUMN = {"Class": ["A", "B", "C"]}


def test_corrections_are_chosen_among_the_temperatures() -> None:
    choice = made(table_of({"m": REPAIRS}, ONE_COLUMN))
    (model,) = choice.models
    assert model.candidates == ("1", "0.9", "correct=centre", "0.9 + correct=centre")
    # Of equals the one with fewer changes; held out, B's own loss is not known.
    assert model.tau == "correct=centre"
    assert model.gain == pytest.approx(4.0)
    assert model.held_out == {"A": "0.9", "B": "correct=centre", "C": "correct=centre"}
    assert model.held_out_gain == pytest.approx(100 * ((0.51 + 0.49 + 0.51) / 1.5 - 1))
    found = choice_table("g", choice)
    assert found.title.startswith("Choosing a repair")
    assert found.header[1] == "Repair"
    (row,) = found.sections[0].rows
    assert (row[1].text, row[6].text) == ("centre", "centre ×2, τ = 0.9 ×1")
    assert "no repair has an effect" in found.notes[0]


@pytest.mark.parametrize("best", ["query=0.9,document=1 + correct=centre", "length_logn_128"])
def test_among_several_kinds_of_repairs_all_are_candidates(best: str) -> None:
    scores = {task: {**own, best: 0.99} for task, own in REPAIRS.items()}
    table = table_of({"m": scores}, ONE_COLUMN)
    (model,) = made(table).models
    assert model.tau == table.blocks[0].best == best
    assert set(model.held_out.values()) == {best}
