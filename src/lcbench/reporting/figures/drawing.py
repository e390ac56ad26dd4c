"""What all figures share: colours, axes of improvements, marks of certainty, and their files."""

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

# Okabe and Ito's colours for the colour-blind, without black, which is `Avg`; the yellow, weak on
# white, comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
# Ten markers and four dashes against seven colours: no two of the first 140 lines are alike, and
# no two neighbours in the legend share any of the three, so that they differ in grey as well.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", "--", "-.", ":")

# At τ = 0.1 a score may fall by half, against which gains of one per cent are invisible on a linear
# axis: beyond this the axis is linear within ± 1 % only.
MOST_LINEAR_PERCENT = 10.0
LINEAR_PERCENT = 1.0
# On either side of zero; matplotlib's own are powers of ten alone.
_UPWARD = (0.5, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_LOGARITHMIC_TICKS = (*(-tick for tick in reversed(_UPWARD)), 0.0, *_UPWARD)

# The convention of the whole report, also on the page and in a terminal: gains are blue, losses
# orange, which every kind of eye tells apart.
GAIN, LOSS, NEITHER = "#0072B2", "#D55E00", "0.35"

# XML has none of these, not even escaped; a name can have them.
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

IMPROVEMENT = "relative improvement (%)"

Certainty = Literal["sure", "unsure", "unknown"]
"""Whether a change is significant, is not, or its interval is unknown: filled, hollow, a cross."""

SURE = "significant"
UNSURE = "not significant"
UNKNOWN = "interval unknown"


def certainty(ends: tuple[float, float] | None, is_significant: bool | None = None) -> Certainty:
    """Return what is known of an improvement.

    Args:
        ends: of its interval; None: unknown.
        is_significant: where more than the interval decides (`Uncertainty.excludes_zero`).
    """
    if ends is None:
        return "unknown"
    if is_significant is None:
        is_significant = ends[0] > 0 or ends[1] < 0
    return "sure" if is_significant else "unsure"


def mark(known: Certainty, colour: str, marker: str) -> dict[str, Any]:
    """Return the look of a point of which so much is known."""
    if known == "unknown":
        return {"marker": "x", "color": colour, "linestyle": "none"}
    return {
        "marker": marker,
        "color": colour,
        "markerfacecolor": colour if known == "sure" else "white",
        "linestyle": "none",
    }


def certainty_handles(known: Iterable[Certainty]) -> list[Line2D]:
    """Return what a legend says of filled and hollow points, of those that there are."""
    labels: dict[Certainty, str] = {"sure": SURE, "unsure": UNSURE, "unknown": UNKNOWN}
    there = set(known)
    return [
        Line2D([], [], label=label, **mark(one, "0.2", "o"))
        for one, label in labels.items()
        if one in there
    ]


def is_linear(improvements: Iterable[float]) -> bool:
    """Whether an axis of improvements in % can be linear and show a gain of 1 %."""
    return max(map(abs, improvements), default=0.0) <= MOST_LINEAR_PERCENT


def improvement_axis(axes: Axes, which: Literal["x", "y"], linear: bool) -> str:
    """Make an axis one of improvements in %, and return its label."""
    if linear:
        return IMPROVEMENT
    scale, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    scale("symlog", linthresh=LINEAR_PERCENT)
    # Limits that were found on the linear scale have its margins.
    axes.autoscale(axis=which)
    axis.set_major_locator(FixedLocator(_LOGARITHMIC_TICKS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    return f"{IMPROVEMENT},\nlogarithmic beyond ± {LINEAR_PERCENT:g}"


def new_figure(width: float, height: float, squares: bool = False) -> Figure:
    """Return an empty figure of so many inches, for panels of any or of square proportions."""
    # The layout `constrained` needs a second drawing until square panels fit.
    figure = Figure(figsize=(width, height), layout="compressed" if squares else "constrained")
    FigureCanvasAgg(figure)
    return figure


def pages(count: int, at_once: int) -> list[range]:
    """Return the places of each page's things, in pages as equally full as can be."""
    if count == 0:
        return []
    number = math.ceil(count / at_once)
    return [range(count * page // number, count * (page + 1) // number) for page in range(number)]


def written(draw: Callable[[], Sequence[Figure]], stem: Path) -> list[Path]:
    """Write figures to `<stem>.png` and `<stem>.svg`, further ones to `<stem>-2.png` …

    The same figures give the same bytes.

    Args:
        draw: makes the figures, once the style is set.
        stem: where to, without suffix; its folder is made.

    Returns:
        the paths; none, and nothing written, where there is no figure.
    """
    paths = []
    # A user's own style would change the picture; the context gives it back afterwards.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font has not: boxes in the picture say so.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        matplotlib.rcdefaults()
        # Otherwise the ids within an SVG are drawn at random.
        matplotlib.rcParams["svg.hashsalt"] = "lcbench"
        for number, figure in enumerate(draw(), start=1):
            stem.parent.mkdir(parents=True, exist_ok=True)
            name = stem.name if number == 1 else f"{stem.name}-{number}"
            png, svg = (stem.with_name(f"{name}.{suffix}") for suffix in ("png", "svg"))
            figure.savefig(png, dpi=150, metadata={"Software": None})
            # Found once, and kept: finding it takes a third of the time.
            figure.set_layout_engine("none")
            drawing = io.StringIO()
            figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
            svg.write_text(_NOT_IN_XML.sub(" ", drawing.getvalue()), encoding="utf-8")
            paths += [png, svg]
    return paths


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """Return rows as CSV: numbers in full, nothing for None or NaN."""
    return text.csv_text(header, ([_field(value) for value in row] for row in rows))


def _field(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or math.isnan(value) else repr(value)
