"""The listing of tasks, the estimate, and the Makefile's reproduction, from the command line."""

import csv
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lcbench.api.commands import COMMANDS
from lcbench.settings import read
from lcbench.settings.configs import config_folder
from lcbench.tasks.suites import shipped_suites

ROOT = Path(__file__).parents[2]


def rows_of(output: str) -> dict[str, dict[str, str]]:
    return {row["task"]: row for row in csv.DictReader(io.StringIO(output))}


def test_the_listing_names_every_suite_task_and_size(typed) -> None:
    done = typed(command="tasks")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(r"^docs: 8 tasks, .*; the data of 8 is here$", done.stdout, flags=re.M)
    assert re.search(r"^paper: 40 tasks, 6.75 M texts, 3.47 M of them", done.stdout, flags=re.M)
    for suite in shipped_suites():
        for task in suite.tasks:
            assert re.search(rf"^  {task} ", done.stdout, flags=re.M), task
    assert re.search(
        r"^  MassiveIntentClassification +Classification +test +51 +328 k +326 k +11.4 M +not here",
        done.stdout,
        flags=re.M,
    )
    tables = [line for line in done.stdout.splitlines() if line.startswith(" ")]
    assert max(map(len, tables)) <= 110


def test_it_imports_no_mteb(tmp_path: Path) -> None:
    """That it takes no three seconds is in test_requests.py."""
    code = (
        "import sys; from lcbench.cli.app import main; sys.argv.insert(1, 'tasks')\n"
        "try: main()\n"
        "finally: print(sorted({'mteb', 'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_where_data_is(run, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror" / "mteb"
    counts = {"sts13-sts": 1500, "stsbenchmark-sts": 7, "sickr-sts": 0, "biosses-sts": None}
    for name, count in counts.items():
        (mirror / name).mkdir(parents=True)
        row = '{"sentence1": "a", "sentence2": "b", "score": 1}\n'
        if count is not None:
            (mirror / name / "test.jsonl").write_text(row * count)
    data = "home/hub/datasets--mteb--sts14-sts/snapshots/6031580fec1f6af667f0bd2da0a551cf4f0b2375"
    (tmp_path / data).mkdir(parents=True)
    (tmp_path / data / "test.parquet").touch()
    tasks = "tasks=[STS13,STS14,STS15,STSBenchmark,SICK-R,BIOSSES,DocstringRetrieval]"
    home = str(tmp_path / "home")
    done = run(tasks, "mirror=mirror", "format=csv", command="tasks", HF_HOME=home)
    assert done.returncode == 0, done.stderr
    assert {task: row["data"] for task, row in rows_of(done.stdout).items()} == {
        "STS13": "mirror",
        "STS14": "hub cache",
        "STS15": "",
        # Seven pairs; a file of no rows; a folder of no files.
        "STSBenchmark": "other data",
        "SICK-R": "unreadable",
        "BIOSSES": "unreadable",
        "DocstringRetrieval": "made here",
    }


@pytest.mark.mirror
def test_a_mirror_that_has_a_part(typed, tmp_path: Path, mirror: Path) -> None:
    massive = tmp_path / "mirror" / "mteb" / "amazon_massive_intent"
    long = tmp_path / "mirror" / "dwzhu" / "LongEmbed"
    for folder in (massive, long):
        folder.parent.mkdir(parents=True)
        folder.symlink_to(mirror / folder.relative_to(tmp_path / "mirror"))
    tasks = "tasks=[MassiveIntentClassification,LEMBQMSumRetrieval,LEMBNarrativeQARetrieval]"
    done = typed(tasks, "mirror=mirror", command="tasks")
    assert "; the data of 1 is here\n" in done.stdout
    listed = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert listed["MassiveIntentClassification"].rstrip().endswith("in part")
    assert listed["LEMBQMSumRetrieval"].rstrip().endswith("mirror")
    assert listed["LEMBNarrativeQARetrieval"].rstrip().endswith("not here")
    english = typed(tasks, "subsets=en", "mirror=mirror", "format=csv", command="tasks")
    assert rows_of(english.stdout)["MassiveIntentClassification"]["data"] == "mirror"


def test_a_benchmark_and_a_language(typed) -> None:
    done = typed('tasks="MTEB(eng, v2)"', "format=csv", command="tasks")
    rows = rows_of(done.stdout)
    assert len(rows) == 41
    assert rows["STS17"]["subsets"] == "1"
    assert (rows["STS17"]["texts"], rows["STS17"]["column"]) == ("500", "STS")
    assert {row["group"] for row in rows.values()} == {"MTEB(eng, v2)"}
    english = typed("suite=paper", "subsets=en", "format=csv", command="tasks")
    assert {row["subsets"] for row in rows_of(english.stdout).values()} == {"1"}


def test_benchmarks(typed) -> None:
    done = typed("benchmarks=true", command="tasks")
    assert done.returncode == 0
    assert re.search(r"^ MTEB\(eng, v2\) +41 +41", done.stdout, flags=re.M)
    assert re.search(r"^ LongEmbed +6 +6", done.stdout, flags=re.M)
    # None of its documents is made of text alone.
    assert re.search(r"^ JinaVDR +43 +0", done.stdout, flags=re.M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks=[STS17x]"], "there is no such task, suite or benchmark of mteb. Did you mean STS"),
        (["suite=papr"], "suite=papr: there is no such config. Did you mean paper?"),
        (["format=xml"], "format=xml is not one of: table, csv"),
        (["mirror=nowhere"], "mirror=nowhere is not a folder"),
        (["subsets=xx", "tasks=[STS12]"], "STS12 has none of these"),
        (["benchmarks=yes please"], "benchmarks=yes please is neither true nor false"),
        (["tau=0.8"], "tau is a key of python -m lcbench and"),
    ],
)
def test_wrong_requests(typed, arguments: list[str], message: str) -> None:
    done = typed(*arguments, command="tasks")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_estimate_of_the_paper(typed) -> None:
    done = typed("sweep=paper", command="estimate")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.match(
        r"1,400 cells \(5 models × 7 temperatures × 40 tasks\), 122 M texts, 12 G tokens, "
        r"(about|at least) [\d.,]+ (minutes|hours) on this machine \(.+\): encoding .+, "
        r"scoring .+ \(.+\)\.\n",
        done.stdout,
    )


