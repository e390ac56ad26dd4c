"""`tables.main_results`: what is printed is the table's numbers, and names come out as text."""

import csv as csv_format
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pdflatex import compiled, latex_document
from rich.console import RenderableType
from screens import printed

from lcbench.cli.tables import rendered
from lcbench.reporting import formats
from lcbench.reporting.score_table import COLUMN_ORDER, ScoreTable
from lcbench.reporting.statistics import NOTHING, TableStatistics, Uncertainty
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables import matrix
from lcbench.reporting.tables.main_results import footnotes, main_table, main_values
from lcbench.reporting.text import csv_text

HOSTILE_MODEL = "org/a|b_c&d%e[bold]$f$#{g}~^\\<script>`h`--*i*"
HOSTILE_LABEL = HOSTILE_MODEL.removeprefix("org/")


def table_1(table: ScoreTable, statistics: TableStatistics = NOTHING) -> RenderableType:
    return rendered(main_table(table, statistics))


def markdown(table: ScoreTable, statistics: TableStatistics = NOTHING) -> str:
    return formats.markdown(main_table(table, statistics))


def latex(table: ScoreTable, statistics: TableStatistics = NOTHING) -> str:
    return formats.latex(main_table(table, statistics))


def csv(tables: list[ScoreTable], statistics: Sequence[TableStatistics] = ()) -> str:
    return formats.csv(main_values(tables, statistics or [NOTHING] * len(tables)))


def csv_tasks(tables: list[ScoreTable], statistics: Sequence[TableStatistics] = ()) -> str:
    return formats.csv(matrix.task_values(tables, statistics or [NOTHING] * len(tables)))


def scores_of(
    values: dict[tuple[str, str, str], float],
    model: str = "org/minilm",
    group: str = "paper, window 512",
    window: int | None = 512,
) -> pd.DataFrame:
    """Scores by (policy, column, task)."""
    return pd.DataFrame(
        [
            {
                "group": group,
                "window": window,
                "model": model,
                "revision": "0123456789",
                "policy": policy,
                "task": task,
                "column": column,
                "split": "test",
                "subset": "default",
                "score": score,
                "conditions": {"mteb": "2.26.24"},
            }
            for (policy, column, task), score in values.items()
        ]
    )


@pytest.fixture
def tables() -> list[ScoreTable]:
    """Class rises by 0.43 %, STS falls by 0.12 %, Rerank by too little to print, Summ lacks D."""
    return build_tables(
        scores_of(
            {
                ("1", "Class", "A"): 0.5,
                ("0.8", "Class", "A"): 0.50216,
                ("1", "STS", "B"): 0.8,
                ("0.8", "STS", "B"): 0.79904,
                ("1", "Rerank", "C"): 0.6,
                ("0.8", "Rerank", "C"): 0.59999,
                ("1", "Summ", "D"): 0.3,
            }
        )
    )


@pytest.fixture
def hostile_tables() -> list[ScoreTable]:
    """Markup of every format in the names of group, model, tasks and policy; one task missing."""
    values = {
        ("1", "Class", "[bold]Task_1|%&[/bold]"): 0.5,
        ("a|b_c", "Class", "[bold]Task_1|%&[/bold]"): 0.6,
        ("1", "STS", "Task_2\n\x1b[31m"): 0.5,
    }
    return build_tables(scores_of(values, HOSTILE_MODEL, "[red]g_1|%[/red]"))


def line_with(text: str, start: str) -> str:
    (line,) = (line for line in text.splitlines() if line.strip().startswith(start))
    return line


def test_terminal_prints_two_decimals_arrows_and_missing_values(tables: list[ScoreTable]) -> None:
    text = printed(table_1(tables[0]))
    assert "Window 512" in text
    assert line_with(text, "Model").split()[1:] == ["(1)", "(1)", "(1)", "(1)", "Avg"]
    assert line_with(text, "raw, τ = 1").split()[4:] == [
        "50.00",
        "30.00",
        "80.00",
        "60.00",
        "55.00",
    ]
    assert line_with(text, "ours, τ = 0.8").split()[4:] == ["50.22", "–", "79.90", "60.00", "–"]
    assert re.split(r"\s{2,}", line_with(text, "Relative Improv.").strip())[1:] == [
        *("▲ 0.43", "–", "▼ 0.12", "0.00", "–")
    ]
    assert "• minilm, τ = 0.8, Summ: missing D" in text


