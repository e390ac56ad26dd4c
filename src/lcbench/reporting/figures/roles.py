"""Heat maps of the improvement over the τ of queries and that of documents (Figures 9 and 15)."""

import math
from collections.abc import Sequence
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from lcbench.reporting.figures.panels import (
    HEAT,
    LINEAR_PERCENT,
    HeatScale,
    known_values,
    pages,
)
from lcbench.reporting.figures.printed import LINEAR_SCALE, csv_text, new_figure
from lcbench.reporting.tables.roles import RoleGrid
from lcbench.reporting.text import signed

_COLOURS = LinearSegmentedColormap.from_list("loss and gain", HEAT)
# Relative luminance (WCAG 2) at which black and white text are equally legible.
_EQUALLY_LEGIBLE = 0.179

_PANELS_PER_ROW = 3
_PANELS_PER_PAGE = 9
_SQUARE_INCHES = 0.46
_BESIDE_INCHES = 1.1
_BAR_INCHES = 0.9
# Minimum width of a panel; longer titles are wrapped.
_TITLE_INCHES = 2.2
_CHARACTERS_PER_INCH = 15


def roles_figures(grids: Sequence[RoleGrid]) -> list[Figure]:
    """Draw a panel for each grid, all on one scale; grids without any value are left out.

    The best square has a thick frame, and τ = 1 for both roles has a dashed frame.
    """
    drawn = [grid for grid in grids if known_values(grid)]
    scale = HeatScale.of(drawn)
    norm: Normalize = Normalize(-scale.most, scale.most)
    if not scale.linear:
        norm = SymLogNorm(LINEAR_PERCENT, LINEAR_SCALE, vmin=-scale.most, vmax=scale.most)
    figures = []
    for page in pages(len(drawn), _PANELS_PER_PAGE):
        of_page = [drawn[place] for place in page]
        across = min(len(of_page), _PANELS_PER_ROW)
        down = math.ceil(len(of_page) / across)
        columns = max(len(grid.document_temperatures) for grid in of_page)
        square = max(_SQUARE_INCHES, _TITLE_INCHES / columns)
        wide = columns * square
        high = max(len(grid.query_temperatures) for grid in of_page) * square
        figure = new_figure(
            across * (wide + _BESIDE_INCHES) + _BAR_INCHES,
            down * (high + _BESIDE_INCHES),
            "compressed",
        )
        panels = []
        for place, grid in enumerate(of_page, start=1):
            panels.append(figure.add_subplot(down, across, place))
            characters = int(wide * _CHARACTERS_PER_INCH)
            image = _draw(panels[-1], grid, norm, characters)
        bar = figure.colorbar(image, ax=panels, label=scale.title, shrink=0.8, aspect=30)
        bar.ax.yaxis.set_major_formatter(lambda value, _: signed(value, "g"))
        figures.append(figure)
    return figures


def roles_csv(grids: Sequence[RoleGrid]) -> str:
    """Return the squares of all grids in full precision, one for each row."""
    return csv_text(
        ("model", "what", "query_tau", "document_tau", "improvement"),
        (
            (grid.label, grid.what, query, document, value)
            for grid in grids
            for query, row in zip(grid.query_temperatures, grid.values, strict=True)
            for document, value in zip(grid.document_temperatures, row, strict=True)
        ),
    )


def _draw(axes: Axes, grid: RoleGrid, norm: Normalize, most_characters: int) -> AxesImage:
    rows = [[math.nan if value is None else value for value in row] for row in grid.values]
    image = axes.imshow(rows, cmap=_COLOURS, norm=norm, aspect="equal")
    best = max(known_values(grid))
    for row, query in enumerate(grid.query_temperatures):
        for column, document in enumerate(grid.document_temperatures):
            value = grid.values[row][column]
            place = (column - 0.5, row - 0.5)
            if value is None:
                axes.add_patch(Rectangle(place, 1, 1, fill=False, hatch="///", edgecolor="0.7"))
                continue
            ink = "black" if _luminance(_COLOURS(norm(value))) > _EQUALLY_LEGIBLE else "white"
            axes.text(
                column,
                row,
                _short(value),
                color=ink,
                ha="center",
                va="center",
                fontsize=7.5,
                fontweight="bold" if value == best else "normal",
            )
            inner = (place[0] + 0.06, place[1] + 0.06)
            if value == best:
                axes.add_patch(Rectangle(inner, 0.88, 0.88, fill=False, edgecolor=ink, lw=2))
            elif query == document == 1:
                axes.add_patch(
                    Rectangle(inner, 0.88, 0.88, fill=False, edgecolor=ink, lw=1, linestyle="--")
                )
    temperatures = grid.document_temperatures
    axes.set_xticks(range(len(temperatures)), [f"{tau:g}" for tau in temperatures])
    temperatures = grid.query_temperatures
    axes.set_yticks(range(len(temperatures)), [f"{tau:g}" for tau in temperatures])
    axes.tick_params(length=0)
    axes.set_xlabel("τ of documents")
    axes.set_ylabel("τ of queries")
    # Names are text: a dollar sign in one must not start a formula.
    lines = [
        part for name in (grid.label, grid.what) for part in wrap(name, most_characters) or [name]
    ]
    axes.set_title("\n".join(lines), fontsize="small", parse_math=False)
    return image


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour, as defined by WCAG 2."""
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _short(value: float) -> str:
    """Return a number in at most five characters, up to ± 9999: +0.43, −12.3, −100."""
    if round(value, 2) == 0:
        return "0"
    shortened = (digits for digits in (2, 1) if len(f"{abs(value):.{digits}f}") < 5)
    digits = next(shortened, 0)
    return signed(value, f".{digits}f")
