"""Draws panels with matplotlib and writes them as PNG and SVG.

Uses matplotlib's object interface only: no display, no state that outlives a call, and the same
bytes for the same data.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from lcbench.reporting import text
from lcbench.reporting.figures.panels import (
    COLOURS,
    GAIN,
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
    Scatter,
)

# Ten markers, four dashes and seven colours: the first 140 lines all differ, and neighbours in the
# legend share none of the three, so that they also differ in greyscale.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES = ("-", "--", "-.", ":")
# Marker and size of lines of a forest plot, by their kind.
_SHAPES = {"task": ("o", 5), "column": ("D", 6), "average": ("s", 8)}

LINEAR_SCALE = 0.9
"""The linear part up to ± 1 % is as long as a power of ten beyond it, as on the page."""

# Characters that XML does not allow, not even escaped, but names may contain.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def style(order: int | None) -> dict[str, Any]:
    """Return the style of a series; without an order it is thick, black and below the others."""
    if order is None:
        return {"color": "black", "linewidth": 3.2, "marker": "h", "markersize": 7, "zorder": 2}
    return {
        "color": COLOURS[order % len(COLOURS)],
        "marker": _MARKERS[order % len(_MARKERS)],
        "linestyle": _DASHES[order % len(_DASHES)],
        "linewidth": 1.2,
        "markersize": 5,
        "zorder": 3,
    }


def mark(known: Certainty, colour: str, marker: str) -> dict[str, Any]:
    """Return the style of a point by its significance."""
    if known == "unknown":
        return {"marker": "x", "color": colour, "linestyle": "none"}
    return {
        "marker": marker,
        "color": colour,
        "markerfacecolor": colour if known == "sure" else "white",
        "linestyle": "none",
    }


def legend_marks(known: Iterable[Certainty]) -> list[Line2D]:
    """Return the entries of a legend for filled and hollow points, if they occur."""
    there = set(known)
    return [
        Line2D([], [], label=words, **mark(one, "0.2", "o"))
        for one, words in WORDS.items()
        if one in there
    ]


def draw_curves(axes: Axes, panel: Curves, linear: bool, has_bars: bool = True) -> set[Certainty]:
    """Draw a panel and return which significances occur in it.

    Args:
        axes: axes to draw into.
        panel: panel to draw.
        linear: whether an axis of improvements is linear.
        has_bars: whether intervals are drawn; points are filled or hollow either way.
    """
    seen: set[Certainty] = set()
    for number, one in enumerate(panel.series):
        look = style(one.order)
        at = panel.places(number) if has_bars else one.at
        values = [math.nan if point.value is None else point.value for point in one.points]
        has_marks = any(point.known is not None for point in one.points)
        if panel.is_joined:
            axes.plot(at, values, **{**look, "marker": ""} if has_marks else look)
        elif not has_marks:
            axes.plot(at, values, **{**look, "linestyle": "none", "markersize": 3})
        if has_bars:
            bars = [
                (place, *point.ends)
                for place, point in zip(at, one.points, strict=True)
                if point.value is not None and point.ends is not None
            ]
            if bars:
                x, low, high = zip(*bars, strict=True)
                axes.vlines(x, low, high, colors=look["color"], linewidth=1.2, zorder=2)
        for known in WORDS:
            places = [
                place
                for place, point in enumerate(one.points)
                if point.known == known and point.value is not None
            ]
            if places:
                seen.add(known)
                axes.plot(
                    [at[place] for place in places],
                    [values[place] for place in places],
                    **mark(known, look["color"], look["marker"]),
                    markersize=look["markersize"],
                    # Above all lines, so that no line crosses a filled point.
                    zorder=look["zorder"] + 2,
                )
    if panel.across is None:
        axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
        axes.set_ylabel(improvement_axis(axes, "y", linear))
    else:
        axes.set_ylabel(panel.across, parse_math=False)
    axes.set_xlabel(panel.along)
    if panel.ticks:
        axes.set_xticks(*zip(*panel.ticks, strict=True))
    if panel.is_reversed:
        axes.invert_xaxis()
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.set_axisbelow(True)
    return seen


def draw_forest(axes: Axes, panel: Forest, linear: bool) -> set[Certainty]:
    """Draw a panel's lines and return which significances occur in it."""
    seen: set[Certainty] = set()
    for place, line in enumerate(panel.lines):
        if line.kind != "task":
            # A mean follows the tasks of its column.
            axes.axhspan(place - 0.5, place + 0.5, color="0.93", linewidth=0, zorder=0)
        if line.improvement is None:
            continue
        seen.add(line.known)
        colour = NEITHER
        if line.known == "sure":
            colour = GAIN if line.improvement > 0 else LOSS
        if line.interval is not None:
            axes.plot(line.interval, [place, place], color=colour, linewidth=1.4, zorder=2)
        marker, size = _SHAPES[line.kind]
        look = mark(line.known, colour, marker)
        axes.plot([line.improvement], [place], **look, markersize=size, zorder=3)
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.set_xlabel(improvement_axis(axes, "x", linear), fontsize="small")
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(axis="x", color="0.9", zorder=0)
    axes.set_axisbelow(True)
    # Names are text: a dollar sign in one must not start a formula.
    axes.set_title(panel.title, fontsize="medium", parse_math=False)
    return seen


