"""A frozen sweep is written whole, read as it was written, and found again."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lcbench.api.compose import check_trust
from lcbench.errors import RequestError
from lcbench.plan import manifest
from lcbench.plan.manifest import Line


def lines(count: int = 3) -> list[Line]:
    return [
        Line(i, i % 2, "org/model", "r", "0.8", f"T{i}", "p-1", "p-1/results/x", 1.5)
        for i in range(count)
    ]


def freeze(
    results: Path, label: str = "demo", count: int = 3, planned: bool = True
) -> manifest.Manifest:
    settings = {"label": label}
    return manifest.freeze(
        manifest.folder_of(results, label, settings, lines(count)),
        command=["python", "-m", "lcbench"],
        versions={"mteb": "2"},
        settings=settings,
        lines=lines(count),
        planned=planned,
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    made = freeze(tmp_path / "runs")
    assert manifest.read(made.folder) == made
    assert manifest.read(made.folder / "manifest.jsonl") == made
    assert made.results_dir == tmp_path / "runs"
    assert made.elements == 2
    assert str(made.lines[0]) == "model, τ = 0.8, T0"


def test_it_can_be_moved_with_its_results(tmp_path: Path) -> None:
    made = freeze(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "moved")
    found = manifest.read(tmp_path / "moved" / "sweeps" / made.folder.name)
    assert found.results_dir == tmp_path / "moved"


def test_the_same_sweep_is_frozen_once(tmp_path: Path) -> None:
    made = freeze(tmp_path)
    content = (made.folder / "manifest.jsonl").read_bytes()
    assert freeze(tmp_path) == made
    assert (made.folder / "manifest.jsonl").read_bytes() == content
    assert freeze(tmp_path, count=4).folder != made.folder


@pytest.mark.parametrize("again", [False, True], ids=["made", "asked for again"])
def test_the_latest_is_that_also_after_a_clock_that_was_ahead(again: bool, tmp_path: Path) -> None:
    if again:
        freeze(tmp_path)
    ahead = freeze(tmp_path, "ahead")
    later = (ahead.folder / manifest.NAME).stat().st_mtime + 86400
    os.utime(ahead.folder / manifest.NAME, (later, later))
    assert manifest.latest(tmp_path) == ahead.folder
    for label in ("demo", "other", "demo"):
        asked = freeze(tmp_path, label)
        assert manifest.latest(tmp_path) == asked.folder


def test_the_latest_is_the_one_that_was_asked_for_last(tmp_path: Path) -> None:
    assert manifest.latest(tmp_path) is None
    one, other = freeze(tmp_path, "one"), freeze(tmp_path, "other")
    os.utime(one.folder / "manifest.jsonl", (1, 1))
    assert manifest.latest(tmp_path) == other.folder
    os.utime(other.folder / "manifest.jsonl", (0, 0))
    assert manifest.latest(tmp_path) == one.folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is incomplete"),
        (lambda text: text.rpartition("\n")[0].rpartition("\n")[0] + "\n", "2 of 3 cells"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "another version of lcbench"),
        (lambda text: "", "is incomplete"),
        (lambda text: text.replace('"element": 1', '"element": "x"'), "is incomplete .*not a cell"),
        (
            lambda text: text.replace('"seconds": 1.5', '"seconds": "x"'),
            "is incomplete .*not a cell",
        ),
        (lambda text: json.dumps([1]) + "\n", "is incomplete"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, change: object, message: str) -> None:
    made = freeze(tmp_path)
    path = made.folder / "manifest.jsonl"
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(RequestError, match=message):
        manifest.read(path)


def test_a_run_that_nobody_planned_becomes_a_plan_when_someone_does(tmp_path: Path) -> None:
    assert not freeze(tmp_path, planned=False).planned
    assert manifest.latest(tmp_path, planned=True) is None
    made = freeze(tmp_path)
    assert made.planned
    assert freeze(tmp_path, planned=False).planned
    assert manifest.latest(tmp_path, planned=True) == made.folder


def test_the_last_one_by_name(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no sweep that was planned or run"):
        manifest.find(Path("latest"), tmp_path)
    made = freeze(tmp_path, planned=False)
    assert manifest.find(Path("latest"), tmp_path) == made.folder
    with pytest.raises(RequestError, match=r"has no sweep that was planned\. "):
        manifest.find(Path("latest"), tmp_path, planned=True)
    assert manifest.find(tmp_path / "other", tmp_path) == tmp_path / "other"


def test_one_that_was_copied_away_from_its_results_is_refused(tmp_path: Path) -> None:
    made = freeze(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "manifest.jsonl"
    copy.write_bytes((made.folder / "manifest.jsonl").read_bytes())
    with pytest.raises(RequestError, match="must lie within its results folder"):
        manifest.read(copy)


def test_none_there(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot be read: No such file.*lcbench plan"):
        manifest.read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["a\u2028b", "a\u0085b", "a\x1cb", "a\rb"])
def test_a_name_may_hold_what_ends_lines_elsewhere(tmp_path: Path, name: str) -> None:
    row = Line(0, 0, f"local/{name}", "r", "0.8", "T", "p-1", f"p-1/results/local__{name}", 1.0)
    made = manifest.freeze(
        tmp_path / "sweeps" / "demo-1",
        command=["python"],
        versions={},
        settings={"mirror": name},
        lines=[row],
    )
    assert manifest.read(made.folder).lines == (row,)


def test_a_sweep_of_a_subfolder_of_configs_can_be_read(tmp_path: Path) -> None:
    made = freeze(tmp_path, "mine/x")
    assert made.folder.parent == tmp_path / "sweeps"
    assert manifest.latest(tmp_path) == made.folder


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000])
def test_a_damaged_one_is_set_aside_and_made_again(tmp_path: Path, content: str) -> None:
    made = freeze(tmp_path)
    path = made.folder / "manifest.jsonl"
    path.write_text(content)
    with pytest.raises(RequestError, match="is incomplete"):
        manifest.read(path)
    again = freeze(tmp_path)
    assert again.lines == made.lines
    (aside,) = made.folder.glob("manifest.jsonl.broken-*")
    assert aside.read_text() == content


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "/home/you/project"},
        {"folder": "p-1/../../project"},
        {"task": "../package"},
    ],
)
def test_its_cells_stay_below_its_results(tmp_path: Path, change: dict[str, str]) -> None:
    path = freeze(tmp_path, count=1).folder / "manifest.jsonl"
    header, row = path.read_text().splitlines()
    path.write_text(f"{header}\n{json.dumps({**json.loads(row), **change})}\n")
    with pytest.raises(RequestError, match="is outside the results folder"):
        manifest.read(path)


def test_another_users_is_found_though_it_cannot_be_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = freeze(tmp_path)

    def refused(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refused)
    assert freeze(tmp_path) == made


def test_code_of_a_model_runs_only_if_this_command_line_says_so(tmp_path: Path) -> None:
    """Whoever can write in a folder of results can change a manifest."""
    made = freeze(tmp_path)
    model = SimpleNamespace(name="org/model", revision="f" * 40, trust_remote_code=True)
    kept: Any = SimpleNamespace(models=(model,), own_classes=())
    with pytest.raises(RequestError, match=r"org/model@f{40}.*model\.trust_remote_code=true"):
        check_trust(made, kept, ["engine.device=cpu"])
    check_trust(made, kept, ["model.trust_remote_code=true"])
    model.trust_remote_code = False
    check_trust(made, kept, [])
    kept.own_classes = (SimpleNamespace(target="mypackage.tasks:MyTask", is_installed=False),)
    with pytest.raises(RequestError, match=r"mypackage\.tasks:MyTask.*trust_remote_code=true"):
        check_trust(made, kept, [])
    check_trust(made, kept, ["model.trust_remote_code=true"])
