"""The README's command lines run as bash reads them, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Commands
from end_to_end_support import SMALL, Finished

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command_lines() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", README, flags=re.M | re.S)
    lines = [line.partition(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_there_are_command_lines() -> None:
    assert len(command_lines()) >= 9
    assert all(line.startswith("python -m lcbench") for line in command_lines())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all command lines share, so that the report finds what the others wrote."""
    return tmp_path_factory.mktemp("readme")


def words_of(line: str) -> list[str]:
    """Return what a command line gives to the command, as bash reads it."""
    told = f'python() {{ printf "%s\\0" "$@"; }}\n{line}'
    done = subprocess.run(["bash", "-c", told], capture_output=True, text=True, check=True)
    option, module, *words = done.stdout.removesuffix("\0").split("\0")
    assert (option, module) == ("-m", "lcbench")
    return words


def typed(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command line in bash itself."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


# As a user types them: one that reads no more than what is installed, and one that scores.
TYPED = ("python -m lcbench tasks", "python -m lcbench results_dir=results/other tau=0.5")


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line(
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
    reads = line.startswith(("python -m lcbench report", "python -m lcbench status"))
    if reads:
        # Of one finished sweep, whatever other lines were run in this process before.
        folder = tmp_path
        for name in ("runs", *(["other"] if "against=results/other" in line else [])):
            finished.copy_to(folder / "results" / name)
    # A docs suite of seconds takes the place of the one of minutes, and one of its tasks that of
    # all, which `finished` has run; a model of two layers that of MiniLM on data of the hub.
    alone = any(part in line for part in (" report", " status", " export", " tasks", "--help"))
    small = "" if alone else f" {' '.join(SMALL)}"
    if not alone and "tasks=" not in line and "sweep=" not in line:
        small += " 'tasks=[DocstringRetrieval]'"
    if "mirror=" in line:
        small += f" model={make_model('bert')}"
    if line in TYPED:
        done = typed(line + small, folder)
    else:
        done = commands.run(words_of(line + small), folder, os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # Of a sweep that is done, no array element is left to submit.
    assert bool(done.stdout) == ("--failed" not in line)


def test_the_readme_says_what_was_found_of_its_own_numbers() -> None:
    """By document QMSum's gain is no gain; the demo's on Avg is one of three τ, and none of six."""
    text = " ".join(README.split())
    for words in (
        "its 1,527 queries are about 197 meetings",
        "-0.18 to 5.68 (p = 0.076)",
        "only just (0.02 to 1.62)",
        "-0.06 to 1.69",
        "-0.38 (-0.77 to -0.07)",
        "1,200 pairs",
        "The held-out gain has no interval",
    ):
        assert words in text, words


def test_what_is_typed_is_there() -> None:
    assert set(TYPED) <= set(command_lines())


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 3
    for link in local:
        assert (ROOT / link).exists(), link


def test_the_table_is_that_of_the_demo() -> None:
    """The README's numbers are those of the recorded run."""
    table = (ROOT / "results" / "demo" / "table1.md").read_text(encoding="utf-8")
    recorded = re.search(r"\| raw \| 1 \|(.*)\|\n.*\| ours \| ([\d.]+) \|(.*)\|\n", table)
    assert recorded is not None
    raw, tau, ours = recorded.groups()
    shown_raw = re.search(r"raw, τ = 1 +(.*)", README)
    shown_ours = re.search(rf"ours, τ = {re.escape(tau)} +(.*)", README)
    assert shown_raw is not None
    assert shown_ours is not None
    assert shown_raw.group(1).split() == [cell.strip() for cell in raw.split("|")]
    assert shown_ours.group(1).split() == [cell.strip() for cell in ours.split("|")]


def test_both_commands_stand_on_the_first_screen() -> None:
    first = README.splitlines()[:30]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)
