"""`lcbench.reporting.document`: what the page and report.json say of findings."""

from functools import partial
from pathlib import Path

import pytest
from report_cells import item_rows, relevant, write_cell

from lcbench.reporting import document
from lcbench.reporting.findings import Findings, gather
from lcbench.reporting.table1 import build_tables
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of
from lcbench.tempscale.policy import BASELINE, Constant


@pytest.fixture
def found(tmp_path: Path) -> Findings:
    """Texts of two lengths, queries of two with few of one, and needles at three lengths."""
    results = Results(tmp_path / "runs")
    for policy, more in ((BASELINE, 0.0), (Constant(0.8), 0.1)):
        texts = [0.5 + more] * 80
        rows = item_rows(texts, tokens=[20] * 40 + [40] * 40, gold=["a"] * 80)
        write_cell(results, "Banking77Classification", 0.5 + more, rows, policy)
        documents = [relevant((str(n), 20 if n < 40 else 300, 1)) for n in range(80)]
        rows = item_rows([0.4 + more] * 80, relevant=documents, tokens=[5] * 80)
        write_cell(results, "SciFact", 0.4 + more, rows, policy)
        # Too few of either length for a score.
        documents = [relevant((str(n), 20 if n < 10 else 300, 1)) for n in range(20)]
        rows = item_rows([0.4 + more] * 20, relevant=documents, tokens=[5] * 20)
        write_cell(results, "NFCorpus", 0.4 + more, rows, policy)
        needles = {
            (f"test_{length}", "default"): {"main_score": score + more}
            for length, score in ((256, 0.8), (512, 0.4), (1024, 0.2))
        }
        write_cell(results, "LEMBNeedleRetrieval", needles, policy=policy)
    scores = results.read(partial(column_of, suites=()), pytest.fail)
    return gather(build_tables(scores), scores, resamples=200, seed=0, progress=None)


def test_a_report_is_named_after_what_is_in_it(found: Findings) -> None:
    assert document.title(found) == "bge-base-en-v1.5: 2 temperatures, 4 tasks"
    assert document.build(found, "t")["score_tables"][0]["heading"] == "protocol paper"


def test_charts_by_length_begin_with_needles_and_leave_out_empty_axes(found: Findings) -> None:
    shown = document.build(found, "t")["figures"]
    chart = shown["by_length"]
    # Not NFCorpus, nor anything by the length of queries, which are all alike.
    assert [name.split(" · ", 1)[1] for name in chart["pickers"][0]["options"]] == [
        "LEMBNeedleRetrieval · by document",
        "SciFact · by document",
        "Banking77Classification · by text",
    ]
    views = shown["views"][chart["first"] : chart["first"] + 6]
    for scores in views[::2]:
        baseline = [row[-1] for row in scores["rows"] if row[0] == "τ = 1"]
        assert sum(score is not None for score in baseline) > 1
    needles, gains = views[:2]
    assert needles["data"][0]["y"] == pytest.approx([80, 40, 20])
    assert needles["columns"] == ["series", "at", "score"]
    assert [row[1] for row in needles["rows"][:3]] == ["256", "512", "1024"]
    assert [row[2] for row in gains["rows"]] == pytest.approx([12.5, 25, 50])
    assert [row[3] for row in gains["rows"]] == [None] * 3
    assert views[2]["columns"] == ["series", "at", "items", "score"]


def test_a_chart_names_its_buckets_as_its_table_does(found: Findings) -> None:
    (table,) = (one for one in found.tables if one.name == "by-length")
    shown = document.build(found, "t")["figures"]
    first = shown["by_length"]["first"]
    for view in shown["views"][first + 2 : first + 6]:
        policy = view["rows"][0][0]
        buckets = [row[1] for row in view["rows"] if row[0] == policy]
        assert len(buckets) > 1
        # The table has a column for each bucket of any task.
        assert [name for name in table.header if name in buckets] == buckets
