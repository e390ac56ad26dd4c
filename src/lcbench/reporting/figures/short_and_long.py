"""What each repair gains or loses on long texts, against the same on short ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from lcbench.repair.repair import label_of
from lcbench.reporting.figures.panels import Certainty, Interval, Mark, Scatter, is_linear, pages
from lcbench.reporting.figures.printed import (
    csv_text,
    draw_scatter,
    legend_marks,
    new_figure,
    style,
)
from lcbench.reporting.tables.thirds import LENGTHS
from lcbench.reporting.text import group_heading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lcbench.reporting.tables.repairs import RepairComparison, RepairRow

_SHORT, _, _LONG = LENGTHS
_PANELS_PER_PAGE = 4
_PANELS_PER_ROW = 2
_PANEL_INCHES = (4.6, 4.2)
_LEGEND_INCHES = 3.0


def repair_panels(compared: Sequence[RepairComparison]) -> list[Scatter]:
    """Return a panel for each model whose texts are known by length."""
    panels = [
        Scatter(
            f"{one.block.label}\n{group_heading(one.group)}",
            tuple(mark for row in one.rows if (mark := _mark(row)) is not None),
            f"{_SHORT} texts",
            f"{_LONG} texts",
        )
        for one in compared
    ]
    return [panel for panel in panels if panel.marks]


def repair_figures(compared: Sequence[RepairComparison]) -> list[Figure]:
    """Draw the gain on long texts over that on short ones, a panel for each model, four a page.

    Filled points are significant on long texts.
    """
    panels = repair_panels(compared)
    figures = []
    for page in pages(len(panels), _PANELS_PER_PAGE):
        some = [panels[place] for place in page]
        across = min(len(some), _PANELS_PER_ROW)
        down = math.ceil(len(some) / across)
        width, height = _PANEL_INCHES
        figure = new_figure(across * width + _LEGEND_INCHES, down * height, "constrained")
        known: set[Certainty] = set()
        names = list(dict.fromkeys(mark.name for panel in some for mark in panel.marks))
        for place, panel in enumerate(some, start=1):
            axes = figure.add_subplot(down, across, place)
            known |= draw_scatter(axes, panel, is_linear(panel.values), names)
        looks = [{**style(place), "linestyle": "none"} for place in range(len(names))]
        marks = legend_marks(known)
        figure.legend(
            [*(Line2D([], [], **look) for look in looks), *marks],
            [
                *(name.replace("$", r"\$") for name in names),
                *(str(one.get_label()) for one in marks),
            ],
            loc="outside right upper",
            fontsize="small",
        )
        figures.append(figure)
    return figures


def repair_csv(compared: Sequence[RepairComparison]) -> str:
    """Return the points of `repair_figures` in full precision, one for each row."""
    ends = ("low", "high")
    header = ("short", *(f"short_{end}" for end in ends), "long", *(f"long_{end}" for end in ends))
    return csv_text(
        ("group", "model", "repair", *header),
        (
            (
                *(one.group, one.block.label, row.policy),
                *(mark.x, *(mark.x_ends or (None, None))),
                *(mark.y, *(mark.y_ends or (None, None))),
            )
            for one in compared
            for row in one.rows
            if (mark := _mark(row)) is not None
        ),
    )


def _mark(row: RepairRow) -> Mark | None:
    x, y = row.improvements[_SHORT], row.improvements[_LONG]
    if x is None or y is None:
        return None
    return Mark(label_of(row.policy), x, y, _ends(row, _SHORT), _ends(row, _LONG))


def _ends(row: RepairRow, column: str) -> Interval:
    known = row.known.get(column)
    return None if known is None else (known.low, known.high)
