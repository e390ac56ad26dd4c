"""Formats names and numbers as text: rounded, marked, and escaped for each format.

Names come from models and datasets, so every format escapes them.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

MISSING_VALUE = "–"
UP = "▲"
DOWN = "▼"
UP_UNSURE = "△"
DOWN_UNSURE = "▽"
TOO_FEW = "few:"

# Two header words of this length and a number with its arrow are about equally wide, which lets
# ten columns and `Avg` fit into 100 characters.
_HEADER_CHARACTERS = 8

_FORMULA = frozenset("=+-@")

_MARKDOWN_SPECIAL = re.compile(r"[\\`*_\[\]|#~$]")

_LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    # Not `\textasciigrave`, whose font a small TeX installation has to generate.
    "`": r"\`{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row they would be read as arguments of `\\`.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "Δ": r"$\Delta$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "Σ": r"$\Sigma$",
    "σ": r"$\sigma$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "−": r"$-$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "°": r"$^\circ$",
    "✓": r"$\checkmark$",
    "✗": r"$\times$",
    UP: r"$\blacktriangle$",
    DOWN: r"$\blacktriangledown$",
    UP_UNSURE: r"$\vartriangle$",
    DOWN_UNSURE: r"$\triangledown$",
    "†": r"$\dagger$",
    "•": r"$\bullet$",
    MISSING_VALUE: r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "\u2018": r"\textquoteleft{}",
    "\u2019": r"\textquoteright{}",
    "\u201c": r"\textquotedblleft{}",
    "\u201d": r"\textquotedblright{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}

# Accents that LaTeX can put on any letter, by their combining characters.
_LATEX_ACCENTS = {
    "\u0300": "\\`",
    "\u0301": "\\'",
    "\u0302": "\\^",
    "\u0303": "\\~",
    "\u0304": "\\=",
    "\u0306": "\\u",
    "\u0307": "\\.",
    "\u0308": '\\"',
    "\u030a": "\\r",
    "\u030b": "\\H",
    "\u030c": "\\v",
    "\u0327": "\\c",
}


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, for a row of a table."""
    return "".join(character if character.isprintable() else " " for character in text)


def group_heading(group: str) -> str:
    """Return the heading of a table's cells: "protocol paper, subsets en"."""
    # Imported results have no protocol; their group names them.
    return group if group.startswith("imported") else f"protocol {group}"


def two_decimals(value: float | None) -> str:
    """Return a number with two decimals, as tables print it."""
    return MISSING_VALUE if value is None else f"{round(value, 2) + 0.0:.2f}"


def direction(value: float | None) -> int:
    """Return 1 for up, -1 for down, 0 for a missing value or one printed as 0.00."""
    # Comparisons of numpy's numbers cannot be subtracted.
    shown = 0.0 if value is None else round(float(value), 2)
    return (shown > 0) - (shown < 0)


def change(value: float | None, up: str = f"{UP} ", down: str = f"{DOWN} ") -> str:
    """Return a relative improvement as an arrow and a size: "▲ 0.43", "▼ 0.12", "0.00"."""
    arrow = {1: up, -1: down, 0: ""}[direction(value)]
    return arrow + two_decimals(None if value is None else abs(value))


def signed(value: float, form: str = ".2f") -> str:
    """Return a number with its sign, zero without one: +0.43, −12.3, 0.00."""
    text = format(value, form)
    return text.lstrip("-") if float(text) == 0 else format(value, f"+{form}").replace("-", "−")


def full(value: float | None) -> str:
    """Return the shortest text that reads back as the same number; empty if missing."""
    return "" if value is None else repr(float(value))


def wrapped_header(name: str) -> str:
    """Return a name broken before capitals if it is wider than the numbers below it."""
    lines = [""]
    for word in re.findall(r"[A-Z]+[^A-Z]*|[^A-Z]+", name):
        if lines[-1] and len(lines[-1]) + len(word) > _HEADER_CHARACTERS:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the text of a CSV file.

    A spreadsheet would run a text that begins with one of "=+-@" as a formula, so such names get an
    apostrophe in front, which spreadsheets do not show. Numbers are unchanged.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_no_formula, header))
    writer.writerows([_no_formula(field) for field in row] for row in rows)
    return text.getvalue()


def _no_formula(field: str) -> str:
    is_formula = field.lstrip()[:1] in _FORMULA and not all(map(_is_number, field.split(" to ")))
    return f"'{field}" if is_formula else field


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def markdown_grid(header: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> list[str]:
    """Return a Markdown table with its first `texts` columns aligned to the left."""
    rule = [":--"] * texts + ["--:"] * (len(header) - texts)
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def markdown_text(text: str) -> str:
    """Return a text with all markup of Markdown and HTML escaped."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN_SPECIAL.sub(r"\\\g<0>", escaped)


def latex_row(cells: Iterable[str]) -> str:
    """Return a row of a `tabular` environment."""
    return f"{' & '.join(cells)} \\\\"


def latex_text(text: str) -> str:
    """Return a text escaped for LaTeX, without hyphens that would become a dash.

    Characters that pdflatex has no glyph for become question marks; it would not compile.
    """
    escaped = "".join(map(_latex_character, one_line(text)))
    return re.sub("-(?=-)", "-{}", escaped)


def _latex_character(character: str) -> str:
    if character in _LATEX_CHARACTERS:
        return _LATEX_CHARACTERS[character]
    if character.isascii():
        return character
    decomposed = unicodedata.normalize("NFKD", character)
    letter, accents = decomposed[:1], decomposed[1:]
    if len(accents) == 1 and accents in _LATEX_ACCENTS and letter.isascii() and letter.isalpha():
        # Plain i and j would keep their dots below the accent.
        stem = {"i": "\\i", "j": "\\j"}.get(letter, letter)
        return f"{_LATEX_ACCENTS[accents]}{{{stem if accents != chr(0x327) else letter}}}"
    if decomposed.isascii():
        return "".join(map(_latex_character, decomposed))
    return "?"
