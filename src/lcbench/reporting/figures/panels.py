"""What a figure shows, whichever library draws it: panels of values, and the rules of their look.

`printed` draws panels with matplotlib for files, `interactive` describes them to plotly for the
page. What a mark, a colour or an axis means is decided here, once.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lcbench.reporting.tables.roles import RoleGrid

# Seven colours of which any two, and any of them and the black or white of `Avg`, differ in normal
# sight and in that of protanopes, deuteranopes and tritanopes (CIE76 distance above 20, with the
# simulation of Machado 2009), and stand out from their ground (contrast above 3).
COLOURS = ("#003a9a", "#d97b1c", "#00a577", "#991e6d", "#8a5c24", "#8281fe", "#483d28")
# The same on a dark ground.
DARK_COLOURS = ("#477cce", "#de5f3b", "#35c38b", "#af6f9a", "#f5a410", "#a3c0ff", "#f5d076")

# The convention of the whole report, also in tables and in a terminal: gains are blue, losses
# orange, which every kind of eye tells apart.
GAIN, LOSS, NEITHER = "#0072b2", "#d55e00", "#595959"
# From the orange of losses over grey to the blue of gains, which no form of colour blindness
# confuses, and ever lighter: a loss is dark and a gain light where there is no colour.
HEAT = ("#8a3500", "#c65a12", "#a9a9a9", "#8cc4ea", "#cfebff")

# At τ = 0.1 a score may fall by half, against which gains of one per cent are invisible on a linear
# axis: beyond this the axis is linear within ± 1 % only.
MOST_LINEAR_PERCENT = 10.0
LINEAR_PERCENT = 1.0
LOGARITHMIC = f"logarithmic beyond ± {LINEAR_PERCENT:g}"
# Of a logarithmic axis, on either side of zero; the usual ones are powers of ten alone.
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
        ends: of its interval; None: unknown.
        is_significant: where more than the interval decides (`Uncertainty.excludes_zero`).
    """
    if ends is None:
        return "unknown"
    if is_significant is None:
        is_significant = ends[0] > 0 or ends[1] < 0
    return "sure" if is_significant else "unsure"


def is_linear(improvements: Iterable[float]) -> bool:
    """Return whether an axis of improvements in % can be linear and show a gain of 1 %."""
    return max(map(abs, improvements), default=0.0) <= MOST_LINEAR_PERCENT


def signed(value: float, form: str = ".2f") -> str:
    """Return a number with its sign, zero without one: +0.43, −12.3, 0.00."""
    text = format(value, form)
    return text.lstrip("-") if float(text) == 0 else format(value, f"+{form}").replace("-", "−")


@dataclass(frozen=True)
class Point:
    """A value of a series.

    Attributes:
        name: what it belongs to on the axis: a τ, a bucket of lengths.
        value: a score, or an improvement in %; None is a missing value.
        ends: of the 95 % interval of an improvement; None: unknown.
        known: how sure an improvement is; None for a score and for the baseline itself.
    """

    name: str
    value: float | None
    ends: Interval = None
    known: Certainty | None = None


@dataclass(frozen=True)
class Series:
    """Values of one model, column or policy.

    Attributes:
        name: in the legend.
        at: where its points are on the axis.
        points: one for each place.
        order: number of its colour, marker and dashes; None: thick and black, as what the others
            are compared with or make up.
        of: what it is of besides its name.
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
        title: of the panel.
        series: from the first of the legend to the last.
        along: title of the axis of places.
        ticks: places of that axis and their names.
        across: title of the other axis; None: improvements in %.
        is_joined: whether a line joins the points of a series.
        aside: width within which points of different series stand side by side, where their
            intervals are drawn.
        is_reversed: whether places go from large to small.
        counts: items of each place; None: unknown.
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
        """Return where the points of a series are, side by side with those of the others."""
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
class Line:
    """A line of a forest plot.

    Attributes:
        kind: of what: a task, the mean of a column of several, or `Avg`.
        name: of the task, column or model.
        improvement: relative, in %; None is a missing value.
        interval: of 95 %; None where it is unknown.
        is_significant: None where it is unknown.
        of: what it is of besides its name.
    """

    kind: Literal["task", "column", "average"]
    name: str
    improvement: float | None
    interval: Interval
    is_significant: bool | None = field(default=None, compare=False)
    of: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """The name, and whether it is that of a mean of tasks."""
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
        """Return the scale on which all numbers of some grids can be told apart."""
        values = [value for grid in grids for value in known_values(grid)]
        # Of zeros alone nothing is a gain or a loss.
        return cls(max(map(abs, values), default=0.0) or 1.0, is_linear(values))

    @property
    def title(self) -> str:
        """What the bar of colours says."""
        return IMPROVEMENT if self.linear else f"{IMPROVEMENT}, {LOGARITHMIC}"


def known_values(grid: "RoleGrid") -> list[float]:
    """Return the improvements of a grid without its missing values."""
    return [value for row in grid.values for value in row if value is not None]


def pages(count: int, at_once: int) -> list[range]:
    """Return the places of each page's things, in pages as equally full as can be."""
    if count == 0:
        return []
    number = math.ceil(count / at_once)
    return [range(count * page // number, count * (page + 1) // number) for page in range(number)]
