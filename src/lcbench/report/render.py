"""Tables as text: for the terminal, and as Markdown, CSV and LaTeX.

Computes nothing but roundings; `text` escapes the names.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from lcbench.report.lengths import LengthRow, LengthTable
from lcbench.report.paper import ALL_MODELS, TABLE_2, TABLE_3, Comparison
from lcbench.report.table1 import (
    AVERAGE,
    COLUMN_ORDER,
    Block,
    Row,
    Table,
    averaged_columns,
    ordered_policies,
)
from lcbench.report.text import (
    HOLE,
    change,
    csv_text,
    direction,
    full,
    latex_row,
    latex_text,
    markdown_grid,
    markdown_text,
    one_line,
    two_decimals,
    wrapped_header,
)

CSV_HEADER = ("group", "window", "model", "revision", "row", "policy", "column", "value")
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
CSV_TASKS_HEADER = ("group", "window", "model", "revision", "column", "task", "policy", "value")
CSV_LENGTHS_HEADER = ("group", "window", "model", "revision", "task", "policy", "length", "value")

_ROW_NAMES = {"raw": "raw", "ours": "ours", "relative": "Relative Improv."}
_ROW_NAMES_OF_PAPER = {**_ROW_NAMES, "avg_improv": "Avg Improv."}

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
_FOOTNOTE_LENGTHS = (
    "The task's main score × 100 by the documents' length in tokens; Mean is the score of the task "
    f"in Table 1. {HOLE} is a hole: the notes of Table 1 say why."
)
_FOOTNOTE_CHOICE = (
    "The best τ of a model is chosen on the same data that it is evaluated on, as in the paper, "
    "so its improvement is optimistic."
)

_PAPER_TITLE = "Paper beside ours"
_WITHIN = {"yes": "✓", "no": "✗", "unknown": "?"}
_WITHIN_STYLES = {"yes": "green", "no": "red", "unknown": ""}
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

_MOST_COLUMNS_FAR_APART = 6


def footnotes(table: Table) -> tuple[str, ...]:
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
    )


def terminal(table: Table) -> RenderableType:
    """The table, its notes and its footnotes for a `rich` console of 100 columns or more."""
    # The box itself puts one space between two columns.
    spaces = 1 if len(table.column_names) <= _MOST_COLUMNS_FAR_APART else 0
    grid = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, spaces, 0, 0)
    )
    grid.add_column("Model", overflow="fold")
    counts = _task_counts(table)
    for name in table.column_names:
        header = Text(wrapped_header(one_line(name)) + counts[name].replace(" ", "\n"))
        grid.add_column(header, justify="right", vertical="bottom", overflow="fold")
    for window, blocks in groupby(table.blocks, _window):
        grid.add_row(Text(f"Window {window}", style="italic"))
        for block in blocks:
            grid.add_row(Text(one_line(block.label), style="bold"))
            for row in block.rows:
                # The policy of the relative line is that of the line above it.
                name = _ROW_NAMES[row.kind]
                policy = "" if row.kind == "relative" else f", τ = {one_line(row.policy)}"
                values = [_terminal_value(row, column) for column in table.column_names]
                grid.add_row(Text(f" {name}{policy}"), *values)
            grid.add_section()
    if table.average_improvement is not None:
        average = Row("relative", "", table.average_improvement)
        values = [_terminal_value(average, column) for column in table.column_names]
        grid.add_row(Text("Avg Improv.", style="bold"), *values)
    below = RichTable.grid(padding=(0, 1))
    for note in table.notes:
        below.add_row(Text("•"), Text(one_line(note)))
    for footnote in footnotes(table):
        below.add_row(Text("*"), Text(footnote, style="dim"))
    title = Text(one_line(table.group), style="bold")
    return Group(title, Text(), grid, Text(), below)


def markdown(tables: Sequence[Table]) -> str:
    """The tables with notes and footnotes, and below each the scores per task and τ."""
    return "\n".join(_markdown_table(table) for table in tables)


def terminal_lengths(tables: Sequence[LengthTable]) -> RenderableType:
    """The scores per length for a `rich` console of 100 columns or more."""
    parts: list[RenderableType] = [Text("Scores per length", style="bold")]
    for table in tables:
        grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
        grid.add_column(Text(one_line(table.task)), overflow="fold")
        for name in _length_columns(table):
            grid.add_column(name, justify="right")
        heading = None
        for row in table.rows:
            if (row.window, row.label) != heading:
                heading = (row.window, row.label)
                grid.add_row(Text(f"{one_line(row.label)}, window {_window(row)}", style="bold"))
            grid.add_row(Text(f" τ = {one_line(row.policy)}"), *_length_values(table, row))
        parts += [Text(), grid]
    return Group(Text(), *parts, Text(), Text(_FOOTNOTE_LENGTHS, style="dim"))


def markdown_lengths(tables: Sequence[LengthTable]) -> str:
    """The scores per length, one table a task; nothing if there is none."""
    if not tables:
        return ""
    lines = ["", "## Scores per length", "", markdown_text(_FOOTNOTE_LENGTHS), ""]
    for table in tables:
        header = ["Model", "Window", "τ", *_length_columns(table)]
        rows = [
            [
                markdown_text(row.label),
                _window(row),
                markdown_text(row.policy),
                *_length_values(table, row),
            ]
            for row in table.rows
        ]
        title = f"### {markdown_text(table.task)} ({markdown_text(table.group)})"
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


def _length_columns(table: LengthTable) -> list[str]:
    return [*map(str, table.lengths), "Mean"]


def _length_values(table: LengthTable, row: LengthRow) -> list[str]:
    """The row's numbers; empty, and no hole, is a length that its window does not have."""
    values = [
        two_decimals(row.scores[length]) if length in row.scores else "" for length in table.lengths
    ]
    return [*values, two_decimals(row.mean)]


