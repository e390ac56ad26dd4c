"""The comparison with the paper, as Markdown and as CSV, and its lines (`cli.tables`)."""

from collections.abc import Iterator, Mapping, Sequence

from lcbench.reporting.formats import ROW_NAMES
from lcbench.reporting.score_table import AVERAGE, COLUMN_ORDER
from lcbench.reporting.tables.paper import ALL_MODELS, TABLE_2, TABLE_3, Comparison
from lcbench.reporting.text import (
    HOLE,
    csv_text,
    full,
    markdown_grid,
    markdown_text,
)

CSV_PAPER_HEADER = (
    "table",
    "model",
    "revision",
    "window",
    "policy",
    "row",
    "column",
    "paper",
    "ours",
    "difference",
    "noise",
    "within",
    "note",
)

_ROW_NAMES_OF_PAPER = {**ROW_NAMES, "avg_improv": "Avg Improv."}

PAPER_TITLE = "Paper beside ours"
_WITHIN = {"yes": "✓", "no": "✗", "unknown": "?"}
_DOUBT = "†"
_FOOTNOTE_WITHIN = (
    "The difference is ours minus the paper's. ✓: it lies within our noise; ✗: it does not; ?: the "
    "noise is unknown, or the paper's number is no target. Noise: half a 95 % interval of ours "
    "over other items like the tasks' own, plus the rounding of the print. The paper scored the "
    "same items, so agreement should be well within it."
)
_FOOTNOTE_PRESENT = (
    "x of y: so many tasks, columns or models are there; what is partial has no mean."
)
_FOOTNOTE_ROLES = "Table 2: the paper does not state its τ; it is taken from the paper's Table 1."
_FOOTNOTE_RANKS = (
    "Table 3: mean rank of the longest 20 % of the relevant documents, lower is better; how the "
    "paper chose them it does not say."
)


def markdown_paper(comparisons: Sequence[Comparison]) -> str:
    """The paper's numbers beside ours, one Markdown table for each of the paper's."""
    lines = [f"## {PAPER_TITLE}", ""]
    for name, columns, rows in paper_tables(comparisons):
        header = ["Model", "Row", "τ", "", *map(markdown_text, columns)]
        grid = [
            [*map(markdown_text, (label, row, policy, quantity)), *map(markdown_text, values)]
            for label, row, policy, cells in rows
            for quantity, values in zip(QUANTITIES, paper_lines(cells, columns), strict=True)
        ]
        lines += [f"### {name}", "", *markdown_grid(header, grid, 4), ""]
    for sentence in (paper_summary(comparisons), *paper_footnotes(comparisons)):
        lines += [markdown_text(sentence), ""]
    return "\n".join(lines)


def csv_paper(comparisons: Sequence[Comparison]) -> str:
    """The paper's numbers beside ours, one a row (`CSV_PAPER_HEADER`), in full precision.

    `ours` is empty where it is partial, `noise` where it is unknown; `note` says why.
    """
    return csv_text(
        CSV_PAPER_HEADER,
        (
            (
                one.table,
                one.name or one.model,
                one.revision,
                str(one.window or ""),
                one.policy,
                one.row,
                one.column,
                full(one.paper),
                full(one.ours),
                full(one.difference),
                full(one.noise),
                one.within,
                "; ".join(text for text in (one.present, one.doubt, one.note) if text),
            )
            for one in comparisons
        ),
    )


def paper_summary(comparisons: Sequence[Comparison]) -> str:
    """How many numbers were compared, and how many of them agree, in a sentence."""
    shared = [one for one in comparisons if one.ours is not None]
    counts = {word: sum(one.within == word for one in shared) for word in _WITHIN}
    return (
        f"Of {len(shared)} numbers {counts['yes']} lie within our noise and {counts['no']} do not; "
        f"of {counts['unknown']} it cannot be said."
    )


QUANTITIES = ("paper", "ours", "difference", "noise")

PaperRow = tuple[str, str, str, Mapping[str, Comparison]]  # model, row, policy, by column


def paper_tables(
    comparisons: Sequence[Comparison],
) -> Iterator[tuple[str, list[str], list[PaperRow]]]:
    """Yield each of the paper's tables with a number in common: its name, columns and rows."""
    order = [*COLUMN_ORDER, AVERAGE]
    for table in dict.fromkeys(one.table for one in comparisons if one.ours is not None):
        those = [one for one in comparisons if one.table == table]
        revisions = {(one.model, one.revision) for one in those}
        models = [model for model, _ in revisions]
        rows: dict[tuple[str, str, str], dict[str, Comparison]] = {}
        for one in those:
            label = "All models" if one.model == ALL_MODELS else one.model
            if models.count(one.model) > 1:
                label += f" ({one.revision[:8]})"
            row = _ROW_NAMES_OF_PAPER.get(one.row, one.row)
            rows.setdefault((label, row, one.policy), {})[one.column] = one
        columns = list(dict.fromkeys(one.column for one in those))
        columns.sort(key=lambda name: order.index(name) if name in order else 0)
        yield table, columns, [(*key, cells) for key, cells in rows.items()]


def paper_lines(
    cells: Mapping[str, Comparison], columns: Sequence[str]
) -> tuple[list[str], list[str], list[str], list[str]]:
    """The lines paper, ours, difference and noise of a row."""
    lines: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
    for column in columns:
        one = cells.get(column)
        texts = (HOLE,) * 4 if one is None else _paper_texts(one)
        for line, text in zip(lines, texts, strict=True):
            line.append(text)
    return lines


def _paper_texts(one: Comparison) -> tuple[str, str, str, str]:
    digits = 1 if one.table == TABLE_3 else 2
    paper = f"{one.paper:.{digits}f}{_DOUBT if one.doubt else ''}"
    if one.ours is None or one.difference is None:
        return paper, one.present.rpartition(" ")[0], HOLE, HOLE
    difference = f"{round(one.difference, digits) + 0.0:+.{digits}f} {_WITHIN[one.within]}"
    noise = HOLE if one.noise is None else f"{one.noise:.{digits}f}"
    return paper, f"{round(one.ours, digits) + 0.0:.{digits}f}", difference, noise


def paper_footnotes(comparisons: Sequence[Comparison]) -> list[str]:
    shown = {name for name, _, _ in paper_tables(comparisons)}
    those = [one for one in comparisons if one.table in shown]
    doubts = dict.fromkeys((one.table, one.doubt) for one in those if one.doubt)
    return [
        _FOOTNOTE_WITHIN,
        *([_FOOTNOTE_PRESENT] if any(one.present for one in those) else []),
        *([_FOOTNOTE_ROLES] if TABLE_2 in shown else []),
        *([_FOOTNOTE_RANKS] if TABLE_3 in shown else []),
        *(f"{_DOUBT} {table}: {doubt}." for table, doubt in doubts),
    ]
