"""A report's tables as a terminal shows them: drawn of the lines and sheets of `reporting`.

Computes nothing. A terminal has 100 columns or more; what is wider comes in parts or is folded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from lcbench.reporting.formats import (
    FOOTNOTE_LENGTHS,
    ROW_NAMES,
    SCORES,
    average_lines,
    footnotes,
    length_columns,
    length_values,
    lines_of,
    notes_of,
    task_counts,
    window_text,
)
from lcbench.reporting.paper_formats import (
    PAPER_TITLE,
    QUANTITIES,
    paper_footnotes,
    paper_lines,
    paper_summary,
    paper_tables,
)
from lcbench.reporting.table import Entry, Section, Table
from lcbench.reporting.text import direction, group_heading, one_line, wrapped_header

if TYPE_CHECKING:
    from lcbench.reporting.findings import Findings
    from lcbench.reporting.score_table import ScoreTable
    from lcbench.reporting.statistics import TableStatistics
    from lcbench.reporting.tables.paper import Comparison
    from lcbench.reporting.tables.splits_by_length import LengthTable

# What is wide or long is left to the files.
_SHOWN = ("choice", "beside", "models", "table2")

_MOST_COLUMNS_FAR_APART = 6
# Stands for a row that is as wide as the table; no name has it, for it is not printable.
_SPANNING = "\ue000"

# Gains blue and losses orange, as on the page and in the figures.
_GAIN, _LOSS = "dodger_blue1", "dark_orange"
_STYLES = {
    "neutral": "",
    "gain": f"bold {_GAIN}",
    "loss": f"bold {_LOSS}",
    "inconclusive": "dim",
    "best": "bold",
}
_WITHIN_STYLES = {"yes": "green", "no": "red", "unknown": ""}

# Names may take this share of the width, and a header is broken beyond so many characters if the
# numbers below it are no wider.
_SHARE_OF_LABELS = 0.45
_WIDEST_HEADER = 12


def tables_of(findings: Findings) -> Iterator[RenderableType]:
    """Yield the tables of a report that a terminal shows: Table 1, how τ was chosen, the paper."""
    for found in findings.tables:
        yield table_1(found.table, found.statistics)
    for sheet in findings.sheets:
        if sheet.name.startswith(_SHOWN):
            yield any_sheet(sheet)
    if findings.lengths:
        yield scores_per_length(findings.lengths)
    if findings.paper:
        yield paper_comparison(findings.paper)


def table_1(table: ScoreTable, statistics: TableStatistics | None = None) -> RenderableType:
    """Return a table of the shape of Table 1, with its notes and its footnotes.

    With statistics, relative improvements have the marks of `sheet.improvement`, and their 95 %
    intervals below them.
    """
    # The box itself puts one space between two columns.
    spaces = 1 if len(table.column_names) <= _MOST_COLUMNS_FAR_APART else 0
    grid = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, spaces, 0, 0)
    )
    grid.add_column("Model", overflow="fold")
    counts = task_counts(table)
    for name in table.column_names:
        header = Text(wrapped_header(one_line(name)) + counts[name].replace(" ", "\n"))
        grid.add_column(header, justify="right", vertical="bottom", overflow="fold")
    spanning = []
    for window, blocks in groupby(table.blocks, window_text):
        spanning.append(Text(f"Window {window}", style="italic"))
        grid.add_row(_SPANNING)
        for block in blocks:
            spanning.append(Text(one_line(block.label), style="bold"))
            grid.add_row(_SPANNING)
            for line in lines_of(table, block, statistics, two_lines=True):
                # The policy of the relative line is that of the line above it.
                policy = f", τ = {one_line(line.policy)}" if line.kind in SCORES else ""
                values = [_terminal_value(line.kind, entry) for entry in line.entries]
                grid.add_row(Text(f" {ROW_NAMES[line.kind]}{policy}"), *values)
            grid.add_section()
    for line in average_lines(table, statistics, two_lines=True):
        values = [_terminal_value(line.kind, entry) for entry in line.entries]
        relative = line.kind == "relative"
        title = Text("Avg Improv.", style="bold") if relative else Text(f" {ROW_NAMES[line.kind]}")
        grid.add_row(title, *values)
    below = RichTable.grid(padding=(0, 1))
    for note in notes_of(table, statistics):
        below.add_row(Text("•"), Text(one_line(note)))
    for footnote in footnotes(table, statistics):
        below.add_row(Text("*"), Text(footnote, style="dim"))
    title = Text(one_line(group_heading(table.group)), style="bold")
    return Group(title, Text(), _Spanned(grid, spanning), Text(), below)


def scores_per_length(tables: Sequence[LengthTable]) -> RenderableType:
    """Return the scores of tasks whose splits are lengths."""
    parts: list[RenderableType] = [Text("Scores per length", style="bold")]
    for table in tables:
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
        grid.add_column(Text(one_line(table.task)), overflow="fold")
        for name in length_columns(table):
            grid.add_column(name, justify="right")
        heading = None
        for row in table.rows:
            if (row.window, row.label) != heading:
                heading = (row.window, row.label)
                grid.add_row(
                    Text(f"{one_line(row.label)}, window {window_text(row)}", style="bold")
                )
            grid.add_row(Text(f" τ = {one_line(row.policy)}"), *length_values(table, row))
        parts += [Text(), grid]
    return Group(Text(), *parts, Text(), Text(FOOTNOTE_LENGTHS, style="dim"))


def paper_comparison(comparisons: Sequence[Comparison]) -> RenderableType:
    """Return the paper's numbers beside ours, one table for each of the paper's."""
    parts: list[RenderableType] = [Text(), Text(PAPER_TITLE, style="bold"), Text()]
    for name, columns, rows in paper_tables(comparisons):
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        grid.add_column(name, overflow="fold")
        grid.add_column("")
        for column in columns:
            header = Text(wrapped_header(one_line(column)))
            grid.add_column(header, justify="right", vertical="bottom", overflow="fold")
        for label, row, policy, cells in rows:
            named = f" {row}, τ = {one_line(policy)}" if policy else f" {row}"
            names = [Text(one_line(label), style="bold"), Text(named), Text(), Text()]
            for title, quantity, values in zip(
                names, QUANTITIES, paper_lines(cells, columns), strict=True
            ):
                texts = [
                    Text(value, style=_paper_style(quantity, cells.get(column)))
                    for column, value in zip(columns, values, strict=True)
                ]
                grid.add_row(title, Text(quantity, style="dim"), *texts)
            grid.add_section()
        parts += [grid, Text()]
    below = RichTable.grid(padding=(0, 1))
    below.add_row(Text("•"), Text(paper_summary(comparisons)))
    for footnote in paper_footnotes(comparisons):
        below.add_row(Text("*"), Text(footnote, style="dim"))
    return Group(*parts, below)


def any_sheet(sheet: Table) -> RenderableType:
    """Return a sheet.

    What is wider than the console is printed in parts, each with the names on the left.
    """
    below = RichTable.grid(padding=(0, 1))
    for note in sheet.notes:
        below.add_row(Text("•"), Text(one_line(note), style="dim"))
    title = Text(one_line(sheet.title), style="bold")
    return Group(Text(), title, Text(), _Grid(sheet), *([below] if sheet.notes else []))


class _Spanned:
    """A grid some rows of which are names as wide as the console: no column is wider for them."""

    def __init__(self, grid: RichTable, names: Sequence[Text]) -> None:
        self._grid = grid
        self._names = names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = iter(self._names)
        for line in console.render_lines(self._grid, options, pad=False):
            if any(_SPANNING in segment.text for segment in line):
                yield next(names)
            else:
                yield from line
                yield Segment.line()


class _Grid:
    """The rows of a sheet, in as many parts as the width of the console makes of its columns."""

    def __init__(self, sheet: Table) -> None:
        self._sheet = sheet

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        widths = self._widths(options.max_width)
        labels = range(self._sheet.labels)
        for numbers in self._parts(widths, options.max_width):
            columns = [*labels, *numbers]
            first = True
            for section in self._sheet.sections or (Section("", ()),):
                grid = self._grid(columns, widths, first)
                for row in section.rows:
                    grid.add_row(*(_entry(row[place]) for place in columns))
                if section.heading and not first:
                    yield Text()
                if first and section.heading:
                    # The header stands above the first heading, as above the rows of a table.
                    yield self._grid(columns, widths, True)
                    grid.show_header = False
                if section.heading:
                    yield Text(one_line(section.heading), style="bold")
                yield grid
                first = False
            yield Text()

    def _grid(self, columns: Sequence[int], widths: Sequence[int], header: bool) -> RichTable:
        grid = RichTable(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            show_header=header,
            padding=(0, 1, 0, 0),
        )
        for place in columns:
            grid.add_column(
                Text(self._header(place)),
                justify="left" if place < self._sheet.labels else "right",
                vertical="bottom" if header else "top",
                overflow="fold",
                # A column has its padding on the right within its width.
                width=widths[place],
            )
        return grid

    def _header(self, place: int) -> str:
        text = one_line(self._sheet.header[place])
        return text if place < self._sheet.labels else wrapped_header(text).replace(", ", ",\n")

    def _widths(self, available: int) -> list[int]:
        widths = []
        for place in range(len(self._sheet.header)):
            rows = (row for section in self._sheet.sections for row in section.rows)
            entries = max((cell_len(one_line(row[place].text)) for row in rows), default=0)
            header = max(map(cell_len, self._header(place).split("\n")))
            if place >= self._sheet.labels:
                header = min(header, _WIDEST_HEADER)
            widths.append(max(entries, header, 1))
        spare = int(available * _SHARE_OF_LABELS) - 2 * self._sheet.labels
        while self._sheet.labels and sum(widths[: self._sheet.labels]) > max(spare, 8):
            widest = max(range(self._sheet.labels), key=widths.__getitem__)
            if widths[widest] == 1:
                break
            widths[widest] -= 1
        return widths

    def _parts(self, widths: Sequence[int], available: int) -> list[list[int]]:
        """Return the columns of numbers in parts that fit beside the names."""
        # Two characters lie between any two columns.
        names = sum(width + 2 for width in widths[: self._sheet.labels])
        parts: list[list[int]] = [[]]
        used = names
        for place in range(self._sheet.labels, len(widths)):
            if parts[-1] and used + widths[place] + 2 > available:
                parts.append([])
                used = names
            parts[-1].append(place)
            used += widths[place] + 2
        return parts


def _terminal_value(kind: str, entry: Entry) -> Text:
    text = _entry(entry)
    if kind == "relative" and entry.style == "neutral" and isinstance(entry.value, float):
        text.style = {1: _GAIN, -1: _LOSS, 0: ""}[direction(entry.value)]
    elif kind in {"low", "high"}:
        text.style = "dim"
    return text


def _entry(entry: Entry) -> Text:
    """Return an entry in its colours."""
    return Text(one_line(entry.text), style=_STYLES[entry.style])


def _paper_style(quantity: str, one: Comparison | None) -> str:
    if one is None or quantity != "difference":
        return "dim" if quantity == "noise" else ""
    return _WITHIN_STYLES[one.within]
