"""The layout holds: no import back up, no circle, modules of one screen's subject."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lcbench"
# Longer ones say in their docstring why they are whole.
MOST_LINES = 600


def test_each_package_imports_only_packages_below_it() -> None:
    # In a process of its own: it sets up the logging of the whole process.
    code = (
        "import sys; from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(config_filename='pyproject.toml', no_cache=True))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_a_module_is_short_or_says_why_it_is_whole(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    docstring = re.match(r'"""(.*?)"""', text, flags=re.DOTALL)
    assert docstring is not None
    if len(text.splitlines()) > MOST_LINES:
        assert "In one module because" in docstring[1]


def test_tests_lie_where_what_they_test_lies() -> None:
    packages = {str(path.parent.relative_to(SOURCE)) for path in SOURCE.rglob("__init__.py")}
    folders = {
        str(path.parent.relative_to(ROOT / "tests")) for path in ROOT.glob("tests/**/test_*.py")
    }
    assert folders - packages == {"end_to_end", "scripts"}


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Without packages pytest imports them by name, and refuses a second one of the same."""
    names = Counter(path.name for path in ROOT.glob("tests/**/test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
