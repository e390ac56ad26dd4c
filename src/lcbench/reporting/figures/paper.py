"""The paper's figures on embeddings: panels, and a sentence on what it claims and what is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from lcbench.measures.estimates import Estimate
from lcbench.measures.figures import Number, PaperFigure
from lcbench.measures.intervals import Line, Panel
from lcbench.reporting.figures.panels import Curves, Point, Series
from lcbench.reporting.tables.collapse import signed

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
    "3": _Shown(
        "Mean cosine of mean word embeddings by length",
        "even means of word embeddings are more similar the longer the texts are",
        1,
    ),
    "6": _Shown(
        "Entropy and accuracy by length and τ", "a lower τ makes long texts more accurate", 1
    ),
    "12": _Shown(
        "Cosine of two words, each repeated",
        "the embeddings of two words approach each other the more often each is repeated",
        1,
    ),
}


def title_of(number: Number) -> str:
    """Return the title of a figure: its number, and what it shows."""
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
    text = (
        f"{_verdict(baseline.change, shown.direction)}. From {_length(panel, first)} to "
        f"{_length(panel, last)} the {panel.quantity} changes by {signed(baseline.change)}"
    )
    if panel.averaging:
        rise = panel.averaging[-1].value - baseline.values[0].value
        text += f", where averaging independent parts would give {rise:+.3f}"
    return text + "".join(
        f"; {line.name} changes that of the longest by {signed(line.against[-1])}"
        for line in others
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
            series.insert(0, Series("averaging of independent parts", at, averaging, None, heading))
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
