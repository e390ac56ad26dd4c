"""How much each column gains or loses as τ changes: a line a column, a panel a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lcbench.reporting.figures.drawing import (
    COLOURS,
    DASHES,
    MARKERS,
    Certainty,
    certainty,
    certainty_handles,
    csv_text,
    improvement_axis,
    is_linear,
    mark,
    new_figure,
    written,
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
_LEGEND_INCHES = 1.6
# With the words on filled and hollow points.
_WIDE_LEGEND_INCHES = 2.6
_MOST_TICKS = 10


@dataclass(frozen=True)
class Series:
    """A line of a panel: a column's relative improvement in % at each τ, NaN for a hole.

    `intervals` are those of 95 %, one a τ; None where it is unknown. Empty: none was asked for.
    """

    column: str
    temperatures: tuple[float, ...]
    improvements: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...] = ()

    @property
    def known(self) -> tuple[float, ...]:
        """The improvements that are no holes."""
        return tuple(value for value in self.improvements if not math.isnan(value))

    @property
    def certain(self) -> tuple[Certainty | None, ...]:
        """What is known of each point; None where it is a hole or τ = 1, which is no change."""
        points = zip(self.temperatures, self.improvements, self.intervals, strict=True)
        return tuple(
            None if tau == 1 or math.isnan(value) else certainty(ends)
            for tau, value, ends in points
        )


def improvement_series(
    block: Block, statistics: TableStatistics | None = None
) -> tuple[Series, ...]:
    """A model's lines over its constant policies, from large τ to small, with 0 at τ = 1.

    Columns that are holes at every τ but 1 have no line.
    """
    constants = [
        (tau, policy) for policy in block.policies if (tau := temperature(policy)) is not None
    ]
    series = []
    for column in block.scores[BASELINE]:
        improvements = [
            0.0 if policy == BASELINE else block.improvements[policy][column]
            for _, policy in constants
        ]
        intervals: list[tuple[float, float] | None] = []
        if statistics is not None:
            means = (statistics.means.get((block.label, policy, column)) for _, policy in constants)
            intervals = [None if one is None else (one.low, one.high) for one in means]
        line = Series(
            column,
            tuple(tau for tau, _ in constants),
            tuple(math.nan if value is None else value for value in improvements),
            tuple(intervals),
        )
        if len(line.known) > 1:
            series.append(line)
    return tuple(series)


def improvement_figure(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics] | None = None
) -> Figure | None:
    """The relative improvement (%) over τ, one panel a model and table; `None` if none has any.

    With statistics, one a table, points that are significant are filled, the others hollow.
    """
    panels = _panels(tables, statistics)
    if not panels:
        return None
    across = min(len(panels), _PANELS_PER_ROW)
    down = math.ceil(len(panels) / across)
    width, height = _PANEL_INCHES
    legend = _LEGEND_INCHES if statistics is None else _WIDE_LEGEND_INCHES
    figure = new_figure(across * width + legend, down * height)
    drawn = {line.column for _, _, series in panels for line in series}
    columns = [
        *(name for name in COLUMN_ORDER if name in drawn),
        *sorted(drawn - {*COLUMN_ORDER, AVERAGE}),
        *(name for name in [AVERAGE] if name in drawn),
    ]
    linear = is_linear(value for *_, series in panels for line in series for value in line.known)
    for place, (table, block, series) in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, place)
        for line in series:
            _draw(axes, line, _style(line.column, columns))
        # Names are text: a dollar sign in one must not start a formula.
        axes.set_title(
            f"{block.label}\n{group_heading(table.group)}", fontsize="medium", parse_math=False
        )
        _finish(axes, series, linear)
    handles = [Line2D([], [], **_style(column, columns)) for column in columns]
    marks = certainty_handles(
        known
        for *_, series in panels
        for line in series
        if line.intervals
        for known in line.certain
        if known is not None
    )
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
    return figure


def plot_improvement(
    tables: Sequence[ScoreTable], stem: Path, statistics: Sequence[TableStatistics] | None = None
) -> list[Path]:
    """Write `improvement_figure` to `<stem>.png` and `<stem>.svg` and return the two paths.

    The same tables give the same bytes. Returns `[]`, and writes nothing, where there is nothing
    to plot (baselines only, holes only).
    """

    def draw() -> list[Figure]:
        figure = improvement_figure(tables, statistics)
        return [] if figure is None else [figure]

    return written(draw, stem)


def improvement_csv(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics] | None = None
) -> str:
    """The points of `improvement_figure`, one a row, in full precision."""
    return csv_text(
        ("group", "model", "column", "tau", "improvement", "low", "high"),
        (
            (table.group, block.label, line.column, tau, value, *(ends or (None, None)))
            for table, block, series in _panels(tables, statistics)
            for line in series
            for tau, value, ends in zip(
                line.temperatures,
                line.improvements,
                line.intervals or (None,) * len(line.temperatures),
                strict=True,
            )
        ),
    )


def _panels(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics] | None
) -> list[tuple[ScoreTable, Block, tuple[Series, ...]]]:
    of_tables = [None] * len(tables) if statistics is None else statistics
    return [
        (table, block, series)
        for table, of_table in zip(tables, of_tables, strict=True)
        for block in table.blocks
        if (series := improvement_series(block, of_table))
    ]


def _draw(axes: Axes, line: Series, style: dict[str, Any]) -> None:
    if not line.intervals:
        axes.plot(line.temperatures, line.improvements, **style)
        return
    axes.plot(line.temperatures, line.improvements, **{**style, "marker": ""})
    for known in ("sure", "unsure", "unknown"):
        places = [place for place, one in enumerate(line.certain) if one == known]
        if places:
            axes.plot(
                [line.temperatures[place] for place in places],
                [line.improvements[place] for place in places],
                **mark(known, style["color"], style["marker"]),
                markersize=style["markersize"],
                # Above all lines: the filling must not be crossed by another column's.
                zorder=style["zorder"] + 2,
            )


def _style(column: str, columns: Sequence[str]) -> dict[str, Any]:
    """A column's look, the same in all panels; `Avg` is thick, black and below the others."""
    if column == AVERAGE:
        return {"color": "black", "linewidth": 3.2, "marker": "o", "markersize": 7, "zorder": 2}
    place = columns.index(column)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
        "linewidth": 1.2,
        "markersize": 5,
        "zorder": 3,
    }


def _finish(axes: Axes, series: Sequence[Series], linear: bool) -> None:
    """Axes, zero line and labels of a panel."""
    label = improvement_axis(axes, "y", linear)
    temperatures = series[0].temperatures
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    if len(temperatures) <= _MOST_TICKS:
        axes.set_xticks(temperatures, [f"{tau:g}" for tau in temperatures])
    axes.invert_xaxis()
    axes.set_xlabel("temperature τ")
    axes.set_ylabel(label)
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.set_axisbelow(True)
