"""Writes a table as Markdown, CSV and LaTeX, with one function per format.

`cli.tables` is the one for a terminal. Nothing is computed here; `text` escapes names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lcbench.reporting.table import Entry, Section, Table
from lcbench.reporting.text import (
    DOWN,
    DOWN_UNSURE,
    MISSING_VALUE,
    UP,
    UP_UNSURE,
    csv_text,
    full,
    latex_row,
    latex_text,
    markdown_grid,
    markdown_text,
    one_line,
)

_MINUS = re.compile(r"(?<![\w-])-(?=\d)")
_BOLD = frozenset({"gain", "loss", "best"})

# For LaTeX: maximum number of lines on a page, beyond which a table is divided; TeX can only defer
# a limited number of tables. Notes with more lines than the second number are set below the table,
# where they may continue on the next page.
_LINES_OF_A_PAGE = 40
_MOST_FLOATS = 16
_MOST_LINES_OF_NOTES = 15
_CHARACTERS_OF_A_NOTES_LINE = 90

_LATEX_NEEDS = "% Needs \\usepackage{booktabs}, \\usepackage{amssymb} and \\usepackage{graphicx}.\n"
_AS_WIDE_AS_THE_TEXT = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"


def headings(sections: Sequence[Section]) -> Iterator[tuple[str, Section]]:
    """Yield each section, with the heading of its group if a new group begins."""
    last = ""
    for section in sections:
        yield section.group if section.group != last else "", section
        last = section.group


def markdown(table: Table) -> str:
    """Return a table in Markdown, with its title as a heading."""
    header = [markdown_text(text) for text in table.columns]
    blank = [""] * (len(header) - 1)
    rows = []
    for group, section in headings(table.sections):
        rows += [
            [f"**{markdown_text(text)}**", *blank] for text in (group, section.heading) if text
        ]
        rows += [[_markdown_entry(entry) for entry in row] for row in section.rows]
    lines = [f"## {markdown_text(table.title)}", ""]
    lines += [*markdown_grid(header, rows, table.labels), ""]
    if table.notes:
        lines += [*(f"- {markdown_text(note)}" for note in table.notes), ""]
    for footnote in table.footnotes:
        lines += [markdown_text(footnote), ""]
    return "\n".join(lines) + "\n"


def csv(table: Table) -> str:
    """Return the exact values of a table as CSV.

    If there are headings, they are in the first column, `section`. A column with intervals is
    followed by two with their ends, "<column> low" and "<column> high". A missing value is empty.
    """
    headed = any(section.heading for section in table.sections)
    sure = [
        any(row[place].low is not None or row[place].high is not None for row in table.rows)
        for place in range(len(table.header))
    ]
    header = ["section"] if headed else []
    for text, ends in zip(table.columns, sure, strict=True):
        header += [text, *([f"{text} low", f"{text} high"] if ends else [])]
    return csv_text(
        header,
        (
            [*([section.heading] if headed else []), *_csv_values(row, sure)]
            for section in table.sections
            for row in section.rows
        ),
    )


def latex(table: Table) -> str:
    r"""Return a table for LaTeX, with a caption, a `\label{tab:<name>}` and rules of booktabs.

    A table wider than the text is scaled down; one longer than a page is divided into several
    `table` environments.
    """
    pages = list(_pages(table.sections))
    texts = []
    for number, sections in enumerate(pages, 1):
        part = f" (part {number} of {len(pages)})" if len(pages) > 1 else ""
        label = table.name if number == 1 else f"{table.name}-part-{number}"
        below = (*table.notes, *table.footnotes) if number == len(pages) else ()
        text = _latex_table(table, sections, f"{table.title}{part}", label, below)
        texts.append("\\clearpage\n" + text if number % _MOST_FLOATS == 0 else text)
    return "\n".join([_LATEX_NEEDS, *texts])


def _markdown_entry(entry: Entry) -> str:
    text = markdown_text(entry.text)
    return f"**{text}**" if entry.style in _BOLD and text else text


def _csv_values(row: Sequence[Entry], sure: Sequence[bool]) -> Iterator[str]:
    for entry, ends in zip(row, sure, strict=True):
        yield entry.value if isinstance(entry.value, str) else full(entry.value)
        if ends:
            yield full(entry.low)
            yield full(entry.high)


def _pages(sections: Sequence[Section]) -> Iterator[list[Section]]:
    """Yield the sections of each page; a section longer than a page is divided."""
    page: list[Section] = []
    used = 0
    for section in sections:
        size = max(_LINES_OF_A_PAGE - 2, 1)
        for at in range(0, max(len(section.rows), 1), size):
            part = replace(section, rows=section.rows[at : at + size])
            if page and used + len(part.rows) + 1 > _LINES_OF_A_PAGE:
                yield page
                page, used = [], 0
            page.append(part)
            used += len(part.rows) + 1
    yield page


def _latex_table(
    table: Table, sections: Sequence[Section], title: str, label: str, notes: Sequence[str]
) -> str:
    names = [text.split("\n") for text in table.header]
    alignment = "".join("l" if at < table.labels else "r" for at in range(len(names)))
    lines = [
        f"% {one_line(title)}",
        "\\begin{table}[t]\\centering\\small\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{latex_text(title)}}}",
        f"\\label{{tab:{label}}}",
        _AS_WIDE_AS_THE_TEXT,
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule",
        *(
            latex_row(latex_text(name[line]) if line < len(name) else "" for name in names)
            for line in range(max(map(len, names)))
        ),
    ]
    for group, section in headings(sections):
        lines.append("\\midrule")
        for text, face in ((group, "textit"), (section.heading, "textbf")):
            if text:
                span = f"\\multicolumn{{{len(names)}}}{{l}}"
                lines.append(f"{span}{{\\{face}{{{latex_text(text)}}}}} \\\\")
        indent = "\\quad " if section.heading else ""
        lines += [indent + latex_row(map(_latex_entry, row)) for row in section.rows]
    lines += ["\\bottomrule", "\\end{tabular}", "}"]
    length = sum(math.ceil(len(note) / _CHARACTERS_OF_A_NOTES_LINE) for note in notes)
    inside = length <= _MOST_LINES_OF_NOTES
    if notes and inside:
        lines += [
            "\\par\\smallskip",
            "\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright",
            *(f"{latex_text(note)}\\par" for note in notes),
            "\\end{minipage}",
        ]
    lines.append("\\end{table}")
    return "\n".join([*lines, *([] if inside else _latex_notes(notes)), ""])


def _latex_entry(entry: Entry) -> str:
    if entry.text == MISSING_VALUE:
        return "--"
    text = _MINUS.sub("$-$", latex_text(entry.text))
    # Keep an arrow and its number on one line.
    if entry.text[:2] in {f"{arrow} " for arrow in (UP, DOWN, UP_UNSURE, DOWN_UNSURE)}:
        text = text.replace(" ", "~", 1)
    if not text:
        return ""
    if entry.style == "detail":
        return f"{{\\scriptsize {text}}}"
    return f"\\textbf{{{text}}}" if entry.style in _BOLD else text


def _latex_notes(notes: Iterable[str]) -> list[str]:
    return [
        f"\\par\\noindent{{\\footnotesize\\raggedright {latex_text(note)}\\par}}" for note in notes
    ]
