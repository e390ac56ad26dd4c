"""`reporting.models`: differences between models, their intervals, and rankings with ties."""

import csv as csv_format
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cells import item_rows, relevant, write_cell
from report_frames import cell, frame
from scipy import stats

import lcbench
from lcbench.cli import app
from lcbench.reporting.models import (
    ModelComparison,
    ModelPairs,
    compare_pairs,
    pairs_of_tables,
)
from lcbench.reporting.score_table import AVERAGE
from lcbench.reporting.statistics import LEAST_CHANGED
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.models import difference_table, ranking_table
from lcbench.reporting.task_intervals import TaskItems
from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.results.labels import add_labels
from lcbench.tempscale.policy import Constant
from lcbench.uncertainty.clusters import Shared, numbered
from lcbench.uncertainty.items import ItemShares, Sample

Values = np.ndarray[Any, np.dtype[np.float64]]
PART = ("test", "default")
COLUMNS = {"A": "Retr", "B": "Rerank", "C": "STS"}
DOCUMENTS, QUERIES = 24, 3  # per document


def pairs(
    scores: Mapping[str, Mapping[str, float]], conditions: Mapping[str, Mapping[str, str]] | None
) -> ModelPairs:
    """Return the pairs of models with these scores by task.

    Further conditions are by model (`b`), or by model and task (`b, B`).
    """
    of = conditions or {}
    rows = frame(
        *(
            cell(
                *("1", task, score, COLUMNS[task], f"org/{model}"),
                **{**of.get(model, {}), **of.get(f"{model}, {task}", {})},
            )
            for model, of_model in scores.items()
            for task, score in of_model.items()
        )
    )
    rows["imported"] = None
    rows["protocol"] = [{"name": "paper", "prompts": "none"}] * len(rows)
    places = zip(rows["model"], rows["task"], strict=True)
    rows["files"] = [CellFiles(Path(model), task) for model, task in places]
    (found,) = pairs_of_tables(build_tables(rows), rows)
    return found


def compared(
    world: Mapping[str, Mapping[str, Values]],
    resamples: int = 1000,
    conditions: Mapping[str, Mapping[str, str]] | None = None,
) -> ModelComparison:
    """Compare models by the scores of their queries, several of which share a document."""
    of = pairs(
        {
            model: {task: float(one.mean()) for task, one in of_model.items()}
            for model, of_model in world.items()
        },
        conditions,
    )
    items = {}
    for task, asked in of.asked.items():
        samples = {}
        for (first, second), label in of.labels.items():
            for model, policy in ((first, "1"), (second, "second")):
                if (label, policy) in asked:
                    values = world[model][task]
                    samples[label, policy] = {PART: Sample((task,), values, units="queries")}
        documents = np.repeat(numbered(DOCUMENTS, task), QUERIES)
        shared = Shared(np.arange(len(documents)), documents, numbered(len(documents), "alone"))
        items[task] = TaskItems(samples, {}, [list(samples)], [ItemShares((shared,))])
    return compare_pairs(of, items, resamples, 0, None)


def scores_of(random: np.random.Generator, tasks: Sequence[str]) -> dict[str, Values]:
    return {task: random.uniform(0.3, 0.7, DOCUMENTS * QUERIES) for task in tasks}


def better(random: np.random.Generator, of: Mapping[str, Values], gain: float) -> dict[str, Values]:
    """Return a model that gains this much on average; queries of one document fare alike."""
    return {
        task: values
        + gain
        + np.repeat(random.normal(0, 0.06, DOCUMENTS), QUERIES)
        + random.normal(0, 0.03, len(values))
        for task, values in of.items()
    }


