"""Which results of a folder are put into one table."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from composed import read
from report_cells import BGE, write_cell
from result_cells import PROTOCOL, cell, outcome
from screens import shown

from lcbench.api.report import request_of
from lcbench.cli import app
from lcbench.errors import RequestError, StorageError
from lcbench.reporting import publish
from lcbench.reporting.publish import _alone, _older, cells_of, file_of_another
from lcbench.reporting.select import AskedCell, Extent, _own_folder, report_folder, report_run
from lcbench.results.folder import Results
from lcbench.settings.sources import shipped_sources
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.suites import choose, resolve, shipped_suites
from lcbench.tempscale.policy import BASELINE, Constant

NAME = "MTEB(eng, v2)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The results of a benchmark that takes English alone of some tasks, and one beyond it."""
    from dataclasses import replace

    results = Results(tmp_path / "runs")
    choices, _ = choose([NAME], shipped_suites(), shipped_sources())
    for choice in [*choices, TaskChoice("STS17")]:
        part = resolve(choice, "test", None, shipped_sources())
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
    choices = tuple(choose(names, shipped_suites(), shipped_sources())[0]) if names else None
    warnings: list[str] = []
    text = shown(
        lambda step: report_folder(Results(folder), choices, None, warnings.append, step=step)
    )
    assert warnings == []
    return text


TITLE = "Scores and relative improvements: "


def test_a_benchmark_is_one_table(folder: Path) -> None:
    text = report(folder, NAME)
    assert text.splitlines()[1].strip() == f"{TITLE}protocol paper"
    # Nothing is missing, and STS17 in all languages is not what the benchmark takes.
    assert ": missing" not in text
    assert "subsets" not in text.replace("splits and subsets", "")
    (raw,) = (line for line in text.splitlines() if line.startswith("raw"))
    assert set(raw.split()[4:]) == {"50.00"}


