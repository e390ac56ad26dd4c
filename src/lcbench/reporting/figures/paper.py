"""The paper's figures on embeddings: panels, and a sentence on what it claims and what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from lcbench.measures.estimates import Estimate
from lcbench.measures.figures import Number, PaperFigure
from lcbench.measures.intervals import Line, Panel
from lcbench.measures.position import FACTS, collapse_index, indices
from lcbench.reporting.figures.collapse import averaging_line
from lcbench.reporting.figures.panels import Curves, Point, Series
from lcbench.reporting.tables.measurements import signed

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class _Shown:
    """What a figure shows.

    Attributes:
        title: of its charts.
        claim: of the paper.
        direction: of the change from the shortest to the longest that the claim means.
    """

    title: str
    claim: str
    direction: int


_SHOWN: Mapping[Number, _Shown] = {
    "1a": _Shown(
        "Accuracy by length", "a classifier is less accurate the longer the texts are", -1
    ),
    "1b": _Shown(
        "Three lengths of one text", "longer texts lie closer to the centre of the space", -1
    ),
    "1c": _Shown(
        "Mean cosine by length and τ",
        "longer texts have more similar embeddings, less so at a lower τ",
        1,
    ),
    "2": _Shown(
        "Log ratio of each layer, and its bounds",
        "each layer is a low-pass filter, whose log ratio lies below the bound log(σ_a σ_1 H)",
        -1,
    ),
    "3": _Shown(
        "Mean cosine of mean word embeddings by length",
        "even means of word embeddings are more similar the longer the texts are",
        1,
    ),
    "4": _Shown(
        "Theorem 3 and σ_a by length and τ",
        "σ_a falls with length, as its bound does, and rises as τ falls",
        -1,
    ),
    "5": _Shown(
        "σ_a of the last layer by length and τ",
        "σ_a falls with length, and rises as τ falls",
        -1,
    ),
    "6": _Shown(
        "Entropy and accuracy by length and τ", "a lower τ makes long texts more accurate", 1
    ),
    "12": _Shown(
        "Cosine of two words, each repeated",
        "the embeddings of two words approach each other the more often each is repeated",
        1,
    ),
    "position": _Shown("Facts that are found, by depth and length", "", 0),
}


def title_of(number: Number) -> str:
    """Return the title of a figure: its number, and what it shows."""
    if number == "position":
        return _SHOWN[number].title
    return f"Figure {number}: {_SHOWN[number].title}"


def stem_of(number: Number) -> str:
    """Return the name of a figure's files without suffix."""
    return f"figure-{number}"


def by_number(figures: Iterable[PaperFigure]) -> dict[Number, list[PaperFigure]]:
    """Return figures of several models and tasks by number, in the order of the first."""
    ordered = sorted(figures, key=lambda one: list(_SHOWN).index(one.number))
    return {number: list(group) for number, group in groupby(ordered, key=lambda one: one.number)}


def panels_of(figures: Iterable[PaperFigure]) -> list[Curves]:
    """Return the panels of figures of one number, one model and task after the other."""
    return [panel for one in figures for panel in (*_picture(one), *_curves(one))]


def sentence_of(figure: PaperFigure) -> str:
    """Return what the paper claims of a figure, and whether it is seen here, with numbers."""
    shown = _SHOWN[figure.number]
    if figure.number == "position":
        return f"{shown.title}, {_heading(figure)}, {figure.sizes}. {_placed(figure)}."
    return (
        f"Figure {figure.number}, {_heading(figure)}, {figure.sizes}. The paper: {shown.claim}. "
        f"Here: {_seen(figure, shown)}."
    )


def _seen(figure: PaperFigure, shown: _Shown) -> str:
    panel = figure.panels[-1]
    baseline, *others = panel.lines
    first, last = panel.places[0].name, panel.places[-1].name
    if figure.number == "6":
        if not others:
            return "cannot be told, since no temperature but 1 was asked for"
        entropy = figure.panels[0].lines[1:]
        told = [
            f"{_verdict(line.against[-1], shown.direction)} at {line.name}: over {last} tokens "
            f"accuracy changes by {signed(line.against[-1])} and entropy by "
            f"{signed(other.against[-1])}"
            for line, other in zip(others, entropy, strict=True)
        ]
        return "; ".join(told)
    if figure.number == "12":
        return "; ".join(_repeated(panel, line, shown) for line in panel.lines)
    if figure.number == "2":
        return _filtered(figure.panels[0])
    if figure.number == "4":
        return "; ".join(_bounded(one, shown) for one in figure.panels)
    text = (
        f"{_verdict(baseline.change, shown.direction)}. From {_length(panel, first)} to "
        f"{_length(panel, last)} the {panel.quantity} changes by {signed(baseline.change)}"
    )
    if panel.averaging:
        rise = panel.averaging[-1].value - baseline.values[0].value
        most = "at most " if panel.at_most else ""
        text += f", where averaging independent parts would give {most}{rise:+.3f}"
    return text + "".join(
        f"; {line.name} changes that of the longest by {signed(line.against[-1])}"
        for line in others
    )


