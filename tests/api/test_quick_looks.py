"""`limit=`: a quick look is marked wherever it is shown, and never mixed with whole results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos_program
import pytest
from observers import Recorded

import lcbench
from lcbench.cli import status
from lcbench.plan.manifest import latest, read
from lcbench.run.state import state_of

TASKS = ["STS12", "DocstringRetrieval", "DocstringLibraryClassification", "DocstringReranking"]


@pytest.fixture(scope="module")
def looked(make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A quick look and, of one task, the whole, in one folder of results."""
    asked = {
        **chaos_program.request_of(tmp_path_factory.mktemp("quick"), make_model("bert")),
        "tau": 0.5,
        "docs": {"documents": 40, "documents_per_module": 8},
        "progress": Recorded(),
    }
    whole = lcbench.evaluate(**asked, tasks="STS12")
    return lcbench.evaluate(**asked, tasks=TASKS, limit=6), whole


def test_so_many_items_are_scored(looked: Any) -> None:
    quick, whole = looked
    counts = quick.items().query("tau == 1").groupby("task")["id"].count()
    assert counts.to_dict() == dict.fromkeys(TASKS, 6)
    assert whole.items().query("tau == 1")["id"].count() == 24
    # The same items at every temperature: they can be compared.
    assert quick.scores["improvement"].notna().any()
    gold = whole.items().query("tau == 1")["gold"].tolist()
    assert set(quick.items().query("tau == 1 and task == 'STS12'")["gold"]) < set(gold)


def test_they_are_never_mixed(looked: Any) -> None:
    quick, whole = looked
    assert quick.scores["protocol"].str.contains("limit 6").all()
    assert not whole.scores["protocol"].str.contains("limit").any()
    loaded = lcbench.load(quick.folder)
    groups = loaded.scores.groupby("protocol")["task"].unique()
    of_whole = [name for name in groups.index if "limit 6" not in name]
    assert [list(groups[name]) for name in of_whole] == [["STS12"]]
    folders = {path.name for path in quick.folder.glob("paper-*")}
    assert len([name for name in folders if name.startswith("paper-limit6-")]) == len(folders) - 1
    for path in quick.folder.glob("*/results/*/*/STS12.json"):
        is_quick = "limit6" in str(path)
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["dataset_revision"].endswith("-limit6") is is_quick
        (record,) = [
            json.loads(line)
            for line in path.with_suffix(".provenance.jsonl").read_text().splitlines()
        ]
        assert record["data"].get("limit") == record["protocol"].get("limit")
        assert record["protocol"].get("limit") == (6 if is_quick else None)


def test_the_report_says_what_it_is(looked: Any, tmp_path: Path) -> None:
    quick, _ = looked
    written = quick.report(tmp_path, resamples=0, progress=Recorded())
    for name in ("table1.md", "table1.tex", "index.html"):
        text = (written.folder / name).read_text(encoding="utf-8")
        assert "limit 6" in text
        assert "a quick look (limit=6)" in text
    assert "limit 6" in (written.folder / "tasks.csv").read_text(encoding="utf-8")


def test_sentences_of_several_tables_name_their_protocols(looked: Any, tmp_path: Path) -> None:
    folder = looked[0].folder
    written = lcbench.report(folder, report_dir=tmp_path, resamples=0, progress=Recorded())
    named = {line.partition(": ")[0] for line in written.lines}
    assert any(name == "protocol paper" for name in named)
    assert all(name.startswith("protocol paper") for name in named)


def test_the_status_says_what_it_is(looked: Any) -> None:
    folder = latest(looked[0].folder)
    assert folder is not None
    shown = status._headline(state_of(read(folder)), status.time_left(state_of(read(folder))))
    assert "a quick look (limit=6): 8 done" in shown.plain


def test_runs_and_models_have_the_names_that_they_are_given(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    asked = {
        **chaos_program.request_of(tmp_path, make_model("bert")),
        "tasks": "STS12",
        "tau": 0.5,
        "progress": False,
    }
    named = lcbench.evaluate(**asked, name="first_try", label="Ours, v1")
    assert set(named.scores["model"]) == {"Ours, v1"}
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    assert sweep.name.startswith("first_try-")
    assert set(lcbench.load(tmp_path / "runs").scores["model"]) == {"Ours, v1"}
    # Finished cells are found, and shown under another name.
    again = lcbench.evaluate(**asked, label="Ours, v2")
    assert set(again.scores["model"]) == {"Ours, v2"}
    assert set(lcbench.load(tmp_path / "runs").table1.index.get_level_values("model")) == {
        "Ours, v2"
    }
