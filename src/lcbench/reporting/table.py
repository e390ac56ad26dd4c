"""The type of all tables of a report: entries with exact values, in rows under headings.

Only rounding is done here. `formats` and `cli.tables` write tables, one function per format.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lcbench.reporting.text import (
    DOWN,
    DOWN_UNSURE,
    MISSING_VALUE,
    TOO_FEW,
    UP,
    UP_UNSURE,
    change,
    full,
    two_decimals,
)

if TYPE_CHECKING:
    from lcbench.reporting.statistics import Uncertainty

Style = Literal["neutral", "gain", "loss", "inconclusive", "best", "detail"]
"""neutral; a significant improvement or loss; one that is not significant; the best of several
numbers; what belongs to the number above it, such as an end of its interval."""

Source = tuple[str, str, str]
"""Where a number comes from: label of the model, policy, and task or column (of `ScoreTable`s)."""


@dataclass(frozen=True)
class Entry:
    """An entry of a table: a number or a name.

    Attributes:
        text: text as shown.
        value: exact number or full name; None: a missing value.
        style: kind of emphasis.
        tooltip: explanation in plain text, such as an interval or a count.
        low: exact lower end of its 95 % interval, in the unit of the value; None: unknown.
        high: upper end of the interval.
        source: cell or mean over cells that leads to its provenance; None: neither.
    """

    text: str
    value: float | str | None = None
    style: Style = "neutral"
    tooltip: str = ""
    low: float | None = None
    high: float | None = None
    source: Source | None = None


@dataclass(frozen=True)
class Section:
    """Rows under a heading.

    Attributes:
        heading: heading above the rows; empty: none.
        rows: rows, each with one entry per column of the table.
        group: heading above this and the following sections of the same group; empty: none.
    """

    heading: str
    rows: tuple[tuple[Entry, ...], ...]
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        name: name of its files, without suffix: `table2`, `languages`.
        title: title above it.
        header: names of its columns; line breaks are kept if there is room.
        labels: number of leading columns that hold names instead of numbers.
        sections: rows, by section.
        notes: sentences below it.
        footnotes: paragraphs below the notes on how to read its numbers.
        scores: group of the `ScoreTable` that the sources of its entries refer to.
        data: file with one number per row and full names of models; empty: only
            `tables/<name>.csv`.
    """

    name: str
    title: str
    header: tuple[str, ...]
    labels: int
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    scores: str = ""
    data: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns in one line each."""
        return tuple(one.replace("\n", " ") for one in self.header)

    @property
    def rows(self) -> tuple[tuple[Entry, ...], ...]:
        """The rows of all sections."""
        return tuple(row for section in self.sections for row in section.rows)


def name(text: str) -> Entry:
    """Return an entry with a name, for the left of a row."""
    return Entry(text, text)


def _exact(row: Iterable[float | str | None]) -> tuple[Entry, ...]:
    """Return numbers and names in full, empty if missing."""
    return tuple(
        Entry(full(value), value)
        if isinstance(value, float)
        else name("" if value is None else str(value))
        for value in row
    )


def of_values(
    file: str, title: str, header: Sequence[str], rows: Iterable[Iterable[float | str | None]]
) -> Table:
    """Return values one a row, in full, for programs; the first seven columns are names."""
    return Table(file, title, tuple(header), 7, (Section("", tuple(map(_exact, rows))),))


def number(
    value: float | None, style: Style = "neutral", tooltip: str = "", source: Source | None = None
) -> Entry:
    """Return an entry with a score × 100, or another number with two decimals."""
    return Entry(two_decimals(value), value, style, tooltip, source=source)


def formatted(value: float | None, form: str) -> Entry:
    """Return a number in a format of Python's; None: a missing value."""
    return Entry(MISSING_VALUE if value is None else format(value, form), value)


