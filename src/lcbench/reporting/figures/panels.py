"""Panels of values, independent of the library that draws them, and the rules of their style.

`printed` draws panels with matplotlib for files, `interactive` converts them to charts of the page.
The meaning of marks, colours and axes is defined only here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lcbench.reporting.tables.roles import RoleGrid

# Seven colours that can be told apart from each other and from the black or white of `Avg`, with
# normal vision, protanopia, deuteranopia and tritanopia (CIE76 distance above 20, simulated as in
# Machado 2009), with a contrast above 3 to the background.
COLOURS = ("#003a9a", "#d97b1c", "#00a577", "#991e6d", "#8a5c24", "#8281fe", "#483d28")
# The same on a dark background.
DARK_COLOURS = ("#477cce", "#de5f3b", "#35c38b", "#af6f9a", "#f5a410", "#a3c0ff", "#f5d076")

# The convention of the whole report, also in tables and in a terminal: gains are blue and losses
# are orange, which can be told apart with any colour vision.
GAIN, LOSS, NEITHER = "#0072b2", "#d55e00", "#595959"
# From the orange of losses over grey to the blue of gains, with increasing lightness, so that in
# greyscale losses are dark and gains are light.
HEAT = ("#8a3500", "#c65a12", "#a9a9a9", "#8cc4ea", "#cfebff")

# At τ = 0.1 a score may fall by half, and gains of 1 % are invisible on a linear axis. If values
# exceed this limit, the axis is linear within ± 1 % only.
MOST_LINEAR_PERCENT = 10.0
LINEAR_PERCENT = 1.0
LOGARITHMIC = f"logarithmic beyond ± {LINEAR_PERCENT:g}"
# Ticks of a logarithmic axis on either side of zero.
_UPWARD = (0.5, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
LOGARITHMIC_TICKS = (*(-tick for tick in reversed(_UPWARD)), 0.0, *_UPWARD)

IMPROVEMENT = "relative improvement (%)"

Interval = tuple[float, float] | None

Certainty = Literal["sure", "unsure", "unknown"]
"""Whether a change is significant, is not, or its interval is unknown: filled, hollow, a cross."""

WORDS: dict[Certainty, str] = {
    "sure": "significant",
    "unsure": "not significant",
    "unknown": "interval unknown",
}


def certainty(ends: Interval, is_significant: bool | None = None) -> Certainty:
    """Return what is known of an improvement.

    Args:
        ends: ends of its interval; None: unknown.
        is_significant: `Uncertainty.excludes_zero`, if known; None: decided by the interval alone.
    """
    if ends is None:
        return "unknown"
    if is_significant is None:
        is_significant = ends[0] > 0 or ends[1] < 0
    return "sure" if is_significant else "unsure"


def is_linear(improvements: Iterable[float]) -> bool:
    """Return whether an axis of improvements in % can be linear and show a gain of 1 %."""
    return max(map(abs, improvements), default=0.0) <= MOST_LINEAR_PERCENT


@dataclass(frozen=True)
class Point:
    """A value of a series.

    Attributes:
        name: name of its position on the axis: a τ, a bucket of lengths.
        value: a score, or an improvement in %; None is a missing value.
        ends: ends of the 95 % interval of an improvement; None: unknown.
        known: significance of an improvement; None for a score and for the baseline itself.
    """

    name: str
    value: float | None
    ends: Interval = None
    known: Certainty | None = None


@dataclass(frozen=True)
class Series:
    """Values of one model, column or policy.

    Attributes:
        name: name in the legend.
        at: positions of its points on the axis.
        points: a point per position.
        order: number of its colour, marker and dashes; None: thick and black, for a baseline or an
            average.
        of: further description besides its name, such as the model.
    """

    name: str
    at: tuple[float, ...]
    points: tuple[Point, ...]
    order: int | None
    of: str = ""


@dataclass(frozen=True)
class Curves:
    """A panel of series over an axis of τ or of lengths.

    Attributes:
        title: title of the panel.
        series: series in the order of the legend.
        along: title of the horizontal axis.
        ticks: positions on that axis and their names.
        across: title of the vertical axis; None: improvements in %.
        is_joined: whether a line joins the points of a series.
        aside: width over which points of different series at one position are spread if their
            intervals are drawn.
        is_reversed: whether positions go from large to small.
        counts: number of items at each position; None: unknown.
    """

    title: str
    series: tuple[Series, ...]
    along: str
    ticks: tuple[tuple[float, str], ...]
    across: str | None = None
    is_joined: bool = True
    aside: float = 0.0
    is_reversed: bool = False
    counts: tuple[int, ...] | None = None

    def places(self, number: int) -> tuple[float, ...]:
        """Return the positions of the points of a series, next to those of the others."""
        shift = self.aside * ((number + 0.5) / len(self.series) - 0.5)
        return tuple(at + shift for at in self.series[number].at)

    @property
    def values(self) -> list[float]:
        """All values and ends of intervals."""
        return [
            value
            for one in self.series
            for point in one.points
            if point.value is not None
            for value in (point.value, *(point.ends or ()))
        ]


@dataclass(frozen=True)
class Mark:
    """A point of a plot of two improvements.

    Attributes:
        name: name of the point.
        x: improvement along the horizontal axis in %.
        y: improvement along the vertical axis in %.
        x_ends: ends of the 95 % interval of x; None: unknown.
        y_ends: ends of the 95 % interval of y; None: unknown.
    """

    name: str
    x: float
    y: float
    x_ends: Interval = None
    y_ends: Interval = None

    @property
    def known(self) -> Certainty:
        """What is known of the improvement along the vertical axis."""
        return certainty(self.y_ends)


@dataclass(frozen=True)
class Scatter:
    """A panel of two improvements against each other, a point for each repair.

    Attributes:
        title: title of the panel.
        marks: points in the order of the legend.
        along: what the horizontal axis shows.
        across: what the vertical axis shows.
    """

    title: str
    marks: tuple[Mark, ...]
    along: str
    across: str

    @property
    def values(self) -> list[float]:
        """All improvements and ends of intervals."""
        return [
            value
            for mark in self.marks
            for value in (mark.x, mark.y, *(mark.x_ends or ()), *(mark.y_ends or ()))
        ]


@dataclass(frozen=True)
class Line:
    """A line of a forest plot.

    Attributes:
        kind: a task, the mean of a column of several tasks, or `Avg`.
        name: name of the task, column or model.
        improvement: relative improvement in %; None is a missing value.
        interval: 95 % interval; None: unknown.
        is_significant: whether the improvement is significant; None: unknown.
        of: further description besides its name, such as the model.
    """

    kind: Literal["task", "column", "average"]
    name: str
    improvement: float | None
    interval: Interval
    is_significant: bool | None = field(default=None, compare=False)
    of: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """The name, marked if it is that of a mean over tasks."""
        return f"{self.name} (mean)" if self.kind == "column" else self.name

    @property
    def known(self) -> Certainty:
        """What is known of the improvement."""
        return certainty(self.interval, self.is_significant)

    @property
    def values(self) -> list[float]:
        """The improvement and the ends of its interval."""
        return [] if self.improvement is None else [self.improvement, *(self.interval or ())]


@dataclass(frozen=True)
class Forest:
    """A panel of improvements with their intervals, one for each line, from the top."""

    title: str
    lines: tuple[Line, ...]

    @property
    def values(self) -> list[float]:
        """All improvements and ends of intervals."""
        return [value for line in self.lines for value in line.values]


@dataclass(frozen=True)
class HeatScale:
    """The one scale of all heat maps of a report: a colour means the same in each.

    Attributes:
        most: the largest improvement or loss in %, at either end of the colours.
        linear: whether the colours are linear in the improvement.
    """

    most: float
    linear: bool

    @classmethod
    def of(cls, grids: "Sequence[RoleGrid]") -> "HeatScale":
        """Return the scale of the values of grids."""
        values = [value for grid in grids for value in known_values(grid)]
        # If all values are zero, any scale will do.
        return cls(max(map(abs, values), default=0.0) or 1.0, is_linear(values))

    @property
    def title(self) -> str:
        """The title of the colour bar."""
        return IMPROVEMENT if self.linear else f"{IMPROVEMENT}, {LOGARITHMIC}"


def known_values(grid: "RoleGrid") -> list[float]:
    """Return the improvements of a grid without its missing values."""
    return [value for row in grid.values for value in row if value is not None]


def pages(count: int, at_once: int) -> list[range]:
    """Return the indices on each page, with pages as equally full as possible."""
    if count == 0:
        return []
    number = math.ceil(count / at_once)
    return [range(count * page // number, count * (page + 1) // number) for page in range(number)]
