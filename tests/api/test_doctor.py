"""`lcbench doctor`: what is missing is named with its remedy, and nothing heavy is imported."""

import csv
import io
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import lcbench
from lcbench.api import doctor
from lcbench.cli import app
from lcbench.errors import RequestError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit status, and the rows by name."""
    status = app.run(["doctor", "format=csv", *words])
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return status, {row["name"]: row for row in rows}


def program(folder: Path, name: str, says: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs, so that no GPU and no Slurm of this machine is found."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bin"


def test_what_is_here(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = run(capsys, "torch=true", "offline=true")
    assert status == 0
    assert rows["mteb"]["found"] == version("mteb")
    assert (rows["gpu"]["state"], rows["slurm"]["state"]) == ("note", "note")
    assert rows["torch"]["state"] == "ok"
    assert rows["results"]["found"].startswith(
        str(programs.parent / "results/runs (not made yet, ")
    )
    assert not (programs.parent / "results").exists()
    assert rows["hub"]["found"] == "not asked (offline)"
    assert rows["wandb"]["remedy"] == "pip install wandb"
    assert rows["optuna"]["found"] == f"{version('optuna')}: lcbench tune method=search"


def test_python_returns_the_same_checks(programs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["doctor", "format=csv", "offline=true"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    checks = lcbench.doctor(offline=True).to_dict("records")
    # Free disk may change meanwhile.
    assert [one | {"found": ""} for one in checks] == [row | {"found": ""} for row in rows]
    fixed = [(one, row) for one, row in zip(checks, rows, strict=True) if one["topic"] != "folders"]
    assert all(one == row for one, row in fixed)
    with pytest.raises(RequestError, match="torch=maybe"):
        lcbench.doctor(torch="maybe")  # type: ignore[arg-type]


def test_a_gpu_that_torch_is_not_built_for_and_slurm(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(programs, "nvidia-smi", "NVIDIA H200, 143771 MiB, 570.1")
    program(programs, "sbatch", "slurm 24.11.0")
    builds = {"torch": "2.13.0+cpu"}
    monkeypatch.setattr(doctor, "version", lambda name: builds.get(name) or version(name))
    status, rows = run(capsys, "offline=true")
    assert status == 0
    assert rows["gpu 0"]["state"] == "warning"
    assert rows["gpu 0"]["remedy"] == "torch is built for CPUs: install one for CUDA"
    assert rows["slurm"]["found"] == "slurm 24.11.0"
    builds["torch"] = "2.13.0"
    assert run(capsys, "offline=true")[1]["gpu 0"]["state"] == "ok"


def test_what_is_essential_and_missing(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def installed(name: str) -> str:
        if name == "mteb":
            return "2.20.0"
        if name == "plotly":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", installed)
    (programs.parent / "file").write_text("", encoding="utf-8")
    status = app.run(["doctor", "offline=true", "results_dir=file/runs"])
    shown = capsys.readouterr().out
    assert status == 1
    assert "results: choose one: results_dir=PATH" in shown
    assert "plotly: pip install 'plotly>=6'" in shown
    assert "2.20.0; lcbench needs <2.27,>=2.26.24" in shown
    assert "Nothing essential is missing." not in shown
    assert run(capsys, "offline=true", "results_dir=file/runs")[0] == 1


def test_a_full_disk_and_a_silent_hub_are_warnings(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_LEAST_FREE", 2**62)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # The tests' hub is a port that nothing listens on.
    status, rows = run(capsys)
    assert status == 0
    assert rows["results"]["state"] == "warning"
    assert "results_dir=PATH on another disk" in rows["results"]["remedy"]
    assert rows["hub"]["state"] == "warning"
    assert "prefetch" in rows["hub"]["remedy"]


def test_the_size_of_a_folder_is_given_in_part_if_it_takes_too_long(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 3000)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert doctor.size_of(tmp_path) == "3.1 kB"
    assert doctor.size_of(tmp_path, seconds=-1) == "more than 3.1 kB"


def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys\nfrom lcbench.cli import app\nassert app.run(['doctor', 'offline=true']) == 0\n"
        "heavy = {'torch', 'mteb', 'transformers', 'datasets', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_a_folder_below_one_that_may_not_be_entered_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `Path.exists` before Python 3.14, for another user than root."""

    def denied(path: Path) -> bool:
        if "closed" in path.parts and path.name != "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return os.path.exists(path)  # noqa: PTH110

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(Path, "exists", denied)
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place).name != "closed")
    found = doctor._folder("cache", tmp_path / "closed" / "of" / "mine", "KEY=PATH")
    assert (found.state, found.remedy) == ("warning", "choose one: KEY=PATH")
    assert found.found.endswith("mine cannot be written")
