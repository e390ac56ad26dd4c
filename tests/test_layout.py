"""The layout holds: no import back up, no circle, modules of one screen's subject."""

import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lcbench"
# Longer ones say in their docstring why they are whole.
MOST_LINES = 600


def test_each_package_imports_only_packages_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


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