def _placed(figure: PaperFigure) -> str:
    """Return how much of what is not found is truncation, position bias and length."""
    per_kind = len(figure.panels) // len(figure.cuts)
    told = []
    for number, panel in enumerate(figure.panels):
        cut = figure.cuts[number // per_kind]
        pairs = [
            (share, one.value)
            for line, shares in zip(panel.lines, cut.shares, strict=True)
            for share, one in zip(shares, line.values, strict=True)
        ]
        beyond = [value for share, value in pairs if share == 1]
        lost = f"{sum(beyond) / len(beyond):.2f}" if beyond else "none there"
        bias = ", ".join(f"{size} {one:.2f}" for size, one in indices(panel, cut).items())
        told.append(
            f"{panel.quantity.removeprefix('share found, ')}: beyond the window {lost} (by chance "
            f"{1 / FACTS:.2f}); index 1 − min/max by depth within it {bias}, and by length "
            f"{collapse_index(panel, cut):.2f}"
        )
    return "; ".join(told)


def _filtered(panel: Panel) -> str:
    """Return in how many layers the ratio is below 0 and below the paper's bound."""
    lines = {line.name: line.values for line in panel.lines}
    whole, *others = lines.values()
    below = sum(one.high < 0 for one in whole)
    text = (
        f"{_share(below, len(whole))}. The log ratio is significantly below 0 in {below} of "
        f"{len(whole)} layers"
    )
    if not others:
        return f"{text}; values are not made by plain linear maps, so there are no bounds"
    alone, paper, holds = others
    under = sum(one.value <= bound.value for one, bound in zip(whole, paper, strict=True))
    held = sum(one.value <= bound.value for one, bound in zip(alone, holds, strict=True))
    return (
        f"{text}, that of attention alone in {sum(one.high < 0 for one in alone)}; it lies below "
        f"the paper's bound, which need not hold, in {under}, and attention alone below one that "
        f"must hold in {held}"
    )


def _share(count: int, of: int) -> str:
    if count == of:
        return "seen"
    return f"seen in {count} of {of} layers" if count else "not seen"


def _bounded(panel: Panel, shown: _Shown) -> str:
    """Return whether σ_a falls with length, and where it exceeds Theorem 3."""
    measured, theorem = panel.lines[:2]
    exceeded = [
        place.name
        for place, one, bound in zip(panel.places, measured.values, theorem.values, strict=True)
        if one.value > bound.value
    ]
    where = f"exceeds Theorem 3 at {', '.join(exceeded)} tokens" if exceeded else "keeps Theorem 3"
    return (
        f"{_verdict(measured.change, shown.direction)} at {panel.quantity.partition(', ')[2]}: "
        f"σ_a is {measured.values[0].value:.2f} at {panel.places[0].name} tokens and "
        f"{measured.values[-1].value:.2f} at {panel.places[-1].name}, and {where}"
    )


def _repeated(panel: Panel, line: Line, shown: _Shown) -> str:
    values = [one.value for one in line.values]
    least = values.index(min(values))
    times = [place.name for place in panel.places]
    return (
        f"{_verdict(line.change, shown.direction)} at {line.name}: {values[0]:.3f} for each word "
        f"once, {values[-1]:.3f} for {times[-1]} times, least {values[least]:.3f} for "
        f"{times[least]}"
    )


def _verdict(change: Estimate, direction: int) -> str:
    ends = sorted((direction * change.low, direction * change.high))
    if ends[0] > 0:
        return "seen"
    return "not seen, but the opposite" if ends[1] < 0 else "cannot be told"


def _length(panel: Panel, name: str) -> str:
    return f"{name} tokens" if panel.along == "tokens" else f"the {name}"


def _heading(figure: PaperFigure) -> str:
    return f"{figure.model.rpartition('/')[2]}, {figure.task}"


def _curves(figure: PaperFigure) -> list[Curves]:
    heading = _heading(figure)
    found = []
    for panel in figure.panels:
        names = [place.name for place in panel.places]
        at = tuple(map(float, range(len(names))))
        lines = [(line.name, line.values) for line in panel.lines]
        series = [
            Series(name, at, tuple(map(_point, names, values)), order, heading)
            for order, (name, values) in enumerate(lines)
        ]
        if panel.averaging:
            averaging = tuple(map(_point, names, panel.averaging))
            name = averaging_line(at_most=panel.at_most)
            series.insert(0, Series(name, at, averaging, None, heading))
        title = f"{heading}: {panel.quantity}" if len(figure.panels) > 1 else heading
        found.append(
            Curves(
                title,
                tuple(series),
                panel.along,
                tuple(zip(at, (name.replace(", ", ",\n") for name in names), strict=True)),
                panel.quantity,
                aside=0.3,
                counts=tuple(place.texts for place in panel.places),
            )
        )
    return found


def _picture(figure: PaperFigure) -> Sequence[Curves]:
    """Return the picture of Figure 1b, whose axes have no scale."""
    if not figure.points:
        return ()
    heading = _heading(figure)
    series = tuple(
        Series(
            one.name,
            tuple(x for x, _ in one.at),
            tuple(Point(f"{x:.3f}", y) for x, y in one.at),
            order,
            heading,
        )
        for order, one in enumerate(figure.points)
    )
    title = f"{heading}: t-SNE, which keeps no distances"
    return (Curves(title, series, "first axis", (), "second axis", is_joined=False),)


def _point(label: str, estimate: Estimate) -> Point:
    is_exact = estimate.low == estimate.high
    return Point(label, estimate.value, None if is_exact else (estimate.low, estimate.high))