def csv(tables: Sequence[Table]) -> str:
    """The lines of the tables, one value a row (`CSV_HEADER`), in full precision.

    `row` is raw, ours or relative; scores are × 100, relative improvements in %; the value of a
    hole is empty, and so is a window that is not known. Notes and the mean over the models are left
    to the other formats.
    """
    return csv_text(
        CSV_HEADER,
        (
            (*_identity(table, block), row.kind, row.policy, column, full(row.values[column]))
            for table in tables
            for block in table.blocks
            for row in block.rows
            for column in table.column_names
        ),
    )


def csv_tasks(tables: Sequence[Table]) -> str:
    """The scores × 100 per task and policy, one a row (`CSV_TASKS_HEADER`), in full precision."""
    return csv_text(
        CSV_TASKS_HEADER,
        (
            (*_identity(table, block), task.column, task.task, policy, full(task.scores[policy]))
            for table in tables
            for block in table.blocks
            for task in block.tasks
            for policy in block.policies
        ),
    )


def latex(tables: Sequence[Table]) -> str:
    """The tables as `tabular`s with rules of booktabs, each with its notes and footnotes."""
    head = "% Needs \\usepackage{booktabs} and \\usepackage{amssymb}.\n"
    return head + "".join("\n" + _latex_table(table) for table in tables)


def terminal_paper(comparisons: Sequence[Comparison]) -> RenderableType:
    """The paper's numbers beside ours, for a `rich` console of 100 columns or more."""
    parts: list[RenderableType] = [Text(), Text(_PAPER_TITLE, style="bold"), Text()]
    for name, columns, rows in _paper_tables(comparisons):
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
                names, _QUANTITIES, _paper_lines(cells, columns), strict=True
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
    for footnote in _paper_footnotes(comparisons):
        below.add_row(Text("*"), Text(footnote, style="dim"))
    return Group(*parts, below)


def markdown_paper(comparisons: Sequence[Comparison]) -> str:
    """The paper's numbers beside ours, one Markdown table for each of the paper's."""
    lines = [f"## {_PAPER_TITLE}", ""]
    for name, columns, rows in _paper_tables(comparisons):
        header = ["Model", "Row", "τ", "", *map(markdown_text, columns)]
        grid = [
            [*map(markdown_text, (label, row, policy, quantity)), *map(markdown_text, values)]
            for label, row, policy, cells in rows
            for quantity, values in zip(_QUANTITIES, _paper_lines(cells, columns), strict=True)
        ]
        lines += [f"### {name}", "", *markdown_grid(header, grid, 4), ""]
    for sentence in (paper_summary(comparisons), *_paper_footnotes(comparisons)):
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


def _task_counts(table: Table) -> dict[str, str]:
    """What stands after each column's name: " (8)" for eight tasks, nothing for `Avg`."""
    return {**{column.name: f" ({len(column.tasks)})" for column in table.columns}, AVERAGE: ""}


def _window(block: Block | LengthRow) -> str:
    """The window in tokens, or what stands for one that is not known."""
    return HOLE if block.window is None else str(block.window)


