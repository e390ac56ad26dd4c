"""The main results in the layout of the paper's Table 1, and with one value per row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lcbench.repair.repair import label_of
from lcbench.reporting.score_table import AVERAGE, Block, Row, ScoreTable
from lcbench.reporting.statistics import LEAST_CHANGED, SIGNIFICANCE, TableStatistics, Uncertainty
from lcbench.reporting.table import Entry, Section, Source, Table, improvement, number, of_values
from lcbench.reporting.text import (
    DOWN,
    DOWN_UNSURE,
    MISSING_VALUE,
    TOO_FEW,
    UP,
    UP_UNSURE,
    group_heading,
)
from lcbench.tasks.suites import averaged_columns

DATA = "table1.csv"
"""The file with one value per row."""

_HEADER = ("group", "window", "model", "revision", "row", "policy", "column", "value")

ROW_NAMES = {
    "raw": "raw",
    "ours": "ours",
    "relative": "Relative Improv.",
    "low": "95 % from",
    "high": "       to",
}

_FOOTNOTE_AVERAGE = (
    f"{AVERAGE} is the unweighted mean of the columns, not of the tasks; a column is the "
    "unweighted mean of its tasks (their number in parentheses), a task that of its splits and "
    "subsets. Scores are × 100, relative improvements are % of raw, computed before rounding; "
    f"{MISSING_VALUE} is a missing value, never averaged around."
)
_FOOTNOTE_PARTIAL = (
    "A column like 3 of 8 is partial: so many of its tasks have a score. They are not averaged; "
    "those that are missing are named above."
)
_CHOSEN_ON = (
    "which is chosen on the same data that it is evaluated on, so that its improvement is "
    "optimistic."
)
_FOOTNOTE_CHOICE = (
    "As in the paper, raw is the baseline (τ = 1) and ours is TempScale at the model's best τ, "
    f"{_CHOSEN_ON}"
)
_FOOTNOTE_REPAIRS = (
    f"raw is the baseline (τ = 1) and ours is the best repair that was tried, {_CHOSEN_ON}"
)


def main_table(table: ScoreTable, statistics: TableStatistics) -> Table:
    """Return the table with the scores of each model, raw and at its best τ, and the improvement.

    Args:
        table: one of `table1.build_tables`.
        statistics: statistics of the table, for intervals and marks.
    """
    sections = [
        Section(block.label, tuple(_rows(table, block, statistics)), f"Window {window_text(block)}")
        for block in table.blocks
    ]
    if table.average_improvement is not None:
        known = statistics.average
        average = Row("relative", "", table.average_improvement)
        lines = _lines(table, average, known, None, bool(known))
        sections.append(Section("", tuple((_label(text, line), *line) for _, text, line in lines)))
    counts = {column.name: len(column.tasks) for column in table.columns}
    return Table(
        name="table1",
        title=f"Scores and relative improvements: {group_heading(table.group)}",
        header=(
            "Model",
            *(f"{one}\n({counts[one]})" if one in counts else one for one in table.column_names),
        ),
        labels=1,
        sections=tuple(sections),
        notes=(*table.notes, *statistics.notes),
        footnotes=footnotes(table, statistics),
        scores=table.group,
        data=DATA,
    )


def main_values(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics]) -> Table:
    """Return the values of the main tables, one per row, for programs.

    `row` is raw, ours, relative, low or high; the last two are the ends of the 95 % interval of the
    relative improvement. Scores are × 100, relative improvements in %. Missing values and unknown
    windows are empty. The row `Avg Improv.` is not included.

    Args:
        tables: all tables of a report.
        statistics: the statistics of each table.
    """
    rows = (
        (*identity(table, block), kind, policy, column, entry.value)
        for table, known in zip(tables, statistics, strict=True)
        for block in table.blocks
        for row in block.rows
        for kind, policy, line in _values(table, block, row, known)
        for column, entry in zip(table.column_names, line, strict=True)
    )
    return of_values("table1", "Values of Table 1", _HEADER, rows)


def footnotes(table: ScoreTable, statistics: TableStatistics) -> tuple[str, ...]:
    """Return the footnotes on how to read the numbers."""
    choice = any(block.best is not None for block in table.blocks)
    partial = any(row.partial for block in table.blocks for row in block.rows)
    names = [column.name for column in table.columns]
    outside = [one for one in names if one not in averaged_columns(names)]
    return (
        *([_FOOTNOTE_CHOICE if table.words[0] == "τ" else _FOOTNOTE_REPAIRS] if choice else []),
        _FOOTNOTE_AVERAGE,
        *([f"{' and '.join(outside)}: not part of {AVERAGE}, as in the paper."] if outside else []),
        *([_FOOTNOTE_PARTIAL] if partial else []),
        *([_footnote_marks(statistics, table.words[1])] if choice else []),
    )


def window_text(block: Block) -> str:
    """Return the window in tokens as text, or a text for an unknown one."""
    return MISSING_VALUE if block.window is None else str(block.window)


def identity(table: ScoreTable, block: Block) -> tuple[str, str, str, str]:
    """Return the identity of a model in files for programs: group, window, model, revision."""
    window = "" if block.window is None else str(block.window)
    return table.group, window, block.model, block.revision


def _footnote_marks(statistics: TableStatistics, tried: str) -> str:
    if statistics.resamples == 0:
        return "No intervals were asked for (resamples=0)."
    return (
        f"{UP} and {DOWN} in bold: the improvement is significant, that is, its 95 % interval "
        f"excludes zero and, of a task, its permutation test has p ≤ {SIGNIFICANCE}; {UP_UNSURE} "
        f"and {DOWN_UNSURE}: it is not; {TOO_FEW} fewer than {LEAST_CHANGED} items changed, too "
        f"few to say anything of others; plain {UP} and {DOWN}: it is unknown. The intervals are "
        "those of a paired bootstrap over the tasks' items, of which those that share a document "
        f"or a text are drawn together, for columns of several tasks and {AVERAGE} over their "
        f"tasks as well: {statistics.resamples:,} resamples, seed {statistics.seed}. They say how "
        f"much an improvement would vary over other items like these. Where several {tried} were "
        "tried they are bands over all of them, and so hold for the best one too."
    )


def _rows(
    table: ScoreTable, block: Block, statistics: TableStatistics
) -> Iterator[tuple[Entry, ...]]:
    for row in block.rows:
        known = _known(block, row, statistics)
        for _, text, line in _lines(table, row, known, block.label, bool(known)):
            yield (_label(text, line), *line)


def _label(text: str, line: Sequence[Entry]) -> Entry:
    return Entry(text, text, "detail" if line[0].style == "detail" else "neutral")


def _values(
    table: ScoreTable, block: Block, row: Row, statistics: TableStatistics
) -> Iterator[tuple[str, str, tuple[Entry, ...]]]:
    """Yield the lines of a row with their kinds, including the ends of intervals."""
    known = _known(block, row, statistics)
    for kind, _, line in _lines(table, row, known, block.label, True):
        yield kind, row.policy, line


def _known(block: Block, row: Row, statistics: TableStatistics) -> Mapping[str, Uncertainty]:
    """Return the uncertainty of the improvements of a row, by column."""
    if row.kind != "relative":
        return {}
    keys = {column: (block.label, row.policy, column) for column in row.values}
    return {
        column: statistics.means[key]
        for column, key in keys.items()
        if row.values[column] is not None and key in statistics.means
    }


def _lines(
    table: ScoreTable,
    row: Row,
    known: Mapping[str, Uncertainty],
    label: str | None,
    with_ends: bool,
) -> Iterator[tuple[str, str, tuple[Entry, ...]]]:
    """Yield kind, name and entries of a row, and of the ends of its intervals."""
    entries = []
    for column in table.column_names:
        value = row.values[column]
        source: Source | None = None if label is None else (label, row.policy, column)
        if value is None and column in row.partial:
            entries.append(Entry("{} of {}".format(*row.partial[column])))
        elif row.kind == "relative":
            entries.append(improvement(value, known.get(column), source))
        else:
            entries.append(number(value, source=source))
    # The policy of the relative line is that of the line above it.
    text = ROW_NAMES[row.kind] + ("" if row.kind == "relative" else f", {label_of(row.policy)}")
    yield row.kind, "Avg Improv." if label is None else text, tuple(entries)
    if row.kind == "relative" and with_ends:
        ends = [known.get(column) for column in table.column_names]
        yield "low", ROW_NAMES["low"], _details(None if one is None else one.low for one in ends)
        yield "high", ROW_NAMES["high"], _details(None if one is None else one.high for one in ends)


def _details(values: Iterable[float | None]) -> tuple[Entry, ...]:
    return tuple(number(value, "detail") for value in values)
