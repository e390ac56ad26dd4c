"""`python -m lcbench import PATH` as a user runs it: its words and its exit status."""

import json
from pathlib import Path

import pytest

FOLDER = "results/some org__model/external"


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder of one public result, under a name that a grammar could trip over."""
    root = tmp_path / "public [a]=b, c"
    entry = {"main_score": 0.75, "hf_subset": "default", "languages": ["eng-Latn"]}
    content = {
        "dataset_revision": "b" * 40,
        "task_name": "STS12",
        "mteb_version": None,
        "scores": {"test": [entry]},
        "evaluation_time": None,
    }
    (root / FOLDER).mkdir(parents=True)
    (root / FOLDER / "STS12.json").write_text(json.dumps(content))
    return root


def test_an_import_its_report_and_the_same_again(run, public: Path) -> None:
    done = run(public.name, command="import")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 result imported into results/runs/imported-" in done.stdout
    again = run(public.name, "results_dir=results/runs", command="import")
    assert (again.returncode, again.stderr) == (0, "")
    assert "0 results imported" in again.stdout
    assert "1 result imported before and unchanged" in again.stdout
    shown = run(command="report")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "imported: public results of mteb" in shown.stdout
    assert "raw, τ = 1  75.00  75.00" in " ".join(shown.stdout.split("\n"))


def test_a_file_that_cannot_be_read_ends_with_1(run, public: Path) -> None:
    (public / FOLDER / "STS13.json").write_text("{")
    done = run(f"path='{public.name}'", command="import")
    assert done.returncode == 1
    assert "1 result imported into" in done.stdout
    assert "1 result refused, see above" in done.stdout
    assert f"lcbench: warning: {FOLDER}/STS13.json: it cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "path has no value yet"),
        (["nothing"], "path=nothing: there is no such folder"),
        (["."], "path=.: there are no results in mteb's layout"),
        (["a", "b"], "one PATH at a time, not a and b"),
        ([".", "modls=x"], "modls is not a key. Did you mean models"),
        ([".", "tasks=STS122"], "there is no such task"),
    ],
)
def test_a_wrong_request(run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, command="import")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("lcbench: error: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