def _value(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None and column in row.partial:
        return _partial(row, column)
    return change(value) if row.kind == "relative" else two_decimals(value)


def _partial(row: Row, column: str) -> str:
    """What stands for a column of which some tasks have a score: "3 of 8"."""
    return "{} of {}".format(*row.partial[column])


def _terminal_value(row: Row, column: str) -> Text:
    style = ""
    if row.kind == "relative":
        style = {1: "green", -1: "red", 0: ""}[direction(row.values[column])]
    return Text(_value(row, column), style=style)


_QUANTITIES = ("paper", "ours", "difference", "noise")

_PaperRow = tuple[str, str, str, Mapping[str, Comparison]]  # model, row, policy, by column


def _paper_tables(
    comparisons: Sequence[Comparison],
) -> Iterator[tuple[str, list[str], list[_PaperRow]]]:
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


def _paper_lines(
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


def _paper_style(quantity: str, one: Comparison | None) -> str:
    if one is None or quantity != "difference":
        return "dim" if quantity == "noise" else ""
    return _WITHIN_STYLES[one.within]


def _paper_footnotes(comparisons: Sequence[Comparison]) -> list[str]:
    shown = {name for name, _, _ in _paper_tables(comparisons)}
    those = [one for one in comparisons if one.table in shown]
    doubts = dict.fromkeys((one.table, one.doubt) for one in those if one.doubt)
    return [
        _FOOTNOTE_WITHIN,
        *([_FOOTNOTE_PRESENT] if any(one.present for one in those) else []),
        *([_FOOTNOTE_ROLES] if TABLE_2 in shown else []),
        *([_FOOTNOTE_RANKS] if TABLE_3 in shown else []),
        *(f"{_DOUBT} {table}: {doubt}." for table, doubt in doubts),
    ]


def _markdown_table(table: Table) -> str:
    counts = _task_counts(table)
    names = table.column_names
    header = ["Model", "Row", "τ", *(markdown_text(name) + counts[name] for name in names)]
    rows = []
    for window, blocks in groupby(table.blocks, _window):
        rows.append([f"**Window {window}**", *[""] * (len(header) - 1)])
        for block in blocks:
            label = markdown_text(block.label)
            for row in block.rows:
                values = [_value(row, name) for name in names]
                rows.append([label, _ROW_NAMES[row.kind], markdown_text(row.policy), *values])
    if table.average_improvement is not None:
        values = [change(table.average_improvement[name]) for name in names]
        rows.append(["**Avg Improv.**", "", "", *values])
    lines = [f"## {markdown_text(table.group)}", "", *markdown_grid(header, rows, 2), ""]
    if table.notes:
        lines += [*(f"- {markdown_text(note)}" for note in table.notes), ""]
    for footnote in footnotes(table):
        lines += [markdown_text(footnote), ""]
    return "\n".join([*lines, "### Scores per task and τ", "", *_markdown_tasks(table), ""])


def _markdown_tasks(table: Table) -> list[str]:
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


def _identity(table: Table | LengthTable, block: Block | LengthRow) -> tuple[str, str, str, str]:
    window = "" if block.window is None else str(block.window)
    return table.group, window, block.model, block.revision


def _latex_table(table: Table) -> str:
    counts = _task_counts(table)
    names = table.column_names
    width = 2 + len(names)
    header = ["Model", "", *(latex_text(name) + counts[name] for name in names)]
    lines = [
        f"% {one_line(table.group)}",
        f"\\begin{{tabular}}{{ll{'r' * len(names)}}}",
        "\\toprule",
        latex_row(header),
    ]
    for window, blocks in groupby(table.blocks, _window):
        heading = latex_text(f"Window {window}")
        lines += ["\\midrule", f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{heading}}}}} \\\\"]
        for place, block in enumerate(blocks):
            if place:
                lines.append("\\midrule")
            for row in block.rows:
                label = latex_text(block.label) if row.kind == "raw" else ""
                policy = "" if row.kind == "relative" else f", $\\tau$ = {latex_text(row.policy)}"
                values = [_latex_value(row, name) for name in names]
                lines.append(latex_row([label, _ROW_NAMES[row.kind] + policy, *values]))
    if table.average_improvement is not None:
        average = Row("relative", "", table.average_improvement)
        values = [_latex_value(average, name) for name in names]
        lines += ["\\midrule", latex_row(["Avg Improv.", "", *values])]
    lines += ["\\bottomrule", "\\end{tabular}", ""]
    for sentence in (*table.notes, *footnotes(table)):
        lines.append(f"\\par\\noindent{{\\footnotesize {latex_text(sentence)}\\par}}")
    return "\n".join(lines) + "\n"


def _latex_value(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None:
        return _partial(row, column) if column in row.partial else "--"
    if row.kind == "relative":
        return change(value, "$\\blacktriangle$~", "$\\blacktriangledown$~")
    return two_decimals(value)
