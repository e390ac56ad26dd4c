"""README and documentation are true: commands, Python, links, paths, recorded numbers, words."""

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from commands import Commands, without_slow_steps
from end_to_end_support import SMALL, Finished

import lcbench
from lcbench.api.compose import compose_settings
from lcbench.cli import app
from lcbench.repair.repair import label_of
from lcbench.settings import collapse as settings_collapse
from lcbench.settings import doctor, share
from lcbench.settings import read as settings
from lcbench.settings import tune as settings_tune

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(
        [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/paper/*.md")]
    )
}


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the page and the text of each code block in a language."""
    return [
        (name, block)
        for name, text in PAGES.items()
        for block in re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)
    ]


def shell_lines() -> list[str]:
    lines = (
        re.sub(r"\s+# .*", "", line).strip()
        for _, block in blocks("bash")
        for line in block.splitlines()
    )
    return sorted({line for line in lines if line})


LINES = shell_lines()
COMMANDS = [line for line in LINES if line.startswith("lcbench ")]
MAKE = [line for line in LINES if line.startswith("make ")]
OTHERS = [line for line in LINES if line not in COMMANDS + MAKE]
# Run and not only composed: README's, and one of each other kind.
RUN = [
    "lcbench sweep=demo",
    "lcbench 'tasks=[DocstringNeedleRetrieval]' 'docs.synthetic_lengths=[128,256]'",
    "lcbench -m tau=0.9,0.8 'tasks=[DocstringReranking]'",
    "lcbench results_dir=results/other tau=0.5",
    "lcbench report against=results/other",
    "lcbench tasks",
    "lcbench tasks 'tasks=\"MTEB(eng, v2)\"' 'subsets=[en]'",
    "lcbench plan sweep=demo launch.elements=6",
    "lcbench tune model=minilm method=entropy out=entropy.json",
    "lcbench status",
    "lcbench status --failed",
    "lcbench --help",
    *(line for line in COMMANDS if line in PAGES["README.md"]),
]
# As a user types them: one that reads no more than what is installed, and one that scores.
TYPED = ("lcbench tasks", "lcbench results_dir=results/other tau=0.5")
# Where the settings of commands are read, if not with those of runs.
MODULES = {"collapse": settings_collapse, "card": share, "pack": share, "doctor": doctor}
MODULES["tune"] = settings_tune
# What the lines of other programs may begin with.
PROGRAMS = {".", "conda", "docker", "eval", "pip", "python", "python3", "uv"}


def test_every_page_has_its_lines() -> None:
    assert len(COMMANDS) >= 40
    assert set(RUN) | set(TYPED) <= set(COMMANDS)
    known = {"bash", "bibtex", "json", "python", "text", "yaml"}
    assert all(languages <= known for languages in fences())


def fences() -> list[set[str]]:
    return [
        set(re.findall(r"^```(\w*)\n(?:.*?)^```", text, re.M | re.S)) for text in PAGES.values()
    ]


def words_of(line: str, folder: Path) -> list[str]:
    """Return what a line of bash gives to `lcbench`, as bash reads it."""
    program = f'lcbench() {{ printf "%s\\0" "$@"; }}\n{line}'
    done = subprocess.run(
        ["bash", "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.removesuffix("\0").split("\0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[[str], Path]) -> Path:
    """The folder that lines run in: what they name is there."""
    folder = tmp_path_factory.mktemp("documentation")
    for name in ("my-model", "smollm2-last", "smollm2-mean"):
        (folder / name).symlink_to(make_model("bert"))
    (folder / "my-conf" / "sweep").mkdir(parents=True)
    (config,) = (text for name, text in blocks("yaml") if name == "docs/command-line.md")
    (folder / "my-conf" / "sweep" / "mine.yaml").write_text(config, encoding="utf-8")
    write_texts(folder)
    heads = {"model": "any", "layers": 2, "heads": 4, "tau": [[0.8, 0.9, 1.0, 1.1]] * 2}
    for name in ("entropy", "searched"):
        (folder / f"{name}.json").write_text(json.dumps(heads), encoding="utf-8")
    return folder


def write_texts(folder: Path) -> None:
    """Write the user's own texts that lines name."""
    rows = [
        {"text": f"The first sentence is of number {i}. The rest is of {i}."} for i in range(12)
    ]
    texts = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "my-texts.jsonl").write_text(texts, encoding="utf-8")
    labels = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(12))
    (folder / "my-labels.csv").write_text(f"body,topic\n{labels}", encoding="utf-8")
    pairs = "".join(f"one {i},two {i},{i}\n" for i in range(12))
    (folder / "my-pairs.csv").write_text(f"text_a,text_b,score\n{pairs}", encoding="utf-8")
    (folder / "my-beir" / "qrels").mkdir(parents=True)
    for name in ("corpus", "queries"):
        lines = [json.dumps({"_id": str(i), "text": f"{name} {i}"}) for i in range(4)]
        (folder / "my-beir" / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\n" + "".join(f"{i}\t{i}\t1\n" for i in range(4))
    (folder / "my-beir" / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")


@pytest.mark.parametrize("line", dict.fromkeys(RUN))
def test_a_line_that_is_run(
    line: str,
    folder: Path,
    tmp_path: Path,
    finished: Finished,
    commands: Commands,
    make_model: Callable[[str], Path],
    request: pytest.FixtureRequest,
) -> None:
    if "mirror=my-mirror" in line and not (folder / "my-mirror").exists():
        (folder / "my-mirror").symlink_to(request.getfixturevalue("mirror"))
    if line.startswith(("lcbench report", "lcbench status")):
        # Of one finished sweep, whatever other lines were run in this process before.
        folder = tmp_path
        for name in ("runs", *(["other"] if "against=results/other" in line else [])):
            finished.copy_to(folder / "results" / name)
    # A docs suite of seconds takes the place of the one of minutes, and one of its tasks that of
    # all, which `finished` has run; a model of two layers that of MiniLM, which the line that is
    # typed has.
    needs_no_sizes = re.search(" report| status| export| tasks|--help|estimate| tune", line)
    small = "" if needs_no_sizes else f" {' '.join(SMALL)}"
    if not needs_no_sizes and "tasks=" not in line:
        small += " 'tasks=[DocstringRetrieval]'"
    if "./my-model" in line:
        # Its window is of 48 tokens.
        small = small.replace(" 'tasks=[DocstringRetrieval]'", " 'tasks=[DocstringReranking]'")
    elif not needs_no_sizes and line not in TYPED:
        (folder / "my-long-model").unlink(missing_ok=True)
        (folder / "my-long-model").symlink_to(make_model("bert-of-512"))
        small += " 'models=[./my-long-model]'" if "sweep=" in line else " model=./my-long-model"
    if line.startswith("lcbench tune "):
        (folder / re.findall(r"out=(\S+)", line)[0]).unlink()
        (folder / "my-tuned-model").unlink(missing_ok=True)
        (folder / "my-tuned-model").symlink_to(make_model("bert-of-512"))
        small = " model=./my-tuned-model texts=30 'traced_lengths=[16,32]'"
        line = line.replace(" model=minilm", "")
    if line in TYPED:
        done = subprocess.run(
            ["bash", "-c", line + small],
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
    else:
        done = commands.run(words_of(line + small, folder), folder, os.environ)
    assert done.returncode == 0, done.stderr
    assert without_slow_steps(done.stderr) == ""
    # Of a sweep that is done, no array element is left to submit.
    assert bool(done.stdout) == ("--failed" not in line)


@pytest.fixture
def compose(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], None]:
    """Return what composes a command line and reads its settings, and does no more."""
    (folder / "my-mirror").mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["lcbench"])
    composed = []

    def module(name: str) -> Any:
        command = name.rpartition(".")[2]

        def job(config: Any) -> int:
            if command in ("run", "estimate", "plan", "prefetch"):
                settings.read_run(config)
                compose_settings(config, "prefetch" if command == "prefetch" else "config")
            else:
                of_command = MODULES.get(command, settings)
                getattr(of_command, f"read_{command.removesuffix('_results')}")(config)
            composed.append(name)
            return 0

        return SimpleNamespace(job=job, prepare=getattr(import_module(name), "prepare", None))

    def compose(words: list[str]) -> None:
        composed.clear()
        launches = any(word.startswith("hydra/launcher=") for word in words)
        if launches:
            # Only that its keys are there: it would submit.
            words = [word for word in words if word != "-m" and not word.startswith("tau=")]
            words += ["--cfg", "hydra"]
        status = app.run(words)
        assert status == 0, capsys.readouterr()
        assert composed or launches or {"--help", "--version", "--cfg"} & set(words)

    monkeypatch.setattr(app, "import_module", module)
    return compose


@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in RUN])
def test_a_line_that_is_composed(
    line: str, folder: Path, compose: Callable[[list[str]], None]
) -> None:
    compose(words_of(line, folder))


@pytest.mark.parametrize("line", MAKE)
def test_a_line_of_make(line: str, folder: Path, compose: Callable[[list[str]], None]) -> None:
    """The target is there, and what it gives to lcbench can be composed."""
    told = shlex.split(line)
    recipe = subprocess.run(
        [*told, "--dry-run", f"--directory={ROOT}"], capture_output=True, text=True, check=True
    ).stdout
    joined = recipe.replace("\\\n", " ")
    for line in re.findall(r"-m lcbench (.*)", joined):
        compose(words_of(f"lcbench {line}", folder))


@pytest.mark.parametrize("line", OTHERS)
def test_a_line_of_another_program(line: str) -> None:
    subprocess.run(["bash", "-n", "-c", line], check=True)
    program, *words = shlex.split(line)
    assert program in PROGRAMS
    for word in words:
        if word.endswith((".py", ".txt")):
            assert (ROOT / word).is_file(), word
        if extra := re.fullmatch(r"\.\[(\w+)\]", word):
            assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "docs/python.md"])
def test_python_runs(
    name: str,
    minilm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"docs": {"documents": 40, "documents_per_module": 8}, "scoring": 0, "device": "cpu"}
    monkeypatch.setattr(lcbench, "evaluate", partial(lcbench.evaluate, **small))
    made: dict[str, Any] = {}
    for _, block in (one for one in blocks("python") if one[0] == name):
        exec(compile(block.replace("path/to/model", str(minilm_folder)), name, "exec"), made)
    assert made["embeddings"].shape[1] == 384
    assert set(made["results"].scores["tau"]) == {1, 0.9, 0.8}
    assert (tmp_path / "results" / "runs" / "report" / "index.html").is_file()
    if name != "README.md":
        assert made["best"]["improvement"].is_monotonic_decreasing
        assert "layers=('encoder.layer.0" in capsys.readouterr().out


def test_all_python_is_python() -> None:
    for _, block in blocks("python"):
        ast.parse(block)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", one.lower()).strip()) for one in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", PAGES)
def test_paths_are_there(name: str) -> None:
    """Files of the repository that a page names in its text."""
    made_by_commands = {"results/bench/gpu.md"}
    named = r"`((?:src|scripts|conf|tests|docs|results/(?:demo|minilm|paper|bench))/[^`\s*:]+)`"
    for path in re.findall(named, PAGES[name]):
        assert (ROOT / path).exists() or path in made_by_commands, path


def test_every_page_is_in_the_site() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(re.findall(r"[\w-]+\.md", str(nav))) == sorted(
        path.name for path in (ROOT / "docs").glob("*.md")
    )


def test_citation_and_changelog_have_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lcbench.__version__
    assert f"\n## {lcbench.__version__} - " in PAGES["CHANGELOG.md"]


# Numbers that pages state, and the recorded file that each is in.
RECORDED = {
    "results/demo/tables.md": ["0.02 to 1.62", "0.18", "1.33", "1.09"],
    "results/minilm/docs/tables.md": ["-0.06 to 1.69", "-1.36", "-0.38 (-0.76 to -0.08)", "-0.47"],
    "results/minilm/mirror/tables.md": ["-0.24 to 0.89", "2.55", "0.076", "1,527 queries in 197"],
}
STATED = {
    "README.md": ["0.02 to 1.62", "0.18", "1.33", "-0.06 to 1.69", "-1.36", "-0.24 to 0.89"],
    "docs/findings.md": [
        *("0.02 to 1.62", "-0.06 to 1.69", "-1.36", "-0.24 to 0.89", "2.55", "p = 0.076"),
        *("-0.38 (-0.76 to -0.08)", "-0.47", "its 1,527 queries are about 197 meetings"),
        "-0.18 to 5.68",
    ],
    "docs/statistics.md": ["1,200 pairs", "The held-out gain has no interval"],
}


def test_numbers_are_those_of_the_recorded_reports() -> None:
    """By document QMSum's gain is no gain; the demo's on Avg is one of three τ, and none of six."""
    for name, wanted in (RECORDED | STATED).items():
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        assert [words for words in wanted if words not in text] == [], name


@pytest.mark.parametrize(
    ("folder", "heading", "stated", "gaining"),
    [
        ("repairs", "## MiniLM on the docstrings", "gains {:.2f} % ({:.2f} to {:.2f})", set()),
        (
            "mirror_repairs",
            "## MiniLM on public tasks",
            "by {:.2f} % ({:.2f} to {:.2f})",
            {"chunks mean=256", "rp=1024"},
        ),
    ],
)
def test_the_repairs_of_the_documentation_are_the_recorded_ones(
    folder: str, heading: str, stated: str, gaining: set[str]
) -> None:
    recorded = ROOT / "results/minilm" / folder
    with (recorded / "repairs.csv").open(encoding="utf-8", newline="") as file:
        values = {
            (label_of(row["repair"]), row["column"], row["quantity"]): row["value"]
            for row in csv.DictReader(file)
        }
    _, _, of_repairs = PAGES["docs/repairs.md"].partition(heading)
    header, _, *rows = re.findall(r"^\|.*\|$", of_repairs, re.M)
    columns = [one.strip() for one in header.strip("|").split("|")]
    shown = [
        [one.strip(" *").replace("\\", "") for one in row.strip("|").split("|")]
        for row in rows[: len({repair for repair, _, _ in values})]
    ]
    assert {row[0] for row in shown} == {repair for repair, _, _ in values}
    for repair, *entries in shown:
        for column, entry in zip(columns[1:], entries, strict=True):
            value, low, high = (
                float(values[repair, column, what]) for what in ("improvement", "low", "high")
            )
            marks, rounded = "▲▼" if low > 0 or high < 0 else "△▽", f"{abs(value):.2f}"
            mark = "" if rounded == "0.00" else f"{marks[value < 0]} "
            assert entry == f"{mark}{rounded}", (repair, column)
    # What improves Avg significantly is stated, and the best gain; long texts gain nothing.
    best = max(shown, key=lambda row: float(values[row[0], "Avg", "improvement"]))[0]
    ends = (float(values[best, "Avg", what]) for what in ("improvement", "low", "high"))
    wanted = stated.format(*ends)
    for name in ("README.md", "docs/repairs.md"):
        assert wanted in " ".join(PAGES[name].split())
    assert {row[0] for row in shown if row[columns.index("Avg")][0] == "▲"} == gaining
    assert all(row[columns.index("Long")][0] != "▲" for row in shown)


# Words that only this project would use in these senses, and what they are in English.
PRIVATE = {
    r"told from (zero|0|it)": "significantly different from zero",
    r"reckon\w*": "estimated",
    r"beside": "next to, compared with, in parallel",
    r"holes?": "missing value",
    r"honest (gain|choice)": "held-out gain",
    r"may pass": "transient",
    r"stands?(?!-)": "is, is listed",
    r"for want of": "for lack of",
    r"beyond (the )?noise": "significant",
    r"dear": "expensive",
    r"traps": "limitations",
    r"said in full": "spelled out",
    r"mend(s|ed|ing)?": "fix",
}


@pytest.mark.parametrize("name", PAGES)
def test_english_is_plain(name: str) -> None:
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", PAGES[name], flags=re.M | re.S)
    for word, better in PRIVATE.items():
        assert not re.findall(rf"\b{word}\b", prose, re.I), f"{word}: {better}"
