"""A sheet: any table of the report as values with their texts, and its formats.

Computes nothing but roundings; `text` escapes the names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lcbench.reporting.text import (
    DOWN,
    DOWN_UNSURE,
    HOLE,
    TOO_FEW,
    UP,
    UP_UNSURE,
    change,
    csv_text,
    full,
    latex_row,
    latex_text,
    markdown_grid,
    markdown_text,
    one_line,
    two_decimals,
)

if TYPE_CHECKING:
    from lcbench.reporting.statistics import Uncertainty

Style = Literal["neutral", "gain", "loss", "inconclusive", "best"]
"""plain; a significant improvement or loss; one that is not significant;
a number that stands out among its neighbours (the best of a row)."""


@dataclass(frozen=True)
class Entry:
    """One place of a sheet.

    Attributes:
        text: as shown.
        value: the exact number or name behind it; None is a hole.
        style: how it is set off from the others.
        tooltip: what a reader may want to know besides (an interval, a count), as plain text.
        low: lower end of its 95 % interval, exact, in the unit of the value; None: unknown.
        high: upper end.
    """

    text: str
    value: float | str | None = None
    style: Style = "neutral"
    tooltip: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Section:
    """Rows under one heading; empty for none."""

    heading: str
    rows: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its files, without suffix: `table2`, `languages`.
        title: above it.
        header: the names of its columns.
        labels: how many of them, from the left, are names and no numbers.
        sections: its rows.
        notes: below it, each a sentence.
    """

    name: str
    title: str
    header: tuple[str, ...]
    labels: int
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


_MINUS = re.compile(r"(?<![\w-])-(?=\d)")
_BOLD = frozenset({"gain", "loss", "best"})

# More rows than these do not fit on a page; a `longtable` goes on over the next.
_ROWS_OF_A_PAGE = 40

# In LaTeX: so many columns of numbers stand side by side, fewer in a `longtable`, which cannot be
# scaled. Notes of more lines than these stand below the table, and may go on over the next page.
# A TeX holds a limited number of tables for which it has found no place yet.
_MOST_NUMBERS = 12
_MOST_NUMBERS_OF_A_LONG_ONE = 6
_MOST_LINES_OF_NOTES = 15
_CHARACTERS_OF_A_NOTES_LINE = 90
_MOST_FLOATS = 16

_AS_WIDE_AS_THE_TEXT = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"


def name(text: str) -> Entry:
    """Return a name, for the left of a row."""
    return Entry(text, text)


def number(value: float | None, style: Style = "neutral", tooltip: str = "") -> Entry:
    """Return a score × 100, or another number of two decimals; None is a hole."""
    return Entry(two_decimals(value), value, style, tooltip)


def improvement(value: float | None, uncertainty: Uncertainty | None = None) -> Entry:
    """Return a relative improvement in %, with the marks that say how sure it is.

    "▲ 0.43" in bold if it is significant, "△ 0.43" if not; plain "▲ 0.43" if that is unknown. What
    is printed as 0.00 has an arrow only if it is significant. "few: 0.43" stands in the place of a
    mark where so few items changed that none could say anything of others.
    """
    if value is None or uncertainty is None:
        return Entry(change(value), value)
    tooltip = described(uncertainty)
    ends = (uncertainty.low, uncertainty.high)
    # An interval on the other side than the improvement itself would tell of neither direction.
    if uncertainty.excludes_zero and value * uncertainty.low > 0:
        if value > 0:
            return Entry(f"{UP} {two_decimals(value)}", value, "gain", tooltip, *ends)
        return Entry(f"{DOWN} {two_decimals(-value)}", value, "loss", tooltip, *ends)
    text = change(value, f"{UP_UNSURE} ", f"{DOWN_UNSURE} ")
    if uncertainty.is_too_few:
        text = f"{TOO_FEW} {two_decimals(value)}"
    return Entry(text, value, "inconclusive", tooltip, *ends)


def interval(uncertainty: Uncertainty) -> str:
    """Return the ends of a 95 % interval: "-0.11 to 0.80"."""
    return f"{two_decimals(uncertainty.low)} to {two_decimals(uncertainty.high)}"


def described(uncertainty: Uncertainty) -> str:
    """Return all that is known of how sure an improvement is, in a line."""
    parts = [f"95 % interval {interval(uncertainty)}"]
    if uncertainty.alone is not None:
        low, high = map(two_decimals, uncertainty.alone)
        parts = [
            f"95 % band over {uncertainty.tried} τ tried {interval(uncertainty)}",
            f"interval of this τ alone {low} to {high}",
        ]
    if uncertainty.bound is not None and not uncertainty.excludes_zero:
        parts.append(f"no more than {two_decimals(uncertainty.bound)} % either way")
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


