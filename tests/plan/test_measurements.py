"""Measurements are planned, divided, carried out by element, submitted and followed like cells."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lcbench
from lcbench.api.keywords import words_of
from lcbench.cli import app
from lcbench.measures import files
from lcbench.plan import manifest
from lcbench.plan.measurements import asked_of
from lcbench.run import collapse as run
from lcbench.run import slurm
from lcbench.run.state import state_of, to_submit
from lcbench.system.signals import Stop

SMALL: dict[str, Any] = {
    "passages": 30,
    "sentences": [2],
    "whole_texts": 60,
    "bins": 2,
    "queries": 30,
    "corpus": 30,
    "resamples": 1_000,
    "docs": {"documents": 100},
    "store": "none",
    "offline": True,
    "tau": [0.5, 0.7],
}


@pytest.fixture
def words(make_model: Callable[[str], Path], tmp_path: Path) -> list[str]:
    return words_of(
        "collapse", {"model": make_model("bert"), "results_dir": tmp_path / "runs", **SMALL}
    )


def printed(words: list[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    assert app.run(words) == status
    found = capsys.readouterr()
    return found.err if status else found.out


def test_elements_of_a_plan_make_their_measurements_and_no_others(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = printed(["collapse", *words, "plan=true", "launch.elements=2"], capsys)
    assert "3 measurements in 2 elements" in said
    assert "one element of it: python -m lcbench collapse manifest=" in said
    folder = manifest.latest(tmp_path / "runs", planned=True)
    assert folder is not None
    frozen = manifest.read(folder)
    assert frozen.measures
    assert [line.policy for line in frozen.lines] == ["1", "0.5", "0.7"]
    asked = asked_of(frozen)
    assert asked.embeddings is not None
    assert asked.embeddings.counts == (2,)
    # The same plan is found again.
    printed(["collapse", *words, "plan=true", "launch.elements=2"], capsys)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert to_submit(frozen, state_of(frozen), ()) == [0, 1]

    named = [f"manifest={folder}", "offline=true", "store=none"]
    mine = [line for line in frozen.lines if line.element == 1]
    assert 0 < len(mine) < 3
    assert f"element 1: {len(mine)} measurement" in printed(
        ["collapse", *named, "element=1"], capsys
    )
    state = state_of(frozen)
    assert {cell.line for cell in state.of("done")} == set(mine)
    assert to_submit(frozen, state, ()) == [0]
    status = printed(["status", f"manifest={folder}"], capsys)
    assert f"{len(mine)} of 3" in status or f"{len(mine)} done" in status

    # The report has what there is; the rest is made by the manifest as a whole.
    reported = ["report", f"manifest={folder}", f"report_dir={tmp_path / 'report'}"]
    assert "Length collapse:" in printed(reported, capsys)
    written = tmp_path / "report/collapse/collapse.json"
    assert len(json.loads(written.read_text(encoding="utf-8"))["measurements"]) == len(mine)
    # By default the report lies in the folder that the manifest is of, whatever the current one.
    assert f"{tmp_path / 'runs/report/collapse/index.html'}" in printed(reported[:2], capsys)
    printed(["collapse", *named], capsys)
    assert state_of(frozen).counts["done"] == 3
    found = [
        files.read(frozen.results_dir / line.folder / f"{line.task}.json", files.Measurement)
        for line in frozen.lines
    ]
    assert [one and one.policy for one in found] == ["1", "0.5", "0.7"]

    for wrong, message in (
        (["collapse", *named, "element=2"], "the plan has elements 0 to 1"),
        (["collapse", *named, "passages=40"], "passages: manifest="),
        (["run", *named], "python -m lcbench collapse manifest="),
    ):
        assert message in printed(wrong, capsys, 2)


def test_a_plan_has_what_happens_inside_and_figures_of_the_paper(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Planned, claimed, made by element and found again like measurements of embeddings."""
    more = ["measures=[attention]", "traced_texts=30", "traced_lengths=[16]", "figures=['12']"]
    said = printed(["collapse", *words, *more, "plan=true", "launch.elements=2"], capsys)
    assert "4 measurements in 2 elements" in said
    folder = manifest.latest(tmp_path / "runs", planned=True)
    assert folder is not None
    frozen = manifest.read(folder)
    asked = asked_of(frozen)
    assert asked.embeddings is None
    assert asked.inside is not None
    assert (asked.inside.measures, asked.inside.lengths) == (("attention",), (16,))
    assert asked.figures == ("12",)
    assert [line.policy for line in frozen.lines] == ["1", "0.5", "0.7", "1"]
    assert "-figure-12-" in frozen.lines[-1].task

    named = [f"manifest={folder}", "offline=true", "store=none"]
    mine = [line for line in frozen.lines if line.element == frozen.lines[-1].element]
    element = f"element={frozen.lines[-1].element}"
    assert f"{len(mine)} measurement" in printed(["collapse", *named, element], capsys)
    assert {cell.line for cell in state_of(frozen).of("done")} == set(mine)
    printed(["collapse", *named], capsys)
    assert state_of(frozen).counts["done"] == 4

    # Nothing is made again, and the report of the manifest has all, without a model.
    monkeypatch.setattr(run, "load_for", None)
    printed(["collapse", *named], capsys)
    reported = ["report", f"manifest={folder}", f"report_dir={tmp_path / 'report'}"]
    assert "Figure 12" in printed(reported, capsys)
    page = json.loads((tmp_path / "report/collapse/collapse.json").read_text(encoding="utf-8"))
    assert [one["policy"] for one in page["inside"]] == ["1", "0.5", "0.7"]
    assert [one["number"] for one in page["paper_figures"]] == ["12"]
    shown = lcbench.report(tmp_path / "runs", manifest=folder, progress=False)
    assert shown.collapse is not None
    assert len(shown.collapse.inside) == 3
    assert [one.number for one in shown.collapse.figures] == ["12"]


def test_a_launch_submits_an_array_whose_jobs_measure(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    submitted: list[list[str]] = []

    def sbatch(command: list[str]) -> tuple[int, str]:
        submitted.append(list(command))
        return 17 + len(submitted), ""

    monkeypatch.setattr(slurm, "_sbatch", sbatch)
    launched = ["collapse", *words, "launch=slurm", "launch.partition=cpu"]
    assert "3 elements submitted as Slurm job 18" in printed(launched, capsys)
    array, report = submitted
    folder = manifest.latest(tmp_path / "runs", planned=True)
    assert "--array=0-2" in array
    assert array[-4:] == [str(folder), array[-3], "collapse", "-"]
    assert report[-4:] == [str(folder), report[-3], "report", "-"]


def test_a_signal_ends_between_measurements(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is finished is kept, and the element can be put back into the queue."""
    stops: list[Stop] = []
    write = files.write

    def signalled(path: Path, measurement: files.Measurement) -> None:
        write(path, measurement)
        stops[0].is_asked = stops[0].is_gentle = True

    class Recorded(Stop):
        def __init__(self) -> None:
            super().__init__()
            stops.append(self)

    monkeypatch.setattr("lcbench.system.signals.Stop", Recorded)
    monkeypatch.setattr(run.files, "write", signalled)
    assert app.run(["collapse", *words]) == 143
    assert "Finished cells are kept" in capsys.readouterr().err
    assert stops[0].progressed
