"""Configs of a user's own folder, and words that are no key: what each command makes of them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lcbench.cli import app
from lcbench.settings import read as settings


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, str]]:
    """Return what makes a command read its words in an empty folder: (status, settings, errors)."""
    monkeypatch.chdir(tmp_path)
    # The command sets it.
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def asker(config_name: str, read: Callable[[Any], Any], *words: str) -> tuple[int, Any, str]:
        found = []

        def job(config: Any) -> int:
            found.append(read(config))
            return 0

        monkeypatch.setattr(sys, "argv", ["lcbench", *words])
        status = app.run_command(config_name, job)
        return status, found[0] if found else None, capsys.readouterr().err

    return asker


def own_model(name: str, content: str) -> None:
    path = Path("mine/model") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def test_a_report_takes_the_names_that_a_run_takes(ask: Callable[..., Any]) -> None:
    own_model("mine", "defaults: [custom]\nname: org/own\n")
    own_model("trained", "defaults: [custom]\nname: runs/final\nsource: folder\n")
    Path("runs/final").mkdir(parents=True)
    names = "models=[mine,trained,minilm,./runs/final,org/other,no-such-one]"
    status, found, _ = ask("report", settings.read_report, "--config-dir", "mine", names)
    assert (status, found.models) == (
        0,
        (
            "org/own",
            "local/final",
            "sentence-transformers/all-MiniLM-L6-v2",
            "local/final",
            "org/other",
            "no-such-one",
        ),
    )


@pytest.mark.parametrize("config_name", ["config", "report"])
def test_a_yaml_error_in_a_config_of_ones_own_names_its_file_and_line(
    config_name: str, ask: Callable[..., Any]
) -> None:
    own_model("broken", "name: org/own\nsource: [hub\nwindow: 3\n")
    words = ("model=broken",) if config_name == "config" else ("models=[broken]",)
    read = settings.read_report if config_name == "report" else dict
    status, _, told = ask(config_name, read, "--config-dir", "mine", *words)
    assert status == 2
    assert str(Path("mine/model/broken.yaml").resolve()) in told
    assert "line 3" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("config_name", "words", "shown"),
    [
        ("config", ["--limit", "10"], "Keys have no dashes: limit=10"),
        ("config", ["--tau", "0.8"], "tau=0.8"),
        ("config", ["--tau=0.8"], "tau=0.8"),
        ("config", ["--tau", "[0.8,0.9]"], "'tau=[0.8,0.9]'"),
        ("config", ["--temperature", "0.8"], "tau=0.8"),
        ("config", ["--model", "bge"], "model=bge"),
        ("config", ["--results_dir", "a b"], "'results_dir=a b'"),
        ("config", ["--results-dir", "r"], "results_dir=r"),
        (
            "config",
            ["--seed", "1"],
            "seed is a key of python -m lcbench collapse and python -m lcbench report",
        ),
        ("config", ["--nonsense", "1"], "--nonsense is not an option"),
        ("config", ["temperature=0.8"], "tau=0.8"),
        ("config", ["batch_size=8"], "engine.batch_tokens=N"),
        ("config", ["dtype=float16"], "protocol.dtype=float16"),
        ("config", ["engine=gpu"], "there is no such config; use engine.device=cuda"),
        ("config", ["engine=cpu"], "use engine.device=cpu"),
        ("config", ["protocol=fp16"], "use protocol=paper protocol.dtype=float16"),
        ("config", ["protocol=bf16"], "use protocol=paper protocol.dtype=bfloat16"),
        ("config", ["-m", "protocol=paper,tf32"], "use protocol=paper protocol.dtype=tf32"),
        ("config", ["protocol=fp"], "protocol=fp: there is no such config."),
        ("config", ["protocol.splits=test"], "protocol.splits is not a key."),
        ("config", ["output_folder=x"], "results_dir=PATH"),
        (
            "config",
            ["seed=1"],
            "seed is a key of python -m lcbench collapse and python -m lcbench report",
        ),
        ("report", ["limit=10"], "limit is a key of"),
        ("config", ["--multirn", "tau=0.8"], "--multirn is not an option"),
        ("tasks", ["docs.documents=20"], "docs.documents is a key of python -m lcbench and"),
        ("tasks", ["--documents", "20"], "--documents is not an option"),
    ],
)
def test_what_is_no_key_is_answered_by_what_comes_nearest(
    config_name: str, words: list[str], shown: str, ask: Callable[..., Any]
) -> None:
    status, found, told = ask(config_name, dict, *words)
    assert (status, found) == (2, None)
    assert shown in told
    assert "Traceback" not in told
    assert told.startswith("lcbench: error: ")
    assert told.count("\n") == 1
