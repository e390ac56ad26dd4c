"""Completion in bash: commands, the keys of the command on the line, choices and paths."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lcbench.api.commands import COMMANDS
from lcbench.cli import app


@pytest.mark.parametrize(
    ("line", "there", "others"),
    [
        ("lcbench ", [*COMMANDS, "tau=", "model="], ["hydra.", "hydra/"]),
        ("lcbench rep", ["report", "repairs="], ["tau="]),
        ("lcbench report ", ["results_dir=", "against="], ["tau=", "report", "engine="]),
        ("lcbench report res", ["results_dir=", "resamples="], ["show="]),
        ("lcbench model=mini", ["model=minilm"], ["model=bge"]),
        ("lcbench export out=x model=", ["model=bge", "model=minilm"], ["suite="]),
        ("lcbench engine.comp", ["engine.compile="], ["engine.device="]),
        ("lcbench report results_dir=./fo", ["results_dir=./folder"], ["results_dir=./file"]),
    ],
)
def test_completions(
    line: str,
    there: list[str],
    others: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["lcbench"])
    monkeypatch.setenv("COMP_LINE", line)
    assert app.run(["-sc", "query=bash"]) == 0
    found = capsys.readouterr().out.split()
    assert set(there) <= set(found)
    assert not set(others) & set(found)


def test_bash_takes_the_script_and_completes(tmp_path: Path) -> None:
    """The script that docs/command-line.md has for .bashrc, in a shell."""
    program = tmp_path / "lcbench"
    program.write_text(
        f"#!{sys.executable}\nfrom lcbench.cli.app import main\nmain()\n", encoding="utf-8"
    )
    program.chmod(0o755)
    script = """eval "$(lcbench -sc install=bash)"
    complete -p lcbench
    COMP_LINE="lcbench report res" COMP_POINT=18 COMP_CWORD=2
    hydra_bash_completion
    printf "%s\\n" "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *words = done.stdout.split("\n")
    assert first.endswith("hydra_bash_completion lcbench")
    assert words == ["resamples=", "results_dir=", ""]


@pytest.mark.parametrize("words", [["-sc"], ["-sc", "install=tcsh"], ["-sc", "remove=bash"]])
def test_other_shells_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(words) == 2
    assert 'with one of bash, zsh, fish: eval "$(lcbench -sc install=bash)"' in (
        capsys.readouterr().err
    )
