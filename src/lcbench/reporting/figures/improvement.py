"""How much each column gains or loses as τ changes: a line for each column of a model."""

import math
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lcbench.reporting.figures.panels import Certainty, Curves, Point, Series, certainty, is_linear
from lcbench.reporting.figures.printed import (
    csv_text,
    draw_curves,
    legend_marks,
    new_figure,
    style,
)
from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    COLUMN_ORDER,
    Block,
    ScoreTable,
    temperature,
)
from lcbench.reporting.statistics import TableStatistics
from lcbench.reporting.text import group_heading

_PANELS_PER_ROW = 3
_PANEL_INCHES = (4.0, 3.2)
_LEGEND_INCHES = 2.6
_MOST_TICKS = 10
# Distance of neighbouring intervals at one τ, as a share of the axis.
_SIDE_BY_SIDE = 0.004


def improvement_series(block: Block, statistics: TableStatistics) -> tuple[Series, ...]:
    """Return a line per column: its relative improvement in % at each constant τ, 0 at τ = 1.

    Columns that are missing at every τ but 1 have no line.

    Args:
        block: block of the model.
        statistics: statistics of its table.
    """
    constants = [
        (tau, policy) for policy in block.policies if (tau := temperature(policy)) is not None
    ]
    series = []
    for column in block.scores[BASELINE]:
        points = []
        for tau, policy in constants:
            value = 0.0 if policy == BASELINE else block.improvements[policy][column]
            found = statistics.means.get((block.label, policy, column))
            ends = None if found is None else (found.low, found.high)
            known = None if value is None or policy == BASELINE else certainty(ends)
            points.append(Point(f"τ = {tau:g}", value, ends, known))
        if sum(point.value is not None for point in points) > 1:
            taus = tuple(tau for tau, _ in constants)
            series.append(Series(column, taus, tuple(points), None, block.label))
    return tuple(series)


def by_model(
    table: ScoreTable, block: Block, statistics: TableStatistics, columns: Sequence[str]
) -> Curves | None:
    """Return the panel of a model, a line for each column; None: there is nothing to plot.

    Args:
        table: table of the model.
        block: block of the model.
        statistics: statistics of the table.
        columns: names of all columns drawn, in the order of their styles.
    """
    # A column has the same style in all panels.
    lines = [
        replace(one, order=None if one.name == AVERAGE else columns.index(one.name))
        for one in improvement_series(block, statistics)
    ]
    return _panel(f"{block.label}\n{group_heading(table.group)}", lines)


def by_column(table: ScoreTable, column: str, statistics: TableStatistics) -> Curves | None:
    """Return the panel of a column, a line for each model; None: there is nothing to plot."""
    lines = [
        replace(one, name=block.label, of=column, order=order)
        for order, block in enumerate(table.blocks)
        for one in improvement_series(block, statistics)
        if one.name == column
    ]
    return _panel(f"{column}\n{group_heading(table.group)}", lines)


def drawn_columns(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]) -> list[str]:
    """Return the names of the columns that have a line in any panel, in the order of the legend."""
    drawn = {line.name for _, _, series in _panels(tables, statistics) for line in series}
    return [
        *(name for name in COLUMN_ORDER if name in drawn),
        *sorted(drawn - {*COLUMN_ORDER, AVERAGE}),
        *(name for name in [AVERAGE] if name in drawn),
    ]


def improvement_figures(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]
) -> list[Figure]:
    """Draw the relative improvement (%) over τ, one panel for each model and table.

    Significant points are filled, others hollow; a cross has no interval.

    Returns:
        One figure; none where there is nothing to plot (baselines only, missing values only).
    """
    columns = drawn_columns(tables, statistics)
    drawn = [
        panel
        for table, of_table in zip(tables, statistics, strict=True)
        for block in table.blocks
        if (panel := by_model(table, block, of_table, columns)) is not None
    ]
    if not drawn:
        return []
    across = min(len(drawn), _PANELS_PER_ROW)
    down = math.ceil(len(drawn) / across)
    width, height = _PANEL_INCHES
    figure = new_figure(across * width + _LEGEND_INCHES, down * height, "constrained")
    # Intervals are not drawn here.
    linear = is_linear(
        point.value
        for panel in drawn
        for line in panel.series
        for point in line.points
        if point.value is not None
    )
    known: set[Certainty] = set()
    for place, panel in enumerate(drawn, start=1):
        axes = figure.add_subplot(down, across, place)
        known |= draw_curves(axes, panel, linear, has_bars=False)
        # Names are text: a dollar sign in one must not start a formula.
        axes.set_title(panel.title, fontsize="medium", parse_math=False)
    orders = {name: None if name == AVERAGE else place for place, name in enumerate(columns)}
    handles = [Line2D([], [], **style(order)) for order in orders.values()]
    marks = legend_marks(known)
    figure.legend(
        [*handles, *marks],
        [
            *(column.replace("$", r"\$") for column in columns),
            *(str(one.get_label()).replace("interval ", "interval\n") for one in marks),
        ],
        loc="outside right upper",
        # Long enough for the dashes to be told apart.
        handlelength=4,
    )
    return [figure]


def improvement_csv(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]) -> str:
    """Return the points of `improvement_figures` in full precision, one for each row."""
    return csv_text(
        ("group", "model", "column", "tau", "improvement", "low", "high"),
        (
            (table.group, block.label, line.name, tau, point.value, *(point.ends or (None, None)))
            for table, block, series in _panels(tables, statistics)
            for line in series
            for tau, point in zip(line.at, line.points, strict=True)
        ),
    )


def _panels(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]
) -> list[tuple[ScoreTable, Block, tuple[Series, ...]]]:
    return [
        (table, block, series)
        for table, of_table in zip(tables, statistics, strict=True)
        for block in table.blocks
        if (series := improvement_series(block, of_table))
    ]


def _panel(title: str, lines: Sequence[Series]) -> Curves | None:
    if not lines:
        return None
    every = sorted({tau for line in lines for tau in line.at}, reverse=True)
    return Curves(
        title,
        tuple(lines),
        "temperature τ",
        tuple((tau, f"{tau:g}") for tau in every) if len(every) <= _MOST_TICKS else (),
        # The axis is reversed, so the first series is on the right.
        aside=_SIDE_BY_SIDE * len(lines) * (every[-1] - every[0]),
        is_reversed=True,
    )