def test_by_their_protocols_alone_they_are_several(folder: Path) -> None:
    text = report(folder)
    headings = {line.strip() for line in text.splitlines() if line.startswith(TITLE)}
    assert {heading.removeprefix(TITLE) for heading in headings} == {
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
    assert file_of_another(tmp_path) == "report.json"
    ours = {"title": "", "version": "1", "tables": [], "files": [*listed, "lengths.csv"]}
    document.write_text(json.dumps(ours))
    assert _older(tmp_path) == {"tables/own.csv", "lengths.csv"}
    assert file_of_another(tmp_path) is None
    for content in ("[", "[]", "[" * 100_000, '{"files": 3}'):
        document.write_text(content)
        assert _older(tmp_path) == set()


@pytest.fixture
def two(tmp_path: Path) -> Results:
    """The baseline and a temperature of one task."""
    results = Results(tmp_path / "runs")
    for policy, score in ((BASELINE, 0.5), (Constant(0.8), 0.625)):
        write_cell(results, "STSBenchmark", score, policy=policy)
    return results


def quickly(results: Results, folder: Path) -> None:
    publish.publish(report_folder(results, None, folder, pytest.fail, Extent(resamples=0)))


def test_a_killed_report_leaves_the_older_one_and_nothing_stale(
    two: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "report"
    quickly(two, folder)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    document = json.loads((folder / "report.json").read_text())
    assert set(document["files"]) == names
    assert len(document["cells"]) == 2
    before = {name: (folder / name).read_bytes() for name in names}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # While it draws, which takes long.
    with monkeypatch.context() as patched:
        patched.setattr(publish, "_draw", killed)
        with pytest.raises(KeyboardInterrupt):
            quickly(two, folder)
    assert {name: (folder / name).read_bytes() for name in names} == before
    # While it is put in place: what it has written is known to the next one.
    write = publish.write_atomically

    def until_the_document(path: Path, writer: Any) -> None:
        if path.name == "report.json":
            raise KeyboardInterrupt
        write(path, writer)

    with monkeypatch.context() as patched:
        texts = publish._texts
        patched.setattr(publish, "_texts", lambda found: {**texts(found), "lengths.csv": ""})
        patched.setattr(publish, "write_atomically", until_the_document)
        with pytest.raises(KeyboardInterrupt):
            quickly(two, folder)
    assert (folder / "lengths.csv").exists()
    quickly(two, folder)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == names


def test_one_report_at_a_time_is_put_into_a_folder(
    two: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "report"
    monkeypatch.setattr(publish, "_LOCK_SECONDS", 0.0)
    with _alone(folder), pytest.raises(StorageError, match="another report is being written"):
        quickly(two, folder)
    assert not (folder / "index.html").exists()
    quickly(two, folder)
    assert (folder / "index.html").exists()


def test_the_report_of_a_part_does_not_take_the_place_of_the_whole(two: Results) -> None:
    folder = two.folder / "report"
    asked = [
        AskedCell("m", "1", path) for path in sorted(two.folder.glob("*/results/**/STS*.json"))
    ]
    assert _own_folder("run", two, asked[:1]) == folder
    quickly(two, folder)
    assert len(cells_of(folder)) == 2
    assert _own_folder("run", two, asked) == folder
    part = _own_folder("mine/x", two, asked[:1])
    assert part.parent == folder
    assert part.name.startswith("mine-x-")
    assert part == _own_folder("mine/x", two, asked[:1])


def test_another_programs_report_is_not_written_over(two: Results, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"accuracy": 1}')
    with pytest.raises(RequestError, match=r"/report\.json is of another program"):
        quickly(two, tmp_path)
    assert (tmp_path / "report.json").read_text() == '{"accuracy": 1}'


def test_another_programs_page_is_not_written_over(two: Results, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    page = folder / "index.html"
    page.write_text('<html><meta name="generator" content="Hugo"><p>lcbench: my thesis')
    with pytest.raises(RequestError, match=r"/index\.html is of another program.*report_dir=PATH"):
        quickly(two, folder)
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    assert "my thesis" in page.read_text()
    page.unlink()
    quickly(two, folder)
    # Killed before its report.json was there, and the page of a version that did not name itself.
    (folder / "report.json").rename(tmp_path / "report.json")
    quickly(two, folder)
    page.write_text("<html>an older page of ours")
    quickly(two, folder)
    assert "an older page" not in page.read_text()
    page.unlink()
    (folder / "report.json").unlink()
    page.mkdir()
    with pytest.raises(RequestError, match=r"/index\.html is of another program"):
        quickly(two, folder)


def test_models_under_different_prompts_are_in_tables_of_their_own(tmp_path: Path) -> None:
    results = Results(tmp_path / "runs")
    asked = []
    for model, name in (("a/plain", "paper"), ("b/prompted", "model")):
        prompts = "model" if name == "model" else "none"
        for policy, score in ((BASELINE, 0.5), (Constant(0.8), 0.6)):
            files = write_cell(
                results, "STS12", score, policy=policy, model=model, name=name, prompts=prompts
            )
            asked.append(AskedCell(model, policy.canonical, files.result))
    warnings: list[str] = []
    request = request_of(read("tasks=[STS12]"), asked)
    text = shown(lambda step: report_run(request, results, None, warnings.append, step=step))
    lines = text.splitlines()
    assert warnings == []
    headings = {line.strip() for line in lines if line.startswith(TITLE)}
    assert {heading.removeprefix(TITLE) for heading in headings} == {
        "protocol paper",
        "protocol model",
    }


@pytest.mark.parametrize("model", [BGE, "local/model"], ids=["of the paper", "another"])
@pytest.mark.parametrize("stated", ["Infinity", "NaN", "1e30", "null"])
def test_a_window_that_is_no_limit_has_no_number(stated: str, model: str, tmp_path: Path) -> None:
    """Versions before recorded what sentence-transformers gives for no limit."""
    results = Results(tmp_path / "runs")
    for policy, score in ((BASELINE, 0.5), (Constant(0.9), 0.25)):
        record = write_cell(results, "STS12", score, policy=policy, model=model).provenance
        known = json.dumps({**json.loads(record.read_text()), "window": "WINDOW"})
        record.write_text(known.replace('"WINDOW"', stated))
    printed = report(tmp_path / "runs")
    assert re.findall(r"Window \S+", printed) == ["Window –"]
    assert "inf" not in printed.lower()


def folders(tmp_path: Path, *scores: dict[Any, float]) -> list[Path]:
    """Write a folder of each of these scores by policy, of one model and task."""
    written = []
    for number, of_policies in enumerate(scores):
        results = Results(tmp_path / f"runs{number}")
        for policy, score in of_policies.items():
            write_cell(results, "STS12", score, policy=policy)
        written.append(results.folder)
    return written


def test_a_report_of_several_folders_has_each_cell_once(tmp_path: Path) -> None:
    first, second = folders(
        tmp_path,
        {BASELINE: 0.5, Constant(0.9): 0.55},
        # The same to the fourth decimal, as of another machine.
        {BASELINE: 0.50003, Constant(0.8): 0.6},
    )
    warnings: list[str] = []
    found = report_folder(Results(first, [second]), None, None, warnings.append)
    assert warnings == []
    ((block,),) = (one.table.blocks for one in found.findings.score_tables)
    scores = block.scores_of("STS12")
    assert scores == pytest.approx({"1": 50.0, "0.9": 55.0, "0.8": 60.0}, abs=1e-9)
    assert found.folder == first / "report"
    # A path in the folder itself is relative, so that the folder may be moved.
    assert sum(name.startswith(str(second)) for name in found.cells) == 1
    assert sum(not Path(name).is_absolute() for name in found.cells) == 2


def test_folders_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    first, second = folders(tmp_path, {BASELINE: 0.5}, {BASELINE: 0.5002})
    with pytest.raises(RequestError) as error:
        report_folder(Results(first, [second]), None, None, print)
    message = str(error.value)
    assert all(str(folder) in message for folder in (first, second))
    assert "scores, 0.5002 and 0.5000 (split test, subset default)" in message
    assert "They differ in" not in message
    results = Results(second)
    write_cell(results, "STS12", 0.5002, dataset_revision="other")
    with pytest.raises(RequestError, match=r"They differ in: dataset_revision\."):
        report_folder(Results(first, [second]), None, None, print)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["also=nowhere"], "also=nowhere has no results."),
        (["also=runs1", "manifest=latest"], "omit also= or manifest="),
        (["also=[]"], None),
        (["also=[runs1]"], None),
    ],
)
def test_further_folders_of_a_command(
    words: list[str],
    message: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders(tmp_path, {BASELINE: 0.5}, {Constant(0.8): 0.6})
    monkeypatch.chdir(tmp_path)
    status = app.run(["report", "results_dir=runs0", "resamples=0", *words])
    shown_text = capsys.readouterr()
    assert status == (0 if message is None else 2)
    assert (message or "") in shown_text.err
    if message is None:
        assert ("τ = 0.8" in shown_text.out) == ("runs1" in words[0])