# A share of 0.95 has a standard error of 0.04 among 30, and of 0.011 among 400.
@pytest.mark.parametrize(
    ("times", "apart"), [(30, 0.1), pytest.param(400, 0.03, marks=pytest.mark.exhaustive)]
)
def test_intervals_cover_a_known_difference_in_95_of_100(times: int, apart: float) -> None:
    random = np.random.default_rng(5)
    truths = {("a", "b"): 2.0, ("a", "c"): -1.0, ("b", "c"): -3.0}
    covered = simultaneous = by_query = 0
    for _ in range(times):
        a = scores_of(random, "ABC")
        b, c = better(random, a, 0.02), better(random, a, -0.01)
        found = compared({"a": a, "b": b, "c": c})
        task = found.difference("a", "b", task="A").uncertainty
        assert task is not None
        covered += task.low <= 2.0 <= task.high
        bands = {pair: found.difference(*pair, column=AVERAGE).uncertainty for pair in truths}
        simultaneous += all(
            band is not None and band.tried == 3 and band.low <= truths[pair] <= band.high
            for pair, band in bands.items()
        )
        # As if queries of one document were independent.
        differences = 100 * (b["A"] - a["A"])
        by_query += abs(differences.mean() - 2.0) <= 1.96 * stats.sem(differences)
    assert covered / times == pytest.approx(0.95, abs=apart)
    assert simultaneous / times >= 0.95 - apart
    assert by_query / times < 0.85


def test_identical_models_tie_and_a_better_one_is_first() -> None:
    random = np.random.default_rng(1)
    a = scores_of(random, "ABC")
    found = compared({"a": a, "twin": a, "best": better(random, a, 0.2)})
    for column in (*COLUMNS.values(), AVERAGE):
        same = found.difference("a", "twin", column=column)
        assert same.value == 0
        assert same.uncertainty is not None
        assert (same.uncertainty.low, same.uncertainty.high) == (0, 0)
        best, *others = found.ranking(column)
        assert (best.label, best.rank, best.tied, best.behind) == ("best", 1, (), None)
        assert {one.label: one.rank for one in others} == {"a": 2, "twin": 2}
        assert {one.label: one.tied for one in others} == {"a": ("twin",), "twin": ("a",)}
        for one in others:
            assert one.behind is not None
            assert one.behind.uncertainty is not None
            assert one.behind.value == pytest.approx(-20, abs=5)
            assert one.behind.uncertainty.high < 0
    there, back = found.difference("a", "best", task="A"), found.difference("best", "a", task="A")
    assert there.value == -(back.value or 0)
    assert there.uncertainty is not None
    assert back.uncertainty is not None
    assert (there.uncertainty.low, there.uncertainty.high) == (
        -back.uncertainty.high,
        -back.uncertainty.low,
    )
    assert (there.uncertainty.up, there.uncertainty.down) == (
        back.uncertainty.down,
        back.uncertainty.up,
    )
    assert there.uncertainty.p == back.uncertainty.p


def test_models_that_hardly_differ_share_a_rank() -> None:
    random = np.random.default_rng(2)
    a = scores_of(random, "A")
    # Fewer queries differ than anything can be said of.
    near = {"A": a["A"].copy()}
    near["A"][: QUERIES * (LEAST_CHANGED - 1)] += 0.1
    found = compared({"a": a, "near": near, "far": better(random, a, -0.2)})
    assert [(one.label, one.rank) for one in found.ranking("Retr")] == [
        *(("near", 1), ("a", 1)),
        ("far", 3),
    ]


