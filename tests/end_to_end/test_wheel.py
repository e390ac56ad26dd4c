"""The wheel by itself: installed into an environment of its own, used in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import own_model
import pytest
from commands import without_slow_steps
from end_to_end_support import SMALL

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and everything else of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".venv", ".git", "runs", ".*_cache", "__pycache__", "mirror")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "-w", "dist", "./source"]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    (wheel,) = (folder / "dist").glob("lcbench-*.whl")
    venv.create(folder / "venv", symlinks=True)
    programs = folder / "venv" / "bin"
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    # What is named in a .pth comes after what is installed: the wheel's lcbench is the one found.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    into = [*pip, "--python", str(programs / "python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*into, str(wheel)], check=True, capture_output=True)
    shutil.rmtree(folder / "source")
    return programs


def run(*command: str | Path, folder: Path) -> str:
    """Run a program in a folder, without the checkout; return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (done.returncode, without_slow_steps(done.stderr)) == (0, "")
    return done.stdout


def test_the_wheel_carries_all_that_is_read(installed: Path, tmp_path: Path) -> None:
    where = run(
        installed / "python", "-c", "import lcbench; print(lcbench.__file__)", folder=tmp_path
    )
    package = Path(where.strip()).parent
    assert package.is_relative_to(installed.parent)
    assert (package / "conf" / "config.yaml").is_file()
    assert (package / "paper" / "table1.csv").is_file()
    assert (package / "slurm_array.sbatch").is_file()
    assert "  sweep=demo, " in run(installed / "lcbench", "--help", folder=tmp_path)
    assert run(installed / "lcbench", "--version", folder=tmp_path).startswith("lcbench ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_commands_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "lcbench", "tau=0.8", "offline=true", *SMALL, folder=tmp_path)
    assert "ours, τ = 0.8" in said or "τ = 0.8" in said
    assert "Page: results/runs/report/index.html" in said
    assert (tmp_path / "results" / "runs" / "report" / "index.html").is_file()
    again = run(installed / "python", "-m", "lcbench", "report", folder=tmp_path)
    assert "Page: results/runs/report/index.html" in again
    assert "DocstringRetrieval" in run(installed / "lcbench", "tasks", folder=tmp_path)
    assert "16 done" in run(installed / "lcbench", "status", folder=tmp_path)
    assert "cells" in run(installed / "lcbench", "estimate", *SMALL, folder=tmp_path)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_notebook_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    script = "\n".join("".join(cell["source"]) for cell in cells)
    (tmp_path / "script.py").write_text(f"{script}\nprint(len(results.scores), lcbench.__file__)\n")
    *_, last = run(installed / "python", "script.py", folder=tmp_path).splitlines()
    count, where = last.split()
    assert count == "6"
    assert Path(where).is_relative_to(installed.parent)
    assert (tmp_path / "results" / "quickstart" / "report" / "index.html").is_file()
    assert (tmp_path / "minilm-at-0.9" / "modules.json").is_file()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_journey_of_a_models_maker_in_an_empty_folder(
    installed: Path, tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    """docs/own-model.md from the wheel; in one process, which imports torch once."""
    own_model.prepare(tmp_path, make_model("bert-of-512"))
    (tmp_path / "lines.json").write_text(json.dumps(own_model.command_lines()), encoding="utf-8")
    script = """
import json, lcbench
from lcbench.cli import app
for words in json.load(open("lines.json")):
    assert app.run(words) == 0, words
print(lcbench.__file__)
"""
    *_, where = run(installed / "python", "-c", script, folder=tmp_path).splitlines()
    assert Path(where).is_relative_to(installed.parent)
    own_model.check(tmp_path)
