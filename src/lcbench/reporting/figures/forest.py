"""A forest plot: the relative improvement of each task with its interval, at the best τ."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lcbench.reporting.figures.drawing import (
    GAIN,
    LOSS,
    NEITHER,
    Certainty,
    certainty,
    certainty_handles,
    csv_text,
    improvement_axis,
    is_linear,
    mark,
    new_figure,
    pages,
    written,
)
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, ScoreTable, relative_improvement
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.text import group_heading

_MODELS_PER_PAGE = 4
_PANEL_INCHES = 2.3
_NAMES_INCHES = 3.0
_ROW_INCHES = 0.21
_ABOVE_AND_BELOW_INCHES = 1.7

_MARKERS = {"task": "o", "column": "D", "average": "s"}
_SIZES = {"task": 5, "column": 6, "average": 8}


@dataclass(frozen=True)
class Line:
    """A line of a forest plot.

    Attributes:
        kind: of what: a task, the mean of a column of several, or `Avg`.
        name: of the task or column.
        improvement: relative, in %; None is a hole.
        interval: of 95 %; None where it is unknown.
        is_significant: None where it is unknown.
    """

    kind: Literal["task", "column", "average"]
    name: str
    improvement: float | None
    interval: tuple[float, float] | None
    is_significant: bool | None = field(default=None, compare=False)


def forest_lines(table: ScoreTable, block: Block, statistics: TableStatistics) -> tuple[Line, ...]:
    """A model's lines at its best τ: each column's tasks and then their mean, `Avg` at the end.

    Empty where there is no τ but 1, or nothing but holes.
    """
    best = block.best
    if best is None:
        return ()
    lines = []
    scores = {one.task: one.scores for one in block.tasks}
    for column in table.columns:
        for task in column.tasks:
            improvement = relative_improvement(scores[task][best], scores[task][BASELINE])
            known = statistics.cells.get((block.label, best, task))
            lines.append(_line("task", task, improvement, known))
        if len(column.tasks) > 1:
            lines.append(_mean("column", block, best, column.name, statistics))
    lines.append(_mean("average", block, best, AVERAGE, statistics))
    return tuple(lines) if any(line.improvement is not None for line in lines) else ()


def forest_figures(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]
) -> list[Figure]:
    """A panel a model, four a page, a line a task; filled where it is significant.

    Args:
        tables: whose models are drawn at their best τ.
        statistics: one a table.
    """
    figures = []
    for table, of_table in zip(tables, statistics, strict=True):
        panels = [
            (block, lines)
            for block in table.blocks
            if (lines := forest_lines(table, block, of_table))
        ]
        for page in pages(len(panels), _MODELS_PER_PAGE):
            figures.append(_figure(table, [panels[place] for place in page]))
    return figures


def plot_forest(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics], stem: Path
) -> list[Path]:
    """Write `forest_figures` as PNG and SVG (`drawing.written`) and return the paths."""
    return written(lambda: forest_figures(tables, statistics), stem)


def forest_csv(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]) -> str:
    """The lines of all panels, one a row, in full precision."""
    return csv_text(
        ("group", "model", "policy", "kind", "name", "improvement", "low", "high"),
        (
            (
                *(table.group, block.label, block.best, line.kind, line.name),
                *(line.improvement, *(line.interval or (None, None))),
            )
            for table, of_table in zip(tables, statistics, strict=True)
            for block in table.blocks
            for line in forest_lines(table, block, of_table)
        ),
    )


def _line(
    kind: Literal["task", "column", "average"],
    name: str,
    improvement: float | None,
    known: Uncertainty | None,
) -> Line:
    if known is None:
        return Line(kind, name, improvement, None)
    return Line(kind, name, improvement, (known.low, known.high), known.excludes_zero)


def _mean(
    kind: Literal["column", "average"],
    block: Block,
    policy: str,
    column: str,
    statistics: TableStatistics,
) -> Line:
    known = statistics.means.get((block.label, policy, column))
    return _line(kind, column, block.improvements[policy][column], known)


def _figure(table: ScoreTable, panels: Sequence[tuple[Block, tuple[Line, ...]]]) -> Figure:
    count = len(panels[0][1])
    figure = new_figure(
        _NAMES_INCHES + _PANEL_INCHES * len(panels), count * _ROW_INCHES + _ABOVE_AND_BELOW_INCHES
    )
    linear = is_linear(
        value
        for _, lines in panels
        for line in lines
        for value in (line.improvement, *(line.interval or ()))
        if value is not None
    )
    known: set[Certainty] = set()
    first: Axes | None = None
    for place, (block, lines) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place, sharey=first, sharex=first)
        known |= _draw(axes, lines, linear)
        # Names are text: a dollar sign in one must not start a formula.
        axes.set_title(f"{block.label}\nτ = {block.best}", fontsize="medium", parse_math=False)
        if first is None:
            first = axes
            names = [
                f"{line.name} (mean)" if line.kind == "column" else line.name for line in lines
            ]
            axes.set_yticks(range(count), names, parse_math=False, fontsize="small")
            for text, line in zip(axes.get_yticklabels(), lines, strict=True):
                text.set_fontweight("normal" if line.kind == "task" else "bold")
            axes.set_ylim(count - 0.5, -0.5)
        else:
            axes.tick_params(labelleft=False)
    figure.suptitle(group_heading(table.group), fontsize="medium", parse_math=False)
    figure.legend(
        handles=certainty_handles(known), loc="outside lower center", ncols=3, fontsize="small"
    )
    return figure


def _draw(axes: Axes, lines: Sequence[Line], linear: bool) -> set[Certainty]:
    """Draw a panel's lines and return what is known of them."""
    seen: set[Certainty] = set()
    for place, line in enumerate(lines):
        if line.kind != "task":
            # The means end their columns.
            axes.axhspan(place - 0.5, place + 0.5, color="0.93", linewidth=0, zorder=0)
        if line.improvement is None:
            continue
        known = certainty(line.interval, line.is_significant)
        seen.add(known)
        colour = NEITHER
        if known == "sure":
            colour = GAIN if line.improvement > 0 else LOSS
        if line.interval is not None:
            axes.plot(line.interval, [place, place], color=colour, linewidth=1.4, zorder=2)
        axes.plot(
            [line.improvement],
            [place],
            **mark(known, colour, _MARKERS[line.kind]),
            markersize=_SIZES[line.kind],
            zorder=3,
        )
    axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
    axes.set_xlabel(improvement_axis(axes, "x", linear), fontsize="small")
    axes.tick_params(axis="x", labelsize="small")
    axes.grid(axis="x", color="0.9", zorder=0)
    axes.set_axisbelow(True)
    return seen
