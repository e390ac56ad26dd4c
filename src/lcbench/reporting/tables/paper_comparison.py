"""The comparison with the paper as tables, also with one number per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lcbench.reporting.score_table import AVERAGE, COLUMN_ORDER
from lcbench.reporting.table import Entry, Section, Table, name, of_values
from lcbench.reporting.tables.main_results import ROW_NAMES
from lcbench.reporting.tables.paper import ALL_MODELS, TABLE_2, TABLE_3, Comparison
from lcbench.reporting.text import MISSING_VALUE

DATA = "paper.csv"
"""The file with one value per row."""

_HEADER = (
    *("table", "model", "revision", "window", "policy", "row", "column"),
    *("paper", "ours", "difference", "noise", "within", "note"),
)
_QUANTITIES = ("paper", "lcbench", "difference", "noise")
_ROW_NAMES = {**ROW_NAMES, "avg_improv": "Avg Improv."}
_WITHIN = {"yes": "✓", "no": "✗", "unknown": "?"}
_DOUBT = "†"

_FOOTNOTE_WITHIN = (
    "The difference is that of lcbench minus the paper's. ✓: it lies within the noise; ✗: it does "
    "not; ?: the noise is unknown, or the paper's number is no target. Noise: half a 95 % interval "
    "of lcbench's number over other items like the tasks' own, plus the rounding of the print. The "
    "paper scored the same items, so agreement should be well within it."
)
_FOOTNOTE_PRESENT = (
    "x of y: so many tasks, columns or models are there; what is partial has no mean."
)
_FOOTNOTE_ROLES = "Table 2: the paper does not state its τ; it is taken from the paper's Table 1."
_FOOTNOTE_RANKS = (
    "Table 3: mean rank of the longest 20 % of the relevant documents, lower is better; how the "
    "paper chose them it does not say."
)


def comparison_tables(comparisons: Sequence[Comparison]) -> tuple[Table, ...]:
    """Return the paper's tables that have a number in common with lcbench's, compared with it."""
    names = dict.fromkeys(pair.table for pair in comparisons if pair.ours is not None)
    return tuple(
        _table(title, [pair for pair in comparisons if pair.table == title]) for title in names
    )


def comparison_values(comparisons: Sequence[Comparison]) -> Table:
    """Return the comparison with one number per row, for programs.

    `ours` is empty where it is partial, `noise` where it is unknown; `note` says why.
    """
    rows = (
        (
            *(pair.table, pair.name or pair.model, pair.revision, str(pair.window or "")),
            *(pair.policy, pair.row, pair.column),
            *(pair.paper, pair.ours, pair.difference, pair.noise),
            *(pair.within, note(pair)),
        )
        for pair in comparisons
    )
    return of_values("paper", "Comparison with the paper", _HEADER, rows)


def note(pair: Comparison) -> str:
    """Return the note on a compared number."""
    return "; ".join(text for text in (pair.present, pair.doubt, pair.note) if text)


def summary(comparisons: Sequence[Comparison]) -> str:
    """Return how many numbers were compared, and how many of them agree, in a sentence."""
    shared = [pair for pair in comparisons if pair.ours is not None]
    counts = {word: sum(pair.within == word for pair in shared) for word in _WITHIN}
    return (
        f"Of {len(shared)} numbers {counts['yes']} agree with the paper within the noise and "
        f"{counts['no']} do not; {counts['unknown']} cannot be compared."
    )


def _table(title: str, comparisons: Sequence[Comparison]) -> Table:
    order = [*COLUMN_ORDER, AVERAGE]
    columns = list(dict.fromkeys(pair.column for pair in comparisons))
    columns.sort(key=lambda column: order.index(column) if column in order else 0)
    models = [model for model, _ in {(pair.model, pair.revision) for pair in comparisons}]
    rows: dict[tuple[str, str, str], dict[str, Comparison]] = {}
    for pair in comparisons:
        label = "All models" if pair.model == ALL_MODELS else pair.model
        if models.count(pair.model) > 1:
            label += f" ({pair.revision[:8]})"
        rows.setdefault((label, pair.row, pair.policy), {})[pair.column] = pair
    sections = []
    for (label, row, policy), of in rows.items():
        heading = _ROW_NAMES.get(row, row) + (f", τ = {policy}" if policy else "")
        entries = [_entries(of.get(column)) for column in columns]
        lines = zip(_QUANTITIES, zip(*entries, strict=True), strict=True)
        sections.append(Section(heading, tuple((name(text), *line) for text, line in lines), label))
    return Table(
        name=f"paper-{title.lower().replace(' ', '')}",
        title=f"Comparison with the paper: {title}",
        header=("Model and row", *columns),
        labels=1,
        sections=tuple(sections),
        notes=(summary(comparisons),),
        footnotes=tuple(_footnotes(title, comparisons)),
        data=DATA,
    )


def _entries(pair: Comparison | None) -> tuple[Entry, Entry, Entry, Entry]:
    """Return the paper's number, ours, the difference, and the noise."""
    missing = Entry(MISSING_VALUE)
    if pair is None:
        return (missing,) * 4
    digits = 1 if pair.table == TABLE_3 else 2
    paper = Entry(f"{pair.paper:.{digits}f}{_DOUBT if pair.doubt else ''}", pair.paper)
    if pair.ours is None or pair.difference is None:
        return paper, Entry(pair.present.rpartition(" ")[0]), missing, missing
    return (
        paper,
        Entry(f"{round(pair.ours, digits) + 0.0:.{digits}f}", pair.ours),
        Entry(
            f"{round(pair.difference, digits) + 0.0:+.{digits}f} {_WITHIN[pair.within]}",
            pair.difference,
            tooltip=note(pair),
        ),
        missing
        if pair.noise is None
        else Entry(f"{pair.noise:.{digits}f}", pair.noise, style="detail"),
    )


def _footnotes(title: str, comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield _FOOTNOTE_WITHIN
    if any(pair.present for pair in comparisons):
        yield _FOOTNOTE_PRESENT
    if title == TABLE_2:
        yield _FOOTNOTE_ROLES
    if title == TABLE_3:
        yield _FOOTNOTE_RANKS
    doubts = dict.fromkeys(pair.doubt for pair in comparisons if pair.doubt)
    yield from (f"{_DOUBT} {title}: {doubt}." for doubt in doubts)
