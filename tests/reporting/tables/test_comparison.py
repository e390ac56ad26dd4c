"""`tables.comparison`: two folders of results, and models of a table, side by side."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from report_cells import BGE, write_cell

from lcbench.errors import RequestError
from lcbench.reporting.intervals import compare_pair
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import NOTHING, TableStatistics, Uncertainty
from lcbench.reporting.table import Table
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.comparison import Compare, compare_folders, compare_models
from lcbench.results.files import CellFiles
from lcbench.results.folder import Results
from lcbench.tempscale.policy import Constant

TAU = Constant(0.8)
NAMES = ("main", "branch")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Results, Results]:
    return Results(tmp_path / "main"), Results(tmp_path / "branch")


def frame(results: Results) -> pd.DataFrame:
    return results.read(lambda task, kind: "Class", pytest.fail)


def beside(
    folders: tuple[Results, Results],
    compare: Compare | None = compare_pair,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    return compare_folders(frame(folders[0]), frame(folders[1]), NAMES, compare, progress)


def texts(shown: Table, section: int = 0) -> list[list[str]]:
    return [[entry.text for entry in row] for row in shown.sections[section].rows]


def note(shown: Table, start: str) -> str:
    (found,) = (one for one in shown.notes if one.startswith(start))
    return found


def test_cells_of_both_folders_with_their_difference(folders: tuple[Results, Results]) -> None:
    for results, shift in zip(folders, (0.0, 0.01), strict=True):
        write_cell(results, "A", 0.5 + shift)
        write_cell(results, "A", 0.6 + shift, policy=TAU)
        write_cell(
            results, "B", {("test", "en"): {"main_score": 0.2}, ("test", "de"): {"main_score": 0.4}}
        )
    shown = beside(folders, compare=None)
    assert shown.header == (
        *("τ", "Task", "main", "branch", "Difference", "Relative, %", "from", "to"),
    )
    assert [section.heading for section in shown.sections] == [BGE]
    assert texts(shown) == [
        ["1", "A", "50.00", "51.00", "+1.00", "▲ 2.00", "–", "–"],
        ["1", "B", "30.00", "30.00", "0.00", "0.00", "–", "–"],
        ["0.8", "A", "60.00", "61.00", "+1.00", "▲ 1.67", "–", "–"],
    ]
    assert shown.sections[0].rows[0][4].value == pytest.approx(1)
    assert note(shown, "Cells in both").startswith(
        "Cells in both: 3; with scores that can be compared: 3; equal to 0.0001 (0.01 as shown "
        "here): 1. The largest difference is +1.00 ("
    )
    assert note(shown, "Differences that are") == (
        "Differences that are significant (95 % interval): 0; not significant: 0; unknown: 3."
    )
    assert not [one for one in shown.notes if one.startswith(("Differs", "Only in"))]


@pytest.mark.parametrize(("difference", "equal"), [(0.0001, 1), (0.00011, 0), (-0.0001, 1)])
def test_what_is_equal(folders: tuple[Results, Results], difference: float, equal: int) -> None:
    write_cell(folders[0], "A", 0.5)
    write_cell(folders[1], "A", 0.5 + difference)
    said = note(beside(folders, compare=None), "Cells in both: 1;")
    assert f"equal to 0.0001 (0.01 as shown here): {equal}." in said


def test_intervals_come_from_the_paired_items(folders: tuple[Results, Results]) -> None:
    files = [
        write_cell(results, "A", score) for results, score in zip(folders, (0.5, 0.4), strict=True)
    ]
    for results in folders:
        write_cell(results, "B", 0.5)
    asked: list[tuple[CellFiles, CellFiles]] = []

    def compare(first: CellFiles, second: CellFiles) -> Uncertainty | None:
        asked.append((first, second))
        return Uncertainty(-25, -15, 0.001) if first.task == "A" else None

    done: list[tuple[int, int]] = []
    shown = beside(folders, compare=compare, progress=lambda *one: done.append(one))
    assert asked[0] == (files[0], files[1])
    row = shown.sections[0].rows[0]
    assert [entry.text for entry in row[4:]] == ["-10.00", "▼ 20.00", "-25.00", "-15.00"]
    assert row[5].style == "loss"
    assert row[5].tooltip == "95 % interval -25.00 to -15.00; p = 0.001"
    assert note(shown, "Differences that are") == (
        "Differences that are significant (95 % interval): 1; not significant: 0; unknown: 1."
    )
    assert done == [(1, 2), (2, 2)]


def test_what_differs_is_named_once_with_the_cells_it_concerns(
    folders: tuple[Results, Results],
) -> None:
    for task in ("A", "B"):
        write_cell(folders[0], task, 0.5)
        write_cell(
            folders[1],
            task,
            0.5,
            revision="e" * 40,
            dtype="bfloat16",
            dataset_revision="new" if task == "B" else "data",
        )
    shown = beside(folders, compare=None)
    assert len(shown.sections[0].rows) == 2
    assert {one for one in shown.notes if one.startswith("Differs")} == {
        f"Differs: revision: {'f' * 40} in main, {'e' * 40} in branch (all cells).",
        "Differs: protocol.dtype: float32 in main, bfloat16 in branch (all cells).",
        f"Differs: dataset_revision: data in main, new in branch ({BGE}, τ = 1, B).",
    }


def test_of_several_cells_of_one_name_the_nearest_are_paired(
    folders: tuple[Results, Results],
) -> None:
    write_cell(folders[0], "A", 0.5)
    write_cell(folders[0], "A", 0.6, dtype="bfloat16")
    write_cell(folders[1], "A", 0.62, dtype="bfloat16")
    shown = beside(folders, compare=None)
    assert [row[2:5] for row in texts(shown)] == [["60.00", "62.00", "+2.00"]]
    assert note(shown, "Only in main") == f"Only in main: {BGE}, τ = 1, A."


def test_what_has_other_parts_is_not_compared(folders: tuple[Results, Results]) -> None:
    write_cell(folders[0], "A", {("test", "en"): {"main_score": 0.5}})
    write_cell(folders[1], "A", {("test", lang): {"main_score": 0.5} for lang in ("en", "de")})
    shown = beside(folders, compare=lambda *_: pytest.fail("not to be compared"))
    assert texts(shown) == [["1", "A", "50.00", "50.00", "–", "–", "–", "–"]]
    assert (
        "Differs: split/subset only in branch, so not compared: test/de (all cells)." in shown.notes
    )
    assert "Cells in both: 1; with scores that can be compared: 0." in shown.notes


def test_nothing_in_common(folders: tuple[Results, Results]) -> None:
    for task in "ABCDEF":
        write_cell(folders[0], task, 0.5)
    write_cell(folders[1], "A", 0.5, policy=TAU)
    shown = beside(folders)
    assert shown.sections == ()
    assert "No cell is in both." in shown.notes
    assert note(shown, "Only in main").endswith(f"; {BGE}, τ = 1, D and 2 more.")
    assert note(shown, "Only in branch") == f"Only in branch: {BGE}, τ = 0.8, A."


@pytest.fixture
def table() -> ScoreTable:
    """x is best at 0.8 and y at 0.9; z has a baseline alone."""
    values = {
        "x": {("1", "A"): 0.5, ("0.8", "A"): 0.6, ("1", "B"): 0.4, ("0.8", "B"): 0.4},
        "y": {("1", "A"): 0.55, ("0.9", "A"): 0.56, ("1", "B"): 0.3, ("0.9", "B"): 0.33},
        "z": {("1", "A"): 0.1, ("1", "B"): 0.1},
    }
    (table,) = build_tables(
        pd.DataFrame(
            [
                {
                    "group": "paper",
                    "window": 512,
                    "model": f"org/{model}",
                    "revision": "r",
                    "policy": policy,
                    "task": task,
                    "column": {"A": "Class", "B": "STS"}[task],
                    "split": "test",
                    "subset": "default",
                    "score": score,
                    "conditions": {},
                }
                for model, scores in values.items()
                for (policy, task), score in scores.items()
            ]
        )
    )
    return table


def test_two_models_side_by_side(table: ScoreTable) -> None:
    known = TableStatistics(
        {("x", "0.8", "A"): Uncertainty(10, 30)}, {("y", "0.9", "Avg"): Uncertainty(-1, 9)}, {}
    )
    # By label or by name.
    shown = compare_models(table, known, ["x", "org/y"])
    assert shown.header == (
        *("Column", "Task", "x, baseline", "x, τ = 0.8", "x, Relative Improv."),
        *("y, baseline", "y, τ = 0.9", "y, Relative Improv.", "Difference at best τ"),
    )
    assert [section.heading for section in shown.sections] == ["Columns", "Tasks"]
    assert texts(shown) == [
        ["Class", "", "50.00", "60.00", "▲ 20.00", "55.00", "56.00", "▲ 1.82", "-4.00"],
        ["STS", "", "40.00", "40.00", "0.00", "30.00", "33.00", "▲ 10.00", "-7.00"],
        ["Avg", "", "45.00", "50.00", "▲ 11.11", "42.50", "44.50", "△ 4.71", "-5.50"],
    ]
    assert texts(shown, 1)[0][:5] == ["Class", "A", "50.00", "60.00", "▲ 20.00"]
    first = shown.sections[0].rows[0]
    assert [entry.style for entry in first[2:8]] == [
        *("neutral", "best", "neutral"),
        *("best", "neutral", "neutral"),
    ]
    assert shown.sections[1].rows[0][4].style == "gain"
    assert shown.sections[0].rows[2][7].style == "inconclusive"


def test_three_models_and_one_without_a_temperature(table: ScoreTable) -> None:
    shown = compare_models(table, NOTHING, ["x", "y", "z"])
    assert shown.header[-1] == "z, baseline"
    assert len(shown.header) == 2 + 3 + 3 + 1
    assert texts(shown)[0][-1] == "10.00"
    pair = compare_models(table, NOTHING, ["x", "z"])
    assert pair.header[-1] == "z, baseline"


def test_a_model_that_is_not_there(table: ScoreTable) -> None:
    with pytest.raises(RequestError, match=r"xx is no model of the table paper.*x, y, z"):
        compare_models(table, NOTHING, ["xx", "y"])
    for labels in (["x"], ["x", "x"], ["x", "org/x"]):
        with pytest.raises(RequestError, match="two or more of x, y, z"):
            compare_models(table, NOTHING, labels)
