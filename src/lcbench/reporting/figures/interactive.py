"""Converts panels to the charts of the page, as plain values for plotly.js.

A chart has a title, pickers, and a view for each choice: a figure of plotly (`data`, `layout`) and
its numbers as a table. The page shows them and computes nothing. Colours are those of the light
theme; `DARK` maps them to the dark theme. The plotly package is not imported: its objects take
longer to build than the rest of the page. A test validates every chart with it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from lcbench.reporting.figures import by_length, forest, improvement, short_and_long
from lcbench.reporting.figures.panels import (
    COLOURS,
    DARK_COLOURS,
    GAIN,
    HEAT,
    IMPROVEMENT,
    LINEAR_PERCENT,
    LOGARITHMIC,
    LOGARITHMIC_TICKS,
    LOSS,
    NEITHER,
    WORDS,
    Certainty,
    Curves,
    Forest,
    HeatScale,
    Interval,
    Line,
    Point,
    Scatter,
    Series,
    certainty,
    is_linear,
    known_values,
)
from lcbench.reporting.score_table import AVERAGE
from lcbench.reporting.text import MISSING_VALUE, signed

if TYPE_CHECKING:
    from lcbench.reporting.findings import Findings
    from lcbench.reporting.score_table import ScoreTable
    from lcbench.reporting.statistics import TableStatistics
    from lcbench.reporting.tables.repairs import RepairComparison
    from lcbench.reporting.tables.roles import RoleGrid

_INK, _GROUND, _GRID, _RULE, _QUIET = "#1b1d21", "#ffffff", "#e8e9ec", "#c9cbd0", "#565b64"
_RAISED = "#f6f6f4"

DARK = {
    **dict(zip(COLOURS, DARK_COLOURS, strict=True)),
    **{GAIN: "#79bff0", LOSS: "#ff9e66", NEITHER: "#a3a9b4"},
    **{_INK: "#e6e7ea", _GROUND: "#14161a", _GRID: "#272b32", _RULE: "#3b4049"},
    **{_QUIET: "#a3a9b5", _RAISED: "#1d2025"},
}
"""Colours of the dark theme by those of the light theme; others are the same in both."""

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "hexagon")
_DASHES = ("solid", "dash", "dot", "dashdot")
_SHAPES = {"task": "circle", "column": "diamond", "average": "square"}
_MOST_CHARACTERS = 40

_AXIS = {
    "gridcolor": _GRID,
    "linecolor": _RULE,
    "tickcolor": _RULE,
    "zerolinecolor": _QUIET,
    "zeroline": False,
    "automargin": True,
    # Scrolling by touch must not pan a chart instead.
    "fixedrange": True,
}

TEMPLATE = {
    "layout": {
        "paper_bgcolor": _GROUND,
        "plot_bgcolor": _GROUND,
        "font": {"size": 12, "color": _INK},
        "margin": {"l": 48, "r": 16, "t": 12, "b": 40},
        "hoverlabel": {
            "bgcolor": _RAISED,
            "bordercolor": _RULE,
            "font": {"color": _INK},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "dragmode": False,
        "hovermode": "closest",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}
"""The common layout of all charts, for `layout.template`."""

Value = dict[str, Any]


class Charts:
    """The charts of a report; views are stored separately, since they are most of its size."""

    def __init__(self) -> None:
        self.views: list[Value] = []

    def add(
        self, title: str, views: Iterable[Value], pickers: Sequence[tuple[str, Sequence[Any]]] = ()
    ) -> Value:
        """Return a chart.

        Args:
            title: title of the chart.
            views: views of all choices, with the last picker's options changing fastest.
            pickers: label and options of each picker: names, or {"group": name, "options": names}.
        """
        first = len(self.views)
        self.views.extend(views)
        return {
            "title": title,
            "pickers": [{"label": label, "options": list(options)} for label, options in pickers],
            "first": first,
        }


def charts_of(findings: Findings) -> Value:
    """Return the charts of a report.

    Returns:
        tables: charts of each table; by_length: the chart of all scores by length, or None; heat: a
        chart per grid of the τ of queries and documents; note: a note on their colours; template
        and dark: `TEMPLATE` and `DARK`; views: views of all charts, where `first` is the index of a
        chart's first view.
    """
    charts = Charts()
    grids = [grid for grid in findings.role_grids if known_values(grid)]
    scale = HeatScale.of(grids)
    return {
        "tables": [
            [
                chart
                for chart in (
                    _improvement_chart(charts, found.table, found.statistics),
                    _forest_chart(charts, found.table, found.statistics),
                    _repair_chart(charts, found.table.group, findings.repairs),
                )
                if chart is not None
            ]
            for found in findings.score_tables
        ],
        "by_length": length_chart(
            charts, by_length.all_panels(findings.lengths, findings.by_length)
        ),
        "heat": [
            charts.add(f"{grid.label}: {grid.what}", [heat_view(grid, scale)]) for grid in grids
        ],
        "note": heat_note(scale),
        "template": TEMPLATE,
        "dark": DARK,
        "views": charts.views,
    }


def heat_note(scale: HeatScale) -> str:
    """Return the note on the colours of all heat maps."""
    return (
        "Relative improvement in %: blue is a gain, orange a loss, "
        f"{MISSING_VALUE} not measured. The same colour scale in all"
        + ("." if scale.linear else f", {LOGARITHMIC}.")
    )


def _improvement_chart(
    charts: Charts, table: ScoreTable, statistics: TableStatistics
) -> Value | None:
    names = [AVERAGE, *(column.name for column in table.columns)]
    columns = [
        (name, panel)
        for name in names
        if (panel := improvement.by_column(table, name, statistics)) is not None
    ]
    drawn = improvement.drawn_columns([table], [statistics])
    models = [
        (block.label, panel)
        for block in table.blocks
        if (panel := improvement.by_model(table, block, statistics, drawn)) is not None
    ]
    if not columns:
        return None
    options = [
        {"group": "By column, a line for each model", "options": [name for name, _ in columns]},
        {"group": "By model, a line for each column", "options": [name for name, _ in models]},
    ]
    return charts.add(
        "Relative improvement over τ",
        (curves_view(panel) for _, panel in [*columns, *models]),
        [("Show", options)],
    )


def _forest_chart(charts: Charts, table: ScoreTable, statistics: TableStatistics) -> Value | None:
    panels = forest.forest_panels(table, statistics)
    if not panels:
        return None
    several = len(panels) > 1
    whole = [forest.average_panel(table, statistics)] if several else []
    options = [
        *(["Avg of all models"] if several else []),
        *(panel.title.replace("\n", ", ") for panel in panels),
    ]
    return charts.add(
        f"Intervals at the best {table.words[0]}",
        (forest_view(panel) for panel in [*whole, *panels]),
        [("Show", options)],
    )


def _repair_chart(charts: Charts, group: str, compared: Sequence[RepairComparison]) -> Value | None:
    panels = short_and_long.repair_panels([one for one in compared if one.group == group])
    if not panels:
        return None
    return charts.add(
        "Gain on long texts against that on short ones",
        map(scatter_view, panels),
        [("Show", [panel.title.partition("\n")[0] for panel in panels])],
    )


def length_chart(charts: Charts, panels: Sequence[tuple[str, Curves, Curves]]) -> Value | None:
    """Return the chart of all scores by length; None: there are none.

    Args:
        charts: charts that it is added to.
        panels: name, panel of scores and panel of improvements of each view.
    """
    if not panels:
        return None
    options = [("Of", [name for name, *_ in panels]), ("Show", ["score", "improvement, %"])]
    views = chain.from_iterable(map(curves_view, both) for _, *both in panels)
    return charts.add("Scores by length", views, options)


def curves_view(panel: Curves) -> Value:
    """Return the view of a panel of series."""
    is_change = panel.across is None
    linear = not is_change or is_linear(panel.values)
    counts = panel.counts or ()
    header = ["series", "at", *(["items"] if counts else [])]
    layout: Value = {
        "height": 420,
        "xaxis": {
            "title": {"text": _text(panel.along)},
            **({"autorange": "reversed"} if panel.is_reversed else {}),
            **_ticks(panel.ticks),
        },
        "yaxis": _percent_axis(panel.values, linear)
        if is_change
        else {"title": {"text": _text(panel.across or ""), "standoff": 8}},
        "legend": {"y": -0.28 if counts else -0.2},
    }
    # All series have the same `of`.
    of = panel.series[0].of if panel.series else ""
    return {"of": of} | _view(
        [_trace(panel, number, one, linear) for number, one in enumerate(panel.series)],
        layout,
        [*header, *(["improvement", "low", "high"] if is_change else ["score"])],
        [
            [
                *(one.name, point.name),
                *([counts[place]] if counts else []),
                *([point.value, *(point.ends or (None, None))] if is_change else [point.value]),
            ]
            for one in panel.series
            for place, point in enumerate(one.points)
        ],
    )


def _trace(panel: Curves, number: int, one: Series, linear: bool) -> Value:
    thick = one.order is None
    order = one.order or 0
    colour = _INK if thick else COLOURS[order % len(COLOURS)]
    symbol = "circle" if thick else _SYMBOLS[order % len(_SYMBOLS)]
    trace: Value = {
        "type": "scatter",
        "mode": "lines+markers" if panel.is_joined else "markers",
        "name": _text(_shortened(one.name)),
        "x": list(panel.places(number)),
        "y": [_place(point.value, linear) for point in one.points],
        "marker": {
            "color": colour,
            "size": 9 if thick else 7.5,
            "symbol": [_symbol(point.known, symbol) for point in one.points],
            "line": {"width": 1.5, "color": colour},
        },
        "text": [_hover(point) for point in one.points],
        "meta": [_text(one.name), _text(one.of)],
        "hovertemplate": "<b>%{meta[0]}</b><br>%{meta[1]}, %{text}<extra></extra>",
        # Markers on the edge of the axes are shown whole.
        "cliponaxis": False,
    }
    if panel.is_joined:
        dash = "solid" if thick else _DASHES[order % len(_DASHES)]
        trace["line"] = {"color": colour, "width": 3 if thick else 1.5, "dash": dash}
    if any(point.ends for point in one.points):
        ends = [(point.value, point.ends) for point in one.points]
        trace["error_y"] = _bars(ends, linear, colour)
    return trace


def forest_view(panel: Forest) -> Value:
    """Return the view of improvements with their intervals, one per line."""
    lines = [line for line in panel.lines if line.improvement is not None]
    linear = is_linear(panel.values)
    groups = {
        f"gain, {WORDS['sure']}": GAIN,
        f"loss, {WORDS['sure']}": LOSS,
        WORDS["unsure"]: NEITHER,
        WORDS["unknown"]: NEITHER,
    }
    traces = []
    for name, colour in groups.items():
        places = [place for place, line in enumerate(lines) if _group(line) == name]
        if not places:
            continue
        own = [lines[place] for place in places]
        points = [Point(line.label, line.improvement, line.interval, line.known) for line in own]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [_place(line.improvement, linear) for line in own],
                "y": places,
                "error_x": _bars([(one.value, one.ends) for one in points], linear, colour),
                "marker": {
                    "symbol": [_symbol(line.known, _SHAPES[line.kind]) for line in own],
                    "size": 9,
                    "color": colour,
                    "line": {"width": 1.8, "color": colour},
                },
                "text": [_hover(one) for one in points],
                "customdata": [_text(line.of) for line in own],
                "hovertemplate": "<b>%{text}</b><br>%{customdata}<extra></extra>",
            }
        )
    names = [_text(_shortened(line.label)) for line in lines]
    return _view(
        traces,
        {
            "height": max(200, 24 * len(lines) + 110),
            "margin": {"l": 24, "r": 16, "t": 8, "b": 40},
            "xaxis": _percent_axis(panel.values, linear),
            "yaxis": {
                "tickvals": list(range(len(lines))),
                "ticktext": names,
                "range": [len(lines) - 0.4, -0.6],
            },
            "legend": {"y": 1.02, "yanchor": "bottom"},
        },
        ["name", "of", "improvement", "low", "high"],
        [
            [line.label, line.of, line.improvement, *(line.interval or (None, None))]
            for line in lines
        ],
    )


def scatter_view(panel: Scatter) -> Value:
    """Return the view of two improvements against each other, a point for each repair."""
    linear = is_linear(panel.values)
    traces = []
    for order, one in enumerate(panel.marks):
        colour = COLOURS[order % len(COLOURS)]
        points = [
            Point(panel.along, one.x, one.x_ends, certainty(one.x_ends)),
            Point(panel.across, one.y, one.y_ends, one.known),
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": _text(_shortened(one.name)),
                "x": [_place(one.x, linear)],
                "y": [_place(one.y, linear)],
                "error_x": _bars([(one.x, one.x_ends)], linear, colour),
                "error_y": _bars([(one.y, one.y_ends)], linear, colour),
                "marker": {
                    "symbol": [_symbol(one.known, _SYMBOLS[order % len(_SYMBOLS)])],
                    "size": 9,
                    "color": colour,
                    "line": {"width": 1.8, "color": colour},
                },
                "text": ["<br>".join(map(_hover, points))],
                "meta": [_text(one.name)],
                "hovertemplate": "<b>%{meta[0]}</b><br>%{text}<extra></extra>",
            }
        )
    axes = {
        key: {
            **(axis := _percent_axis(panel.values, linear)),
            "title": {**axis["title"], "text": f"{what}: {axis['title']['text']}"},
        }
        for key, what in (("xaxis", panel.along), ("yaxis", panel.across))
    }
    return _view(
        traces,
        {"height": 460 + 12 * len(panel.marks), **axes, "legend": {"y": -0.22}},
        ["repair", "short", "short low", "short high", "long", "low", "high"],
        [
            [one.name, one.x, *(one.x_ends or (None, None)), one.y, *(one.y_ends or (None, None))]
            for one in panel.marks
        ],
    )


def _group(line: Line) -> str:
    if line.known != "sure":
        return WORDS[line.known]
    return f"{'gain' if (line.improvement or 0) > 0 else 'loss'}, {WORDS['sure']}"


def heat_view(grid: RoleGrid, scale: HeatScale) -> Value:
    """Return the view of a heat map of improvements, on the scale of all of them."""
    queries, documents = grid.query_temperatures, grid.document_temperatures
    most = _place(scale.most, scale.linear)
    ticks = _percent_ticks(scale.most) if not scale.linear else {"ticksuffix": " %"}
    return _view(
        [
            {
                "type": "heatmap",
                # As categories, so that all squares have the same size.
                "x": [f"{tau:g}" for tau in documents],
                "y": [f"{tau:g}" for tau in queries],
                "z": [[_place(value, scale.linear) for value in row] for row in grid.values],
                "text": [
                    [MISSING_VALUE if value is None else signed(value) for value in row]
                    for row in grid.values
                ],
                "texttemplate": "%{text}",
                "hovertemplate": (
                    "τ of queries %{y}<br>τ of documents %{x}<br>%{text} %<extra></extra>"
                ),
                "colorscale": [
                    [place / (len(HEAT) - 1), colour] for place, colour in enumerate(HEAT)
                ],
                "zmin": -(most or 0),
                "zmax": most,
                "xgap": 2,
                "ygap": 2,
                "colorbar": {"thickness": 10, "outlinewidth": 0, **ticks},
            }
        ],
        {
            "height": 120 + 34 * len(queries),
            "xaxis": {"type": "category", "showgrid": False, "title": {"text": "τ of documents"}},
            "yaxis": {
                "type": "category",
                "showgrid": False,
                "title": {"text": "τ of queries"},
                "autorange": "reversed",
            },
        },
        ["query_temperature", "document_temperature", "improvement"],
        [
            [query, document, grid.values[row][column]]
            for (row, query), (column, document) in product(
                enumerate(queries), enumerate(documents)
            )
        ],
    )


def _view(data: list[Value], layout: Value, columns: list[str], rows: list[list[Any]]) -> Value:
    if not any(row[-3 if "low" in columns else -1] is not None for row in rows):
        # Instead of empty axes with arbitrary numbers.
        nothing = {"text": "No values to show.", "xref": "paper", "yref": "paper"}
        hidden = {"visible": False}
        layout = {
            "height": 192,
            "xaxis": hidden,
            "yaxis": hidden,
            "showlegend": False,
            "annotations": [{**nothing, "x": 0.5, "y": 0.5, "showarrow": False}],
        }
    return {"data": data, "layout": layout, "columns": columns, "rows": rows}


def _place(value: float | None, linear: bool) -> float | None:
    """Return the position of an improvement on an axis, since plotly has no symlog scale."""
    if value is None or linear:
        return value
    size = abs(value) / LINEAR_PERCENT
    return math.copysign(size if size <= 1 else 1 + math.log10(size), value)


def _percent_axis(values: Sequence[float], linear: bool) -> Value:
    most = max(map(abs, values), default=0.0)
    return {
        "title": {"text": IMPROVEMENT + ("" if linear else f", {LOGARITHMIC}"), "standoff": 8},
        # Without zero on the axis, small gains would look large.
        "rangemode": "tozero",
        "zeroline": True,
        "zerolinewidth": 1.5,
        **({"ticksuffix": " %"} if linear else _percent_ticks(most, LOGARITHMIC_TICKS)),
    }


def _percent_ticks(
    most: float, ticks: Sequence[float] = (-1000, -100, -10, -1, 0, 1, 10, 100, 1000)
) -> Value:
    """Return the ticks of a logarithmic axis, by default powers of ten."""
    shown = [tick for tick in ticks if abs(tick) <= max(1, 1.5 * most)]
    return {
        "tickvals": [_place(tick, linear=False) for tick in shown],
        "ticktext": [f"{tick:g} %".replace("-", "−") for tick in shown],
    }


def _ticks(ticks: Sequence[tuple[float, str]]) -> Value:
    if not ticks:
        return {}
    places, names = zip(*ticks, strict=True)
    texts = [_text(name).replace("\n", "<br>") for name in names]
    return {"tickvals": list(places), "ticktext": texts}


def _bars(values: Sequence[tuple[float | None, Interval]], linear: bool, colour: str) -> Value:
    """Return plotly's error bars; an unknown interval has none."""

    def length(value: float | None, ends: Interval, end: int) -> float:
        at, to = _place(value, linear), _place(None if ends is None else ends[end], linear)
        return 0.0 if at is None or to is None else round(abs(to - at), 6)

    return {
        "type": "data",
        "symmetric": False,
        "array": [length(value, ends, 1) for value, ends in values],
        "arrayminus": [length(value, ends, 0) for value, ends in values],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _symbol(known: Certainty | None, symbol: str) -> str:
    if known == "unknown":
        return "x-thin-open"
    return f"{symbol}-open" if known == "unsure" else symbol


def _hover(point: Point) -> str:
    """Return the text shown on a point: its name, its value and its interval."""
    name = _text(point.name)
    if point.value is None:
        return name
    if point.known is None:
        return f"{name}<br>{point.value:.6g}"
    if point.ends is None:
        return f"{name}<br>{signed(point.value)} %, {WORDS['unknown']}"
    low, high = map(signed, point.ends)
    return f"{name}<br>{signed(point.value)} %, 95 % interval {low} to {high} %"


def _text(text: str) -> str:
    """Return a text escaped for plotly, which interprets markup and entities."""
    return html.escape(text, quote=False)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