def distinct(sheets: Iterable[Table]) -> tuple[Table, ...]:
    """Return sheets with names that differ, so that none is written over another's files."""
    named: dict[str, Table] = {}
    for sheet in sheets:
        other, count = sheet.name, 1
        while other in named:
            count += 1
            other = f"{sheet.name}-{count}"
        named[other] = replace(sheet, name=other)
    return tuple(named.values())


def markdown(sheet: Table, level: int = 2) -> str:
    """Return a sheet as a Markdown table under its title, a heading of this level."""
    header = [markdown_text(text) for text in sheet.header]
    rows = []
    for section in sheet.sections:
        if section.heading:
            blank = [""] * (len(header) - 1)
            rows.append([f"**{markdown_text(section.heading)}**", *blank])
        rows += [[entry_markdown(entry) for entry in row] for row in section.rows]
    lines = [f"{'#' * level} {markdown_text(sheet.title)}", ""]
    lines += [*markdown_grid(header, rows, sheet.labels), ""]
    if sheet.notes:
        lines += [*(f"- {markdown_text(note)}" for note in sheet.notes), ""]
    return "\n".join(lines) + "\n"


def csv(sheet: Table) -> str:
    """Return a sheet's exact values, one row a row.

    The first column, `section`, has the heading of the rows, where any have one. After a column of
    which any interval is known come two with their ends, "<column> low" and "<column> high". A hole
    is empty.
    """
    headed = any(section.heading for section in sheet.sections)
    rows = [row for section in sheet.sections for row in section.rows]
    sure = [
        any(row[place].low is not None or row[place].high is not None for row in rows)
        for place in range(len(sheet.header))
    ]
    header = ["section"] if headed else []
    for text, ends in zip(sheet.header, sure, strict=True):
        header += [text, *([f"{text} low", f"{text} high"] if ends else [])]
    return csv_text(
        header,
        (
            [*([section.heading] if headed else []), *_csv_values(row, sure)]
            for section in sheet.sections
            for row in section.rows
        ),
    )


def latex(sheets: Sequence[Table]) -> str:
    """Return sheets as `table`s with captions and rules of booktabs; long ones as `longtable`s.

    Sheets of many columns come in parts, each with the names on the left.
    """
    packages = ["longtable"] if any(_is_long(sheet) for sheet in sheets) else []
    parts = [part for sheet in sheets for part in _latex_sheet(sheet)]
    for place in range(_MOST_FLOATS, len(parts), _MOST_FLOATS):
        parts[place] = "\\clearpage\n" + parts[place]
    return latex_needs(*packages) + "".join("\n" + part for part in parts)


def latex_needs(*packages: str) -> str:
    """Return the first line of a file with tables: a comment that names what they need."""
    names = ["booktabs", "amssymb", "graphicx", *packages]
    *most, last = (f"\\usepackage{{{package}}}" for package in names)
    return f"% Needs {', '.join(most)} and {last}.\n"


def latex_table(
    title: str, tabular: Sequence[str], notes: Sequence[str], comment: str | None = None
) -> str:
    """Return a `table`: what is wider than the text is scaled down to its width.

    Args:
        title: of the caption, as plain text.
        tabular: its lines, LaTeX already.
        notes: below it, as plain text.
        comment: above it; None: the title.
    """
    lines = [
        f"% {one_line(title if comment is None else comment)}",
        "\\begin{table}[t]\\centering\\small\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{latex_text(title)}}}",
        _AS_WIDE_AS_THE_TEXT,
        *tabular,
        "}",
    ]
    below = sum(math.ceil(len(note) / _CHARACTERS_OF_A_NOTES_LINE) for note in notes)
    inside = below <= _MOST_LINES_OF_NOTES
    if notes and inside:
        lines += [
            "\\par\\smallskip",
            "\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright",
            *(f"{latex_text(note)}\\par" for note in notes),
            "\\end{minipage}",
        ]
    lines.append("\\end{table}")
    return "\n".join([*lines, *([] if inside else _latex_notes(notes)), ""])


def as_json(sheet: Table) -> dict[str, Any]:
    """Return a sheet as plain values for JSON, which has no number that is none: null."""
    return {
        "name": sheet.name,
        "title": sheet.title,
        "header": list(sheet.header),
        "labels": sheet.labels,
        "sections": [
            {
                "heading": section.heading,
                "rows": [[_json_entry(entry) for entry in row] for row in section.rows],
            }
            for section in sheet.sections
        ],
        "notes": list(sheet.notes),
    }


def entry_markdown(entry: Entry) -> str:
    """Return an entry as Markdown: what is told from zero in bold."""
    text = markdown_text(entry.text)
    return f"**{text}**" if entry.style in _BOLD and text else text


