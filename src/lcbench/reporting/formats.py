"""Tables as text: their lines, which a terminal shows (`cli.tables`), and Markdown, CSV and LaTeX.

Computes nothing but roundings; `text` escapes the names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    Block,
    Row,
    ScoreTable,
    TaskScores,
    ordered_policies,
    relative_improvement,
)
from lcbench.reporting.statistics import LEAST_CHANGED, SIGNIFICANCE, TableStatistics, Uncertainty
from lcbench.reporting.table import (
    Entry,
    entry_latex,
    entry_markdown,
    improvement,
    interval,
    latex_needs,
    latex_table,
    number,
)
from lcbench.reporting.table import markdown as sheet_markdown
from lcbench.reporting.tables.matrix import matrix
from lcbench.reporting.tables.splits_by_length import LengthRow, LengthTable
from lcbench.reporting.text import (
    DOWN,
    DOWN_UNSURE,
    HOLE,
    TOO_FEW,
    UP,
    UP_UNSURE,
    csv_text,
    full,
    group_heading,
    latex_row,
    latex_text,
    markdown_grid,
    markdown_text,
    two_decimals,
)
from lcbench.tasks.suites import averaged_columns
from lcbench.uncertainty.power import detectable

CSV_HEADER = ("group", "window", "model", "revision", "row", "policy", "column", "value")
CSV_TASKS_HEADER = ("group", "window", "model", "revision", "column", "task", "policy", "value")
CSV_TASKS_STATISTICS = (
    *("improvement", "low", "high", "p", "adjusted"),
    *("units", "count", "up", "down", "detectable", "no_more_than"),
)
CSV_LENGTHS_HEADER = ("group", "window", "model", "revision", "task", "policy", "length", "value")

ROW_NAMES = {
    "raw": "raw",
    "ours": "ours",
    "relative": "Relative Improv.",
    "interval": "95 % interval",
    "low": "95 % from",
    "high": "       to",
}
SCORES = frozenset({"raw", "ours"})

_FOOTNOTE_AVERAGE = (
    f"{AVERAGE} is the unweighted mean of the columns, not of the tasks; a column is the "
    "unweighted mean of its tasks (their number in parentheses), a task that of its splits and "
    "subsets. Scores are × 100, relative improvements are % of raw, computed before rounding; "
    f"{HOLE} is a hole, never averaged around."
)
_FOOTNOTE_PARTIAL = (
    "A column like 3 of 8 is partial: so many of its tasks have a score. They are not averaged; "
    "those that are missing are named above."
)
FOOTNOTE_LENGTHS = (
    "The task's main score × 100 by the documents' length in tokens; Mean is the score of the task "
    f"in Table 1. {HOLE} is a hole: the notes of Table 1 say why."
)
_FOOTNOTE_CHOICE = (
    "The best τ of a model is chosen on the same data that it is evaluated on, as in the paper, "
    "so its improvement is optimistic."
)


_CAPTION = "Scores and relative improvements"
# Each has up to six lines of a page that has 50, which the notes share.
_MODELS_OF_A_PAGE = 6


@dataclass(frozen=True)
class Line:
    """One line of a block: raw, ours, relative, low, high, interval."""

    kind: str
    policy: str
    entries: tuple[Entry, ...]


def footnotes(table: ScoreTable, statistics: TableStatistics | None = None) -> tuple[str, ...]:
    """What a reader must know to read the numbers, as plain text."""
    choice = any(block.best is not None for block in table.blocks)
    partial = any(row.partial for block in table.blocks for row in block.rows)
    names = [column.name for column in table.columns]
    outside = [name for name in names if name not in averaged_columns(names)]
    return (
        *([_FOOTNOTE_CHOICE] if choice else []),
        _FOOTNOTE_AVERAGE,
        *([f"{' and '.join(outside)}: not part of {AVERAGE}, as in the paper."] if outside else []),
        *([_FOOTNOTE_PARTIAL] if partial else []),
        *([_footnote_marks(statistics)] if statistics is not None and choice else []),
    )


def markdown(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics | None] = ()
) -> str:
    """The tables with notes and footnotes, and below each the scores per task and τ.

    Args:
        tables: all of a report.
        statistics: of each of them, or none at all; they add intervals, marks, and the relative
            improvements per task and τ.
    """
    return "\n".join(_markdown_table(*pair) for pair in _with_statistics(tables, statistics))


def markdown_lengths(tables: Sequence[LengthTable]) -> str:
    """The scores per length, one table a task; nothing if there is none."""
    if not tables:
        return ""
    lines = ["", "## Scores per length", "", markdown_text(FOOTNOTE_LENGTHS), ""]
    for table in tables:
        header = ["Model", "Window", "τ", *length_columns(table)]
        rows = [
            [
                markdown_text(row.label),
                window_text(row),
                markdown_text(row.policy),
                *length_values(table, row),
            ]
            for row in table.rows
        ]
        title = f"### {markdown_text(table.task)} ({markdown_text(group_heading(table.group))})"
        lines += [title, "", *markdown_grid(header, rows, 1), ""]
    return "\n".join(lines)


def csv_lengths(tables: Sequence[LengthTable]) -> str:
    """The scores × 100 per task, policy and length, one a row (`CSV_LENGTHS_HEADER`)."""
    return csv_text(
        CSV_LENGTHS_HEADER,
        (
            (
                *_identity(table, row),
                *(table.task, row.policy, str(length), full(value)),
            )
            for table in tables
            for row in table.rows
            for length, value in row.scores.items()
        ),
    )


def length_columns(table: LengthTable) -> list[str]:
    return [*map(str, table.lengths), "Mean"]


def length_values(table: LengthTable, row: LengthRow) -> list[str]:
    """The row's numbers; empty, and no hole, is a length that its window does not have."""
    values = [
        two_decimals(row.scores[length]) if length in row.scores else "" for length in table.lengths
    ]
    return [*values, two_decimals(row.mean)]


