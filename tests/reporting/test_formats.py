"""`reporting.table` and `reporting.formats`: a table's values, and its text in every format."""

import csv as csv_format
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pdflatex import compiled, latex_document
from screens import printed

from lcbench.cli.tables import rendered
from lcbench.reporting import formats
from lcbench.reporting import table as tables
from lcbench.reporting.statistics import Uncertainty
from lcbench.reporting.table import Entry, Section, Table

HOSTILE = "a|b_c&d%e[bold]$f$#{g}~^\\<script>`h`--*i*日本Ünïçødéőž…≥±"

UP = Uncertainty(0.1, 0.8, 0.0123, 0.2, "queries", 50)
DOWN = Uncertainty(-0.8, -0.1)
ACROSS = Uncertainty(-0.11, 0.8)


@pytest.fixture
def shown() -> Table:
    """Two sections; a name full of markup, every style and a missing value."""
    return Table(
        name="gains",
        title="Gains",
        header=("Task", "raw", "τ = 0.8"),
        labels=1,
        sections=(
            Section(
                "minilm",
                (
                    (tables.name("A"), tables.number(50.125), tables.improvement(0.43, UP)),
                    (tables.name("B"), tables.number(60), tables.improvement(-0.43, DOWN)),
                    (
                        tables.name("C"),
                        tables.number(70, "best"),
                        tables.improvement(0.4, ACROSS),
                    ),
                ),
            ),
            Section(
                "other",
                ((tables.name(HOSTILE), tables.number(None), tables.improvement(-0.5)),),
            ),
        ),
        notes=("τ is chosen [bold]here[/bold].",),
    )


@pytest.mark.parametrize(
    ("value", "uncertainty", "text", "style"),
    [
        (0.43, UP, "▲ 0.43", "gain"),
        (-0.43, DOWN, "▼ 0.43", "loss"),
        (0.43, ACROSS, "△ 0.43", "inconclusive"),
        (-0.05, ACROSS, "▽ 0.05", "inconclusive"),
        (0.43, None, "▲ 0.43", "neutral"),
        (-0.43, None, "▼ 0.43", "neutral"),
        (0.004, None, "0.00", "neutral"),
        (0.004, ACROSS, "0.00", "inconclusive"),
        # So little, and yet significant.
        (0.004, Uncertainty(0.002, 0.006), "▲ 0.00", "gain"),
        # An end at zero does not exclude it.
        (0.43, Uncertainty(0.0, 0.8), "△ 0.43", "inconclusive"),
        # An interval on the other side tells of no direction.
        (0.43, DOWN, "△ 0.43", "inconclusive"),
        (None, None, "–", "neutral"),
        (None, UP, "–", "neutral"),
    ],
)
def test_the_marks_of_an_improvement(
    value: float | None, uncertainty: Uncertainty | None, text: str, style: str
) -> None:
    entry = tables.improvement(value, uncertainty)
    assert (entry.text, entry.style, entry.value) == (text, style, value)


def test_what_is_known_next_to_an_improvement() -> None:
    assert tables.improvement(0.43, UP).tooltip == (
        "95 % interval 0.10 to 0.80; p = 0.012; after Holm 0.2; 50 queries"
    )
    assert tables.improvement(0.4, ACROSS).tooltip == "95 % interval -0.11 to 0.80"
    assert tables.improvement(0.4).tooltip == ""


def test_terminal(shown: Table) -> None:
    lines = [line.rstrip() for line in printed(rendered(shown)).splitlines()]
    assert lines[1] == "Gains"
    assert lines[3].split() == ["Task", "raw", "τ", "=", "0.8"]
    assert lines[5] == "minilm"
    assert lines[6].split() == ["A", "50.12", "▲", "0.43"]
    assert lines[8].split() == ["C", "70.00", "△", "0.40"]
    assert "• τ is chosen [bold]here[/bold]." in lines
    assert "\x1b" not in printed(rendered(shown))


