"""The README is short and shows the recorded demo; test_documentation tries its lines and links."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_the_table_is_that_of_the_demo() -> None:
    """The README's numbers are those of the recorded run."""
    table = (ROOT / "results" / "demo" / "table1.md").read_text(encoding="utf-8")
    recorded = re.search(r"\| raw, τ = 1 \|(.*)\|\n\| ours, τ = ([\d.]+) \|(.*)\|\n", table)
    assert recorded is not None
    raw, tau, ours = recorded.groups()
    shown_raw = re.search(r"raw, τ = 1 +(.*)", README)
    shown_ours = re.search(rf"ours, τ = {re.escape(tau)} +(.*)", README)
    assert shown_raw is not None
    assert shown_ours is not None
    assert shown_raw.group(1).split() == [cell.strip() for cell in raw.split("|")]
    assert shown_ours.group(1).split() == [cell.strip() for cell in ours.split("|")]


def test_both_commands_are_on_the_first_screen() -> None:
    first = README.splitlines()[:30]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)
