"""The statistics of a table of the paper's size: 5 models at 8 temperatures on its 40 tasks."""

import csv
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_cells import analysed_table, samples_of

from lcbench.reporting.statistics import RESAMPLES
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.paper import data_folder
from lcbench.results.cell_items import CellItems
from lcbench.results.files import CellFiles
from lcbench.results.items import ITEMS_SCHEMA
from lcbench.system.hardware import cores
from lcbench.uncertainty import items
from lcbench.uncertainty.clusters import Shared, numbered
from lcbench.uncertainty.items import (
    ItemShares,
    Sample,
    Samples,
    independent_parts,
    score_of,
)

MODELS = 5
POLICIES = ("1", "0.95", "0.9", "0.8", "0.7", "0.6", "0.5", "0.4")
# Queries of the test sets, which `tasks.csv` does not have: it counts texts.
QUERIES = {
    "NFCorpus": 323,
    "SciFact": 300,
    "AskUbuntuDupQuestions": 361,
    "MindSmallReranking": 7000,
    "SciDocsRR": 3978,
    "StackOverflowDupQuestions": 2992,
    "LEMBNarrativeQARetrieval": 7000,
    "LEMBQMSumRetrieval": 1527,
    "LEMBSummScreenFDRetrieval": 336,
    "LEMBWikimQARetrieval": 300,
}


def parts_of(task: dict[str, str]) -> list[tuple[str, int]]:
    """The subsets of a task and how many items each has."""
    count, subsets = int(task["num_samples_descriptive_stats"]), int(task["n_subsets"])
    if task["table1_column"] == "Clust":
        count = 25
    count = QUERIES.get(task["task"], count) // subsets
    return [(f"s{number}", count) for number in range(subsets)]