def csv(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics | None] = ()) -> str:
    """The lines of the tables, one value a row (`CSV_HEADER`), in full precision.

    `row` is raw, ours, relative or, with statistics, low and high, the ends of the latter's 95 %
    interval; scores are × 100, relative improvements in %; the value of a hole is empty, and so is
    a window that is not known. Notes and the mean over the models are left to the other formats.
    """
    return csv_text(
        CSV_HEADER,
        (
            (*_identity(table, block), line.kind, line.policy, column, _full(entry))
            for table, known in _with_statistics(tables, statistics)
            for block in table.blocks
            for line in lines_of(table, block, known, two_lines=True, unknown_too=True)
            for column, entry in zip(table.column_names, line.entries, strict=True)
        ),
    )


def csv_tasks(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics | None] = ()
) -> str:
    """The scores × 100 per task and policy, one a row (`CSV_TASKS_HEADER`), in full precision.

    With statistics a row also has `CSV_TASKS_STATISTICS`: the relative improvement and the ends of
    its 95 % interval in %, p, and p by Holm's correction; what is unknown is empty.
    """
    told = any(known is not None for known in statistics)
    return csv_text(
        [*CSV_TASKS_HEADER, *(CSV_TASKS_STATISTICS if told else [])],
        (
            [
                *(*_identity(table, block), task.column, task.task, policy),
                full(task.scores[policy]),
                *(_task_statistics(block, task, policy, known) if told else []),
            ]
            for table, known in _with_statistics(tables, statistics)
            for block in table.blocks
            for task in block.tasks
            for policy in block.policies
        ),
    )


def latex(tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics | None] = ()) -> str:
    """The tables as `table`s with rules of booktabs, each with its notes and footnotes.

    One of many models comes in parts, each of a page at most. For `statistics` see `markdown`.
    """
    return latex_needs() + "".join(
        "\n" + part
        for pair in _with_statistics(tables, statistics)
        for part in _latex_tables(*pair)
    )


def task_counts(table: ScoreTable) -> dict[str, str]:
    """What stands after each column's name: " (8)" for eight tasks, nothing for `Avg`."""
    return {**{column.name: f" ({len(column.tasks)})" for column in table.columns}, AVERAGE: ""}


def window_text(block: Block | LengthRow) -> str:
    """The window in tokens, or what stands for one that is not known."""
    return HOLE if block.window is None else str(block.window)


def _with_statistics(
    tables: Sequence[ScoreTable], statistics: Sequence[TableStatistics | None]
) -> list[tuple[ScoreTable, TableStatistics | None]]:
    return list(zip(tables, statistics or [None] * len(tables), strict=True))


