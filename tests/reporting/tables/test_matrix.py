"""`lcbench.reporting.tables.matrix`: what each task gains at each τ."""

import pandas as pd
import pytest

from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import NOTHING, TableStatistics, Uncertainty
from lcbench.reporting.table import improvement
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.matrix import _counts, matrix


@pytest.fixture
def table() -> ScoreTable:
    """Two models; B has no score at 0.9, and 0.8 was asked for of the first alone."""
    values = {
        ("x", "1", "A"): 0.5,
        ("x", "0.9", "A"): 0.51,
        ("x", "0.8", "A"): 0.45,
        ("x", "1", "B"): 0.8,
        ("x", "0.8", "B"): 0.8,
        ("y", "1", "A"): 0.5,
        ("y", "0.9", "A"): 0.52,
        ("y", "1", "B"): 0.5,
        ("y", "0.9", "B"): 0.505,
    }
    rows = [
        {
            "group": "paper",
            "window": 512,
            "model": f"o/{model}",
            "revision": "r",
            "policy": policy,
            "task": task,
            "column": {"A": "Class", "B": "STS"}[task],
            "split": "test",
            "subset": "default",
            "score": score,
            "conditions": {},
        }
        for (model, policy, task), score in values.items()
    ]
    (table,) = build_tables(pd.DataFrame(rows))
    return table


KNOWN = TableStatistics(
    {
        ("x", "0.9", "A"): Uncertainty(1, 3, 0.001, 0.004),
        ("x", "0.8", "A"): Uncertainty(-15, -5, 0.03, 0.09),
        ("x", "0.8", "B"): Uncertainty(-1, 1, 0.9, 0.9),
        ("y", "0.9", "A"): Uncertainty(-1, 9, 0.2, 0.4),
    },
    {},
    {},
)


def test_a_matrix_of_marks(table: ScoreTable) -> None:
    shown = matrix(table, KNOWN)
    assert shown is not None
    assert shown.header == ("Column", "Task", "τ = 0.9", "τ = 0.8")
    assert {
        section.heading: [[(entry.text, entry.style) for entry in row[1:]] for row in section.rows]
        for section in shown.sections
    } == {
        "x": [
            [("A", "neutral"), ("▲ 2.00", "gain"), ("▼ 10.00", "loss")],
            [("B", "neutral"), ("–", "neutral"), ("0.00", "inconclusive")],
        ],
        "y": [
            [("A", "neutral"), ("△ 4.00", "inconclusive"), ("", "neutral")],
            [("B", "neutral"), ("▲ 1.00", "neutral"), ("", "neutral")],
        ],
    }
    assert shown.sections[0].rows[0][2].tooltip == (
        "95 % interval 1.00 to 3.00; p = 0.001; after Holm 0.004"
    )
    assert shown.notes[1:] == (
        "Of 4 pairs of a task's τ and τ = 1, 2 differ significantly from zero, by interval "
        "and permutation test (p ≤ 0.05), 1 after Holm's correction.",
        "Pairs of which it is unknown: 1.",
    )


def test_without_statistics_arrows_are_plain(table: ScoreTable) -> None:
    shown = matrix(table, NOTHING)
    assert shown is not None
    row = shown.sections[0].rows[0]
    assert [(entry.text, entry.style) for entry in row[2:]] == [
        ("▲ 2.00", "neutral"),
        ("▼ 10.00", "neutral"),
    ]
    assert (
        shown.notes[1]
        == "Of none of the pairs is it known whether it differs significantly from zero."
    )


def test_no_matrix_of_a_baseline_alone() -> None:
    rows = {
        "group": ["g"],
        "window": [512],
        "model": ["m"],
        "revision": ["r"],
        "policy": ["1"],
        "task": ["A"],
        "column": ["Class"],
        "split": ["test"],
        "subset": ["default"],
        "score": [0.5],
        "conditions": [{}],
    }
    (table,) = build_tables(pd.DataFrame(rows))
    assert matrix(table, NOTHING) is None


def test_the_notes_say_what_too_few_items_cannot_show() -> None:
    """Four of 72 queries changed, all for the worse; ten sets all lost, among 40 pairs."""
    few = Uncertainty(-26.1, -2.9, p=0.125, adjusted=1.0, units="queries", count=72, up=0, down=4)
    sets = Uncertainty(-3, -1, p=2 / 2**10, adjusted=0.078, units="sets", count=10, up=0, down=10)
    shown = [few, sets, *[Uncertainty(-1.0, 1.0, p=0.5, adjusted=1.0, count=100)] * 38]
    assert _counts(shown, "repair") == [
        "Of 40 pairs of a task's repair and τ = 1, 1 differ significantly from zero, by interval "
        "and permutation test (p ≤ 0.05), 0 after Holm's correction.",
        "few: fewer than 10 items changed, too few to say anything of others; 1 of the pairs.",
        "1 of the pairs have too few items to pass Holm's correction over 40 pairs, however large "
        "the change: of 10 sets p is at least 0.002.",
    ]
    # 24 · 2/2¹⁰ = 0.047 just passes.
    assert len(_counts(shown[:24], "τ")) == 2


def test_interval_and_test_have_to_agree() -> None:
    assert Uncertainty(1.0, 3.0, p=0.04).excludes_zero
    assert not Uncertainty(1.0, 3.0, p=0.06).excludes_zero
    assert not Uncertainty(-1.0, 3.0, p=0.04).excludes_zero
    assert not Uncertainty(1.0, 3.0, p=0.004, up=9, down=0).excludes_zero
    assert Uncertainty(1.0, 3.0, p=0.004, up=9, down=1).excludes_zero
    # Nothing that changed is no claim of too few.
    assert not Uncertainty(0.0, 0.0, p=1.0, up=0, down=0).is_too_few
    few = improvement(-12.9, Uncertainty(-26.1, -2.9, p=0.125, up=0, down=4))
    assert (few.text, few.style) == ("few: -12.90", "inconclusive")
