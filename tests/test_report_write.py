"""Which results of a folder are put into one table."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from lcbench.report.publish import _older
from lcbench.report.write import report_folder
from lcbench.results import Results
from lcbench.settings import ReportSettings, shipped_suites
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.suites import choose, resolve
from test_results import PROTOCOL, cell, outcome

NAME = "MTEB(eng, v2)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of a benchmark that takes English alone of some tasks, and one beyond it."""
    from dataclasses import replace

    results = Results(tmp_path / "runs")
    choices, _ = choose([NAME], shipped_suites())
    for choice in [*choices, TaskChoice("STS17")]:
        part = resolve(choice, "test", None)
        protocol = replace(PROTOCOL, splits=part.asked_splits, subsets=part.asked_subsets)
        of = replace(cell(task=choice.name), protocol=protocol)
        finished = outcome(cell(), 0.5 if choice in choices else 0.25)
        results.write(of, finished)
        path = results.files(of).result
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "task_name": choice.name}))
        record = results.files(of).provenance
        known = json.loads(record.read_text())
        known["protocol"] = {**known["protocol"], "subsets": protocol.subsets}
        record.write_text(json.dumps(known))
    return tmp_path / "runs"


def report(folder: Path, *names: str) -> str:
    console = Console(width=200, record=True)
    choices = tuple(choose(names, shipped_suites())[0]) if names else None
    warnings: list[str] = []
    settings = ReportSettings(folder, folder / "report", choices)
    report_folder(settings, Results(folder), console, warnings.append)
    assert warnings == []
    return console.export_text()


def test_a_benchmark_is_one_table(folder: Path) -> None:
    text = report(folder, NAME)
    assert text.splitlines()[0].strip() == "protocol paper"
    # Nothing is missing, and STS17 in all languages is not what the benchmark takes.
    assert "missing" not in text
    assert "subsets" not in text.replace("splits and subsets", "")
    (raw,) = (line for line in text.splitlines() if line.startswith(" raw"))
    assert set(raw.split()[4:]) == {"50.00"}


def test_by_their_protocols_alone_they_are_several(folder: Path) -> None:
    text = report(folder)
    lines = (line.strip() for line in text.splitlines() if line.startswith("protocol paper"))
    # What was found is said of each of them, too.
    headings = {line for line in lines if ": " not in line}
    assert headings == {
        "protocol paper",
        "protocol paper, subsets en",
        "protocol paper, subsets en-en",
    }


def test_another_programs_files_are_left_where_they_are(tmp_path: Path) -> None:
    listed = ["thesis.docx", "tables/numbers.xlsx", "tables/own.csv"]
    (tmp_path / "tables").mkdir()
    for name in listed:
        (tmp_path / name).touch()
    document = tmp_path / "report.json"
    document.write_text(json.dumps({"files": listed}))
    assert _older(tmp_path) == set()
    ours = {"title": "", "version": "1", "tables": [], "files": [*listed, "lengths.csv"]}
    document.write_text(json.dumps(ours))
    assert _older(tmp_path) == {"tables/own.csv", "lengths.csv"}
    for content in ("[", "[]", "[" * 100_000, '{"files": 3}'):
        document.write_text(content)
        assert _older(tmp_path) == set()
