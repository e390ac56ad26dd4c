"""`reporting.table1`: the paper's own numbers, means, missing values and refusals."""

import json
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from report_frames import cell, frame

from lcbench.reporting.score_table import (
    AVERAGE,
    Block,
    ScoreTable,
    TaskScores,
    ordered_policies,
    relative_improvement,
    temperature,
)
from lcbench.reporting.statistics import NOTHING
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.main_results import main_table

COLUMNS = ("Class", "Clust", "Summ", "STS", "BeirRetr", "Rerank", "LongEmbRetr", "Avg")
# Table 1 of the paper: per model raw, ours and the relative improvement as printed.
PAPER = {
    "ANCE": (
        "0.9",
        (55.27, 33.04, 29.58, 66.32, 36.87, 49.09, 34.02, 43.45),
        (55.37, 33.28, 29.56, 66.47, 36.86, 49.25, 33.93, 43.53),
        (0.17, 0.73, -0.05, 0.22, -0.01, 0.32, -0.25, 0.18),
    ),
    "GTR": (
        "0.8",
        (55.10, 38.65, 29.67, 70.11, 44.98, 54.23, 37.33, 47.15),
        (55.51, 39.52, 29.83, 70.26, 45.61, 54.16, 37.33, 47.46),
        (0.73, 2.26, 0.54, 0.21, 1.41, -0.13, 0.01, 0.65),
    ),
    "GIST": (
        "0.9",
        (64.75, 44.77, 31.14, 75.61, 52.77, 58.55, 38.21, 52.26),
        (65.00, 44.64, 31.17, 75.59, 53.41, 58.60, 38.35, 52.39),
        (0.38, -0.29, 0.09, -0.03, 1.21, 0.08, 0.36, 0.26),
    ),
    "BGE": (
        "0.8",
        (64.79, 45.80, 31.03, 75.88, 55.29, 58.87, 37.46, 52.73),
        (64.89, 45.61, 31.51, 75.68, 56.00, 58.97, 38.35, 53.00),
        (0.16, -0.42, 1.53, -0.26, 1.29, 0.17, 2.40, 0.51),
    ),
    "E5": (
        "0.8",
        (61.72, 38.82, 30.58, 71.77, 47.22, 53.12, 56.01, 51.32),
        (62.15, 40.22, 31.11, 72.17, 47.06, 53.47, 56.88, 51.87),
        (0.70, 3.61, 1.74, 0.55, -0.33, 0.65, 1.56, 1.07),
    ),
}
PAPER_AVERAGE_IMPROVEMENT = (0.43, 1.18, 0.77, 0.14, 0.71, 0.22, 0.82, 0.53)


def paper_frame(*models: str) -> pd.DataFrame:
    """The paper's columns as if each were the score of one task."""
    cells = []
    for model in models:
        policy, raw, ours, _ = PAPER[model]
        window = 4096 if model == "E5" else 512
        for tau, values in (("1", raw), (policy, ours)):
            for column, value in zip(COLUMNS[:-1], values[:-1], strict=True):
                cells.append(
                    cell(tau, f"{column}Task", value / 100, column, f"paper/{model}", window=window)
                )
    return frame(*cells)


def the_table(
    scores: pd.DataFrame,
    expected: Mapping[str, Sequence[str]] | None = None,
    policies_expected: Mapping[str, Sequence[str]] | None = None,
) -> ScoreTable:
    (table,) = build_tables(scores, expected, policies_expected)
    return table


def the_block(scores: pd.DataFrame, expected: Mapping[str, Sequence[str]] | None = None) -> Block:
    (block,) = the_table(scores, expected).blocks
    return block


@pytest.mark.parametrize("model", PAPER)
def test_the_papers_rows_come_out_of_the_papers_columns(model: str) -> None:
    policy, raw_printed, ours_printed, relative_printed = PAPER[model]
    raw, ours, relative = the_block(paper_frame(model)).rows
    assert (raw.kind, ours.kind, relative.kind) == ("raw", "ours", "relative")
    assert (raw.policy, ours.policy, relative.policy) == ("1", policy, policy)
    for place, column in enumerate(COLUMNS):
        # Columns go in as printed; `Avg` is computed from them, each off by at most 0.005.
        assert raw.values[column] == pytest.approx(raw_printed[place], abs=0.01)
        assert ours.values[column] == pytest.approx(ours_printed[place], abs=0.01)
        # What rounding raw and ours to two decimals can do to their ratio, and to the print of it.
        ratio = ours_printed[place] / raw_printed[place]
        rounding = 0.005 + 100 * 0.005 * (1 + ratio) / raw_printed[place]
        assert relative.values[column] == pytest.approx(relative_printed[place], abs=rounding)
        assert rounding < 0.04


