"""A model card's section: what the hub reads of it, and that it replaces only itself."""

import warnings
from dataclasses import replace
from pathlib import Path

import mteb
import pytest
from huggingface_hub import EvalResult, ModelCard
from report_cells import item_rows, write_cell
from result_cells import PROTOCOL, cell, outcome

import lcbench
from lcbench.cli import app
from lcbench.errors import RequestError
from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant

MODEL, TASK = "some/model", "STSBenchmark"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """A model at τ = 1 and 0.8 on a task of mteb."""
    monkeypatch.chdir(tmp_path)
    found = Results(tmp_path / "runs")
    for policy, score in ((BASELINE, 0.5), (Constant(0.8), 0.625)):
        found.write(cell(policy), outcome(cell(policy), score))
    return found


def card(*words: str) -> ModelCard:
    """Return the card that a command writes, as the hub reads it."""
    assert app.run(["card", "results_dir=runs", "out=README.md", *words]) == 0
    return ModelCard.load("README.md")


def of_mteb(results: Results, policy: object) -> list[EvalResult]:
    path = results.files(cell(policy)).result  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return mteb.results.TaskResult.from_disk(path).get_hf_eval_results()


@pytest.mark.parametrize(
    ("words", "policy", "value"),
    [
        ([], Constant(0.8), 0.625),
        (["repairs=0.80"], Constant(0.8), 0.625),
        (["repairs={tau: 0.8}"], Constant(0.8), 0.625),
        (["repairs=1"], BASELINE, 0.5),
    ],
)
def test_the_metadata_are_those_that_mteb_writes(
    words: list[str], policy: object, value: float, results: Results
) -> None:
    data = card(*words).data
    (theirs,) = of_mteb(results, policy)
    (ours,) = data.eval_results
    assert ours.metric_value == value
    arguments = {"protocol": "paper", "window": 512, "repair": str(policy.canonical)}  # type: ignore[attr-defined]
    assert ours.metric_args == arguments
    theirs.metric_args = arguments
    assert ours == theirs
    assert (data.model_name, data.tags) == ("model", ["sentence-transformers", "mteb"])


def test_the_table_has_the_gain_and_its_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Results(tmp_path / "runs")
    for policy, scores in ((BASELINE, [0.2, 0.4] * 30), (Constant(0.8), [0.3, 0.5] * 30)):
        entry = {
            "main_score": sum(scores) / 60,
            "cosine_spearman": 0.0,
            "ndcg_at_10": sum(scores) / 60,
        }
        write_cell(folder, "SciFact", {("test", "default"): entry}, item_rows(scores), policy)
    text = card("resamples=1000").text
    assert "| SciFact | 30.00 | 40.00 | **▲ 33.33** | " in text
    assert "| **Avg** | 30.00 | 40.00 | " in text
    low, _, high = text.partition("**▲ 33.33** | ")[2].partition(" |")[0].partition(" to ")
    assert 20 < float(low) < 33.33 < float(high) < 60


def test_tasks_that_read_one_dataset_stay_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, tasks = Results(tmp_path / "runs"), ("LEMBQMSumRetrieval", "LEMBWikimQARetrieval")
    for task, score in zip(tasks, (0.25, 0.5), strict=True):
        write_cell(folder, task, {("test", "default"): {"main_score": score, "ndcg_at_10": score}})
    names = {f"{task} (default)" for task in tasks}
    assert {one.dataset_name for one in card("repairs=1").data.eval_results} == names
    # What is written again is one of them.
    again = card("repairs=1", f"tasks=[{tasks[0]}]").data.eval_results
    values = {(one.dataset_name, one.metric_value) for one in again}
    assert values == set(zip(sorted(names), (0.25, 0.5), strict=True))


def test_quick_looks_are_no_metadata(results: Results) -> None:
    of = replace(cell(), protocol=replace(PROTOCOL, limit=10))
    results.write(of, outcome(of, 0.25))
    assert [one.metric_value for one in card("repairs=1").data.eval_results] == [0.5]
    for path in (results.files(cell()).result, results.files(cell(Constant(0.8))).result):
        path.unlink()
    Path("README.md").unlink()
    # The hub takes no empty list of results.
    assert "model-index" not in card("repairs=1").content