def notes_of(table: ScoreTable, statistics: TableStatistics | None) -> tuple[str, ...]:
    return (*table.notes, *(() if statistics is None else statistics.notes))


def _footnote_marks(statistics: TableStatistics) -> str:
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
        "much an improvement would vary over other items like these. Where several τ were tried "
        "they are bands over all of them, and so hold for the best one too."
    )


def lines_of(
    table: ScoreTable,
    block: Block,
    statistics: TableStatistics | None,
    *,
    two_lines: bool,
    unknown_too: bool = False,
) -> Iterator[Line]:
    """Yield a block's lines; an interval is one line, or two: where it begins and where it ends.

    It has none where nothing is known of it, unless that is wanted too.
    """
    for row in block.rows:
        known: dict[str, Uncertainty] = {}
        if statistics is not None and row.kind == "relative":
            known = {
                column: found
                for column in table.column_names
                if (found := statistics.means.get((block.label, row.policy, column))) is not None
                # Of a hole there is none.
                and row.values[column] is not None
            }
        entries = [_entry(row, column, known.get(column)) for column in table.column_names]
        yield Line(row.kind, row.policy, tuple(entries))
        if known or (unknown_too and statistics is not None and row.kind == "relative"):
            yield from _interval_lines(table, row.policy, known, two_lines)


def average_lines(
    table: ScoreTable, statistics: TableStatistics | None, *, two_lines: bool
) -> Iterator[Line]:
    """Yield `Avg Improv.` as the lines of a block; nothing if the table has none."""
    if table.average_improvement is None:
        return
    average = Row("relative", "", table.average_improvement)
    known = {} if statistics is None else statistics.average
    entries = [_entry(average, column, known.get(column)) for column in table.column_names]
    yield Line(average.kind, average.policy, tuple(entries))
    if known:
        yield from _interval_lines(table, "", known, two_lines)


def _interval_lines(
    table: ScoreTable, policy: str, known: Mapping[str, Uncertainty], two_lines: bool
) -> Iterator[Line]:
    found = [known.get(column) for column in table.column_names]
    if two_lines:
        lows = tuple(number(None if one is None else one.low) for one in found)
        highs = tuple(number(None if one is None else one.high) for one in found)
        yield Line("low", policy, lows)
        yield Line("high", policy, highs)
    else:
        both = tuple(number(None) if one is None else Entry(interval(one)) for one in found)
        yield Line("interval", policy, both)


def _entry(row: Row, column: str, uncertainty: Uncertainty | None) -> Entry:
    value = row.values[column]
    if value is None and column in row.partial:
        # What stands for a column of which some tasks have a score.
        return Entry("{} of {}".format(*row.partial[column]))
    return improvement(value, uncertainty) if row.kind == "relative" else number(value)


def _full(entry: Entry) -> str:
    return full(entry.value) if not isinstance(entry.value, str) else entry.value


def _task_statistics(
    block: Block, task: TaskScores, policy: str, statistics: TableStatistics | None
) -> list[str]:
    gain = None
    if policy != BASELINE:
        gain = relative_improvement(task.scores[policy], task.scores[BASELINE])
    found = None if statistics is None else statistics.cells.get((block.label, policy, task.task))
    if gain is None or found is None:
        return [full(gain), *[""] * (len(CSV_TASKS_STATISTICS) - 1)]
    smallest = None
    if found.error is not None and found.critical is not None:
        smallest = detectable(found.error, found.critical)
    return [
        *(full(one) for one in (gain, found.low, found.high, found.p, found.adjusted)),
        found.units,
        *("" if one is None else str(one) for one in (found.count, found.up, found.down)),
        *(full(one) for one in (smallest, found.bound)),
    ]