def test_bge_and_e5_as_printed() -> None:
    table = the_table(paper_frame("E5", "BGE"))
    assert table.column_names == COLUMNS
    assert [(block.label, block.window) for block in table.blocks] == [("BGE", 512), ("E5", 4096)]
    for block in table.blocks:
        raw, ours, relative = block.rows
        means = {"BGE": (52.73, 53.00), "E5": (51.32, 51.87)}[block.label]
        assert (round(raw.values[AVERAGE], 2), round(ours.values[AVERAGE], 2)) == means
        for column, printed in zip(COLUMNS, PAPER[block.label][3], strict=True):
            # The one value whose inputs' rounding amounts to more than 0.02.
            tolerance = 0.03 if (block.label, column) == ("BGE", "LongEmbRetr") else 0.02
            assert relative.values[column] == pytest.approx(printed, abs=tolerance)


def test_average_improvement_of_the_paper() -> None:
    table = the_table(paper_frame(*PAPER))
    assert table.average_improvement is not None
    for column, printed in zip(COLUMNS, PAPER_AVERAGE_IMPROVEMENT, strict=True):
        assert table.average_improvement[column] == pytest.approx(printed, abs=0.02)
    assert table.notes == ()


def test_average_improvement_is_the_mean_over_models_of_relative_improvements() -> None:
    table = the_table(
        frame(
            cell("1", "A", 0.5, model="o/one"),
            cell("0.8", "A", 0.55, model="o/one"),
            cell("1", "A", 0.2, model="o/two"),
            cell("0.9", "A", 0.24, model="o/two"),
        )
    )
    # Of pooled scores it would be 100 · (0.79 − 0.7) / 0.7 = 12.86.
    assert table.average_improvement == {
        "Class": pytest.approx(15.0),
        "Avg": pytest.approx(15.0),
    }


def test_one_model_has_no_average_improvement() -> None:
    assert the_table(paper_frame("BGE")).average_improvement is None


def test_improvement_is_computed_before_rounding() -> None:
    block = the_block(frame(cell("1", "A", 0.100149), cell("0.8", "A", 0.100251)))
    # Rounded first it would be 100 · (10.03 − 10.01) / 10.01 = 0.20.
    assert block.rows[2].values["Class"] == pytest.approx(100 * 0.000102 / 0.100149)
    assert f"{block.rows[2].values['Class']:.2f}" == "0.10"


def test_subsets_then_splits_then_tasks_then_columns() -> None:
    split_task = {("test", "en"): 0.2, ("test", "de"): 0.4, ("validation", "en"): 0.9}
    block = the_block(
        frame(
            cell("1", "A", {"en": 0.1, "de": 0.3, "fr": 0.5}),  # 0.3
            cell("1", "B", 0.9),
            cell("1", "C", split_task, column="STS"),  # (0.3 + 0.9) / 2 = 0.6
            cell("1", "D", 0.1, column="Clust"),
        )
    )
    assert block.tasks == (
        TaskScores("Class", "A", {"1": pytest.approx(30.0)}),
        TaskScores("Class", "B", {"1": pytest.approx(90.0)}),
        TaskScores("Clust", "D", {"1": pytest.approx(10.0)}),
        TaskScores("STS", "C", {"1": pytest.approx(60.0)}),
    )
    # Over the tasks `Avg` would be 47.5, over all subsets of `Class` 45.
    assert block.rows[0].values == {
        "Class": pytest.approx(60.0),
        "Clust": pytest.approx(10.0),
        "STS": pytest.approx(60.0),
        "Avg": pytest.approx(130 / 3),
    }


def test_columns_in_the_papers_order_then_by_name() -> None:
    names = ["Zeta", "Retr", "LongEmbRetr", "Alpha", "STS", "Class", "Rerank", "PairClass"]
    table = the_table(frame(*(cell("1", f"{name}Task", 0.5, column=name) for name in names)))
    assert table.column_names == (
        *("Class", "PairClass", "STS", "Retr", "Rerank", "LongEmbRetr", "Alpha", "Zeta"),
        AVERAGE,
    )