def test_a_missing_task_is_missing_and_not_averaged_around() -> None:
    random = np.random.default_rng(3)
    a = scores_of(random, "ABC")
    b = better(random, a, 0.1)
    del b["B"]
    found = compared({"a": a, "b": b, "c": better(random, a, -0.1)})
    assert found.difference("a", "b", task="B").value is None
    assert found.difference("a", "b", column="Rerank").value is None
    assert found.difference("a", "b", column=AVERAGE).value is None
    assert found.difference("a", "b", column="Retr").value == pytest.approx(10, abs=5)
    assert found.notes == (
        "b: missing B; no mean is taken without it.",
        "Avg: the interval leaves out variation between tasks: each column has only one.",
    )
    ranks = {column: found.ranking(column) for column in (*COLUMNS.values(), AVERAGE)}
    assert [(one.label, one.rank) for one in ranks["Retr"]] == [("b", 1), ("a", 2), ("c", 3)]
    for column in ("Rerank", AVERAGE):
        first, second, last = ranks[column]
        assert [(one.label, one.rank) for one in (first, second)] == [("a", 1), ("c", 2)]
        assert (last.label, last.rank, last.score, last.tied) == ("b", None, None, ())
    rows = [[entry.text for entry in row] for row in difference_table(found, ["a", "b"]).rows]
    assert [row[:1] + row[2:] for row in rows if row[0] == "Avg"] == [
        ["Avg", f"{100 * np.mean([a[task].mean() for task in a]):.2f}", *"–––––"]
    ]
    assert ["Rerank", "B", f"{100 * a['B'].mean():.2f}", *"–––––"] in rows


def test_a_condition_of_one_task_alone_is_told() -> None:
    random = np.random.default_rng(4)
    a = scores_of(random, "AB")
    world = {"a": a, "b": better(random, a, 0.1)}
    found = compared(world, conditions={"b, B": {"torch": "3"}})
    told = "Differs between the models: version of torch: unknown (a); 3 and unknown (b)."
    assert told in found.notes


def test_scores_of_other_data_are_not_compared() -> None:
    random = np.random.default_rng(4)
    a = scores_of(random, "AB")
    world = {"a": a, "b": better(random, a, 0.1), "c": better(random, a, 0.2)}
    found = compared(world, conditions={"c": {"dataset_revision": "other", "torch": "2"}})
    assert found.difference("a", "b", column=AVERAGE).value == pytest.approx(10, abs=5)
    for what in ({"column": AVERAGE}, {"column": "Retr"}, {"task": "A"}):
        one = found.difference("a", "c", **what)  # type: ignore[arg-type]
        assert (one.first, one.second, one.uncertainty) == (None, None, None)
    assert [(one.label, one.rank) for one in found.ranking(AVERAGE)] == [
        *(("b", 1), ("a", 2)),
        ("c", None),
    ]
    assert found.notes[:3] == (
        "Not compared: A: different revisions of the dataset (c − a and c − b).",
        "Not compared: B: different revisions of the dataset (c − a and c − b).",
        "Differs between the models: version of torch: unknown (a and b); 2 (c).",
    )


def test_without_intervals_there_are_no_ranks() -> None:
    random = np.random.default_rng(4)
    a = scores_of(random, "A")
    found = compared({"a": a, "b": better(random, a, 0.2)}, resamples=0)
    assert [(one.label, one.rank) for one in found.ranking(AVERAGE)] == [("b", None), ("a", None)]
    assert found.difference("a", "b", task="A").value == pytest.approx(20, abs=5)
    table = ranking_table(found)
    assert [row[0].text for row in table.rows] == ["–", "–"]


# --- models in a folder of results ------------------------------------------------------------


def write(
    results: Results, model: str, tasks: Mapping[str, Values], revision: str = "f" * 40, **more: Any
) -> None:
    for task, values in tasks.items():
        documents = [relevant((f"d{n // QUERIES}", 5, 1)) for n in range(len(values))]
        score = float(values.mean())
        entry = {PART: {"main_score": score, "ndcg_at_10": score}}
        rows = item_rows(list(values), relevant=documents, tokens=[5] * len(values))
        write_cell(results, task, entry, rows, model=model, revision=revision, **more)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two versions of a model of one's own, the second better by 5 points; and one with prompts."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(6)
    results = Results(tmp_path / "runs")
    first = scores_of(random, ["SciFact", "NFCorpus"])
    write(results, "local/mine", first, "1" * 40)
    write(
        results,
        "local/mine",
        {task: values * 1.5 for task, values in first.items()},
        "1" * 40,
        policy=Constant(0.8),
    )
    write(results, "local/mine", better(random, first, 0.05), "2" * 40)
    write(results, "org/prompted", better(random, first, 0.1), name="model", prompts="model")
    labels = {("local/mine", "1" * 40): "v1", ("local/mine", "2" * 40): "v2"}
    add_labels(results.folder, labels)
    return results.folder