def made_by(target: str, *variables: str) -> list[list[str]]:
    """Return the command lines of lcbench that a target of the Makefile runs, as bash splits."""
    done = subprocess.run(
        ["make", "--dry-run", target, *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if "python -m lcbench" in line]
    return [shlex.split(line)[3:] for line in lines]


@pytest.mark.parametrize(
    ("target", "names"), [("table1", ["paper"]), ("longembed", ["longembed", "longembed_paper"])]
)
def test_the_reproduction_says_what_it_takes_then_fetches_runs_and_reports(
    target: str, names: list[str]
) -> None:
    sweeps = [f"sweep={name}" for name in names]
    assert made_by(target) == [
        *(["estimate", sweep, "mirror=mirror"] for sweep in sweeps),
        *(["prefetch", sweep, "mirror=mirror"] for sweep in sweeps),
        *([sweep, "mirror=mirror", "results_dir=results/runs"] for sweep in sweeps),
        ["report", "results_dir=results/runs"],
    ]


def test_the_variables_of_the_makefile_reach_the_commands() -> None:
    variables = ("MIRROR=/data/my mirror", "RESULTS=other", "ARGS=models=[gist] 'tau=[0.9,0.8]'")
    chosen = ["models=[gist]", "tau=[0.9,0.8]"]
    mirror = "mirror=/data/my mirror"
    assert made_by("table1", *variables) == [
        ["estimate", "sweep=paper", mirror, *chosen],
        ["prefetch", "sweep=paper", mirror, *chosen],
        ["sweep=paper", mirror, "results_dir=other", *chosen],
        ["report", "results_dir=other"],
    ]
    assert made_by("prefetch", *variables) == made_by("table1", *variables)[:2]


@pytest.mark.parametrize("target", ["table1", "longembed"])
def test_the_makefiles_lines_compose(target: str) -> None:
    for words in made_by(target, "MIRROR=/data/my mirror", "ARGS=limit=5"):
        command, overrides = (words[0], words[1:]) if "=" not in words[0] else ("run", words)
        name = COMMANDS[command].config
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            config = compose(name, overrides=overrides)
        if command == "run":
            found = read.read({"minilm": config})
            assert found.mirror == Path("/data/my mirror")
            assert found.tasks


def test_make_help_lists_the_reproduction() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("prefetch", "table1", "longembed"):
        assert re.search(rf"^  make {target} ", done.stdout, flags=re.M)


def test_a_suite_of_ones_own_has_its_columns(typed, tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    text = "name: legal\ncolumns:\n  Contracts: [STS12]\n"
    (tmp_path / "suite" / "legal.yaml").write_text(text, encoding="utf-8")
    asked = ["--config-dir", str(tmp_path), "suite=legal", "format=csv"]
    done = typed(*asked, command="tasks")
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert (row["group"], row["column"], row["task"]) == ("legal", "Contracts", "STS12")
