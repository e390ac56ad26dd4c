"""`lcbench.reporting.figures`: the plotted data are the table's, and the files are reproducible."""

import csv
import io
import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lcbench.reporting.figures.improvement import (
    improvement_csv,
    improvement_figures,
    improvement_series,
)
from lcbench.reporting.figures.panels import Series
from lcbench.reporting.figures.printed import written
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import NOTHING, TableStatistics, Uncertainty
from lcbench.reporting.table1 import build_tables

SCORES = {
    "one_$x$": {
        "1": (0.5, 0.8),
        "0.9": (0.51, 0.8),
        "0.5": (0.48, None),
        "1.2": (0.49, 0.79),
        "query=0.8,document=1": (0.6, 0.9),
    },
    "two": {"1": (0.4, 0.7), "0.8": (0.42, 0.69)},
    "raw": {"1": (0.4, 0.7)},
}


def tables_of(scores: dict[str, dict[str, tuple[float | None, float | None]]]) -> list[ScoreTable]:
    """Tables of scores by model and policy, over the columns Class and STS."""
    return build_tables(
        pd.DataFrame(
            [
                {
                    "group": "paper, window 512",
                    "window": 512,
                    "model": f"org/{model}",
                    "revision": "0123456789",
                    "policy": policy,
                    "task": f"{column}Task",
                    "column": column,
                    "split": "test",
                    "subset": "default",
                    "score": score,
                    "conditions": {},
                }
                for model, policies in scores.items()
                for policy, values in policies.items()
                for column, score in zip(("Class", "STS"), values, strict=True)
                if score is not None
            ]
        )
    )


@pytest.fixture
def tables() -> list[ScoreTable]:
    return tables_of(SCORES)


def values(line: Series) -> tuple[float | None, ...]:
    return tuple(point.value for point in line.points)


def test_series_are_the_tables_improvements(tables: list[ScoreTable]) -> None:
    one, two, raw = tables[0].blocks
    classes, sts, average = improvement_series(one, NOTHING)
    assert [line.name for line in (classes, sts, average)] == ["Class", "STS", "Avg"]
    assert all(line.at == (1.2, 1.0, 0.9, 0.5) for line in (classes, sts, average))
    assert values(classes) == pytest.approx((-2.0, 0.0, 2.0, -4.0))
    assert values(sts) == (pytest.approx(-1.25), 0.0, pytest.approx(0.0), None)
    expected = (100 * (0.64 - 0.65) / 0.65, 0.0, 100 * (0.655 - 0.65) / 0.65)
    assert values(average) == (*(pytest.approx(value) for value in expected), None)
    assert [line.at for line in improvement_series(two, NOTHING)] == [(1.0, 0.8)] * 3
    assert improvement_series(raw, NOTHING) == ()


def test_figure_has_one_panel_a_model_and_draws_the_series(tables: list[ScoreTable]) -> None:
    (figure,) = improvement_figures(tables, [NOTHING])
    assert [axes.get_title() for axes in figure.axes] == [
        "one_$x$\nprotocol paper, window 512",
        "two\nprotocol paper, window 512",
    ]
    for axes, block in zip(figure.axes, tables[0].blocks, strict=False):
        series = improvement_series(block, NOTHING)
        # After a line come the marks of its points, whose intervals are unknown.
        *lines, zero = axes.get_lines()
        drawn = [line for line in lines if line.get_linestyle() != "None"]
        assert len(drawn) == len(series) == 3
        for line, expected in zip(drawn, series, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), expected.at)
            np.testing.assert_array_equal(line.get_ydata(), np.array(values(expected), dtype=float))
        assert list(zero.get_ydata()) == [0, 0]
        assert axes.xaxis_inverted()
        assert axes.get_xlabel() == "temperature τ"
        assert axes.get_ylabel() == "relative improvement (%)"
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["1.2", "1", "0.9", "0.5"]


def test_points_are_filled_where_the_interval_excludes_zero(tables: list[ScoreTable]) -> None:
    means = {
        ("one_$x$", "0.9", "Class"): Uncertainty(0.5, 3.5),
        ("one_$x$", "0.5", "Class"): Uncertainty(-9.0, 0.5),
        ("one_$x$", "0.9", "STS"): Uncertainty(-1.0, 1.0),
        ("one_$x$", "1.2", "STS"): Uncertainty(-2.0, -0.5),
    }
    statistics = [TableStatistics({}, means, {})]
    series = improvement_series(tables[0].blocks[0], statistics[0])
    assert [tuple(point.ends for point in line.points) for line in series] == [
        (None, None, (0.5, 3.5), (-9.0, 0.5)),
        ((-2.0, -0.5), None, (-1.0, 1.0), None),
        (None,) * 4,
    ]
    # Neither τ = 1 nor a missing value is sure or unsure of anything.
    assert [tuple(point.known for point in line.points) for line in series] == [
        ("unknown", None, "sure", "unsure"),
        ("sure", None, "unsure", None),
        ("unknown", None, "unknown", None),
    ]
    (figure,) = improvement_figures(tables, statistics)
    line, sure, unsure, unknown = figure.axes[0].get_lines()[:4]
    np.testing.assert_array_equal(line.get_xdata(), (1.2, 1.0, 0.9, 0.5))
    assert line.get_marker() == ""
    assert sure.get_xydata().tolist() == [[0.9, pytest.approx(2.0)]]
    assert to_hex(sure.get_markerfacecolor()) == to_hex(line.get_color())
    assert unsure.get_xydata().tolist() == [[0.5, pytest.approx(-4.0)]]
    assert to_hex(unsure.get_markerfacecolor()) == "#ffffff"
    assert to_hex(unsure.get_markeredgecolor()) == to_hex(line.get_color())
    assert unknown.get_xydata().tolist() == [[1.2, pytest.approx(-2.0)]]
    assert (sure.get_marker(), unsure.get_marker(), unknown.get_marker()) == ("o", "o", "x")
    (legend,) = figure.legends
    said = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
    assert said[3:] == [
        "significant",
        "not significant",
        "interval unknown",
    ]


