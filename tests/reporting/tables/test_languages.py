"""`lcbench.reporting.tables.languages`: a task's score by subset."""

import math
from typing import Any

import pandas as pd
import pytest

from lcbench.reporting import formats
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.table import Table
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.languages import language_table


def row(policy: str, task: str, subset: str, score: float, **more: Any) -> dict[str, Any]:
    return {
        "group": "paper",
        "window": 512,
        "model": "o/m",
        "revision": "r",
        "policy": policy,
        "task": task,
        "column": "Class",
        "split": "test",
        "subset": subset,
        "score": score,
        "conditions": {},
        **more,
    }


def built(rows: list[dict[str, Any]]) -> tuple[ScoreTable, Table | None]:
    scores = pd.DataFrame(rows)
    (table,) = build_tables(scores)
    return table, language_table(table, scores)


def texts(shown: Table, section: int = 0) -> list[list[str]]:
    return [[entry.text for entry in line] for line in shown.sections[section].rows]


def test_a_row_a_subset_and_their_mean() -> None:
    rows = [
        row("1", "Massive", "en", 0.6, split="test"),
        row("1", "Massive", "en", 0.8, split="other"),
        row("1", "Massive", "de", 0.5, split="test"),
        row("1", "Massive", "de", 0.5, split="other"),
        row("0.8", "Massive", "en", 0.7, split="test"),
        row("0.8", "Massive", "en", 0.84, split="other"),
        row("0.8", "Massive", "de", 0.48, split="test"),
        row("0.8", "Massive", "de", 0.48, split="other"),
        row("0.9", "Massive", "en", 0.1, split="test"),
        row("0.9", "Massive", "en", 0.1, split="other"),
        row("0.9", "Massive", "de", 0.2, split="test"),
        row("0.9", "Massive", "de", 0.2, split="other"),
        # One subset is no language of several.
        row("1", "Imdb", "default", 0.9),
        row("0.8", "Imdb", "default", 0.9),
        row("0.9", "Imdb", "default", 0.9),
    ]
    table, shown = built(rows)
    assert shown is not None
    assert shown.name == "languages"
    assert shown.header == ("Task", "Subset", "baseline", "τ = 0.9", "τ = 0.8", "Relative Improv.")
    assert [section.heading for section in shown.sections] == ["m, best τ = 0.8"]
    assert texts(shown) == [
        ["Massive", "de", "50.00", "20.00", "48.00", "▼ 4.00"],
        ["Massive", "en", "70.00", "10.00", "77.00", "▲ 10.00"],
        ["Massive", "Mean", "60.00", "15.00", "62.50", "▲ 4.17"],
    ]
    mean = shown.sections[0].rows[2][2].value
    assert mean == table.blocks[0].tasks[1].scores["1"]
    assert "| Massive | en | 70.00 | 10.00 | 77.00 | ▲ 10.00 |" in formats.markdown(shown)


def test_what_table_1_does_not_count_is_a_missing_value_in_every_subset() -> None:
    rows = [
        row("1", "Massive", "en", 0.6),
        row("1", "Massive", "de", 0.5),
        # Measured under other conditions than its baseline.
        row("0.8", "Massive", "en", 0.7, conditions={"mteb": "1"}),
        row("0.8", "Massive", "de", 0.7, conditions={"mteb": "1"}),
        # Without a score in one language.
        row("0.9", "Massive", "en", 0.7),
        row("0.9", "Massive", "de", math.nan),
    ]
    _, shown = built(rows)
    assert shown is not None
    assert [line[3:5] for line in texts(shown)] == [["–", "–"]] * 3
    assert {line[5] for line in texts(shown)} == {"–"}


def test_models_have_sections_and_a_baseline_alone_no_improvement() -> None:
    rows = [
        row("1", "Massive", "en", 0.6, window=None),
        row("1", "Massive", "de", 0.5, window=None),
        row("1", "Massive", "en", 0.6, model="o/other"),
        row("1", "Massive", "de", 0.5, model="o/other"),
        row("0.8", "Massive", "en", 0.6, model="o/other"),
        row("0.8", "Massive", "de", 0.5, model="o/other"),
        # Of another group.
        row("1", "Massive", "fr", 0.5, model="o/third", group="leaderboard"),
    ]
    scores = pd.DataFrame(rows)
    table = build_tables(scores)[0]
    shown = language_table(table, scores)
    assert shown is not None
    assert [section.heading for section in shown.sections] == ["other, best τ = 0.8", "m"]
    assert texts(shown, 1)[0] == ["Massive", "de", "50.00", "", ""]
    assert texts(shown, 0)[0] == ["Massive", "de", "50.00", "50.00", "0.00"]


@pytest.mark.parametrize("subsets", [["default"], ["en"]])
def test_no_table_without_a_task_of_several_subsets(subsets: list[str]) -> None:
    _, shown = built([row("1", "Imdb", subset, 0.5) for subset in subsets])
    assert shown is None