def test_versions_by_label_and_models_with_prompts_of_their_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", f"results_dir={folder}", "resamples=1000"]
    assert app.run([*words, "models=[v1,v2,prompted]", "show=ranking"]) == 0
    shown = capsys.readouterr().out
    assert "Differences between models" in shown
    assert "Ranking of models" in shown
    report = folder / "report"
    with (report / "tables" / "differences.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv_format.reader(file))
    text = (report / "tables.md").read_text(encoding="utf-8")
    assert "a: v1, b: v2" in text
    assert "a: v1, b: prompted" in text
    (said,) = {line for line in text.splitlines() if "models: prompts: " in line}
    assert "none (v1 and v2)" in said
    assert "model (prompted)" in said
    columns = ["Column", "Task", "a", "b", "b − a", "from", "to", "p"]
    assert [name for name in rows[0] if name in columns] == columns
    column = rows[0].index("Column")
    pairs_shown = {(row[0], row[column]) for row in rows}
    assert pairs_shown >= {("a: v1, b: v2", "Avg"), ("a: v1, b: prompted", "BeirRetr")}
    for name in ("differences", "ranking"):
        assert f"\\label{{tab:{name}}}" in (report / "tables" / f"{name}.tex").read_text()
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert {"differences", "ranking"} <= {table["name"] for table in document["tables"]}
    # The order is that of the request.
    found = lcbench.report(folder, models=["v2", "v1"], resamples=1000, progress=False)
    table = found.tables["differences"].query("Column == 'Avg'")
    assert table[""].tolist() == ["a: v2, b: v1"]
    assert table["b − a"].iloc[0] == pytest.approx(-5, abs=2.5)
    assert table["from"].iloc[0] < table["b − a"].iloc[0] < table["to"].iloc[0]
    ranking = found.tables["ranking"]
    assert ranking["Model"].tolist()[:2] == ["v2", "v1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("models=[v1,v3]", "models=v3: there are no results of it here, only of"),
        ("models=[v1,v3]", "(labels: v1, v2)."),
        ("models=[]", "models=[] is not a list"),
    ],
)
def test_models_that_are_not_there(
    words: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["report", f"results_dir={folder}", words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_models_under_different_conditions_are_said_not_to_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "runs")
    write_cell(results, "STS12", 0.5, model="org/a")
    write_cell(results, "STS12", 0.6, model="org/b", dtype="bfloat16")
    words = ["report", f"results_dir={results.folder}", "resamples=0", "models=[a,b]"]
    assert app.run(words) == 0
    shown = capsys.readouterr()
    assert "models=a,b: not compared" in shown.err
    assert "paper; paper, bfloat16" in shown.err
    assert "Differences between" not in shown.out


def test_one_model_has_no_ranking(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs")
    write_cell(results, "STS12", 0.5)
    found = lcbench.report(results.folder, resamples=0, progress=False)
    assert not {"ranking", "differences"} & set(found.tables)


def test_a_model_under_several_prompts_is_compared_within_each(folder: Path) -> None:
    random = np.random.default_rng(7)
    results = Results(folder)
    of_prompts = {"name": "model", "prompts": "model"}
    write(results, "local/mine", scores_of(random, ["SciFact"]), "1" * 40, **of_prompts)
    found = lcbench.report(folder, resamples=0, progress=False)
    names = [sorted(found.tables[name]["Model"]) for name in ("ranking", "ranking-2")]
    assert sorted(names) == [["prompted", "v1"], ["v1", "v2"]]