def improvement(
    value: float | None,
    uncertainty: Uncertainty | None = None,
    source: Source | None = None,
    unit: str = " %",
) -> Entry:
    """Return an entry with a relative improvement in %, with marks of significance.

    "▲ 0.43" in bold if it is significant, "△ 0.43" if not; plain "▲ 0.43" if that is unknown. 0.00
    has an arrow only if it is significant. "few: 0.43" means that too few items changed to draw a
    conclusion about others.
    """
    if value is None or uncertainty is None:
        return Entry(change(value), value, source=source)
    tooltip = described(uncertainty, unit)
    ends = (uncertainty.low, uncertainty.high)
    # An interval on the other side of zero than the improvement supports neither direction.
    if uncertainty.excludes_zero and value * uncertainty.low > 0:
        if value > 0:
            return Entry(f"{UP} {two_decimals(value)}", value, "gain", tooltip, *ends, source)
        return Entry(f"{DOWN} {two_decimals(-value)}", value, "loss", tooltip, *ends, source)
    text = change(value, f"{UP_UNSURE} ", f"{DOWN_UNSURE} ")
    if uncertainty.is_too_few:
        text = f"{TOO_FEW} {two_decimals(value)}"
    return Entry(text, value, "inconclusive", tooltip, *ends, source)


def interval(uncertainty: Uncertainty) -> str:
    """Return the ends of a 95 % interval: "-0.11 to 0.80"."""
    return f"{two_decimals(uncertainty.low)} to {two_decimals(uncertainty.high)}"


def described(uncertainty: Uncertainty, unit: str = " %") -> str:
    """Return the interval, the test and the numbers of items of an improvement, in a line."""
    parts = [f"95 % interval {interval(uncertainty)}"]
    if uncertainty.alone is not None:
        low, high = map(two_decimals, uncertainty.alone)
        parts = [
            f"95 % band over the {uncertainty.tried} tried {interval(uncertainty)}",
            f"interval of this one alone {low} to {high}",
        ]
    if uncertainty.bound is not None and not uncertainty.excludes_zero:
        parts.append(f"no more than {two_decimals(uncertainty.bound)}{unit} either way")
    if uncertainty.p is not None:
        parts.append(f"p = {uncertainty.p:.2g}")
    if uncertainty.adjusted is not None:
        parts.append(f"after Holm {uncertainty.adjusted:.2g}")
    if uncertainty.sample:
        parts.append(uncertainty.sample)
    if uncertainty.changed is not None:
        parts.append(f"{uncertainty.up:,} up, {uncertainty.down:,} down")
    if uncertainty.note:
        parts.append(uncertainty.note)
    return "; ".join(parts)


def distinct(tables: Iterable[Table]) -> tuple[Table, ...]:
    """Return tables with names that differ, so that none is written over another's files."""
    named: dict[str, Table] = {}
    for table in tables:
        other, count = table.name, 1
        while other in named:
            count += 1
            other = f"{table.name}-{count}"
        named[other] = replace(table, name=other)
    return tuple(named.values())


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as plain values for JSON; numbers that are not finite become null."""
    return {
        "name": table.name,
        "title": table.title,
        "header": list(table.columns),
        "labels": table.labels,
        "sections": [
            {
                "heading": section.heading,
                "group": section.group,
                "rows": [[_json_entry(entry) for entry in row] for row in section.rows],
            }
            for section in table.sections
        ],
        "notes": list(table.notes),
        "footnotes": list(table.footnotes),
        "scores": table.scores,
        "data": table.data,
    }


def _json_entry(entry: Entry) -> dict[str, Any]:
    known: dict[str, Any] = {
        "text": entry.text,
        "value": _json_value(entry.value),
        "style": entry.style,
        "tooltip": entry.tooltip,
    }
    ends = {"low": entry.low, "high": entry.high}
    # Left out for most entries, which have none.
    known |= {end: _json_value(value) for end, value in ends.items() if value is not None}
    return known if entry.source is None else known | {"source": list(entry.source)}


def _json_value(value: float | str | None) -> float | str | None:
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    return value
