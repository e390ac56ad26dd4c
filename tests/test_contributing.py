"""CONTRIBUTING.md is true: packages, files and functions that it names are there."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "lcbench"


def walks() -> list[list[str]]:
    """Return the files and functions of each numbered list, in its order."""
    return [
        re.findall(r"`src/lcbench/([\w/]+\.py::\w+)`", part)
        for part in re.split(r"\n(?=1\. )", TEXT)[1:]
    ]


@pytest.mark.parametrize(
    "place", sorted(set(re.findall(r"`(?:src/lcbench/)?([\w/]+\.py::\w+)`", TEXT)))
)
def test_what_is_named_is_there(place: str) -> None:
    path, _, name = place.partition("::")
    tree = ast.parse((SOURCE / path).read_text(encoding="utf-8"))
    assert name in {getattr(node, "name", None) for node in tree.body}


def test_each_walk_has_at_most_ten_files() -> None:
    assert [len(walk) for walk in walks()] == [10, 10]


def test_packages_are_listed_in_the_order_that_is_held() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        one["layers"]
        for one in contracts["tool"]["importlinter"]["contracts"]
        if one["type"] == "layers"
    )
    listed = re.findall(r"^\| `(\w+)` \|", TEXT, flags=re.MULTILINE)
    assert listed == [one for one in layers if one != "errors"]


def test_other_paths_are_there() -> None:
    named = set(re.findall(r"`((?:src|tests|conf)?/?[\w/]+\.py)(?:::\w+)?`", TEXT))
    assert named
    for path in named:
        assert (ROOT / path).is_file() or (SOURCE / path).is_file(), path
