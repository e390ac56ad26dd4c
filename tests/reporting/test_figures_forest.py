"""`lcbench.reporting.figures.forest`: lines, bars and marks are the table's and the statistics'."""

import csv
import io
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from lcbench.reporting.figures.forest import Line, forest_csv, forest_figures, forest_lines
from lcbench.reporting.figures.printed import written
from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.table1 import build_tables

# By model and policy: of two tasks of the column STS and one of Class.
SCORES = {
    "one_$x$": {"1": (0.5, 0.4, 0.8), "0.9": (0.51, 0.4, 0.8), "0.5": (0.4, 0.4, 0.7)},
    "two": {"1": (0.4, 0.4, 0.7), "0.8": (0.42, 0.38, None)},
    "raw": {"1": (0.4, 0.4, 0.7)},
}
STATISTICS = TableStatistics(
    cells={
        ("one_$x$", "0.9", "A_$s$"): Uncertainty(0.5, 3.5),
        ("one_$x$", "0.9", "B"): Uncertainty(-1.0, 1.5),
        ("one_$x$", "0.5", "C"): Uncertainty(-30.0, -20.0),
    },
    means={
        ("one_$x$", "0.9", "STS"): Uncertainty(0.25, 2.0),
        ("one_$x$", "0.9", "Avg"): Uncertainty(-0.5, 1.0),
    },
    average={},
)


def tables_of(scores: dict[str, dict[str, tuple[float | None, ...]]]) -> list[ScoreTable]:
    return build_tables(
        pd.DataFrame(
            [
                {
                    "group": "paper",
                    "window": 512,
                    "model": f"org/{model}",
                    "revision": "0123456789",
                    "policy": policy,
                    "task": task,
                    "column": column,
                    "split": "test",
                    "subset": "default",
                    "score": score,
                    "conditions": {},
                }
                for model, policies in scores.items()
                for policy, values in policies.items()
                for (task, column), score in zip(
                    (("A_$s$", "STS"), ("B", "STS"), ("C", "Class")), values, strict=True
                )
                if score is not None
            ]
        )
    )


@pytest.fixture
def tables() -> list[ScoreTable]:
    return tables_of(SCORES)


def test_lines_are_tasks_then_their_mean_and_avg_last(tables: list[ScoreTable]) -> None:
    one, two, raw = tables[0].blocks
    average = pytest.approx(100 * (0.6275 - 0.625) / 0.625)
    assert forest_lines(tables[0], one, STATISTICS) == (
        # A column of one task has no mean of its own.
        Line("task", "C", pytest.approx(0.0), None),
        Line("task", "A_$s$", pytest.approx(2.0), (0.5, 3.5)),
        Line("task", "B", pytest.approx(0.0), (-1.0, 1.5)),
        Line("column", "STS", pytest.approx(100 * 0.005 / 0.45), (0.25, 2.0)),
        Line("average", "Avg", average, (-0.5, 1.0)),
    )
    assert [line.improvement for line in forest_lines(tables[0], two, STATISTICS)] == [
        None,
        pytest.approx(5.0),
        pytest.approx(-5.0),
        pytest.approx(0.0),
        None,
    ]
    assert forest_lines(tables[0], raw, STATISTICS) == ()


def looks(lines: list[Line2D]) -> list[tuple[float, float, str, bool]]:
    return [
        (
            line.get_xdata()[0],
            line.get_ydata()[0],
            line.get_marker(),
            to_hex(line.get_markerfacecolor()) == "#ffffff",
        )
        for line in lines
    ]