def test_baseline_alone_gives_the_raw_line() -> None:
    block = the_block(frame(cell("1", "A", 0.5)))
    assert [row.kind for row in block.rows] == ["raw"]
    assert (block.best, block.improvements) == (None, {})


def test_best_policy_is_chosen_by_average_and_ties_go_to_the_one_nearest_to_one() -> None:
    scores = {"0.5": 0.6, "0.9": 0.7, "0.8": 0.7, "1.3": 0.7, "query=0.8,document=1": 0.7}
    cells = [cell(policy, "A", score) for policy, score in scores.items()]
    block = the_block(frame(cell("1", "A", 0.5), *cells))
    assert block.best == "0.9"
    assert block.policies == ("1.3", "1", "0.9", "0.8", "0.5", "query=0.8,document=1")
    assert block.improvements["0.5"]["Class"] == pytest.approx(20.0)
    assert block.improvements["query=0.8,document=1"]["Avg"] == pytest.approx(40.0)


@pytest.mark.parametrize("ours", [0.49, 0.5])
def test_a_best_policy_no_better_than_raw_is_shown_with_a_note(ours: float) -> None:
    table = the_table(frame(cell("1", "A", 0.5), cell("0.8", "A", ours), cell("0.5", "A", 0.1)))
    assert table.blocks[0].best == "0.8"
    assert table.blocks[0].rows[2].values["Avg"] == pytest.approx(200 * ours - 100)
    assert table.notes == ("model: no temperature beat τ = 1",)


def test_a_missing_task_is_a_missing_value_and_its_policy_no_candidate() -> None:
    table = the_table(
        frame(
            *(cell(policy, "A", 0.5) for policy in ("1", "0.9", "0.8")),
            *(cell(policy, "B", 0.6) for policy in ("1", "0.9")),
            *(cell(policy, "C", 0.6, "STS") for policy in ("1", "0.9")),
            cell("0.8", "C", 0.9, "STS"),
        )
    )
    (block,) = table.blocks
    assert block.scores["0.8"] == {"Class": None, "STS": pytest.approx(90.0), "Avg": None}
    assert block.improvements["0.8"] == {"Class": None, "STS": pytest.approx(50.0), "Avg": None}
    assert block.best == "0.9"
    assert table.notes == (
        "model, τ = 0.8, Class: missing B",
        "model: no temperature that has all tasks beat τ = 1",
    )


def test_a_task_expected_but_never_measured_is_one_note_for_all_policies() -> None:
    expected = {"Class": ["A", "B"], "STS": ["C"]}
    table = the_table(
        frame(
            *(cell(policy, "A", 0.5) for policy in ("1", "0.8", "0.5")),
            *(cell(policy, "C", 0.6, "STS") for policy in ("1", "0.8", "0.5")),
        ),
        expected,
        {"org/model": ["1", "0.8", "0.5", "0.1"]},
    )
    raw, ours, relative = table.blocks[0].rows
    assert raw.values == {"Class": None, "STS": pytest.approx(60.0), "Avg": None}
    assert ours.values == raw.values
    assert relative.values == {"Class": None, "STS": 0.0, "Avg": None}
    # No policy is complete, two have equally many tasks.
    assert ours.policy == "0.8"
    assert table.notes == (
        "model, τ = 0.1: no results",
        "model, every τ, Class: missing B",
        "model: no τ has all tasks; τ = 0.8 has the most",
    )


def test_the_incomplete_policy_with_most_tasks_is_shown() -> None:
    table = the_table(
        frame(
            *(cell("1", task, 0.5) for task in "ABC"),
            cell("0.9", "A", 0.6),
            *(cell("0.5", task, 0.4) for task in "AB"),
        )
    )
    assert table.blocks[0].best == "0.5"
    assert table.blocks[0].rows[2].values == {"Class": None, "Avg": None}
    assert table.notes == (
        "model, τ = 0.9, Class: missing B",
        "model, every τ but 1, Class: missing C",
        "model: no τ has all tasks; τ = 0.5 has the most",
    )