def test_csv_has_every_point_in_full(tables: list[ScoreTable]) -> None:
    means = {("two", "0.8", "Avg"): Uncertainty(0.25, 1.5)}
    rows = list(csv.DictReader(io.StringIO(improvement_csv(tables, [NOTHING]))))
    assert len(rows) == 3 * 4 + 3 * 2
    assert rows[0] == {
        "group": "paper, window 512",
        "model": "one_$x$",
        "column": "Class",
        "tau": "1.2",
        "improvement": repr(100 * (49.0 - 50.0) / 50.0),
        "low": "",
        "high": "",
    }
    # A missing value.
    assert [row["improvement"] for row in rows if row["tau"] == "0.5"][1] == ""
    text = improvement_csv(tables, [TableStatistics({}, means, {})])
    last = list(csv.DictReader(io.StringIO(text)))[-1]
    assert (last["column"], last["tau"], last["low"], last["high"]) == ("Avg", "0.8", "0.25", "1.5")


def test_lines_differ_without_colour_and_avg_is_thick_and_black(tables: list[ScoreTable]) -> None:
    (figure,) = improvement_figures(tables, [NOTHING])
    lines, others = (
        [line for line in axes.get_lines()[:-1] if line.get_linestyle() != "None"]
        for axes in figure.axes
    )
    *columns, average = lines
    assert to_hex(average.get_color()) == "#000000"
    assert average.get_linewidth() > 2 * max(line.get_linewidth() for line in columns)
    assert len({line.get_linestyle() for line in columns}) == 2
    # A column looks the same in every panel.
    assert [line.get_color() for line in others[:2]] == [line.get_color() for line in columns]


def test_markers_differ_without_colour(tables: list[ScoreTable]) -> None:
    means = {("one_$x$", "0.9", column): Uncertainty(0.1, 3.5) for column in ("Class", "STS")}
    (figure,) = improvement_figures(tables, [TableStatistics({}, means, {})])
    markers = [line.get_marker() for line in figure.axes[0].get_lines()]
    assert len(set(markers) - {"", "x", "None"}) == 2


def test_the_legend_covers_no_panel(tables: list[ScoreTable]) -> None:
    (figure,) = improvement_figures(tables, [NOTHING])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("Class", "STS", "Avg"),
        "interval\nunknown",
    ]
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert all(not axes.get_window_extent().overlaps(box) for axes in figure.axes)


def test_a_fall_by_much_leaves_small_gains_visible() -> None:
    (figure,) = improvement_figures(
        tables_of({"m": {"1": (0.5, 0.5), "0.9": (0.505, 0.5), "0.1": (0.2, 0.2)}}), [NOTHING]
    )
    (axes,) = figure.axes
    assert axes.get_yscale() == "symlog"
    assert "logarithmic beyond ± 1" in axes.get_ylabel()
    bottom, gain, top = axes.transData.transform([(1, -60), (1, 1), (1, 0)])[:, 1]
    assert (gain - top) > 0.2 * (top - bottom)


def test_files_are_written_and_reproducible(tables: list[ScoreTable], tmp_path: Path) -> None:
    first = written(partial(improvement_figures, tables, [NOTHING]), tmp_path / "new" / "table.v1")
    assert first == [tmp_path / "new" / "table.v1.png", tmp_path / "new" / "table.v1.svg"]
    png, svg = (path.read_bytes() for path in first)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert svg.startswith(b"<?xml")
    assert b"<dc:date>" not in svg
    assert min(len(png), len(svg)) > 5_000
    # A user's own style changes neither the files nor is it changed.
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 20, "svg.hashsalt": "other"}):
        second = written(partial(improvement_figures, tables, [NOTHING]), tmp_path / "again")
        assert matplotlib.rcParams["svg.hashsalt"] == "other"
    assert [path.read_bytes() for path in second] == [png, svg]


def test_nothing_to_plot(tmp_path: Path) -> None:
    others = {"m": {"1": (0.4, 0.7), "query=0.8,document=1": (0.5, 0.6)}}
    for tables in ([], tables_of({"raw": SCORES["raw"]}), tables_of(others)):
        statistics = [NOTHING] * len(tables)
        assert written(partial(improvement_figures, tables, statistics), tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []


def test_control_characters_in_names_leave_the_svg_well_formed(tmp_path: Path) -> None:
    name = "a\x1b[31mb\x00c\x0bd\uffffe\x9b"
    (table,) = tables_of({name: {"1": (0.5, 0.8), "0.9": (0.51, 0.8)}})
    _, svg = written(partial(improvement_figures, [table], [NOTHING]), tmp_path / "figure")
    text = svg.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\uffff]", text)
    assert "[31mb" in text
