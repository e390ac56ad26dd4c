"""Renders a table of a report for a terminal.

It computes nothing. A table wider than the console is divided into parts, each with the names on
the left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from lcbench.reporting.formats import headings
from lcbench.reporting.table import Entry, Table
from lcbench.reporting.text import DOWN, UP, one_line, wrapped_header

# Gains are blue and losses orange, as on the page and in the figures.
_GAIN, _LOSS = "dodger_blue1", "dark_orange"
_STYLES = {
    "neutral": "",
    "gain": f"bold {_GAIN}",
    "loss": f"bold {_LOSS}",
    "inconclusive": "dim",
    "best": "bold",
    "detail": "dim",
}

# Maximum share of the width for names; and maximum length of a header before it is broken, if the
# numbers below it are narrower.
_SHARE_OF_LABELS = 0.45
_WIDEST_HEADER = 12


def rendered(table: Table) -> RenderableType:
    """Return a table with its title, its notes and its footnotes."""
    below = RichTable.grid(padding=(0, 1))
    for note in table.notes:
        below.add_row(Text("•"), Text(one_line(note)))
    for footnote in table.footnotes:
        below.add_row(Text("*"), Text(one_line(footnote), style="dim"))
    title = Text(one_line(table.title), style="bold")
    return Group(Text(), title, Text(), _Grid(table), *([below] if below.row_count else []))


class _Grid:
    """The rows of a table, with its columns divided into parts that fit the console."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        widths = self._widths(options.max_width)
        labels = range(self._table.labels)
        # Columns are set closer together if only then all of them fit.
        tight = sum(width + 1 for width in widths) - 1
        gap = 1 if tight <= options.max_width < tight + len(widths) - 1 else 2
        for numbers in self._parts(widths, gap, options.max_width):
            columns = [*labels, *numbers]
            yield self._grid(columns, widths, gap, header=True)
            for place, (group, section) in enumerate(headings(self._table.sections)):
                if place:
                    yield Text()
                if group:
                    yield Text(one_line(group), style="italic")
                if section.heading:
                    yield Text(one_line(section.heading), style="bold")
                grid = self._grid(columns, widths, gap, header=False)
                for row in section.rows:
                    grid.add_row(*(_entry(row[place]) for place in columns))
                yield grid
            yield Text()

    def _grid(
        self, columns: Sequence[int], widths: Sequence[int], gap: int, *, header: bool
    ) -> RichTable:
        grid = RichTable(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            show_header=header,
            # The box adds one space between columns.
            padding=(0, gap - 1, 0, 0),
        )
        for place in columns:
            grid.add_column(
                Text(self._header(place)),
                justify="left" if place < self._table.labels else "right",
                vertical="bottom" if header else "top",
                overflow="fold",
                # A column's width includes its right padding.
                width=widths[place],
            )
        return grid

    def _header(self, place: int) -> str:
        lines = map(one_line, self._table.header[place].split("\n"))
        if place < self._table.labels:
            return " ".join(lines)
        return "\n".join(wrapped_header(line).replace(", ", ",\n") for line in lines)

    def _widths(self, available: int) -> list[int]:
        table = self._table
        widths = []
        for place in range(len(table.header)):
            entries = max((cell_len(one_line(row[place].text)) for row in table.rows), default=0)
            header = max(map(cell_len, self._header(place).split("\n")))
            if place >= table.labels:
                header = min(header, _WIDEST_HEADER)
            widths.append(max(entries, header, 1))
        spare = int(available * _SHARE_OF_LABELS) - 2 * table.labels
        while table.labels and sum(widths[: table.labels]) > max(spare, 8):
            widest = max(range(table.labels), key=widths.__getitem__)
            if widths[widest] == 1:
                break
            widths[widest] -= 1
        return widths

    def _parts(self, widths: Sequence[int], gap: int, available: int) -> list[list[int]]:
        """Return the columns of numbers in parts that fit next to the names."""
        names = sum(width + gap for width in widths[: self._table.labels])
        parts: list[list[int]] = [[]]
        used = names
        for place in range(self._table.labels, len(widths)):
            if parts[-1] and used + widths[place] > available:
                parts.append([])
                used = names
            parts[-1].append(place)
            used += widths[place] + gap
        return parts


def _entry(entry: Entry) -> Text:
    """Return a table entry with its style."""
    style = _STYLES[entry.style]
    if entry.style == "neutral":
        # An improvement of unknown significance.
        style = {UP: _GAIN, DOWN: _LOSS}.get(entry.text[:1], "")
    return Text(one_line(entry.text), style=style)
