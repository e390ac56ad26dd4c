"""The recommendations in docs/tuning.md and README.md follow from the recorded cells."""

import re
from functools import cache
from pathlib import Path

import pytest
from recommended import recommended

from lcbench.repair.repair import label_of
from lcbench.reporting.advice_text import sentences
from lcbench.reporting.score_table import AVERAGE, Block
from lcbench.reporting.statistics import Recommendation
from lcbench.results.folder import Results
from lcbench.tuning.options import Across

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"\(`results/([\w/]+)`\) \| (\d+) \| (.+?) \| (\S+) \| (\S+) to (\S+) \| ([\d,]+) \|", PAGE
)


@cache
def recorded(name: str, across: Across | None = None) -> tuple[Recommendation, Block]:
    """The recommendation of recorded cells, and the model's block of their table."""
    return recommended(Results(ROOT / "results" / name / "cells"), ROOT, across)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_page_has_what_the_cells_say(row: tuple[str, ...]) -> None:
    name, tried, best, expected, low, high, units = row
    found, block = recorded(name)
    advice = found.advice
    assert advice is not None
    assert found.policy == (found.policies[advice.best] if float(low) > 0 else None)
    assert (len(found.policies), advice.units) == (int(tried), int(units.replace(",", "")))
    assert label_of(found.policies[advice.best]) == best
    told = (advice.expected, advice.expected_low, advice.expected_high)
    assert told == pytest.approx((float(expected), float(low), float(high)), abs=0.0051)
    for place, policy in enumerate(found.policies):
        # mteb rounds scores to five decimals.
        reported = block.improvements[policy][AVERAGE]
        assert advice.gains[place] == pytest.approx(reported, abs=2e-3)


def test_all_records_are_told_of() -> None:
    names = ("docs", "repairs", "windows", "mirror", "mirror_repairs")
    assert [row[0] for row in ROWS] == ["demo", *(f"minilm/{name}" for name in names)]


def test_the_demos_sentence() -> None:
    said = " ".join(sentences(recorded("demo")[0]))
    for page in (PAGE, (ROOT / "README.md").read_text(encoding="utf-8")):
        (block,) = re.findall(r"all-MiniLM-L6-v2: ship .*?(?=\n```)", page, flags=re.DOTALL)
        assert " ".join(block.split()) == said


def test_across_tasks_there_are_too_few() -> None:
    found, _ = recorded("minilm/mirror", "tasks")
    assert found.advice is None
    assert found.why == (
        "8 tasks that share no texts are needed to choose a repair, and there are 6"
    )
