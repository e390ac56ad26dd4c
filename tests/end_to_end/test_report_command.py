"""`python -m lcbench report` on a folder of results: what it writes, and how it fails."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_cells import BGE, item_rows, write_cell

from lcbench.results.folder import Results
from lcbench.tempscale.policy import BASELINE, Constant

GIST = "avsolatorio/GIST-small-Embedding-v0"
TASKS = ("NFCorpus", "ArguAna")


def fill(folder: Path, models: tuple[str, ...] = (BGE, GIST), gain: float = 0.02) -> Path:
    """Two retrieval tasks of 60 queries at τ = 1, 0.9 and 0.8; 0.8 is better by `gain`."""
    results = Results(folder)
    for place, model in enumerate(models):
        for number, task in enumerate(TASKS):
            random = np.random.default_rng(10 * place + number)
            raw = random.uniform(0.2, 0.7, 60)
            for policy, more in (
                (BASELINE, 0.0),
                (Constant(0.9), gain / 2),
                (Constant(0.8), gain),
            ):
                noise = 0.0 if policy.is_baseline else 0.01 * random.standard_normal(60)
                scores = raw + more + noise
                write_cell(
                    results,
                    task,
                    float(scores.mean()),
                    item_rows(scores.tolist()),
                    policy=policy,
                    model=model,
                )
    return folder


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results; tests write their reports elsewhere."""
    return fill(tmp_path_factory.mktemp("filled") / "runs")


def test_all_of_a_report(run, filled: Path, tmp_path: Path) -> None:
    report = tmp_path / "report"
    done = run(f"results_dir={filled}", f"report_dir={report}", command="report", FIGURES="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "95 % from" in done.stdout
    assert "10,000 resamples, seed 0" in done.stdout
    assert f"Page: {report / 'index.html'}" in done.stdout
    document = json.loads((report / "report.json").read_text())
    written = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert written == set(document["files"])
    assert written >= {
        "index.html",
        "report.json",
        "table1.md",
        "table1.csv",
        "table1.tex",
        "tasks.csv",
        "tables.md",
        "tables/matrix.tex",
        "tables/choice.csv",
        "tables/choice.tex",
        "figures/forest.png",
        "figures/forest.svg",
        "figures/forest.csv",
        "figures/improvement.png",
    }
    assert (report / "figures" / "forest.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (report / "figures" / "improvement.svg").read_text()
    (table,) = document["score_tables"]
    assert {model["label"] for model in table["models"]} == {
        "GIST-small-Embedding-v0",
        "bge-base-en-v1.5",
    }
    for model in table["models"]:
        assert model["best"] == "0.8"
        gain = model["improvements"]["0.8"]["Avg"]
        # 0.02 of a mean of 0.45, far beyond a noise of 0.01 over 60 queries.
        assert 0 < gain["low"] < gain["value"] < gain["high"]
        assert gain["value"] == pytest.approx(4.4, abs=0.8)
        for cell in model["cells"]:
            record = document["provenance"][cell["provenance"]]
            assert record["model"] == model["model"]
            shared = document["shared"][record["protocol"]["shared"]]
            assert shared["name"] == "paper"
            if cell["policy"] == "0.8":
                assert cell["improvement"]["p"] < 1e-6
                assert cell["improvement"]["adjusted"] >= cell["improvement"]["p"]
                assert cell["improvement"]["count"] == 60
    words = (report / "table1.md").read_text()
    assert words.count("the best is τ = 0.8: Avg +") == 2
    assert [(one["verdict"], one["policy"]) for one in document["headlines"]] == [
        ("gain", "0.8")
    ] * 2


def test_the_same_report_twice_and_nothing_of_the_first_remains(
    run, filled: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    command = (f"results_dir={filled}", f"report_dir={report}", "resamples=1000")
    assert run(*command, "models=[bge,gist]", command="report").returncode == 0
    assert (report / "tables" / "models.csv").exists()
    own = report / "tables" / "mine.csv"
    own.write_text("mine")
    before = {path: path.read_bytes() for path in report.rglob("*.csv")}
    assert run(*command, command="report").returncode == 0
    # What only the first had is gone; what it did not write is nobody's to remove.
    assert not (report / "tables" / "models.csv").exists()
    assert own.read_text() == "mine"
    for path in report.rglob("*.csv"):
        assert path.read_bytes() == before[path], path
    assert run(*command, "seed=1", command="report").returncode == 0
    assert (report / "table1.csv").read_bytes() != before[report / "table1.csv"]


def test_models_side_by_side(run, filled: Path, tmp_path: Path) -> None:
    arguments = [f"results_dir={filled}", f"report_dir={tmp_path}", "resamples=0"]
    done = run(*arguments, "models=[bge,gist]", command="report")
    assert done.returncode == 0
    assert "side by side" in done.stdout
    assert "95 %" not in (tmp_path / "table1.csv").read_text()
    one = run(*arguments, "models=bge", command="report")
    assert one.returncode == 0
    assert "GIST" not in one.stdout


def test_two_folders_side_by_side(run, filled: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", models=(BGE,), gain=0.03)
    done = run(
        f"results_dir={filled}",
        f"report_dir={tmp_path / 'report'}",
        f"against={other}",
        command="report",
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = (tmp_path / "report" / "tables" / "comparison.csv").read_text().splitlines()
    # BGE's two tasks at three temperatures.
    assert len(rows) == 1 + 6
    assert "side by side" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["models=[bgee]"], "models=bgee: there are no results of it here, only of"),
        (["against=nowhere"], "against=nowhere"),
        (
            ["resamples=5"],
            "resamples=5 is too few for an interval; use at least 1000, or 0 for no intervals.",
        ),
        (["resamples=-1"], "resamples=-1"),
        (["seed=x"], "seed=x is not a whole number"),
        (["agianst=x"], "against"),
        (["manifest=latest", "tasks=[NFCorpus]"], "manifest=latest has its own tasks"),
    ],
)
def test_what_cannot_be_reported(
    typed, filled: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    report = tmp_path / "report"
    done = typed(f"results_dir={filled}", f"report_dir={report}", *arguments, command="report")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not report.exists()


def test_a_report_that_cannot_be_written_is_refused_at_once(
    run, filled: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    done = run(f"results_dir={filled}", "report_dir=file/report", command="report")
    assert done.returncode == 2
    assert "report_dir=file/report cannot be written" in done.stderr
    assert done.stdout == ""
    assert (tmp_path / "file").read_text() == "mine"


def test_no_model_is_loaded_for_it(filled: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from lcbench.cli.app import main; sys.argv.insert(1, 'report')\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'mteb', 'sentence_transformers', 'datasets', 'plotly'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            f"results_dir={filled}",
            f"report_dir={tmp_path}",
            "resamples=1000",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    # On a slow machine there are lines before it that say what takes so long.
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "[]")