def test_a_cell_measured_under_other_conditions_is_refused() -> None:
    table = the_table(
        frame(
            cell("1", "A", 0.5, mteb="2.27.0", dtype="float32"),
            cell("0.8", "A", 0.9, torch="2.9"),
            cell("0.9", "A", 0.4, mteb="2.27.0", dtype="float32"),
        )
    )
    (block,) = table.blocks
    assert block.scores["0.8"] == {"Class": None, "Avg": None}
    assert block.tasks[0].scores["0.8"] is None
    assert block.best == "0.9"
    assert table.notes[0] == (
        "model, τ = 0.8, Class: refused A (dtype: absent here, float32 in the baseline; "
        "mteb: 2.26.24 here, 2.27.0 in the baseline; torch: 2.9 here, absent in the baseline)"
    )


def test_one_note_for_all_columns_and_tasks_that_differ_in_the_same_way() -> None:
    table = the_table(
        frame(
            *(cell("1", task, 0.5, column) for task, column in (("A", "Class"), ("B", "STS"))),
            *(
                cell(policy, task, 0.5, column, mteb="3")
                for policy in ("0.9", "0.8")
                for task, column in (("A", "Class"), ("B", "STS"))
            ),
        )
    )
    assert table.notes == (
        "model, every τ but 1, Class and STS: refused A, B (mteb: 3 here, 2.26.24 in the baseline)",
    )


def test_a_cell_over_other_subsets_than_its_baseline_is_refused() -> None:
    table = the_table(
        frame(cell("1", "A", {"en": 0.5, "de": 0.3}), cell("0.8", "A", {"en": 0.5, "fr": 0.3}))
    )
    assert table.notes[0] == (
        "model, τ = 0.8, Class: refused A (split/subset: test/fr only here; "
        "split/subset: test/de only in the baseline)"
    )
    assert table.blocks[0].scores["0.8"]["Avg"] is None


def test_a_cell_of_other_items_is_a_missing_value() -> None:
    """Under one digest of the data as well: no improvement is computed over another dataset."""
    table = the_table(
        frame(
            cell("1", "A", 0.5, items_of_data="1" * 64),
            cell("0.9", "A", 0.9, items_of_data="2" * 64),
            cell("0.8", "A", 0.6, items_of_data="1" * 64),
        )
    )
    (block,) = table.blocks
    assert block.scores["0.9"] == {"Class": None, "Avg": None}
    assert block.improvements["0.9"] == {"Class": None, "Avg": None}
    assert block.improvements["0.8"]["Class"] == pytest.approx(20)
    refused = "model, τ = 0.9, Class: refused A (the items are not those of the baseline)"
    assert table.notes[0] == refused


def test_a_cell_of_other_weights_under_one_commit_is_not_compared() -> None:
    digests = {"model_digest": "sha256-1"}
    table = the_table(
        frame(
            cell("1", "A", 0.5, **digests),
            cell("0.9", "A", 0.9, model_digest="sha256-2"),
            cell("0.8", "A", 0.6, **digests),
            # Of an older version, which did not write it down.
            cell("0.7", "A", 0.4),
        )
    )
    (block,) = table.blocks
    assert block.improvements["0.9"] == {"Class": None, "Avg": None}
    assert block.improvements["0.8"]["Class"] == pytest.approx(20)
    assert block.improvements["0.7"]["Class"] == pytest.approx(-20)
    refused = "model, τ = 0.9, Class: refused A (the model's files are not those of the baseline)"
    assert table.notes[0] == refused


def test_items_that_are_not_known_are_no_others() -> None:
    table = the_table(frame(cell("1", "A", 0.5), cell("0.9", "A", 0.6, items_of_data="2" * 64)))
    assert table.blocks[0].improvements["0.9"]["Class"] == pytest.approx(20)


def test_data_that_is_not_what_it_is_named_after_is_noted() -> None:
    line = "A, split test, column text: 12 texts, mteb counts 1,379"
    data = json.dumps({"origin": "mirror sha256-0", "differs": [line]})
    table = the_table(frame(cell("1", "A", 0.5, data=data), cell("0.9", "A", 0.6, data=data)))
    assert table.notes[-1] == f"model: not quite the data that it is named after: {line}"