@pytest.mark.parametrize("metadata", ["title: a: b", "1: one"])
def test_a_card_with_unreadable_metadata_is_left_alone(
    metadata: str, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    before = f"---\n{metadata}\n---\n# My model\n"
    Path("README.md").write_text(before, encoding="utf-8")
    assert app.run(["card", "results_dir=runs", "out=README.md"]) == 2
    assert "the metadata of the card cannot be read" in capsys.readouterr().err
    assert Path("README.md").read_text(encoding="utf-8") == before


def test_only_the_section_and_the_same_metadata_are_replaced(results: Results) -> None:
    mine = """---
license: mit
tags: [mine]
model-index:
- name: mine
  results:
  - task: {type: sentence-similarity}
    dataset: {name: Other, type: org/other, split: test}
    metrics: [{type: accuracy, value: 0.25}]
---
# My model

Words.
"""
    Path("README.md").write_text(mine, encoding="utf-8")
    card("repairs=1")
    Path("README.md").write_text(
        Path("README.md").read_text(encoding="utf-8") + "\nMore.\n", encoding="utf-8"
    )
    again = card()
    assert again.data.to_dict()["license"] == "mit"
    assert again.data.tags == ["mine", "sentence-transformers", "mteb"]
    assert [(one.dataset_name, one.metric_value) for one in again.data.eval_results] == [
        ("Other", 0.25),
        ("STSBenchmark (default)", 0.625),
    ]
    assert again.data.model_name == "mine"
    assert again.text.count("lcbench: begin") == 1
    assert again.text.startswith("# My model\n\nWords.\n")
    assert again.text.endswith("<!-- lcbench: end -->\n\nMore.\n")
    assert "τ = 0.8" in again.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["repairs=0.7"], "repairs=0.7: there are no results of it here, only of 1, 0.8."),
        (["repairs=[0.8,1]"], "repairs=[0.8, 1]: a card is of one model under one repair."),
        (["models=bge"], "models=BAAI/bge-base-en-v1.5: there are no results of it here"),
        ([], "a card is of one model: models=bge-base-en-v1.5"),
    ],
)
def test_what_a_card_cannot_be_of(
    words: list[str], message: str, results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    if not words:
        write_cell(results, "STS12", 0.5)
    assert app.run(["card", "results_dir=runs", *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_python_writes_the_same_card(results: Results, tmp_path: Path) -> None:
    of_command = str(card("repairs=0.8", "resamples=0"))
    text = lcbench.card(results.folder, repairs=0.8, out=tmp_path / "mine.md", resamples=0)
    assert text == of_command == (tmp_path / "mine.md").read_text(encoding="utf-8")
    assert lcbench.card(results.folder, repairs=0.8, resamples=0) == text
    for keywords, message in (
        ({"repairs": 0.7}, "repairs=0.7: there are no results"),
        ({"models": "bge"}, "models=BAAI/bge-base-en-v1.5"),
        ({"resamples": 3}, "resamples=3 is too few"),
        ({"out": []}, r"out=\[\] is a list"),
        ({"model": "bge"}, "model is"),
    ):
        with pytest.raises(RequestError, match=message):
            lcbench.card(results.folder, **keywords)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="has no results"):
        lcbench.card(tmp_path / "none")


def test_a_card_whose_metadata_cannot_be_read(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("README.md").write_text("---\nmodel-index: [{}]\n---\n", encoding="utf-8")
    assert app.run(["card", "results_dir=runs", "out=README.md"]) == 2
    assert "out: the metadata of the card cannot be read" in capsys.readouterr().err
    assert Path("README.md").read_text(encoding="utf-8").startswith("---\nmodel-index: [{}]")


def test_a_card_is_of_one_revision(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    again = replace(cell(), revision="e" * 40)
    results.write(again, outcome(again, 0.25))
    assert app.run(["card", "results_dir=runs"]) == 2
    message = capsys.readouterr().err
    assert "models=model: results of 2 revisions are here" in message
    assert "e" * 40 in message


def test_no_interval_accounts_for_the_choice_where_there_is_none(results: Results) -> None:
    results.write(cell(Constant(0.9)), outcome(cell(Constant(0.9)), 0.6))
    text = card("resamples=0").text
    assert "τ = 0.8 is the best of 2 tried on the same data." in text
    assert "accounts for this choice" not in text