def entry_latex(entry: Entry) -> str:
    """Return an entry as LaTeX: what is told from zero in bold."""
    if entry.text == HOLE:
        return "--"
    text = _MINUS.sub("$-$", latex_text(entry.text))
    # An arrow stays with its number.
    if entry.text[:2] in {f"{arrow} " for arrow in (UP, DOWN, UP_UNSURE, DOWN_UNSURE)}:
        text = text.replace(" ", "~", 1)
    return f"\\textbf{{{text}}}" if entry.style in _BOLD and text else text


def _csv_values(row: Sequence[Entry], sure: Sequence[bool]) -> Iterator[str]:
    for entry, ends in zip(row, sure, strict=True):
        yield _csv_value(entry)
        if ends:
            yield full(entry.low)
            yield full(entry.high)


def _csv_value(entry: Entry) -> str:
    if isinstance(entry.value, str):
        return entry.value
    return full(entry.value)


def _json_entry(entry: Entry) -> dict[str, Any]:
    known: dict[str, Any] = {
        "text": entry.text,
        "value": _json_value(entry.value),
        "style": entry.style,
        "tooltip": entry.tooltip,
    }
    ends = {"low": entry.low, "high": entry.high}
    # Most have none.
    return known | {end: _json_value(value) for end, value in ends.items() if value is not None}


def _json_value(value: float | str | None) -> float | str | None:
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    return value


def _is_long(sheet: Table) -> bool:
    return sum(len(section.rows) + 1 for section in sheet.sections) > _ROWS_OF_A_PAGE


def _latex_sheet(sheet: Table) -> list[str]:
    """Return the tables of a sheet: one, or several side by side on paper wide enough."""
    long = _is_long(sheet)
    most = _MOST_NUMBERS_OF_A_LONG_ONE if long else _MOST_NUMBERS
    numbers = range(sheet.labels, len(sheet.header))
    # Of equal width, so that none is left with a single column.
    count = max(math.ceil(len(numbers) / most), 1)
    size = math.ceil(len(numbers) / count)
    parts = []
    for part in range(count):
        columns = [*range(sheet.labels), *numbers[part * size : (part + 1) * size]]
        title = sheet.title + (f" (part {part + 1} of {count})" if count > 1 else "")
        notes = sheet.notes if part == count - 1 else ()
        if long:
            parts.append(_longtable(sheet, columns, title, notes))
        else:
            parts.append(latex_table(title, _tabular(sheet, columns), notes))
    return parts


def _tabular(sheet: Table, columns: Sequence[int]) -> list[str]:
    lines = [f"\\begin{{tabular}}{{{_alignment(sheet, columns)}}}", "\\toprule"]
    lines.append(latex_row(latex_text(sheet.header[place]) for place in columns))
    for section in sheet.sections:
        lines += ["\\midrule", *_latex_section(section, columns)]
    return [*lines, "\\bottomrule", "\\end{tabular}"]


def _longtable(sheet: Table, columns: Sequence[int], title: str, notes: Sequence[str]) -> str:
    header = latex_row(latex_text(sheet.header[place]) for place in columns)
    lines = [
        f"% {one_line(title)}",
        "{\\scriptsize\\setlength{\\tabcolsep}{4pt}",
        f"\\begin{{longtable}}{{{_alignment(sheet, columns)}}}",
        f"\\caption{{{latex_text(title)}}} \\\\",
        *("\\toprule", header, "\\midrule", "\\endfirsthead"),
        *("\\toprule", header, "\\midrule", "\\endhead"),
        *("\\bottomrule", "\\endfoot"),
    ]
    for place, section in enumerate(sheet.sections):
        # Above the first rows there is one already.
        lines += [*(["\\midrule"] if place else []), *_latex_section(section, columns)]
    return "\n".join([*lines, "\\end{longtable}", "}", *_latex_notes(notes), ""])


def _alignment(sheet: Table, columns: Sequence[int]) -> str:
    return "".join("l" if place < sheet.labels else "r" for place in columns)


def _latex_section(section: Section, columns: Sequence[int]) -> list[str]:
    lines = []
    if section.heading:
        heading = latex_text(section.heading)
        lines.append(f"\\multicolumn{{{len(columns)}}}{{l}}{{\\textit{{{heading}}}}} \\\\")
    return lines + [latex_row(entry_latex(row[place]) for place in columns) for row in section.rows]


def _latex_notes(notes: Iterable[str]) -> list[str]:
    return [
        f"\\par\\noindent{{\\footnotesize\\raggedright {latex_text(note)}\\par}}" for note in notes
    ]