def test_terminal_colours_only_in_addition_to_the_arrows(shown: Table) -> None:
    text = printed(rendered(shown), color=True)
    for style, shown in (("1;94", "▲ 0.43"), ("1;91", "▼ 0.43"), ("2", "△ 0.40"), ("1", "70.00")):
        assert re.search(rf"\x1b\[{style}m *{shown}\x1b\[0m", text)
    # One of which no interval is known is not bold.
    assert re.search(r"\x1b\[91m *▼ 0\.50\x1b\[0m", text)


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_wide_table_is_printed_in_parts_with_the_names_in_each(width: int) -> None:
    places = range(23)
    wide = Table(
        name="wide",
        title="Wide",
        header=("A task's name", *(f"LEMBNeedleRetrieval, τ = 0.{place}" for place in places)),
        labels=1,
        sections=(
            Section(
                "msmarco-roberta-base-ance-firstp",
                tuple(
                    (
                        tables.name(f"Task{row}OfAVeryLongNameIndeed"),
                        *(tables.number(100 * row + place) for place in places),
                    )
                    for row in range(3)
                ),
            ),
        ),
    )
    text = printed(rendered(wide), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for row in range(3):
        for place in places:
            assert text.count(f" {100 * row + place}.00") == 1
    parts = text.count("msmarco-roberta-base-ance-firstp")
    assert parts > 1
    # A narrow terminal breaks a name, and keeps its beginning.
    assert sum(line.startswith("Task1Of") for line in lines) == parts
    assert "…" not in text


def test_a_table_without_rows() -> None:
    empty = Table("none", "None", ("Task", "raw"), 1, ())
    assert printed(rendered(empty)).split()[:3] == ["None", "Task", "raw"]
    assert formats.markdown(empty).splitlines()[2:] == ["| Task | raw |", "| :-- | --: |", ""]
    assert formats.csv(empty) == "Task,raw\n"


def test_markdown(shown: Table) -> None:
    lines = formats.markdown(shown).splitlines()
    assert lines[:8] == [
        "## Gains",
        "",
        "| Task | raw | τ = 0.8 |",
        "| :-- | --: | --: |",
        "| **minilm** |  |  |",
        "| A | 50.12 | **▲ 0.43** |",
        "| B | 60.00 | **▼ 0.43** |",
        "| C | **70.00** | △ 0.40 |",
    ]
    escaped = r"a\|b\_c&amp;d%e\[bold\]\$f\$\#{g}\~^\\&lt;script&gt;\`h\`--\*i\*日本Ünïçødéőž…≥±"
    assert lines[9] == f"| {escaped} | – | ▼ 0.50 |"
    assert lines[11] == r"- τ is chosen \[bold\]here\[/bold\]."


def test_csv_reads_back_in_full_precision(shown: Table) -> None:
    rows = list(csv_format.DictReader(io.StringIO(formats.csv(shown))))
    assert list(rows[0]) == ["section", "Task", "raw", "τ = 0.8", "τ = 0.8 low", "τ = 0.8 high"]
    assert list(rows[0].values()) == ["minilm", "A", "50.125", "0.43", "0.1", "0.8"]
    assert list(rows[2].values()) == ["minilm", "C", "70.0", "0.4", "-0.11", "0.8"]
    # Of this one no interval is known.
    assert list(rows[3].values()) == ["other", HOSTILE, "", "-0.5", "", ""]
    # Without headings there is no column for them.
    plain = Table("a", "A", ("x",), 0, (Section("", ((Entry("1", 1.0),),)),))
    assert formats.csv(plain) == "x\n1.0\n"


def test_json_has_all_there_is_and_no_number_that_is_none(shown: Table) -> None:
    read = json.loads(json.dumps(tables.as_json(shown), allow_nan=False))
    assert read["name"] == "gains"
    assert read["header"] == ["Task", "raw", "τ = 0.8"]
    assert read["labels"] == 1
    assert [section["heading"] for section in read["sections"]] == ["minilm", "other"]
    assert read["sections"][0]["rows"][0][2] == {
        "text": "▲ 0.43",
        "value": 0.43,
        "style": "gain",
        "tooltip": "95 % interval 0.10 to 0.80; p = 0.012; after Holm 0.2; 50 queries",
        "low": 0.1,
        "high": 0.8,
    }
    assert "low" not in read["sections"][0]["rows"][0][1]
    assert read["sections"][1]["rows"][0][0]["value"] == HOSTILE
    assert read["notes"] == ["τ is chosen [bold]here[/bold]."]
    odd = Table("a", "A", ("x",), 0, (Section("", ((Entry("–", math.nan),),)),))
    assert tables.as_json(odd)["sections"][0]["rows"][0][0]["value"] is None


def test_latex(shown: Table) -> None:
    lines = formats.latex(shown).splitlines()
    needed = r"% Needs \usepackage{booktabs}, \usepackage{amssymb} and \usepackage{graphicx}."
    assert lines[0] == needed
    assert lines[2:5] == [
        "% Gains",
        r"\begin{table}[t]\centering\small\setlength{\tabcolsep}{4pt}",
        r"\caption{Gains}",
    ]
    assert lines[5] == r"\label{tab:gains}"
    begin = lines.index(r"\begin{tabular}{lrr}")
    assert lines[begin + 1 : begin + 10] == [
        r"\toprule",
        r"Task & raw & $\tau$ = 0.8 \\",
        r"\midrule",
        r"\multicolumn{3}{l}{\textbf{minilm}} \\",
        r"\quad A & 50.12 & \textbf{$\blacktriangle$~0.43} \\",
        r"\quad B & 60.00 & \textbf{$\blacktriangledown$~0.43} \\",
        r"\quad C & \textbf{70.00} & $\vartriangle$~0.40 \\",
        r"\midrule",
        r"\multicolumn{3}{l}{\textbf{other}} \\",
    ]
    # What pdflatex has no glyph for is a question mark; an accent is a command.
    assert (
        r"{*}i{*}??\"{U}n\"{\i}\c{c}\o{}d\'{e}\H{o}\v{z}\ldots{}$\geq$$\pm$ & -- & "
        r"$\blacktriangledown$~0.50 \\"
    ) in lines[begin + 10]


def test_latex_compiles_with_every_character_there_is(shown: Table, tmp_path: Path) -> None:
    characters = [chr(code) for code in [*range(0x20, 0x250), *range(0x370, 0x400)]]
    characters += [chr(code) for code in [*range(0x1E00, 0x1F00), *range(0x2010, 0x2700, 3)]]
    characters += ["▲", "▼", "△", "▽", "✓", "\U0001f600", "日", "\ufb01", "\u202e"]
    names = ["".join(characters[at : at + 40]) for at in range(0, len(characters), 40)]
    long = Table(
        name="long",
        title=HOSTILE,
        header=(HOSTILE, "[x]", "*"),
        labels=1,
        sections=tuple(
            Section(text, ((tables.name(text), tables.name("*"), tables.name("[1ex]")),))
            for text in names
        ),
        notes=tuple(names),
    )
    log = compiled(latex_document(formats.latex(shown) + formats.latex(long)), tmp_path)
    assert "Missing character" not in log
    # A font that is drawn when it is first used takes a minute, and more than a small TeX.
    assert "mktexpk" not in log
    assert ".pk>" not in log


def wide(columns: int, rows: int) -> Table:
    return Table(
        name="wide",
        title="Wide",
        header=("Task", *(f"c{place}" for place in range(columns))),
        labels=1,
        sections=(
            Section(
                "minilm",
                tuple(
                    (tables.name(f"t{row}"), *(tables.number(place) for place in range(columns)))
                    for row in range(rows)
                ),
            ),
        ),
        notes=("A note.",),
    )


@pytest.mark.parametrize(("rows", "parts"), [(38, [38]), (39, [38, 1]), (100, [38, 38, 24])])
def test_a_table_longer_than_a_page_comes_in_parts_in_latex(
    rows: int, parts: list[int], tmp_path: Path
) -> None:
    text = formats.latex(wide(13, rows))
    tabulars = text.split(r"\begin{tabular}")[1:]
    assert [len(re.findall(r"\\quad t\d+ & ", one)) for one in tabulars] == parts
    # The header and the heading are in each.
    assert [one.count(r"\textbf{minilm}") for one in tabulars] == [1] * len(parts)
    titles = re.findall(r"\\caption\{(.*)\}", text)
    count = len(parts)
    numbered = [f"Wide (part {part} of {count})" for part in range(1, count + 1)]
    assert titles == (["Wide"] if count == 1 else numbered)
    assert text.count("A note.") == 1
    said = compiled(latex_document(text), tmp_path)
    assert "Overfull" not in said
    assert "Float too large" not in said


def test_no_more_tables_wait_than_a_tex_holds(tmp_path: Path) -> None:
    text = formats.latex(wide(2, 38 * 40))
    assert text.count(r"\clearpage") == 2
    compiled(latex_document(text), tmp_path)


def test_tables_of_one_name_are_distinguished(shown: Table) -> None:
    second = replace(shown, name="gains-2")
    names = [one.name for one in tables.distinct([shown, shown, second, shown])]
    assert names == ["gains", "gains-2", "gains-2-2", "gains-3"]
