"""`tables.roles`: the shape of the paper's Table 2, and the grids of its figures."""

import csv as csv_format
import io
from collections.abc import Mapping

import pandas as pd
import pytest

from lcbench.reporting import formats
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import NOTHING, TableStatistics, Uncertainty
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables import paper
from lcbench.reporting.tables.roles import role_grids, role_table

SETTINGS = {
    "TempScale": "{tau}",
    "w/o query": "query=1,document={tau}",
    "w/o doc": "query={tau},document=1",
    "Raw": "1",
}


def scores_of(values: Mapping[tuple[str, str, str], float], model: str = "o/m") -> pd.DataFrame:
    """Scores by (policy, column, task)."""
    rows = [
        {
            "group": "paper",
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
        for (policy, column, task), score in values.items()
    ]
    return pd.DataFrame(rows)


def table_of(values: Mapping[tuple[str, str, str], float]) -> ScoreTable:
    (table,) = build_tables(scores_of(values))
    return table


def test_the_papers_own_numbers_come_out_as_its_table_2() -> None:
    with (paper.data_folder() / "table2.csv").open(encoding="utf-8") as file:
        printed = list(csv_format.DictReader(file))
    # Each model's τ is that of the paper's Table 1.
    taus = {"ANCE": "0.9", "GTR": "0.8", "GIST": "0.9", "BGE": "0.8", "E5": "0.8"}
    frames = [
        scores_of(
            {
                (SETTINGS[row["setting"]].format(tau=tau), "LongEmbRetr", row["dataset"]): float(
                    row[model]
                )
                / 100
                for row in printed
            },
            f"o/{model}",
        )
        for model, tau in taus.items()
    ]
    (table,) = build_tables(pd.concat(frames))
    shown = role_table(table, NOTHING)
    assert shown is not None
    assert shown.header == ("Setting", *(f"{model}, τ = {tau}" for model, tau in taus.items()))
    by_heading = {section.heading: section for section in shown.sections}
    # Two tasks and their column, whose `Avg` would say the same again.
    assert list(by_heading) == ["LEMBQMSumRetrieval", "LEMBSummScreenFDRetrieval", "LongEmbRetr"]
    for row in printed:
        texts = {entries[0].text: entries for entries in by_heading[row["dataset"]].rows}
        assert [entry.text for entry in texts[row["setting"]][1:]] == [row[model] for model in taus]
    raw = by_heading["LongEmbRetr"].rows[3]
    assert raw[1].value == pytest.approx((21.89 + 53.90) / 2)
    # Nothing is known of how sure they are.
    assert {entry.style for part in shown.sections for row in part.rows for entry in row} == {
        "neutral"
    }
    assert len(shown.notes) == 1
    assert by_heading["LEMBQMSumRetrieval"].rows[0][1].tooltip == "▲ 5.89 % of Raw"


def test_only_what_has_all_four_settings_is_shown() -> None:
    policies = ("1", "0.9", "0.8", "query=1,document=0.8", "query=0.8,document=1")
    values = {(policy, "Retr", "A"): 0.5 for policy in policies}
    values |= {("query=1,document=0.9", "Retr", "A"): 0.6}
    # B has no score with raw queries.
    values |= {(policy, "Retr", "B"): 0.5 for policy in policies if "query=1" not in policy}
    shown = role_table(table_of(values), NOTHING)
    assert shown is not None
    assert shown.header == ("Setting", "m, τ = 0.8")
    assert [section.heading for section in shown.sections] == ["A"]
    assert (
        role_table(table_of({("1", "Retr", "A"): 0.5, ("0.8", "Retr", "A"): 0.6}), NOTHING) is None
    )


def test_several_temperatures_are_sections_and_the_columns_are_models() -> None:
    frames = []
    for model, taus in (("o/one", ("0.9", "0.8")), ("o/two", ("0.8",)), ("o/none", ())):
        values = {("1", "Retr", task): 0.5 for task in "AB"}
        values |= {
            (text.format(tau=tau), "Retr", task): 0.5 + float(tau) / 10
            for tau in taus
            for setting, text in SETTINGS.items()
            if setting != "Raw"
            for task in "AB"
        }
        frames.append(scores_of(values, model))
    (table,) = build_tables(pd.concat(frames))
    shown = role_table(table, NOTHING)
    assert shown is not None
    assert shown.header == ("Setting", "one", "two")
    assert [section.heading for section in shown.sections] == [
        *("A, τ = 0.9", "A, τ = 0.8", "B, τ = 0.9", "B, τ = 0.8", "Retr, τ = 0.9", "Retr, τ = 0.8"),
    ]
    texts = [[[entry.text for entry in row] for row in part.rows] for part in shown.sections]
    assert texts[0] == [
        ["TempScale", "59.00", "–"],
        ["w/o query", "59.00", "–"],
        ["w/o doc", "59.00", "–"],
        ["Raw", "50.00", "–"],
    ]
    assert texts[1][0] == ["TempScale", "58.00", "58.00"]
    assert texts[1][3] == ["Raw", "50.00", "50.00"]


def test_what_is_known_of_a_setting_is_shown_next_to_it() -> None:
    values = {
        ("1", "Retr", "A"): 0.5,
        ("0.8", "Retr", "A"): 0.55,
        ("query=1,document=0.8", "Retr", "A"): 0.45,
        ("query=0.8,document=1", "Retr", "A"): 0.5,
    }
    known = {
        ("m", "0.8", "A"): Uncertainty(-1, 21, 0.07, 0.14),
        ("m", "query=1,document=0.8", "A"): Uncertainty(-12, -8, 0.001, 0.003),
    }
    shown = role_table(table_of(values), TableStatistics(known, {}, {}))
    assert shown is not None
    # By the interval of each against Raw, whichever of the four is the largest.
    assert [(row[1].text, row[1].style) for row in shown.sections[0].rows] == [
        ("55.00", "inconclusive"),
        ("45.00", "loss"),
        ("50.00", "neutral"),
        ("50.00", "neutral"),
    ]
    known["m", "0.8", "A"] = Uncertainty(1, 19)
    surely = role_table(table_of(values), TableStatistics(known, {}, {}))
    assert surely is not None
    assert surely.sections[0].rows[0][1].style == "gain"
    # The colours of the page, the figures and the terminal.
    assert "excludes zero (in colour: blue above, orange below)" in shown.notes[1]
    more = [row[1].tooltip for row in shown.sections[0].rows]
    assert more == [
        "△ 10.00 % of Raw; 95 % interval -1.00 to 21.00; p = 0.07; after Holm 0.14",
        "▼ 10.00 % of Raw; 95 % interval -12.00 to -8.00; p = 0.001; after Holm 0.003",
        "0.00 % of Raw",
        "",
    ]
    rows = list(csv_format.DictReader(io.StringIO(formats.csv(shown))))
    assert rows[1]["section"] == "A"
    assert rows[1]["Setting"] == "w/o query"
    assert float(rows[1]["m, τ = 0.8"]) == pytest.approx(45)


def test_a_grid_has_constants_on_its_diagonal_and_missing_values_where_nothing_was_tried() -> None:
    values = {
        ("1", "Retr", "A"): 0.5,
        ("0.9", "Retr", "A"): 0.51,
        ("0.7", "Retr", "A"): 0.7,
        ("0.8", "Retr", "A"): 0.52,
        ("query=1,document=0.8", "Retr", "A"): 0.55,
        ("query=0.9,document=0.8", "Retr", "A"): 0.45,
        ("layers_0=1,6=0.8", "Retr", "A"): 0.1,
    }
    (grid,) = role_grids(table_of(values))
    assert (grid.label, grid.what) == ("m", "A")
    # 0.7 is a temperature of neither role alone.
    assert grid.query_temperatures == grid.document_temperatures == (1.0, 0.9, 0.8)
    assert grid.values == (
        (0.0, None, pytest.approx(10)),
        (None, pytest.approx(2), pytest.approx(-10)),
        (None, None, pytest.approx(4)),
    )
    assert grid.policies[0] == ("1", "query=1,document=0.9", "query=1,document=0.8")
    assert grid.policies[2][2] == "0.8"


def test_grids_of_columns_and_avg_where_they_say_more_than_their_parts() -> None:
    values = {
        (policy, column, task): 0.5
        for policy in ("1", "query=1,document=0.8")
        for column, task in (("Retr", "A"), ("Retr", "B"), ("Rerank", "C"))
    }
    values["query=1,document=0.8", "Retr", "B"] = 0.6
    grids = {grid.what: grid.values[0][1] for grid in role_grids(table_of(values))}
    assert grids == {
        "A": 0,
        "B": pytest.approx(20),
        "C": 0,
        "Retr": pytest.approx(10),
        "Avg": pytest.approx(5),
    }
    # The task's own grid only, where the others lack it.
    del values["query=1,document=0.8", "Rerank", "C"]
    assert [grid.what for grid in role_grids(table_of(values))] == ["A", "B", "Retr"]


def test_a_bias_that_is_kept_is_not_mixed_with_one_that_is_divided() -> None:
    values = {
        ("1", "Retr", "A"): 0.5,
        ("0.8", "Retr", "A"): 0.6,
        ("0.8_bias=kept", "Retr", "A"): 0.7,
        ("query=1,document=0.8_bias=kept", "Retr", "A"): 0.75,
        ("query=0.8,document=1_bias=kept", "Retr", "A"): 0.65,
    }
    table = table_of(values)
    (grid,) = role_grids(table)
    assert grid.label == "m, bias kept"
    assert grid.values == (
        (0.0, pytest.approx(50)),
        (pytest.approx(30), pytest.approx(40)),
    )
    shown = role_table(table, NOTHING)
    assert shown is not None
    assert shown.header[1] == "m, τ = 0.8, bias kept"
    assert [row[1].text for row in shown.sections[0].rows] == ["70.00", "75.00", "65.00", "50.00"]


def test_tasks_without_queries_have_no_roles() -> None:
    policies = ("1", "0.8", "query=1,document=0.8", "query=0.8,document=1")
    values = {
        (policy, column, task): 0.5
        for policy in policies
        for column, task in (("STS", "A"), ("Retr", "B"), ("Rerank", "C"))
    }
    table = table_of(values)
    # Nor has an `Avg` that they are part of.
    assert [grid.what for grid in role_grids(table)] == ["B", "C"]
    shown = role_table(table, NOTHING)
    assert shown is not None
    assert [section.heading for section in shown.sections] == ["B", "C"]