def test_conditions_of_other_tasks_and_models_do_not_matter() -> None:
    table = the_table(
        frame(
            *(cell(policy, "A", 0.5, dataset_revision="a") for policy in ("1", "0.8")),
            *(cell(policy, "B", 0.5, dataset_revision="b") for policy in ("1", "0.8")),
            *(cell(policy, task, 0.6, model="o/n") for policy in ("1", "0.8") for task in "AB"),
        )
    )
    assert [block.scores["0.8"]["Avg"] for block in table.blocks] == pytest.approx([50.0, 60.0])


def test_a_cell_without_baseline_is_a_missing_value() -> None:
    table = the_table(
        frame(cell("1", "A", 0.5), cell("0.8", "A", 0.6), cell("0.8", "B", 0.6, "STS"))
    )
    (block,) = table.blocks
    assert block.scores["0.8"] == {"Class": pytest.approx(60.0), "STS": None, "Avg": None}
    assert table.notes[:2] == (
        "model, τ = 1, STS: missing B",
        "model, τ = 0.8, STS: no baseline (τ = 1) for B",
    )


def test_no_baseline_at_all_is_reported_once() -> None:
    table = the_table(frame(*(cell(tau, task, 0.5) for tau in ("0.9", "0.8") for task in "AB")))
    assert [dict(row.values) for row in table.blocks[0].rows] == [{"Class": None, "Avg": None}] * 3
    assert table.notes == (
        "model, τ = 1: no results",
        "model: no baseline (τ = 1), so nothing can be compared",
    )


