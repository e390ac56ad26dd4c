"""`lcbench.reporting.figures.by_length`: curves and intervals are those of the buckets."""

import csv
import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from lcbench.reporting.figures.by_length import by_length_csv, by_length_figures
from lcbench.reporting.figures.printed import written
from lcbench.reporting.tables.by_length import Bucket, LengthBuckets
from lcbench.reporting.tables.changes import NOT_DEFINED, Change

ONE = LengthBuckets(
    group="paper",
    column="Class",
    task="Task_$a$",
    label="m_$b$",
    by="text",
    metric="accuracy",
    policies=("1", "0.9", "query=0.8,document=1"),
    buckets=(Bucket(1, 32, 1200), Bucket(33, 64, 3), Bucket(65, 99, 30), Bucket(100, None, 70)),
    scores={
        "1": (50.0, None, 20.0, 30.0),
        "0.9": (51.0, None, 19.9, 30.0),
        "query=0.8,document=1": (50.5, None, None, 33.0),
    },
    changes={
        "0.9": (
            Change(2.0, (1.5, 2.5)),
            NOT_DEFINED,
            Change(-0.5, (-0.75, 0.25)),
            Change(0.0),
        ),
        "query=0.8,document=1": (
            Change(1.0, (0.5, 1.5)),
            NOT_DEFINED,
            NOT_DEFINED,
            Change(10.0, (9.0, 9.9)),
        ),
    },
)

ALL = {ONE.label: ONE.policies}


def test_scores_are_lines_over_the_buckets_with_their_numbers_of_items() -> None:
    (figure,) = by_length_figures([ONE], ALL)
    left, right = figure.axes
    baseline, ours, by_role = left.get_lines()
    nan = np.nan
    np.testing.assert_array_equal(baseline.get_ydata(), [50.0, nan, 20.0, 30.0])
    np.testing.assert_array_equal(ours.get_ydata(), [51.0, nan, 19.9, 30.0])
    np.testing.assert_array_equal(by_role.get_ydata(), [50.5, nan, nan, 33.0])
    assert [list(line.get_xdata()) for line in left.get_lines()] == [[0, 1, 2, 3]] * 3
    for axes in (left, right):
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["≤ 32\n1,200", "33–64\n3", "65–99\n30", "≥ 100\n70"]
        assert axes.get_xlabel() == "tokens of the text, and number of items"
        assert not axes.title.get_parse_math()
    assert (left.get_title(), right.get_title()) == ("Task_$a$", "m_$b$")
    assert left.get_ylabel() == "accuracy × 100"
    assert right.get_ylabel() == "relative improvement (%)"


def test_intervals_are_bars_and_points_hollow_where_they_contain_zero() -> None:
    (figure,) = by_length_figures([ONE], ALL)
    *drawn, zero = figure.axes[1].get_lines()
    assert list(zero.get_ydata()) == [0, 0]
    bars = [
        (segment[0][0], tuple(segment[:, 1]))
        for collection in figure.axes[1].collections
        for segment in collection.get_segments()
    ]
    assert [ends for _, ends in bars] == [(1.5, 2.5), (-0.75, 0.25), (0.5, 1.5), (9.0, 9.9)]
    points = [
        (
            *point,
            line.get_marker(),
            to_hex(line.get_markerfacecolor()) == "#ffffff",
        )
        for line in drawn
        for point in line.get_xydata().tolist()
    ]
    own = figure.axes[0].get_lines()[1].get_marker()
    other = figure.axes[0].get_lines()[2].get_marker()
    # Those of a policy by what is known of them.
    assert [look for _, *look in points] == [
        [2.0, own, False],
        [-0.5, own, True],
        [0.0, "x", False],
        [1.0, other, False],
        [10.0, other, False],
    ]
    # Side by side within their bucket, each bar at its point.
    places = [place for place, *_ in points]
    assert [round(place) for place in places] == [0, 2, 3, 0, 3]
    assert len(set(places)) == 5
    assert {place for place, _ in bars} <= set(places)