def _markdown_table(table: ScoreTable, statistics: TableStatistics | None) -> str:
    counts = task_counts(table)
    names = table.column_names
    header = ["Model", "Row", "τ", *(markdown_text(name) + counts[name] for name in names)]
    rows = []
    for window, blocks in groupby(table.blocks, window_text):
        rows.append([f"**Window {window}**", *[""] * (len(header) - 1)])
        for block in blocks:
            label = markdown_text(block.label)
            for line in lines_of(table, block, statistics, two_lines=False):
                values = map(entry_markdown, line.entries)
                rows.append([label, ROW_NAMES[line.kind], markdown_text(line.policy), *values])
    for line in average_lines(table, statistics, two_lines=False):
        title = "**Avg Improv.**" if line.kind == "relative" else ROW_NAMES[line.kind]
        rows.append([title, "", "", *map(entry_markdown, line.entries)])
    lines = [
        f"## {markdown_text(group_heading(table.group))}",
        "",
        *markdown_grid(header, rows, 2),
        "",
    ]
    if notes := notes_of(table, statistics):
        lines += [*(f"- {markdown_text(note)}" for note in notes), ""]
    for footnote in footnotes(table, statistics):
        lines += [markdown_text(footnote), ""]
    lines += ["### Scores per task and τ", "", *_markdown_tasks(table), ""]
    gains = None if statistics is None else matrix(table, statistics)
    return "\n".join(lines) + ("" if gains is None else f"\n{sheet_markdown(gains, level=3)}")


def _markdown_tasks(table: ScoreTable) -> list[str]:
    policies = ordered_policies(policy for block in table.blocks for policy in block.policies)
    header = ["Model", "Column", "Task", *(f"τ = {markdown_text(policy)}" for policy in policies)]
    rows = [
        [
            *(markdown_text(name) for name in (block.label, task.column, task.task)),
            # Empty, and no hole: a policy that was asked for of another model alone.
            *(
                two_decimals(task.scores[policy]) if policy in task.scores else ""
                for policy in policies
            ),
        ]
        for block in table.blocks
        for task in block.tasks
    ]
    return markdown_grid(header, rows, 3)


def _identity(
    table: ScoreTable | LengthTable, block: Block | LengthRow
) -> tuple[str, str, str, str]:
    window = "" if block.window is None else str(block.window)
    return table.group, window, block.model, block.revision


def _latex_tables(table: ScoreTable, statistics: TableStatistics | None) -> list[str]:
    """Return a `table` for every few models; the mean over the models is in the last."""
    names = table.column_names
    counts = task_counts(table)
    head = [
        f"\\begin{{tabular}}{{l{'r' * len(names)}}}",
        "\\toprule",
        latex_row(["Model", *map(latex_text, names)]),
        latex_row(["", *(counts[name].strip() for name in names)]),
    ]
    size = _MODELS_OF_A_PAGE
    parts = [table.blocks[at : at + size] for at in range(0, len(table.blocks), size)] or [()]
    texts = []
    for number_, blocks in enumerate(parts, 1):
        last = number_ == len(parts)
        title = f"{_CAPTION}: {group_heading(table.group)}" + (
            f" (part {number_} of {len(parts)})" if len(parts) > 1 else ""
        )
        notes = (*notes_of(table, statistics), *footnotes(table, statistics)) if last else ()
        lines = [*head, *_latex_blocks(table, blocks, statistics)]
        if last:
            lines += _latex_average(table, statistics)
        lines += ["\\bottomrule", "\\end{tabular}"]
        texts.append(latex_table(title, lines, notes, comment=table.group))
    return texts


def _latex_blocks(
    table: ScoreTable, blocks: Sequence[Block], statistics: TableStatistics | None
) -> Iterator[str]:
    width = 1 + len(table.column_names)
    for window, those in groupby(blocks, window_text):
        heading = latex_text(f"Window {window}")
        yield "\\midrule"
        yield f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{heading}}}}} \\\\"
        for place, block in enumerate(those):
            if place:
                yield "\\midrule"
            yield f"\\multicolumn{{{width}}}{{l}}{{\\textbf{{{latex_text(block.label)}}}}} \\\\"
            yield from map(_latex_line, lines_of(table, block, statistics, two_lines=True))


def _latex_average(table: ScoreTable, statistics: TableStatistics | None) -> Iterator[str]:
    for line in average_lines(table, statistics, two_lines=True):
        if line.kind == "relative":
            yield "\\midrule"
            yield latex_row(["Avg Improv.", *map(entry_latex, line.entries)])
        else:
            yield _latex_line(line)


def _latex_line(line: Line) -> str:
    # The policy of the relative line is that of the line above it.
    policy = f", $\\tau$ = {latex_text(line.policy)}" if line.kind in SCORES else ""
    title = f"\\quad {latex_text(ROW_NAMES[line.kind].strip())}{policy}"
    cells = [title, *map(entry_latex, line.entries)]
    if line.kind in {"low", "high"}:
        cells = [f"{{\\scriptsize {cell}}}" for cell in cells]
    return latex_row(cells)
