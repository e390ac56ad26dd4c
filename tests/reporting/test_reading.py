"""`reporting.reading`: items of a report's cells are read once, for all results that need them."""

import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from report_cells import RELEVANT, item_rows, write_cell

from lcbench.reporting.findings import gather
from lcbench.reporting.intervals import analyse, asked_cells
from lcbench.reporting.reading import read_items
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables import paper
from lcbench.reporting.tables.items_by_length import places_of_tables
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of, shipped_suites
from lcbench.tempscale.policy import BASELINE, ByRole, Constant, Policy

TAU = Constant(0.8)
# Table 2 of the paper: queries or documents alone.
ROLES = (ByRole(query=1.0, document=0.8), ByRole(query=0.8, document=1.0))


@pytest.fixture
def scores(tmp_path: Path) -> pd.DataFrame:
    """Cells of all kinds, of the paper's models and tasks, and of another protocol."""
    random, results = np.random.default_rng(3), Results(tmp_path / "runs")

    def write_queries(task: str, policy: Policy) -> None:
        values = random.random(5)
        rows = item_rows(values.tolist(), relevant=RELEVANT, tokens=[5, 6, 7, 8, 9])
        write_cell(results, task, float(values.mean()), rows, policy)

    for policy in (BASELINE, TAU, *ROLES):
        write_queries("LEMBQMSumRetrieval", policy)
    for policy in (BASELINE, TAU):
        write_queries("NFCorpus", policy)
        write_queries("SciFact", policy)
        right = random.integers(0, 2, (40, 2))
        rows = item_rows(
            right.mean(axis=1).tolist(),
            gold=["a"] * 40,
            predictions=[["a" if one else "b" for one in row] for row in right],
            tokens=list(range(5, 45)),
        )
        draws = [{"accuracy": float(one)} for one in right.mean(axis=0)]
        entry = {"main_score": float(right.mean()), "scores_per_experiment": draws}
        for more in ({}, {"dtype": "bfloat16"}):
            part = {("test", "default"): entry}
            write_cell(results, "Banking77Classification", part, rows, policy, **more)
        # Items that do not give the score, and none at all.
        write_cell(results, "SummEval", 0.3, item_rows([0.1, 0.2]), policy)
        write_cell(results, "ArxivClusteringP2P", 0.3, policy=policy)
    read: pd.DataFrame = results.read(partial(column_of, suites=shipped_suites()), pytest.fail)
    again = read[read["group"] != "paper"]
    assert len(again) == 2
    # As for a benchmark that takes parts of a task: cells that are in two tables.
    return pd.concat([read, again.assign(group="again")], ignore_index=True)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each path was opened, and, as `parquet`, any file of columns."""
    counts: Counter[str] = Counter()
    original_open, original_file = os.open, pq.ParquetFile

    def counted(path: Any, *arguments: Any, **named: Any) -> int:
        counts[str(path)] += 1
        return original_open(path, *arguments, **named)

    def parsed(*arguments: Any, **named: Any) -> pq.ParquetFile:
        counts["parquet"] += 1
        return original_file(*arguments, **named)

    monkeypatch.setattr(os, "open", counted)
    monkeypatch.setattr(pq, "ParquetFile", parsed)
    return counts


@pytest.mark.parametrize(("resamples", "times"), [(50, {1}), (0, {0, 1})])
def test_each_file_of_items_is_opened_once(
    scores: pd.DataFrame, opened: Counter[str], resamples: int, times: set[int]
) -> None:
    """Without intervals, those of which only the score is asked are not opened at all."""
    # Cells that are compared with the paper, but are in no table.
    tables = build_tables(scores[scores["task"] != "NFCorpus"])
    assert [table.group for table in tables] == ["paper", "paper, bfloat16", "again"]
    found = gather(tables, scores, resamples, 0, None)
    compared = {one.table for one in found.paper if one.ours is not None}
    assert compared == {"Table 1", "Table 2", "Table 3"}
    assert {one.task for one in found.by_length} == {
        "Banking77Classification",
        "LEMBQMSumRetrieval",
        "SciFact",
    }
    items = {files.items for files in scores["files"]}
    assert {opened[str(path)] for path in items} == times
    # Parsed as often as opened.
    assert opened["parquet"] == sum(opened[str(path)] for path in items if path.exists())


def test_items_are_dropped_as_tasks_are_done(scores: pd.DataFrame) -> None:
    table, *_ = tables = build_tables(scores)
    asked = asked_cells(table, scores)
    read = read_items(
        places_of_tables(tables, scores), [asked], paper.asked_cells(scores), resamples=50, seed=0
    )
    (items,) = read.items
    assert items.keys() == asked.keys()
    assert analyse(table, asked, items, 50).cells
    assert items == {}