def draw_scatter(axes: Axes, panel: Scatter, linear: bool, names: Sequence[str]) -> set[Certainty]:
    """Draw a panel's points with the intervals of both, and return which significances occur.

    Args:
        axes: where.
        panel: the points.
        linear: whether the axes are.
        names: of all points of the figure; a point's place among them is its look.
    """
    seen: set[Certainty] = set()
    for one in panel.marks:
        look = style(names.index(one.name))
        colour = look["color"]
        if one.x_ends is not None:
            axes.plot(one.x_ends, [one.y, one.y], color=colour, linewidth=0.9, zorder=2)
        if one.y_ends is not None:
            axes.plot([one.x, one.x], one.y_ends, color=colour, linewidth=0.9, zorder=2)
        seen.add(one.known)
        marked = mark(one.known, colour, look["marker"])
        axes.plot([one.x], [one.y], **marked, markersize=6, zorder=3)
    axes.axhline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.set_xlabel(f"{panel.along}: {improvement_axis(axes, 'x', linear)}", fontsize="small")
    axes.set_ylabel(f"{panel.across}: {improvement_axis(axes, 'y', linear)}", fontsize="small")
    axes.grid(color="0.9", zorder=0)
    axes.set_axisbelow(True)
    # Names are text: a dollar sign in one must not start a formula.
    axes.set_title(panel.title, fontsize="medium", parse_math=False)
    return seen


def name_lines(axes: Axes, panel: Forest) -> None:
    """Label the lines of a forest plot, from top to bottom."""
    names = [line.label for line in panel.lines]
    axes.set_yticks(range(len(names)), names, parse_math=False, fontsize="small")
    for label, line in zip(axes.get_yticklabels(), panel.lines, strict=True):
        label.set_fontweight("normal" if line.kind == "task" else "bold")
    axes.set_ylim(len(names) - 0.5, -0.5)


def improvement_axis(axes: Axes, which: Literal["x", "y"], linear: bool) -> str:
    """Scale an axis for improvements in %, and return its label."""
    if linear:
        return IMPROVEMENT
    scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    scale("symlog", linthresh=LINEAR_PERCENT, linscale=LINEAR_SCALE)
    # Limits that were found on the linear scale have its margins.
    axes.autoscale(axis=which)
    axis.set_major_locator(FixedLocator(LOGARITHMIC_TICKS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    return f"{IMPROVEMENT},\n{LOGARITHMIC}"


def new_figure(
    width: float, height: float, layout: Literal["constrained", "compressed"] | None = None
) -> Figure:
    """Return an empty figure with a size in inches; `compressed` is for square panels."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def written(draw: Callable[[], Sequence[Figure]], stem: Path) -> list[Path]:
    """Write figures to `<stem>.png` and `<stem>.svg`, further ones to `<stem>-2.png` …

    The same figures give the same bytes.

    Args:
        draw: returns the figures; called after the style is set.
        stem: path without suffix; its folder is created.

    Returns:
        The paths of the written files.
    """
    paths = []
    # A user's own style is ignored, and restored afterwards.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        matplotlib.rcdefaults()
        # Otherwise ids in an SVG are random.
        matplotlib.rcParams["svg.hashsalt"] = "lcbench"
        for number, figure in enumerate(draw(), start=1):
            stem.parent.mkdir(parents=True, exist_ok=True)
            name = stem.name if number == 1 else f"{stem.name}-{number}"
            png, svg = (stem.with_name(f"{name}.{suffix}") for suffix in ("png", "svg"))
            figure.savefig(
                png, dpi=150, metadata={"Software": None}, pil_kwargs={"compress_level": 3}
            )
            # Keep the layout for the SVG, since computing it takes a third of the time.
            figure.set_layout_engine("none")
            drawing = io.StringIO()
            figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
            svg.write_text(_NOT_IN_XML.sub(" ", drawing.getvalue()), encoding="utf-8")
            paths += [png, svg]
    return paths


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """Return rows as CSV: numbers in full, and empty fields for None or NaN."""
    return text.csv_text(header, ([_field(value) for value in row] for row in rows))


def _field(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or math.isnan(value) else repr(value)
