"""Figures of measurements of collapse: mean cosine by number of sentences, and by length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from lcbench.measures.crowding import CONDITIONS
from lcbench.measures.estimates import Estimate
from lcbench.reporting.figures.panels import Curves, Interval, Point, Series
from lcbench.reporting.tables.measurements import heading_of, length_range, ordered, repair_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lcbench.measures.files import Measurement


def by_sentences(measurements: Sequence[Measurement]) -> list[Curves]:
    """Return a panel a model, task and condition: a line a τ, and averaging alone."""
    panels = []
    for heading, group in groupby(ordered(measurements), key=heading_of):
        known = [(repair_of(one), one.collapse.crowding) for one in group]
        members = [(policy, found) for policy, found in known if found is not None]
        for condition in CONDITIONS if members else ():
            counts = members[0][1].counts
            names = ["1 sentence", *(f"{count} sentences" for count in counts[1:])]
            lines = [
                ("averaging alone", members[0][1].averaging[condition]),
                *((policy, found.cosines[condition]) for policy, found in members),
            ]
            title = f"{heading}: {condition}"
            panels.append(_panel(title, heading, "sentences", list(map(str, counts)), names, lines))
    return panels


def by_length(measurements: Sequence[Measurement]) -> list[Curves]:
    """Return a panel a model and task: a line a τ over bins by length, Figure 1c of the paper."""
    panels = []
    for heading, rows in groupby(ordered(measurements), key=heading_of):
        group = list(rows)
        known = [(repair_of(one), one.collapse.by_length) for one in group]
        members = [(policy, found) for policy, found in known if found is not None]
        if members:
            bins = members[0][1].bins
            at_most = not all(one.collapse.pools_by_mean for one in group)
            names = [length_range(part.shortest, part.longest) for part in bins]
            lines = [
                (averaging_line(at_most=at_most), [part.averaging for part in bins]),
                *((policy, [part.cosine for part in found.bins]) for policy, found in members),
            ]
            panels.append(_panel(heading, heading, "tokens", names, names, lines))
    return panels


def averaging_line(*, at_most: bool) -> str:
    """Return the name of what averaging gives texts by their length.

    Args:
        at_most: whether it may give less, as of a model that does not pool by the mean.
    """
    alike = " that count alike (the most)" if at_most else ""
    return f"averaging of independent parts{alike}"


def _panel(
    title: str,
    of: str,
    along: str,
    ticks: Sequence[str],
    names: Sequence[str],
    lines: Sequence[tuple[str, Sequence[Estimate]]],
) -> Curves:
    """Return a panel of mean cosines, the first line of which is what averaging alone gives."""
    at = tuple(map(float, range(len(names))))
    return Curves(
        title,
        tuple(
            Series(name, at, tuple(map(_point, names, line)), number - 1 if number else None, of)
            for number, (name, line) in enumerate(lines)
        ),
        along,
        tuple(zip(at, ticks, strict=True)),
        "mean cosine",
        aside=0.3,
    )


def _point(label: str, estimate: Estimate) -> Point:
    ends: Interval = (estimate.low, estimate.high)
    return Point(label, estimate.value, ends)


def points_of(panels: Iterable[Curves]) -> Iterable[Sequence[str | float | None]]:
    for panel in panels:
        for one in panel.series:
            for point in one.points:
                ends = point.ends or (None, None)
                yield panel.title, one.name, one.of, point.name, point.value, *ends


def figures_of(panels: Sequence[Curves]) -> list[Figure]:
    from matplotlib.lines import Line2D

    from lcbench.reporting.figures.panels import pages
    from lcbench.reporting.figures.printed import draw_curves, new_figure, style

    figures = []
    for places in pages(len(panels), 6):
        across = min(3, len(places))
        down = -(-len(places) // across)
        figure = new_figure(5.0 * across, 3.6 * down, "constrained")
        for number, place in enumerate(places, start=1):
            axes = figure.add_subplot(down, across, number)
            panel = panels[place]
            draw_curves(axes, panel, linear=True)
            axes.set_title(panel.title, fontsize="medium", parse_math=False)
            handles = [Line2D([], [], **style(one.order), label=one.name) for one in panel.series]
            axes.legend(handles=handles, fontsize="small", handlelength=4)
        figures.append(figure)
    return figures
