"""Plots scores over the tokens that are read of a document."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from lcbench.repair.repair import label_of
from lcbench.reporting.figures.panels import pages
from lcbench.reporting.figures.printed import csv_text, new_figure, style
from lcbench.reporting.tables.windows import WindowComparison

_ACROSS = 2
_PANELS_PER_PAGE = 6


def windows_figures(found: Sequence[WindowComparison]) -> list[Figure]:
    """Draw a panel for each model and task: truncated documents as a line, others as points."""
    figures = []
    for page in pages(len(found), _PANELS_PER_PAGE):
        of_page = [found[place] for place in page]
        across = min(len(of_page), _ACROSS)
        down = math.ceil(len(of_page) / across)
        figure = new_figure(5.4 * across, 3.6 * down, "constrained")
        for place, one in enumerate(of_page):
            axes = figure.add_subplot(down, across, place + 1)
            cut = [row for row in one.rows if row.is_truncated]
            axes.plot(
                [row.tokens for row in cut],
                [row.score for row in cut],
                label="read from the beginning, τ = 1",
                **style(None),
            )
            others = [row for row in one.rows if not row.is_truncated]
            for order, row in enumerate(others):
                look = {**style(order), "linestyle": "none", "markersize": 7}
                axes.plot([row.tokens], [row.score], label=label_of(row.policy), **look)
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.set_xlabel("tokens read of a relevant document")
            axes.set_ylabel("score × 100")
            axes.set_title(f"{one.label}, {one.task}", fontsize="medium", parse_math=False)
            axes.grid(color="0.9", zorder=0)
            axes.legend(fontsize="x-small")
        figures.append(figure)
    return figures


def windows_csv(found: Sequence[WindowComparison]) -> str:
    """Return the data of the figures, one row per repair."""
    return csv_text(
        ("scores", "model", "task", "policy", "tokens", "score", "improvement"),
        [
            (
                one.group,
                one.label,
                one.task,
                row.policy,
                row.tokens,
                row.score,
                row.improvement,
            )
            for one in found
            for row in one.rows
        ],
    )
