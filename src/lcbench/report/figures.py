"""Figures of the tables: how much each column gains or loses as τ changes.

Draws on the object interface of matplotlib alone: no display, and no state that outlives a call.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lcbench.report.table1 import AVERAGE, BASELINE, COLUMN_ORDER, Block, Table, temperature

# Okabe and Ito's colours for the colour-blind, without black, which is `Avg`; the yellow, weak on
# white, comes last.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
# Ten markers and four dashes against seven colours: no two of the first 140 columns are alike, and
# no two neighbours in the legend share any of the three, so that they differ in grey as well.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES = ("-", "--", "-.", ":")

_PANELS_PER_ROW = 3
_PANEL_INCHES = (4.0, 3.2)
_LEGEND_INCHES = 1.6
_MOST_TICKS = 10

# At τ = 0.1 a score may fall by half, against which gains of one per cent are invisible on a linear
# axis: beyond this the axis is linear within ± 1 % only.
_MOST_LINEAR_PERCENT = 10.0
_LINEAR_PERCENT = 1.0


@dataclass(frozen=True)
class Series:
    """A line of a panel: a column's relative improvement in % at each τ, NaN for a hole."""

    column: str
    temperatures: tuple[float, ...]
    improvements: tuple[float, ...]

    @property
    def known(self) -> tuple[float, ...]:
        """The improvements that are no holes."""
        return tuple(value for value in self.improvements if not math.isnan(value))


def improvement_series(block: Block) -> tuple[Series, ...]:
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
        line = Series(
            column,
            tuple(tau for tau, _ in constants),
            tuple(math.nan if value is None else value for value in improvements),
        )
        if len(line.known) > 1:
            series.append(line)
    return tuple(series)


def improvement_figure(tables: Sequence[Table]) -> Figure | None:
    """The relative improvement (%) over τ, one panel a model and table; `None` if none has any."""
    panels = [
        (table, block, series)
        for table in tables
        for block in table.blocks
        if (series := improvement_series(block))
    ]
    if not panels:
        return None
    across = min(len(panels), _PANELS_PER_ROW)
    down = math.ceil(len(panels) / across)
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(across * width + _LEGEND_INCHES, down * height), layout="constrained")
    FigureCanvasAgg(figure)
    drawn = {line.column for _, _, series in panels for line in series}
    columns = [
        *(name for name in COLUMN_ORDER if name in drawn),
        *sorted(drawn - {*COLUMN_ORDER, AVERAGE}),
        *(name for name in [AVERAGE] if name in drawn),
    ]
    extremes = (abs(value) for *_, series in panels for line in series for value in line.known)
    linear = max(extremes) <= _MOST_LINEAR_PERCENT
    handles = {}
    for place, (table, block, series) in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, place)
        for line in series:
            (handles[line.column],) = axes.plot(
                line.temperatures, line.improvements, **_style(line.column, columns)
            )
        # Names are text: a dollar sign in one must not start a formula.
        axes.set_title(f"{block.label}\n{table.group}", fontsize="medium", parse_math=False)
        _finish(axes, series, linear)
    figure.legend(
        [handles[column] for column in columns],
        [column.replace("$", r"\$") for column in columns],
        loc="outside right upper",
        # Long enough for the dashes to be told apart.
        handlelength=4,
    )
    return figure


def plot_improvement(tables: Sequence[Table], stem: Path) -> list[Path]:
    """Write `improvement_figure` to `<stem>.png` and `<stem>.svg` and return the two paths.

    The same tables give the same bytes. Returns `[]`, and writes nothing, where there is nothing
    to plot (baselines only, holes only).
    """
    # A user's own style would change the picture; the context gives it back afterwards.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Otherwise the ids within an SVG are drawn at random.
        matplotlib.rcParams["svg.hashsalt"] = "lcbench"
        figure = improvement_figure(tables)
        if figure is None:
            return []
        stem.parent.mkdir(parents=True, exist_ok=True)
        png = stem.with_name(f"{stem.name}.png")
        svg = stem.with_name(f"{stem.name}.svg")
        figure.savefig(png, dpi=150, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return [png, svg]


def _style(column: str, columns: Sequence[str]) -> dict[str, Any]:
    """A column's look, the same in all panels; `Avg` is thick, black and below the others."""
    if column == AVERAGE:
        return {"color": "black", "linewidth": 3.2, "marker": "o", "markersize": 7, "zorder": 2}
    place = columns.index(column)
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": _DASHES[place % len(_DASHES)],
        "linewidth": 1.2,
        "markersize": 5,
        "zorder": 3,
    }


def _finish(axes: Axes, series: Sequence[Series], linear: bool) -> None:
    """Axes, zero line and labels of a panel."""
    label = "relative improvement (%)"
    if not linear:
        axes.set_yscale("symlog", linthresh=_LINEAR_PERCENT)
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))
        )
        label += f",\nlogarithmic beyond ± {_LINEAR_PERCENT:g}"
    temperatures = series[0].temperatures
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    if len(temperatures) <= _MOST_TICKS:
        axes.set_xticks(temperatures, [f"{tau:g}" for tau in temperatures])
    axes.invert_xaxis()
    axes.set_xlabel("temperature τ")
    axes.set_ylabel(label)
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.set_axisbelow(True)