def made(task: dict[str, str], model: int, policy: str) -> Samples:
    """Items of a cell; those of one task are as hard for all."""
    column, samples = task["table1_column"], {}
    for number, (subset, count) in enumerate(parts_of(task)):
        shared = np.random.default_rng([len(task["task"]), count, number])
        own = np.random.default_rng([model, POLICIES.index(policy), number, count])
        hard, keys = shared.random(count), ("items", count)
        if column == "STS":
            values = hard + 0.3 * own.standard_normal(count)
            # Some pairs come twice.
            values[: count // 20] = values[count // 20 : 2 * (count // 20)]
            sample = Sample((*keys, number), values, gold=np.round(5 * hard, 1), units="pairs")
        elif column == "Class":
            values = np.clip(np.rint(10 * hard + own.standard_normal(count)), 0, 10) / 10
            draws = values.mean() + 0.01 * own.standard_normal(10)
            draws += values.mean() - draws.mean()
            sample = Sample(keys, values, draws=draws, units="texts")
        else:
            sample = Sample(keys, np.clip(hard + 0.05 * own.standard_normal(count), 0, 1))
        samples["test", subset] = sample
    return samples


# Seconds of cores and memory of this process are measured, which other tests hardly change.
@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_papers_table_takes_less_than_five_minutes_on_two_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spent, taken = analysed(monkeypatch, tmp_path, MODELS, POLICIES, RESAMPLES)
    # Of a machine that others use as well, the work is what can be held to.
    assert spent / min(2, cores()) < 300
    assert taken < 1


@pytest.mark.slow
def test_a_part_of_the_papers_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One model at two temperatures; it takes a tenth of this."""
    spent, taken = analysed(monkeypatch, tmp_path, 1, ("1", "0.8"), 1000)
    assert spent / min(2, cores()) < 60
    assert taken < 1


def analysed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    models: int,
    policies: tuple[str, ...],
    resamples: int,
) -> tuple[float, float]:
    """Analyse a table of the paper's tasks; return seconds of cores and GiB that it takes."""
    with (data_folder() / "tasks.csv").open(encoding="utf-8", newline="") as file:
        tasks = {row["task"]: row for row in csv.DictReader(file)}
    assert len(tasks) == 40
    rows: list[dict[str, Any]] = []
    for model in range(models):
        for policy in policies:
            for name, task in tasks.items():
                samples = made(task, model, policy)
                rows.append(
                    {
                        "group": "paper",
                        "window": 512,
                        "model": f"m{model}",
                        "revision": "r",
                        "policy": policy,
                        "task": name,
                        "column": task["table1_column"],
                        "split": "test",
                        "subset": "all",
                        "score": score_of(samples),
                        "conditions": {},
                        "files": CellFiles(tmp_path / f"{model}" / policy, name),
                    }
                )
    scores = pd.DataFrame(rows)
    (table,) = build_tables(scores)

    def read(cell: CellItems) -> Samples:
        files = cell.files
        return made(tasks[files.task], int(files.folder.parent.name), files.folder.name)

    def shared(cell: CellItems, samples: Samples) -> ItemShares:
        files = cell.files
        # Two items of a text, and tasks of one column that have some texts in common.
        column, found = tasks[files.task]["table1_column"], []
        for parts, _ in independent_parts(samples):
            count = len(samples[parts[0]].values)
            texts = np.concatenate(
                [numbered(count // 20, column), numbered(count // 2 + 1, files.task, parts[0])]
            )
            owners = np.arange(count)
            found.append(Shared(owners, texts[owners // 2], numbered(count, files.task, parts[0])))
        return ItemShares(tuple(found))

    monkeypatch.setattr(items, "read_samples", read)
    monkeypatch.setattr(items, "read_shares", shared)
    # The process has run other tests: its peak is measured from here on, and what it adds to that.
    Path("/proc/self/clear_refs").write_text("5")
    held = _memory("VmRSS")
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    found = analysed_table(table, scores, resamples)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    taken = _memory("VmHWM") - held
    print(f"{seconds:.0f} s, {spent:.0f} s of cores, at most {taken / 2**20:.2f} GiB more")
    assert len(found.cells) == models * (len(policies) - 1) * 40
    assert len(found.means) == models * (len(policies) - 1) * (len(table.columns) + 1)
    return spent, taken / 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subsets", "count", "cells"),
    [
        pytest.param(1, 400_000, 40, marks=pytest.mark.exhaustive),
        pytest.param(51, 2974, 80, marks=pytest.mark.exhaustive),
        (1, 3000, 1280),
    ],
)
def test_reading_is_a_small_part_of_it(
    tmp_path: Path, subsets: int, count: int, cells: int
) -> None:
    random = np.random.default_rng(0)
    names = [f"s{number}" for number in range(subsets)]
    total = subsets * count
    right = random.integers(0, 11, (subsets, count)) / 10
    labels = np.array([f"label {number}" for number in range(60)])[random.integers(0, 60, count)]
    columns: dict[str, Any] = {
        "split": ["test"] * total,
        "subset": np.repeat(names, count),
        "id": np.tile(np.arange(count).astype(str), subsets),
        "gold": np.tile(labels, subsets),
        "tokens": random.integers(5, 500, total),
        "score": right.ravel(),
        "predictions": [["label 1"] * 10] * total,
    }
    items = pa.table(
        {
            one.name: pa.array(columns[one.name], one.type)
            if one.name in columns
            else pa.nulls(total, one.type)
            for one in ITEMS_SCHEMA
        }
    )
    files = CellFiles(tmp_path, "Task")
    pq.write_table(items, files.items)
    entries = [
        {"hf_subset": name, "main_score": float(values.mean())}
        for name, values in zip(names, right, strict=True)
    ]
    result = {"task_name": "Task", "dataset_revision": "r", "scores": {"test": entries}}
    pd.Series(result).to_json(files.result)
    started = _work()
    for _ in range(5):
        samples = samples_of(files)
    seconds = (_work() - started) / 5
    assert samples is not None
    assert {sample.units for sample in samples.values()} == {"texts"}
    print(f"{total} rows: {seconds:.3f} s of cores; {cells} such cells: {cells * seconds:.0f} s")
    assert cells * seconds < 60


def _memory(name: str) -> int:
    """Return what the system says of this process's memory, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _work() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