def test_terminal_colours_only_in_addition_to_the_arrows(tables: list[ScoreTable]) -> None:
    text = printed(table_1(tables[0]), color=True)
    # Blue and orange, as near as these colours come.
    assert "\x1b[94m▲ 0.43\x1b[0m" in text
    assert "\x1b[91m▼ 0.12\x1b[0m" in text
    assert "\x1b" not in printed(table_1(tables[0]))


@pytest.mark.parametrize(("ours", "change"), [(0.475, "▼ 5.00"), (0.525, "▲ 5.00"), (0.5, "0.00")])
def test_terminal_fits_100_columns_with_every_column_there_is(ours: float, change: str) -> None:
    values = {
        (policy, column, f"{column}{number}"): score
        for policy, score in (("1", 0.5), ("0.8", ours))
        for column in COLUMN_ORDER
        for number in range(12)
    }
    (table,) = build_tables(scores_of(values, "org/msmarco-roberta-base-ance-firstp"))
    text = printed(table_1(table))
    assert max(map(len, text.splitlines())) <= 100
    assert line_with(text, "Relative Improv.").count(change) == len(COLUMN_ORDER) + 1
    assert line_with(text, "raw, τ = 1").count("50.00") == len(COLUMN_ORDER) + 1
    assert line_with(text, "Model").count("(12)") == len(COLUMN_ORDER)
    assert "…" not in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_breaks_names_and_no_number(width: int) -> None:
    values = {
        (policy, column, f"{column}0"): score
        for policy, score in (("1", 0.5), ("0.8", 0.4375))
        for column in COLUMN_ORDER[:7]
    }
    (table,) = build_tables(scores_of(values, "org/msmarco-roberta-base-ance-firstp"))
    text = printed(table_1(table), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("12.50") == 8
    assert text.count("43.75") == 8


def test_footnotes_say_how_tau_is_chosen_and_what_avg_is(tables: list[ScoreTable]) -> None:
    choice, average, _ = footnotes(tables[0], NOTHING)
    assert choice.startswith(
        "As in the paper, raw is the baseline (τ = 1) and ours is TempScale at the model's best τ"
    )
    assert average.startswith("Avg is the unweighted mean of the columns, not of the tasks")
    (baseline_only,) = build_tables(scores_of({("1", "Class", "A"): 0.5}))
    assert footnotes(baseline_only, NOTHING) == (average,)
    for text in (printed(table_1(tables[0]), 1000), markdown(tables[0])):
        assert choice in text
        assert average in text
    assert choice.replace("τ", r"$\tau$") in latex(tables[0])
    assert average[:80] in latex(tables[0])


def test_markdown_table(tables: list[ScoreTable]) -> None:
    lines = markdown(tables[0]).splitlines()
    assert lines[:10] == [
        "## Scores and relative improvements: protocol paper, window 512",
        "",
        "| Model | Class (1) | Summ (1) | STS (1) | Rerank (1) | Avg |",
        "| :-- | --: | --: | --: | --: | --: |",
        "| **Window 512** |  |  |  |  |  |",
        "| **minilm** |  |  |  |  |  |",
        "| raw, τ = 1 | 50.00 | 30.00 | 80.00 | 60.00 | 55.00 |",
        "| ours, τ = 0.8 | 50.22 | – | 79.90 | 60.00 | – |",
        "| Relative Improv. | ▲ 0.43 | – | ▼ 0.12 | 0.00 | – |",
        "",
    ]
    assert lines[10] == "- minilm, τ = 0.8, Summ: missing D"
    lines = formats.markdown(matrix.scores(tables[0])).splitlines()
    assert lines[0] == "## Scores per task and τ (protocol paper, window 512)"
    assert lines[2:9] == [
        "| Column | Task | τ = 1 | τ = 0.8 |",
        "| :-- | :-- | --: | --: |",
        "| **minilm** |  |  |  |",
        "| Class | A | 50.00 | 50.22 |",
        "| Summ | D | 30.00 | – |",
        "| STS | B | 80.00 | 79.90 |",
        "| Rerank | C | 60.00 | 60.00 |",
    ]


def test_average_improvement_and_window_headings_in_all_texts() -> None:
    both = pd.concat(
        scores_of({("1", "Class", "A"): 0.5, (tau, "Class", "A"): score}, model, window=window)
        for model, window, tau, score in (("o/x", 512, "0.8", 0.55), ("o/y", 4096, "0.9", 0.49))
    )
    (table,) = build_tables(both)
    rows = markdown(table).splitlines()
    assert "| **Window 512** |  |  |" in rows
    assert "| **Window 4096** |  |  |" in rows
    assert "| Avg Improv. | ▲ 4.00 | ▲ 4.00 |" in rows
    # The other model's τ is not missing here.
    per_task = formats.markdown(matrix.scores(table)).splitlines()
    assert "| Class | A | 50.00 |  | 55.00 |" in per_task
    assert line_with(printed(table_1(table)), "Avg Improv.").split() == [
        *("Avg", "Improv.", "▲", "4.00", "▲", "4.00")
    ]
    assert "Window 4096" in printed(table_1(table))
    assert r"Avg Improv. & $\blacktriangle$~4.00 & $\blacktriangle$~4.00 \\" in latex(table)
    assert r"\multicolumn{3}{l}{\textit{Window 4096}} \\" in latex(table)


def test_a_window_that_is_not_known_comes_last_in_all_texts() -> None:
    both = pd.concat(
        scores_of({("1", "Class", "A"): 0.5}, model, window=window)
        for model, window in (("o/x", None), ("o/x", 512), ("o/y", None))
    )
    (table,) = build_tables(both)
    assert [(block.label, block.window) for block in table.blocks] == [
        ("x (window 512)", 512),
        ("x (window unknown)", None),
        ("y", None),
    ]
    first = [line.split(" | ")[0] for line in markdown(table).splitlines()[2:12]]
    assert first == [
        "| Model",
        "| :--",
        "| **Window 512**",
        "| **x (window 512)**",
        "| raw, τ = 1",
        "| **Window –**",
        "| **x (window unknown)**",
        "| raw, τ = 1",
        "| **y**",
        "| raw, τ = 1",
    ]
    assert printed(table_1(table)).count("Window –") == 1
    assert r"\multicolumn{3}{l}{\textit{Window \textendash{}}} \\" in latex(table)
    rows = list(csv_format.DictReader(io.StringIO(csv([table]))))
    assert [row["window"] for row in rows if row["column"] == "Class"] == ["512", "", ""]


def test_latex_table(tables: list[ScoreTable]) -> None:
    lines = latex(tables[0]).splitlines()
    needed = r"% Needs \usepackage{booktabs}, \usepackage{amssymb} and \usepackage{graphicx}."
    assert lines[0] == needed
    title = "Scores and relative improvements: protocol paper, window 512"
    start = lines.index(f"% {title}")
    wide = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    assert lines[start + 1 : lines.index(r"\end{tabular}") + 4] == [
        r"\begin{table}[t]\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{title}}}",
        r"\label{tab:table1}",
        wide,
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        r"Model & Class & Summ & STS & Rerank & Avg \\",
        r" & (1) & (1) & (1) & (1) &  \\",
        r"\midrule",
        r"\multicolumn{6}{l}{\textit{Window 512}} \\",
        r"\multicolumn{6}{l}{\textbf{minilm}} \\",
        r"\quad raw, $\tau$ = 1 & 50.00 & 30.00 & 80.00 & 60.00 & 55.00 \\",
        r"\quad ours, $\tau$ = 0.8 & 50.22 & -- & 79.90 & 60.00 & -- \\",
        r"\quad Relative Improv. & $\blacktriangle$~0.43 & -- & $\blacktriangledown$~0.12 & 0.00 "
        r"& -- \\",
        r"\bottomrule",
        r"\end{tabular}",
        "}",
        r"\par\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
    ]
    assert lines[-2:] == [r"\end{minipage}", r"\end{table}"]
    assert r"minilm, $\tau$ = 0.8, Summ: missing D" in latex(tables[0])


def test_markup_in_names_comes_out_as_text_in_the_terminal(
    hostile_tables: list[ScoreTable],
) -> None:
    text = printed(table_1(hostile_tables[0]), width=200)
    assert "improvements: protocol [red]g_1|%[/red]" in text
    assert HOSTILE_LABEL in text
    assert "ours, τ = a|b_c" in text
    assert f"{HOSTILE_LABEL}, τ = a|b_c, STS: missing Task_2  [31m" in text
    assert "\x1b" not in text


def test_markup_in_names_comes_out_as_text_in_markdown(hostile_tables: list[ScoreTable]) -> None:
    text = markdown(hostile_tables[0])
    assert text.startswith(r"## Scores and relative improvements: protocol \[red\]g\_1\|%\[/red\]")
    assert r"a\|b\_c&amp;d%e\[bold\]\$f\$\#{g}\~^\\&lt;script&gt;\`h\`--\*i\*" in text
    per_task = formats.markdown(matrix.scores(hostile_tables[0]))
    assert r"| \[bold\]Task\_1\|%&amp;\[/bold\] | 50.00 | 60.00 |" in per_task
    assert "<script>" not in text
    assert "\x1b" not in text
    # Unescaped bars are the borders of cells: as many in each row as in the header.
    rows = [line for line in text.splitlines() if line.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert bars == [5] * 7


def test_markup_in_names_comes_out_as_text_in_latex(hostile_tables: list[ScoreTable]) -> None:
    text = latex(hostile_tables[0])
    assert (
        r"a\textbar{}b\_c\&d\%e{[}bold{]}\$f\$\#\{g\}\textasciitilde{}\textasciicircum{}"
        r"\textbackslash{}\textless{}script\textgreater{}"
        r"\`{}h\`{}-{}-{*}i{*}}} \\"
    ) in text
    assert r"ours, $\tau$ = a\textbar{}b\_c & 60.00 & -- & -- \\" in text
    # The group stands in a comment, which a line break would end.
    assert "protocol [red]g_1|%[/red]\n\\begin" in text


def test_line_breaks_in_a_group_do_not_end_the_latex_comment() -> None:
    (table,) = build_tables(scores_of({("1", "Class", "A"): 0.5}, group="a\n\\input{b}"))
    assert "protocol a \\input{b}\n" in latex(table)


def test_csv_reads_back_in_full_precision(tables: list[ScoreTable]) -> None:
    every = list(csv_format.DictReader(io.StringIO(csv(tables))))
    assert ",".join(every[0]) == "group,window,model,revision,row,policy,column,value"
    rows = [row for row in every if row["row"] not in {"low", "high"}]
    assert len(rows) == 3 * 5
    assert [row["value"] for row in every if row not in rows] == [""] * 2 * 5
    assert rows[0] == {
        "group": "paper, window 512",
        "window": "512",
        "model": "org/minilm",
        "revision": "0123456789",
        "row": "raw",
        "policy": "1",
        "column": "Class",
        "value": "50.0",
    }
    (block,) = tables[0].blocks
    values = {row.kind: row.values for row in block.rows}
    for row in rows:
        value = values[row["row"]][row["column"]]
        assert row["value"] == "" if value is None else float(row["value"]) == value
        assert row["policy"] == ("1" if row["row"] == "raw" else "0.8")
    assert sum(row["value"] == "" for row in rows) == 4


def test_csv_of_tasks_reads_back(tables: list[ScoreTable]) -> None:
    rows = list(csv_format.DictReader(io.StringIO(csv_tasks(tables))))
    read = {(row["column"], row["task"], row["policy"]): row["value"] for row in rows}
    assert len(rows) == len(read) == 8
    assert float(read["STS", "B", "0.8"]) == pytest.approx(79.904)
    assert read["Summ", "D", "0.8"] == ""


def test_csv_keeps_hostile_names(hostile_tables: list[ScoreTable]) -> None:
    rows = list(csv_format.DictReader(io.StringIO(csv_tasks(hostile_tables), newline="")))
    assert {row["model"] for row in rows} == {HOSTILE_MODEL}
    assert {row["task"] for row in rows} == {"[bold]Task_1|%&[/bold]", "Task_2\n\x1b[31m"}


def test_nothing_to_print() -> None:
    assert csv([]) == "group,window,model,revision,row,policy,column,value\n"


def test_a_partial_column_says_how_much_of_it_there_is() -> None:
    values = {(policy, "Class", task): 0.5 for policy in ("1", "0.8") for task in "ABC"}
    values |= {("1", "STS", "D"): 0.5, ("0.8", "STS", "D"): 0.6}
    del values["0.8", "Class", "B"]
    (table,) = build_tables(scores_of(values))
    raw, ours, relative = table.blocks[0].rows
    assert raw.partial == {}
    assert ours.partial == relative.partial == {"Class": (2, 3)}
    assert ours.values["Class"] is None
    assert ours.values["Avg"] is None
    text = printed(table_1(table))
    assert text.count("2 of 3") == 2
    assert "Class: missing B" in text
    assert "partial: so many of its tasks have a score" in text
    assert markdown(table).count("| 2 of 3 |") == 2
    assert latex(table).count("& 2 of 3 &") == 2
    # Nothing of the kind where a column is whole, or has nothing at all.
    (whole,) = build_tables(scores_of({("1", "STS", "D"): 0.5}))
    assert "partial" not in printed(table_1(whole))


def test_needle_and_passkey_are_not_part_of_the_average() -> None:
    values = {("1", "STS", "A"): 0.5, ("0.8", "STS", "A"): 0.6, ("1", "Rerank", "B"): 0.7}
    values |= {("0.8", "Rerank", "B"): 0.7, ("1", "Needle", "C"): 0.4, ("0.8", "Needle", "C"): 0.0}
    (table,) = build_tables(scores_of(values))
    raw, ours, relative = table.blocks[0].rows
    assert raw.values["Avg"] == pytest.approx(60)
    assert ours.values["Avg"] == pytest.approx(65)
    assert relative.values["Needle"] == pytest.approx(-100)
    assert "Needle: not part of Avg" in printed(table_1(table))
    # Where there is nothing else, it is what Avg is the mean of.
    (alone,) = build_tables(scores_of({("1", "Needle", "C"): 0.4}))
    assert alone.blocks[0].scores["1"]["Avg"] == pytest.approx(40)
    assert "not part of Avg" not in printed(table_1(alone))


@pytest.fixture
def known(tables: list[ScoreTable]) -> TableStatistics:
    """Class is significant, STS is not, of Rerank nothing is known."""
    assert tables[0].blocks[0].label == "minilm"
    return TableStatistics(
        cells={
            ("minilm", "0.8", "A"): Uncertainty(0.1, 0.8, 0.01, 0.02, "texts", 100),
            ("minilm", "0.8", "B"): Uncertainty(-0.4, 0.2, 0.4, 0.4, "pairs", 100),
        },
        means={
            ("minilm", "0.8", "Class"): Uncertainty(0.101, 0.8),
            ("minilm", "0.8", "STS"): Uncertainty(-0.4, 0.201),
            # A missing value has no interval, whatever is given.
            ("minilm", "0.8", "Avg"): Uncertainty(1, 2),
        },
        average={},
        resamples=10_000,
        seed=7,
        notes=("minilm, C: no items",),
    )


def test_terminal_with_statistics(tables: list[ScoreTable], known: TableStatistics) -> None:
    text = printed(table_1(tables[0], known))
    cells = re.split(r"\s{2,}", line_with(text, "Relative Improv.").strip())
    assert cells == ["Relative Improv.", "▲ 0.43", "–", "▽ 0.12", "0.00", "–"]
    lines = text.splitlines()
    at = lines.index(line_with(text, "Relative Improv."))
    assert lines[at + 1].split() == ["95", "%", "from", "0.10", "–", "-0.40", "–", "–"]
    assert lines[at + 2].split() == ["to", "0.80", "–", "0.20", "–", "–"]
    assert "• minilm, C: no items" in text
    assert "10,000" in text


def test_terminal_with_statistics_is_bold_or_dim(
    tables: list[ScoreTable], known: TableStatistics
) -> None:
    text = printed(table_1(tables[0], known), color=True)
    assert "\x1b[1;94m▲ 0.43\x1b[0m" in text
    assert "\x1b[2m▽ 0.12\x1b[0m" in text


@pytest.mark.parametrize("change", [-12.34, 5.0, 0.001])
def test_terminal_with_statistics_fits_100_columns(change: float) -> None:
    values = {
        (policy, column, f"{column}{number}"): score
        for policy, score in (("1", 0.5), ("0.8", 0.5 * (1 + change / 100)))
        for column in COLUMN_ORDER
        for number in range(12)
    }
    (table,) = build_tables(scores_of(values, "org/msmarco-roberta-base-ance-firstp"))
    label = table.blocks[0].label
    means = {
        (label, "0.8", name): Uncertainty(change - 10, change + 1) for name in table.column_names
    }
    text = printed(table_1(table, TableStatistics({}, means, {})))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count(f"{change - 10:.2f}") == len(COLUMN_ORDER) + 1
    assert text.count(f"{change + 1:.2f}") >= len(COLUMN_ORDER) + 1
    assert "…" not in text


def test_markdown_with_statistics(tables: list[ScoreTable], known: TableStatistics) -> None:
    lines = markdown(tables[0], known).splitlines()
    assert lines[8:11] == [
        "| Relative Improv. | **▲ 0.43** | – | ▽ 0.12 | 0.00 | – |",
        "| 95 % from | 0.10 | – | -0.40 | – | – |",
        "|        to | 0.80 | – | 0.20 | – | – |",
    ]
    assert "- minilm, C: no items" in lines
    (marks,) = (line for line in lines if line.startswith("▲ and ▼ in bold"))
    assert marks.count("10,000 resamples, seed 7") == 1
    gains = matrix.matrix(tables[0], known)
    assert gains is not None
    lines = formats.markdown(gains).splitlines()
    assert lines[0] == "## Relative improvements per task and τ (protocol paper, window 512)"
    assert lines[2:9] == [
        "| Column | Task | τ = 0.8 |",
        "| :-- | :-- | --: |",
        "| **minilm** |  |  |",
        "| Class | A | **▲ 0.43** |",
        "| Summ | D | – |",
        "| STS | B | ▽ 0.12 |",
        "| Rerank | C | 0.00 |",
    ]
    assert (
        "- Of 2 pairs of a task's τ and τ = 1, 1 differ significantly from zero, by interval "
        "and permutation test (p ≤ 0.05), 1 after Holm's correction."
    ) in lines


def test_latex_with_statistics(tables: list[ScoreTable], known: TableStatistics) -> None:
    lines = latex(tables[0], known).splitlines()
    up = r"\textbf{$\blacktriangle$~0.43}"
    at = lines.index(rf"\quad Relative Improv. & {up} & -- & $\triangledown$~0.12 & 0.00 & -- \\")
    ends = [
        ("95 \\% from", "0.10", "--", "$-$0.40", "--", "--"),
        ("       to", "0.80", "--", "0.20", "--", "--"),
    ]
    assert lines[at + 1 : at + 3] == [
        " & ".join(
            [
                rf"\quad {{\scriptsize {title}}}",
                *(one if one == "--" else rf"{{\scriptsize {one}}}" for one in values),
            ]
        )
        + r" \\"
        for title, *values in ends
    ]


def test_csv_with_statistics(tables: list[ScoreTable], known: TableStatistics) -> None:
    text = csv(tables, [known])
    rows = list(csv_format.DictReader(io.StringIO(text)))
    ends = {
        (row["row"], row["column"]): row["value"] for row in rows if row["row"] in {"low", "high"}
    }
    assert len(ends) == 2 * 5
    # Statistics change nothing else.
    without = csv_format.DictReader(io.StringIO(csv(tables)))
    assert [row for row in without if row["row"] not in {"low", "high"}] == [
        row for row in rows if row["row"] not in {"low", "high"}
    ]
    assert {key: value for key, value in ends.items() if value} == {
        ("low", "Class"): "0.101",
        ("high", "Class"): "0.8",
        ("low", "STS"): "-0.4",
        ("high", "STS"): "0.201",
    }


def test_csv_of_tasks_with_statistics(tables: list[ScoreTable], known: TableStatistics) -> None:
    rows = list(csv_format.DictReader(io.StringIO(csv_tasks(tables, [known]))))
    assert list(rows[0])[-11:] == [
        *("improvement", "low", "high", "p", "adjusted"),
        *("units", "count", "up", "down", "detectable", "no_more_than"),
    ]
    by_task = {(row["task"], row["policy"]): row for row in rows}
    a, b, c = (by_task[task, "0.8"] for task in "ABC")
    assert float(a["improvement"]) == pytest.approx(0.432)
    assert [a[name] for name in ("low", "high", "p", "adjusted")] == ["0.1", "0.8", "0.01", "0.02"]
    assert b["low"] == "-0.4"
    assert float(c["improvement"]) == pytest.approx(-0.0016667, abs=1e-6)
    assert [c[name] for name in ("low", "high", "p", "adjusted")] == [""] * 4
    assert [by_task["A", "1"][name] for name in ("improvement", "low")] == ["", ""]
    assert by_task["D", "0.8"]["improvement"] == ""


def test_the_mean_over_models_has_an_interval_too() -> None:
    both = pd.concat(
        scores_of({("1", "Class", "A"): 0.5, ("0.8", "Class", "A"): score}, model)
        for model, score in (("o/x", 0.55), ("o/y", 0.49))
    )
    (table,) = build_tables(both)
    known = TableStatistics({}, {}, {"Class": Uncertainty(-1, 9), "Avg": Uncertainty(1, 9)})
    rows = markdown(table, known).splitlines()
    at = rows.index("| Avg Improv. | △ 4.00 | **▲ 4.00** |")
    assert rows[at + 1] == "| 95 % from | -1.00 | 1.00 |"
    assert rows[at + 2] == "|        to | 9.00 | 9.00 |"
    lines = latex(table, known).splitlines()
    low = r"{\scriptsize 95 \% from} & {\scriptsize $-$1.00} & {\scriptsize 1.00} \\"
    high = r"{\scriptsize        to} & {\scriptsize 9.00} & {\scriptsize 9.00} \\"
    assert lines[lines.index(low) + 1] == high
    lines = printed(table_1(table, known)).splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("Avg Improv."))
    assert lines[at + 1].split() == ["95", "%", "from", "-1.00", "1.00"]
    assert lines[at + 2].split() == ["to", "9.00", "9.00"]


def test_table_1_compiles_as_latex(
    tables: list[ScoreTable],
    hostile_tables: list[ScoreTable],
    known: TableStatistics,
    tmp_path: Path,
) -> None:
    body = latex(tables[0], known) + latex(hostile_tables[0]) + latex(tables[0])
    said = compiled(latex_document(body), tmp_path)
    assert ".pk>" not in said


def many_models(count: int, columns: int) -> tuple[ScoreTable, TableStatistics]:
    """Models with names like real ones, and intervals of two digits before the point."""
    scores = pd.concat(
        scores_of(
            {
                (policy, column, f"{column}{task}"): score
                for policy, score in (("1", 0.5), ("0.8", 0.435))
                for column in COLUMN_ORDER[:columns]
                for task in range(12)
            },
            f"org/msmarco-roberta-base-ance-firstp-{number}",
        )
        for number in range(count)
    )
    (table,) = build_tables(scores)
    sure = Uncertainty(-26.09, -12.86)
    means = {
        (block.label, "0.8", column): sure
        for block in table.blocks
        for column in table.column_names
    }
    return table, TableStatistics({}, means, dict.fromkeys(table.column_names, sure))


@pytest.mark.parametrize(("models", "columns"), [(5, 8), (14, 3)])
def test_table_1_fits_a_page_of_a_plain_article(models: int, columns: int, tmp_path: Path) -> None:
    table, known = many_models(models, columns)
    said = compiled(latex_document(latex(table, known)), tmp_path)
    overfull = re.findall(r"Overfull \\hbox \(([\d.]+)pt", said)
    assert [points for points in overfull if float(points) > 5] == []
    assert "Float too large" not in said


def test_many_models_are_several_tables_in_latex() -> None:
    table, known = many_models(14, 3)
    lines = latex(table, known).splitlines()
    captions = [line for line in lines if line.startswith(r"\caption")]
    title = r"\caption{Scores and relative improvements: protocol paper, window 512 (part %d of 3)}"
    assert captions == [title % part for part in (1, 2, 3)]
    labels = [line for line in lines if line.startswith(r"\label")]
    assert labels == [rf"\label{{tab:table1{part}}}" for part in ("", "-part-2", "-part-3")]
    assert [sum(r"\textbf{msmarco" in line for line in lines)] == [14]
    # The mean over the models, and the notes, are in the last.
    last = lines.index(captions[-1])
    (average,) = (place for place, line in enumerate(lines) if line.startswith("Avg Improv."))
    (choice,) = (place for place, line in enumerate(lines) if "raw is the baseline" in line)
    assert last < average < choice


def test_many_notes_stand_below_the_table_in_latex(
    tables: list[ScoreTable], known: TableStatistics
) -> None:
    notes = tuple(f"minilm, Task{number}: no items" for number in range(100))
    lines = latex(tables[0], replace(known, notes=notes)).splitlines()
    assert lines.index(r"\end{table}") < lines.index(
        r"\par\noindent{\footnotesize\raggedright minilm, Task0: no items\par}"
    )


@pytest.mark.parametrize("width", [60, 100])
def test_a_label_is_not_broken_into_the_first_column(width: int) -> None:
    values = {
        (policy, column, f"{column}0"): score
        for policy, score in (("1", 0.5), ("0.8", 0.4375))
        for column in COLUMN_ORDER[:3]
    }
    label = "msmarco-roberta-base-ance-firstp-of-a-long-name"
    (table,) = build_tables(scores_of(values, f"org/{label}"))
    lines = printed(table_1(table), width).splitlines()
    assert label in [line.rstrip() for line in lines]
    assert "Window 512" in [line.rstrip() for line in lines]
    # The first column is as wide as the longest of what stands in it.
    header = next(line for line in lines if "Avg" in line)
    rule = next(line for line in lines if "──" in line)
    assert header.startswith("Model" + " " * (len("Relative Improv.") - len("Model")))
    assert len(rule) < 60


def test_without_resamples_nothing_is_noted_about_a_bootstrap(tables: list[ScoreTable]) -> None:
    said = footnotes(tables[0], NOTHING)
    assert said[-1] == "No intervals were asked for (resamples=0)."
    assert not any("bootstrap" in sentence for sentence in said)


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1"])
def test_a_name_is_no_formula_in_a_csv_and_numbers_stay_numbers(name: str) -> None:
    rows = [(name, "-0.5"), ("-12.5 to 0.3", "1e-05"), ("minilm-at-0.8", "-inf")]
    read = list(csv_format.reader(io.StringIO(csv_text(("+gain", "value"), rows))))
    assert read == [["'+gain", "value"], [f"'{name}", "-0.5"], *map(list, rows[1:])]
