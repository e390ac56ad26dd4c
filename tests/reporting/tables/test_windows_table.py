"""Scores by how much of a document is read, from cells of which the answer is known."""

from pathlib import Path
from typing import Any

import pytest
from report_cells import write_cell

from lcbench.repair.repair import Repair
from lcbench.repair.repair import parse as parse_repair
from lcbench.reporting.figures.printed import written
from lcbench.reporting.figures.windows import windows_csv, windows_figures
from lcbench.reporting.statistics import NOTHING
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.windows import WindowComparison, compare_windows, windows_table
from lcbench.results.folder import Results

TASK = "NFCorpus"
# Score, and the tokens read of each of two documents; the first one is relevant to both queries.
CELLS: dict[str, tuple[Any, float, tuple[int, int]]] = {
    "1": (None, 0.5, (256, 128)),
    "first": ({"chunks": {"first": 64}}, 0.4, (64, 64)),
    "mean": ({"chunks": {"mean": 64}}, 0.6, (640, 128)),
    "long": ({"extend": {"window": 512}}, 0.55, (400, 128)),
    "best": ({"chunks": {"max": 64}}, 0.58, (640, 128)),
    "hot": ({"tau": 0.8, "chunks": {"mean": 64}}, 0.598, (400, 100)),
}


def rows_of(tokens: tuple[int, int]) -> list[dict[str, Any]]:
    documents = [
        {"id": f"d{i}", "grade": 1, "tokens": own, "characters": own, "rank": 1}
        for i, own in enumerate(tokens)
    ]
    common = {"split": "test", "subset": "default", "tokens": 8, "score": 0.5}
    return [
        {**common, "id": "q0", "relevant": documents},
        {**common, "id": "q1", "relevant": documents[:1]},
    ]


@pytest.fixture
def found(tmp_path: Path) -> list[WindowComparison]:
    results = Results(tmp_path)
    for written_as, score, tokens in CELLS.values():
        repair = Repair() if written_as is None else parse_repair(written_as)
        write_cell(results, TASK, score, rows_of(tokens), repair=repair)
    scores = results.read(lambda task, _: "Retr", pytest.fail)
    return [one for table in build_tables(scores) for one in compare_windows(table, scores)]


def test_tokens_are_those_of_each_document_once(found: list[WindowComparison]) -> None:
    (one,) = found
    assert [(row.policy, row.tokens, row.score) for row in one.rows] == [
        ("chunks=first=64", 64, pytest.approx(40)),
        ("1", 192, 50),
        ("0.8 + chunks=mean=64", 250, pytest.approx(59.8)),
        ("extend=window=512", 264, pytest.approx(55)),
        ("chunks=max=64", 384, pytest.approx(58)),
        ("chunks=mean=64", 384, 60),
    ]
    assert [row.is_truncated for row in one.rows] == [True, True, False, False, False, False]
    assert [row.improvement for row in one.rows] == [
        *(pytest.approx(-20), None, pytest.approx(19.6)),
        *(pytest.approx(10), pytest.approx(16), pytest.approx(20)),
    ]


def test_the_sentence_names_the_best_and_the_cheapest_that_is_as_good(
    found: list[WindowComparison],
) -> None:
    (one,) = found
    assert one.sentence == (
        f"{one.label}, NFCorpus: the model reads 192 tokens of a relevant document and scores "
        "50.00. The best, chunks mean=64, scores 60.00 (+20.00 %) and reads 384 tokens, 2.0 times "
        "as many. τ = 0.8 + chunks mean=64 is within 1 % of it with 250 tokens."
    )
    worse = WindowComparison(one.group, one.label, one.task, one.rows[:2])
    assert worse.sentence.endswith("No repair that reads more or less scores higher.")


def test_the_table_and_the_figure_show_every_repair(
    found: list[WindowComparison], tmp_path: Path
) -> None:
    table = windows_table(found, {found[0].group: NOTHING})
    assert table is not None
    (section,) = table.sections
    assert [[entry.text for entry in row][:5] for row in section.rows] == [
        ["chunks first=64", "64", "0.33", "1", "40.00"],
        ["τ = 1", "192", "1.00", "1", "50.00"],
        ["τ = 0.8 + chunks mean=64", "250", "1.30", "1", "59.80"],
        ["window=512", "264", "1.38", "1", "55.00"],
        ["chunks max=64", "384", "2.00", "1 per chunk", "58.00"],
        ["chunks mean=64", "384", "2.00", "1", "60.00"],
    ]
    names = [path.name for path in written(lambda: windows_figures(found), tmp_path / "windows")]
    assert names == ["windows.png", "windows.svg"]
    drawing = (tmp_path / "windows.svg").read_text(encoding="utf-8")
    assert "tokens read of a relevant document" in drawing
    lines = windows_csv(found).splitlines()
    assert len(lines) == 1 + len(CELLS)
    assert lines[2].split(",")[3:6] == ["1", "192.0", "50.0"]


def test_repairs_that_read_the_window_have_none(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for repair in (Repair(), parse_repair({"tau": 0.8})):
        write_cell(results, TASK, 0.5, rows_of((9, 9)), repair=repair)
    scores = results.read(lambda task, _: "Retr", pytest.fail)
    assert all(not compare_windows(table, scores) for table in build_tables(scores))
    assert windows_table([], {}) is None
    assert windows_figures([]) == []