def test_lines_differ_without_colour_and_the_legend_is_text() -> None:
    (figure,) = by_length_figures([ONE], ALL)
    baseline, ours, by_role = figure.axes[0].get_lines()
    assert to_hex(baseline.get_color()) == "#000000"
    assert baseline.get_linewidth() > 2 * ours.get_linewidth()
    assert len({line.get_marker() for line in (baseline, ours, by_role)}) == 3
    assert ours.get_linestyle() != by_role.get_linestyle()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "τ = 1",
        "τ = 0.9",
        "τ = query=0.8,document=1",
        "significant",
        "not significant",
        "interval unknown",
    ]
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert all(not axes.get_tightbbox().overlaps(box) for axes in figure.axes)


def test_only_the_policies_that_are_asked_for() -> None:
    (figure,) = by_length_figures([ONE], {"m_$b$": ["0.9"]})
    assert len(figure.axes[0].get_lines()) == 2
    said = [text.get_text() for text in figure.legends[0].get_texts()][:2]
    assert said == ["τ = 1", "τ = 0.9"]


def test_a_fall_by_much_leaves_small_gains_visible_and_bars_within_the_panel() -> None:
    first, *others = ONE.changes["0.9"]
    changes = {**ONE.changes, "0.9": (replace(first, ends=(-90.0, 60.0)), *others)}
    (figure,) = by_length_figures([replace(ONE, changes=changes)], ALL)
    right = figure.axes[1]
    assert right.get_yscale() == "symlog"
    assert "logarithmic beyond ± 1" in right.get_ylabel()
    figure.canvas.draw()
    ticks = [tick for tick in right.get_yticks() if -90 <= tick <= 60]
    assert ticks == [-30, -10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30]
    low, high = (
        right.transAxes.inverted().transform(right.transData.transform((0, y)))[1]
        for y in (-90.0, 60.0)
    )
    # The margins are a twentieth of what is drawn, on this scale.
    assert low == pytest.approx(0.05 / 1.1, abs=0.01)
    assert high == pytest.approx(1 - 0.05 / 1.1, abs=0.01)


def test_six_rows_a_page_of_what_tells_lengths_apart(tmp_path: Path) -> None:
    alone = replace(ONE, scores={**ONE.scores, "1": (50.0, None, None, None)})
    assert written(partial(by_length_figures, [alone], ALL), tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []
    many = [alone, *(replace(ONE, task=f"Task {number}") for number in range(7))]
    pages = by_length_figures(many, ALL)
    titles = [[axes.get_title() for axes in page.axes[::2]] for page in pages]
    assert titles == [["Task 0", "Task 1", "Task 2"], [f"Task {n}" for n in (3, 4, 5, 6)]]


def test_files_are_reproducible(tmp_path: Path) -> None:
    first = written(partial(by_length_figures, [ONE], ALL), tmp_path / "a" / "by-length")
    assert [path.name for path in first] == ["by-length.png", "by-length.svg"]
    second = written(partial(by_length_figures, [ONE], ALL), tmp_path / "b")
    assert [path.read_bytes() for path in second] == [path.read_bytes() for path in first]


def test_csv_has_every_bucket_and_policy() -> None:
    rows = list(csv.DictReader(io.StringIO(by_length_csv([ONE]))))
    assert len(rows) == 4 * 3
    assert rows[1] == {
        "group": "paper",
        "column": "Class",
        "task": "Task_$a$",
        "model": "m_$b$",
        "by": "text",
        "metric": "accuracy",
        "low": "1",
        "high": "32",
        "items": "1200",
        "policy": "0.9",
        "score": "51.0",
        "improvement": "2.0",
        "interval_low": "1.5",
        "interval_high": "2.5",
    }
    of_baseline = rows[9]
    assert (of_baseline["low"], of_baseline["high"], of_baseline["policy"]) == ("100", "", "1")
    assert (of_baseline["score"], of_baseline["improvement"]) == ("30.0", "")
    assert [row["score"] for row in rows[3:6]] == ["", "", ""]