def test_one_panel_a_model_with_bars_and_hollow_points(tables: list[ScoreTable]) -> None:
    (figure,) = forest_figures(tables, [STATISTICS])
    one, two = figure.axes
    assert (one.get_title(), two.get_title()) == ("one_$x$\nτ = 0.9", "two\nτ = 0.8")
    assert not one.title.get_parse_math()
    names = [label.get_text() for label in one.get_yticklabels()]
    assert names == ["C", "A_$s$", "B", "STS (mean)", "Avg"]
    assert not any(label.get_parse_math() for label in one.get_yticklabels())
    *drawn, zero = one.get_lines()
    assert list(zero.get_xdata()) == [0, 0]
    bars = {
        line.get_ydata()[0]: tuple(line.get_xdata()) for line in drawn if len(line.get_xdata()) == 2
    }
    assert bars == {1: (0.5, 3.5), 2: (-1.0, 1.5), 3: (0.25, 2.0), 4: (-0.5, 1.0)}
    assert looks([line for line in drawn if len(line.get_xdata()) == 1]) == [
        (pytest.approx(0.0), 0, "x", False),
        (pytest.approx(2.0), 1, "o", False),
        (pytest.approx(0.0), 2, "o", True),
        (pytest.approx(100 * 0.005 / 0.45), 3, "D", False),
        (pytest.approx(0.4), 4, "s", True),
    ]
    # From the top down, and on the same axes.
    assert one.get_ylim() == two.get_ylim() == (4.5, -0.5)
    assert one.get_xlim() == two.get_xlim()
    assert one.get_xscale() == "linear"
    # Holes are drawn nowhere; what is unknown of "two" are its intervals.
    assert [look[:3] for look in looks(two.get_lines()[:-1])] == [
        (pytest.approx(5.0), 1, "x"),
        (pytest.approx(-5.0), 2, "x"),
        (pytest.approx(0.0), 3, "x"),
    ]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [
        "significant",
        "not significant",
        "interval unknown",
    ]


def test_nothing_overlaps(tables: list[ScoreTable]) -> None:
    (figure,) = forest_figures(tables, [STATISTICS])
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert all(not axes.get_tightbbox().overlaps(legend) for axes in figure.axes)
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(a.overlaps(b) for a in labels for b in labels if a is not b)
    assert min(box.x0 for box in labels) >= 0


def test_a_fall_by_much_leaves_small_gains_visible() -> None:
    (figure,) = forest_figures(
        tables_of({"m": {"1": (0.5, 0.5, 0.5), "0.5": (0.1, 0.505, 0.5)}}), [STATISTICS]
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == "symlog"
    low, zero, gain = axes.transData.transform([(-80, 0), (0, 0), (1, 0)])[:, 0]
    assert gain - zero > 0.2 * (zero - low)


def test_four_models_a_page(tmp_path: Path) -> None:
    tables = tables_of({f"m{number}": SCORES["one_$x$"] for number in range(5)})
    pages = forest_figures(tables, [STATISTICS])
    assert [[axes.get_title() for axes in page.axes] for page in pages] == [
        ["m0\nτ = 0.9", "m1\nτ = 0.9"],
        [f"m{number}\nτ = 0.9" for number in (2, 3, 4)],
    ]
    paths = written(partial(forest_figures, tables, [STATISTICS]), tmp_path / "forest")
    names = ["forest.png", "forest.svg", "forest-2.png", "forest-2.svg"]
    assert [path.name for path in paths] == names
    again = written(partial(forest_figures, tables, [STATISTICS]), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_nothing_to_plot(tmp_path: Path) -> None:
    tables = tables_of({"raw": SCORES["raw"]})
    assert written(partial(forest_figures, tables, [STATISTICS]), tmp_path / "none") == []
    assert written(partial(forest_figures, [], []), tmp_path / "none") == []
    assert list(tmp_path.iterdir()) == []


def test_csv_has_every_line(tables: list[ScoreTable]) -> None:
    rows = list(csv.DictReader(io.StringIO(forest_csv(tables, [STATISTICS]))))
    assert len(rows) == 10
    assert rows[3] == {
        "group": "paper",
        "model": "one_$x$",
        "policy": "0.9",
        "kind": "column",
        "name": "STS",
        "improvement": rows[3]["improvement"],
        "low": "0.25",
        "high": "2.0",
    }
    assert float(rows[3]["improvement"]) == pytest.approx(100 * 0.005 / 0.45, rel=1e-12)
    assert (rows[5]["name"], rows[5]["improvement"], rows[5]["low"]) == ("C", "", "")
