"""A forest plot: the relative improvement of each task with its interval, at the best τ."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lcbench.repair.repair import label_of
from lcbench.reporting.figures.panels import Certainty, Forest, Line, is_linear, pages
from lcbench.reporting.figures.printed import (
    csv_text,
    draw_forest,
    legend_marks,
    name_lines,
    new_figure,
)
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, ScoreTable, relative_improvement
from lcbench.reporting.statistics import TableStatistics, Uncertainty
from lcbench.reporting.text import group_heading

_MODELS_PER_PAGE = 4
_PANEL_INCHES = 2.3
_NAMES_INCHES = 3.0
_ROW_INCHES = 0.21
_ABOVE_AND_BELOW_INCHES = 1.7


def forest_lines(table: ScoreTable, block: Block, statistics: TableStatistics) -> tuple[Line, ...]:
    """Return a model's lines at its best τ: each column's tasks and their mean, `Avg` at the end.

    Empty if there is no τ but 1, or if all values are missing.
    """
    best = block.best
    if best is None:
        return ()
    lines = []
    of = f"{block.label}, {label_of(best)}"
    scores = {one.task: one.scores for one in block.tasks}
    for column in table.columns:
        for task in column.tasks:
            improvement = relative_improvement(scores[task][best], scores[task][BASELINE])
            known = statistics.cells.get((block.label, best, task))
            lines.append(_line("task", task, improvement, known, f"{column.name}, {of}"))
        if len(column.tasks) > 1:
            lines.append(_mean("column", block, best, column.name, statistics, of))
    lines.append(_mean("average", block, best, AVERAGE, statistics, of))
    return tuple(lines) if any(line.improvement is not None for line in lines) else ()


def forest_panels(table: ScoreTable, statistics: TableStatistics) -> list[Forest]:
    """Return a panel for each model that has a τ but 1."""
    return [
        Forest(f"{block.label}\n{label_of(block.best)}", lines)
        for block in table.blocks
        if block.best is not None and (lines := forest_lines(table, block, statistics))
    ]


def average_panel(table: ScoreTable, statistics: TableStatistics) -> Forest:
    """Return the panel of `Avg` of each model at its best τ, and of the mean over the models."""
    lines = [
        replace(line, name=block.label, kind="task", of=line.of)
        for block in table.blocks
        for line in forest_lines(table, block, statistics)[-1:]
    ]
    if table.average_improvement is not None:
        value, known = table.average_improvement[AVERAGE], statistics.average.get(AVERAGE)
        lines.append(_line("average", "Avg Improv.", value, known, "mean over the models"))
    return Forest(f"{AVERAGE} of all models", tuple(lines))


def forest_figures(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]
) -> list[Figure]:
    """Draw a panel for each model, four per page, with a line for each task.

    Args:
        tables: tables whose models are drawn at their best τ.
        statistics: statistics of each table.
    """
    figures = []
    for table, of_table in zip(tables, statistics, strict=True):
        panels = forest_panels(table, of_table)
        for page in pages(len(panels), _MODELS_PER_PAGE):
            figures.append(_figure(table, [panels[place] for place in page]))
    return figures


def forest_csv(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]) -> str:
    """Return the lines of all panels in full precision, one for each row."""
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
    of: str,
) -> Line:
    if known is None:
        return Line(kind, name, improvement, None, of=of)
    return Line(kind, name, improvement, (known.low, known.high), known.excludes_zero, of)


def _mean(
    kind: Literal["column", "average"],
    block: Block,
    policy: str,
    column: str,
    statistics: TableStatistics,
    of: str,
) -> Line:
    known = statistics.means.get((block.label, policy, column))
    return _line(kind, column, block.improvements[policy][column], known, of)


def _figure(table: ScoreTable, panels: Sequence[Forest]) -> Figure:
    count = len(panels[0].lines)
    figure = new_figure(
        _NAMES_INCHES + _PANEL_INCHES * len(panels),
        count * _ROW_INCHES + _ABOVE_AND_BELOW_INCHES,
        "constrained",
    )
    linear = is_linear(value for panel in panels for value in panel.values)
    known: set[Certainty] = set()
    first: Axes | None = None
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place, sharey=first, sharex=first)
        known |= draw_forest(axes, panel, linear)
        if first is None:
            first = axes
            name_lines(axes, panel)
        else:
            axes.tick_params(labelleft=False)
    figure.suptitle(group_heading(table.group), fontsize="medium", parse_math=False)
    figure.legend(
        handles=legend_marks(known), loc="outside lower center", ncols=3, fontsize="small"
    )
    return figure