@pytest.mark.parametrize("lost", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_a_missing_value(lost: float) -> None:
    table = the_table(
        frame(cell("1", "A", 0.5), cell("0.8", "A", {"default": lost}), cell("0.9", "A", 0.6))
    )
    assert table.blocks[0].scores["0.8"] == {"Class": None, "Avg": None}
    assert table.notes == ("model, τ = 0.8, Class: no score (NaN) for A",)


def test_one_lost_subset_makes_the_task_a_missing_value() -> None:
    block = the_block(frame(cell("1", "A", {"en": 0.5, "de": math.nan}), cell("1", "B", 0.5)))
    assert block.rows[0].values == {"Class": None, "Avg": None}


def test_a_baseline_without_score_takes_its_policies_along() -> None:
    table = the_table(frame(cell("1", "A", math.nan), cell("0.8", "A", 0.6)))
    assert table.blocks[0].scores["0.8"]["Class"] is None
    assert table.notes == (
        "model, τ = 1, Class: no score (NaN) for A",
        "model, τ = 0.8, Class: no score (NaN) in the baseline for A",
    )


def test_a_missing_value_of_one_model_is_missing_in_the_average_improvement() -> None:
    table = the_table(
        frame(
            *(cell(tau, task, 0.5, task, "o/one") for tau in ("1", "0.8") for task in ("X", "Y")),
            *(cell("1", task, 0.5, task, "o/two") for task in ("X", "Y")),
            cell("0.8", "X", 0.55, "X", "o/two"),
            *(cell("1", task, 0.5, task, "o/raw") for task in ("X", "Y")),
        )
    )
    assert table.average_improvement == {"X": pytest.approx(5.0), "Y": None, "Avg": None}
    assert table.notes[-2:] == (
        "Avg Improv., Y and Avg: missing as in two",
        "Avg Improv.: without raw, measured at τ = 1 alone",
    )


def test_a_raw_score_of_zero_or_less_has_no_relative_improvement() -> None:
    table = the_table(
        frame(
            *(cell("1", task, score, column) for task, score, column in (("A", 0.0, "Summ"),)),
            cell("0.8", "A", 0.1, "Summ"),
            cell("1", "B", 0.5),
            cell("0.8", "B", 0.5),
        )
    )
    relative = table.blocks[0].rows[2].values
    assert relative == {"Class": 0.0, "Summ": None, "Avg": pytest.approx(20.0)}
    assert table.notes == ("model, Summ: no relative improvement over a baseline of 0 or less",)
    assert relative_improvement(0.1, -0.2) is None


def test_revisions_of_one_model_are_rows_of_their_own() -> None:
    table = the_table(
        frame(
            cell("1", "A", 0.5, revision="aaaaaaaaaaaa"),
            cell("0.8", "A", 0.6, revision="aaaaaaaaaaaa"),
            cell("0.8", "A", 0.7, revision="bbbbbbbbbbbb"),
        )
    )
    assert [block.label for block in table.blocks] == ["model (aaaaaaaa)", "model (bbbbbbbb)"]
    assert table.blocks[0].rows[2].values["Avg"] == pytest.approx(20.0)
    assert table.blocks[1].rows[2].values["Avg"] is None


def test_labels_tell_models_apart() -> None:
    table = the_table(
        frame(
            cell("1", "A", 0.5, model="one/minilm"),
            cell("1", "A", 0.5, model="two/minilm"),
            cell("1", "A", 0.5, model="e5", window=4096),
            cell("1", "A", 0.5, model="e5"),
            cell("1", "A", 0.5, model="bge", revision="12345678a"),
            cell("1", "A", 0.5, model="bge", revision="12345678b"),
        )
    )
    assert [block.label for block in table.blocks] == [
        "one/minilm",
        "two/minilm",
        "e5 (window 512)",
        "bge (12345678a)",
        "bge (12345678b)",
        "e5 (window 4096)",
    ]


def test_labels_are_the_ends_of_the_paths_of_folders_of_one_name() -> None:
    def labels(*told: tuple[str, str | None]) -> list[str]:
        """Of folders with these revisions and paths."""
        rows = [
            {**row, "path": path}
            for revision, path in told
            for row in cell("1", "A", 0.5, model="local/final", revision=revision)
        ]
        return [block.label for block in the_table(frame(rows)).blocks]

    first, second, third = "sha256-8aaaaaaa", "sha256-caaaaaaa", "sha256-daaaaaaa"
    assert labels((first, "run1/final"), (second, "run2/final")) == ["run1/final", "run2/final"]
    # The shortest end that differs, and no more of an absolute path.
    assert labels((first, "/home/x/a/b/final/"), (second, "./c/b/final")) == [
        "a/b/final",
        "c/b/final",
    ]
    assert labels((first, "final"), (second, "c/final")) == ["final", "c/final"]
    # One place whose files have changed, or a place that is not known: told apart as before.
    by_revision = ["final (sha256-8)", "final (sha256-c)"]
    for path in ("run1/final", ".", ".."):
        assert labels((first, path), (second, path)) == by_revision
        assert labels((first, path), (second, None)) == by_revision
    assert labels((first, "a/final"), (second, "a/final"), (third, "b/final")) == [
        "a/final (sha256-8)",
        "a/final (sha256-c)",
        "b/final",
    ]
    assert labels((first, "a/final"), (second, None), (third, "b/final")) == [
        "a/final",
        "final (sha256-c)",
        "b/final",
    ]
    assert labels((first, "run1/final")) == ["final"]


def test_a_folder_that_is_called_as_a_model_of_the_hub_is() -> None:
    of_folders = [
        {**row, "path": path}
        for revision, path in (("sha256-8aaa", "org/final"), ("sha256-caaa", "b/final"))
        for row in cell("1", "A", 0.5, model="local/final", revision=revision)
    ]
    table = the_table(frame(of_folders, cell("1", "A", 0.5, model="org/final")))
    assert [block.label for block in table.blocks] == [
        "local/final (sha256-8)",
        "b/final",
        "org/final",
    ]


def test_one_table_a_group_in_the_order_of_the_scores() -> None:
    tables = build_tables(
        frame(cell("1", "A", 0.5, group="second"), cell("1", "B", 0.5, group="first"))
    )
    assert [table.group for table in tables] == ["second", "first"]
    # The tasks expected by default are those of the group.
    assert [table.columns[0].tasks for table in tables] == [("A",), ("B",)]
    assert build_tables(frame(cell("1", "A", 0.5)).iloc[:0]) == []


def test_what_was_not_expected_is_left_out_with_a_note() -> None:
    table = the_table(
        frame(
            *(cell(tau, task, 0.5) for tau in ("1", "0.9") for task in "AB"),
            cell("0.1", "A", 0.9),
        ),
        {"STS": ["A"]},
        {"org/model": ["0.9"], "org/absent": ["0.9"]},
    )
    assert table.column_names == ("STS", AVERAGE)
    assert table.blocks[0].policies == ("1", "0.9")
    assert table.notes[1:] == (
        "model: left out, not asked for: τ = 0.1",
        "org/absent: no results",
        "left out, not among the table's tasks: B",
    )


def test_wrong_input_is_refused() -> None:
    scores = frame(cell("1", "A", 0.5))
    with pytest.raises(ValueError, match="scores lack the columns window, split"):
        build_tables(scores.drop(columns=["split", "window"]))
    with pytest.raises(ValueError, match="A stands under two columns, Class and STS"):
        build_tables(frame(cell("1", "A", 0.5), cell("0.8", "A", 0.5, "STS")))
    with pytest.raises(ValueError, match="A: split test, subset default comes twice"):
        build_tables(pd.concat([scores, scores]))
    with pytest.raises(ValueError, match="no task is expected"):
        build_tables(scores, {"Class": []})
    with pytest.raises(ValueError, match="A is expected in two columns, Class and STS"):
        build_tables(scores, {"Class": ["A"], "STS": ["A"]})
    with pytest.raises(ValueError, match="Avg is the mean of the columns"):
        build_tables(scores, {"Avg": ["A"]})


def test_policies_that_are_no_constants() -> None:
    assert [temperature(policy) for policy in ("0.8", "1", "logn", "nan", "inf", "-1", "0")] == [
        *(0.8, 1.0),
        *(None,) * 5,
    ]
    assert ordered_policies(["logn", "0.8", "a=1", "2", "10", "0.8"]) == (
        *("10", "2", "0.8"),
        *("a=1", "logn"),
    )


def test_a_model_in_two_rows_is_not_averaged_twice() -> None:
    table = the_table(
        frame(
            *(
                cell(policy, "A", score, window=window)
                for window in (128, 512)
                for policy, score in (("1", 0.5), ("0.8", 0.6))
            )
        )
    )
    assert len(table.blocks) == 2
    assert table.average_improvement is None
    assert "Avg Improv.: left out, org/model stands in more than one row" in table.notes


def test_tasks_of_several_versions_of_mteb_are_reported() -> None:
    both = [
        cell(policy, task, 0.5, mteb_version=version)
        for task, version in (("A", "2.26.24"), ("B", "2.20.0"))
        for policy in ("1", "0.8")
    ]
    table = the_table(frame(*both))
    assert "model: scored by several versions of mteb (2.26.24: A; 2.20.0: B)" in table.notes
    assert table.blocks[0].scores["0.8"]["Class"] == pytest.approx(50)
    one = the_table(frame(*both[:2]))
    assert not any("versions of mteb" in note for note in one.notes)


def test_roles_on_one_column_alone_are_a_short_note_for_all_models() -> None:
    columns = {"Class": [f"C{i}" for i in range(8)], "STS": ["S"], "LongEmbRetr": ["L", "M"]}
    by_role = ("query=0.8,document=1", "query=1,document=0.8")
    cells = []
    for model in ("o/one", "o/two"):
        for column, tasks in columns.items():
            for task in tasks:
                policies = ("1", "0.8", *(by_role if column == "LongEmbRetr" else ()))
                cells += [cell(policy, task, 0.5, column, model) for policy in policies]
    assert the_table(frame(*cells)).notes == (
        "every model, every τ by role: only LongEmbRetr",
        "every model: no constant temperature beat τ = 1",
    )
    # A model that lacks more is told apart, and what of a column is missing beside it.
    cells = [
        rows
        for rows in cells
        if not (rows[0]["model"] == "o/two" and rows[0]["task"] == "M" and "q" in rows[0]["policy"])
    ]
    assert the_table(frame(*cells)).notes[:2] == (
        "every model, every τ by role: only LongEmbRetr",
        "every model: no constant temperature beat τ = 1",
    )
    assert the_table(frame(*cells)).notes[2:] == ("two, every τ by role, LongEmbRetr: missing M",)


def test_columns_that_are_absent_are_named_where_they_are_the_fewer() -> None:
    tasks = [f"C{i}" for i in range(7)]
    cells = [cell(policy, "S", 0.5, "STS") for policy in ("1", "0.8", "0.7")]
    cells += [cell(policy, "R", 0.5, "Rerank") for policy in ("1", "0.8", "0.7")]
    cells += [cell(policy, task, 0.6) for policy in ("1", "0.8") for task in tasks]
    assert the_table(frame(*cells)).notes[0] == "model, τ = 0.7: nothing of Class"
    # Six tasks are few enough to be named.
    few = {"Class": tasks[:6], "STS": ["S"], "Rerank": ["R"]}
    assert the_table(frame(*cells), few).notes[0] == (
        "model, τ = 0.7, Class: missing C0, C1, C2, C3, C4, C5"
    )


def test_of_many_names_the_first_five_are_reported() -> None:
    tasks = [f"C{i}" for i in range(8)]
    table = the_table(
        frame(
            *(cell("1", task, 0.5) for task in tasks),
            *(cell("0.8", task, 0.6) for task in tasks[:1]),
        )
    )
    assert table.notes[0] == ("model, τ = 0.8, Class: missing C1, C2, C3, C4, C5 and 2 more")


def test_a_note_of_some_models_names_them_together() -> None:
    scores = {"o/one": 0.5, "o/two": 0.4, "o/three": 0.6}
    cells = [
        cell(policy, "A", 0.5 if policy == "1" else score, model=model)
        for model, score in scores.items()
        for policy in ("1", "0.8")
    ]
    assert the_table(frame(*cells)).notes == ("one and two: no temperature beat τ = 1",)


def test_ours_is_a_constant_where_there_is_one() -> None:
    by_role = "query=0.8,document=1"
    scores = {"1": 0.5, "0.9": 0.6, "0.8": 0.55, by_role: 0.9, "0.7_bias=kept": 0.8}
    table = the_table(frame(*(cell(policy, "A", score) for policy, score in scores.items())))
    assert table.blocks[0].best == "0.9"
    assert table.notes == ()
    # Constants that leave a position bias as it is come next, then whatever there is.
    del scores["0.9"], scores["0.8"]
    kept = the_block(frame(*(cell(policy, "A", score) for policy, score in scores.items())))
    assert kept.best == "0.7_bias=kept"
    del scores["0.7_bias=kept"]
    other = the_block(frame(*(cell(policy, "A", score) for policy, score in scores.items())))
    assert other.best == by_role


def test_a_constant_that_lacks_tasks_goes_before_roles_that_have_all_but_not_one_without_any() -> (
    None
):
    by_role = "query=0.8,document=1"
    cells = [cell(policy, task, 0.5) for policy in ("1", by_role) for task in "AB"]
    table = the_table(frame(*cells, cell("0.8", "A", 0.6)))
    assert table.blocks[0].best == "0.8"
    assert table.notes[1:] == ("model: no constant τ has all tasks; τ = 0.8 has the most",)
    (table,) = build_tables(frame(*cells), None, {"org/model": ["0.8", by_role]})
    assert table.blocks[0].best == by_role


def test_corrections_come_after_temperatures_each_from_large_tau_to_small() -> None:
    asked = [
        *("correct=whiten", "correct=abtt=10", "0.8 + correct=abtt=3", "correct=abtt=3"),
        *("0.9 + correct=abtt=3", "0.8", "query=0.8,document=1", "1", "0.9"),
        "query=0.8,document=1 + correct=abtt=3",
    ]
    assert ordered_policies(asked) == (
        *("1", "0.9", "0.8", "query=0.8,document=1"),
        *("correct=abtt=3", "0.9 + correct=abtt=3", "0.8 + correct=abtt=3"),
        "query=0.8,document=1 + correct=abtt=3",
        *("correct=abtt=10", "correct=whiten"),
    )


def test_a_correction_is_ours_if_it_is_the_best() -> None:
    scores = frame(
        *(
            cell(policy, task, score)
            for task in ("A", "B")
            for policy, score in [("1", 0.5), ("0.9", 0.52), ("correct=centre", 0.55)]
        ),
        cell("0.8", "A", 0.9),
        cell("0.8 + correct=centre", "A", 0.4),
    )
    (table,) = build_tables(scores)
    (block,) = table.blocks
    assert block.best == "correct=centre"
    assert table.words == ("repair", "repairs")
    assert any(
        note.endswith("τ = 0.8 and τ = 0.8 + centre, Class: missing B") for note in table.notes
    )
    found = main_table(table, NOTHING)
    texts = [row[0].text for row in found.sections[0].rows]
    assert texts[:2] == ["raw, τ = 1", "ours, centre"]
    assert "ours is the best repair that was tried" in found.footnotes[0]
