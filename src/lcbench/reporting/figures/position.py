"""The heat map of facts that are found, by depth and length, with what is cut off hatched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lcbench.measures.figures import PaperFigure

_ACROSS = 2


def position_figures(figures: Sequence[PaperFigure]) -> list[Figure]:
    """Draw a heat map for each kind of fact and repair, a page a model."""
    return [_page(one) for one in figures]


def _page(figure: PaperFigure) -> Figure:
    from matplotlib.patches import Rectangle

    from lcbench.reporting.figures.printed import new_figure

    down = math.ceil(len(figure.panels) / _ACROSS)
    drawn = new_figure(5.2 * _ACROSS, 2.9 * down, "constrained")
    per_kind = len(figure.panels) // len(figure.cuts)
    panels = []
    for number, panel in enumerate(figure.panels):
        cut = figure.cuts[number // per_kind]
        axes = drawn.add_subplot(down, _ACROSS, number + 1)
        rows = [[one.value for one in line.values] for line in panel.lines]
        image = axes.imshow(rows, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        panels.append(axes)
        for row, (values, shares) in enumerate(zip(rows, cut.shares, strict=True)):
            for column, (value, share) in enumerate(zip(values, shares, strict=True)):
                place = (column - 0.5, row - 0.5)
                if share > 0:
                    hatch = "xx" if share == 1 else "//"
                    axes.add_patch(
                        Rectangle(place, 1, 1, fill=False, hatch=hatch, edgecolor="0.75", lw=0)
                    )
                axes.text(
                    column,
                    row,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    fontsize="small",
                    color="black" if value > 0.5 else "white",
                )
        axes.set_xticks(range(len(panel.places)), [place.name for place in panel.places])
        axes.set_yticks(range(len(panel.lines)), [line.name for line in panel.lines])
        axes.set_xlabel(panel.along)
        title = panel.quantity.removeprefix("share found, ")
        axes.set_title(title, fontsize="medium", parse_math=False)
    drawn.colorbar(image, ax=panels, label="share found (crossed: beyond the window)", shrink=0.8)
    return drawn
