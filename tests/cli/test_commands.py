"""Commands are found by their first word, and say what they are for and what they take."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lcbench import __version__
from lcbench.api.commands import COMMANDS, spelled
from lcbench.cli import app
from lcbench.cli.help import help_of
from lcbench.settings.configs import config_folder, keys_of


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_job_and_a_config(name: str) -> None:
    command = COMMANDS[name]
    assert callable(import_module(f"lcbench.cli.{command.module}").job)
    assert (config_folder() / f"{command.config}.yaml").is_file()


def test_every_config_is_of_a_command() -> None:
    configs = {path.stem for path in config_folder().glob("*.yaml")}
    assert configs == {command.config for command in COMMANDS.values()}
    assert spelled("config") == "python -m lcbench"
    assert spelled("import_results") == "python -m lcbench import"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_every_key_and_the_words_of_its_config(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([name, "--help"], [name, "tau=nonsense", "-h"]):
        assert app.run(words) == 0
        assert capsys.readouterr().out == help_of(name)
    text = help_of(name)
    assert text.startswith(f"python -m lcbench{'' if name == 'run' else f' {name}'} [KEY=VALUE]…")
    for key in keys_of(COMMANDS[name].config):
        group, _, leaf = key.rpartition(".")
        # What a suite holds is its own.
        if group != "suite":
            assert f"  {leaf}:" in text or (not group and f"  {key}=" in text), key
    path = config_folder() / f"{COMMANDS[name].config}.yaml"
    body = path.read_text(encoding="utf-8").partition("\n\n")[2].partition("\nhydra:")[0]
    comments = [line for line in body.splitlines() if line.startswith("# ")]
    assert comments
    assert [line for line in comments if line not in text] == []


def test_help_of_a_run_lists_commands_and_choices() -> None:
    text = help_of("run")
    for name, command in COMMANDS.items():
        assert f"  {name:8}  {command.summary}\n" in text
    sweeps = sorted(path.stem for path in (config_folder() / "sweep").glob("*.yaml"))
    assert f"  sweep={', '.join(sweeps)}\n" in text
    assert "  model=minilm, " in text
    assert "Keys of engine=auto (engine.KEY=VALUE)\n  device: auto " in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_that_cannot_be_written_is_reported(word: str) -> None:
    words = [sys.executable, "-m", "lcbench", word]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("lcbench: error: standard output cannot be written: No space")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--version"], ["report", "--version"]])
def test_the_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(words) == 0
    assert capsys.readouterr().out == f"lcbench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reprot", "results_dir=x"], "reprot is not a command. Did you mean report"),
        (["colapse"], "There are: run, collapse, report, status, "),
        (["tau=0.8", "report"], "must come first: python -m lcbench report KEY=VALUE…"),
        (
            ["report", "tau=0.8"],
            "tau is a key of python -m lcbench and python -m lcbench collapse and",
        ),
        (["import", "a/b", "c/d"], "one PATH at a time, not a/b and c/d."),
    ],
)
def test_wrong_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(words) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
