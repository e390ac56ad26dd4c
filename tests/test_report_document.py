"""`lcbench.report.document`: what the page and report.json say of findings."""

import math
from functools import partial
from pathlib import Path

import pytest

from lcbench.report import document
from lcbench.report.findings import Findings, gather
from lcbench.report.table1 import build_tables
from lcbench.results import Results
from lcbench.tasks.suites import column_of
from lcbench.tempscale.policy import BASELINE, Constant
from report_cells import item_rows, relevant, write_cell


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
    return gather(build_tables(scores), scores, resamples=200)


def test_a_report_is_named_after_what_is_in_it(found: Findings) -> None:
    assert document.title(found) == "bge-base-en-v1.5: 2 temperatures, 4 tasks"
    assert document.build(found, "t")["tables"][0]["heading"] == "protocol paper"


def test_figures_by_length_begin_with_needles_and_leave_out_empty_axes(found: Findings) -> None:
    shown = document.build(found, "t")["figures"]["by_length"]
    # Not NFCorpus, nor anything by the length of queries, which are all alike.
    assert [(one["task"], one["by"]) for one in shown] == [
        ("LEMBNeedleRetrieval", "document"),
        ("SciFact", "document"),
        ("Banking77Classification", "text"),
    ]
    for one in shown:
        assert sum(score is not None for score in one["scores"]["1"]) > 1
    needles = shown[0]
    assert needles["buckets"] == ["256", "512", "1024"]
    assert needles["counts"] is None
    assert needles["scores"]["1"] == pytest.approx([80, 40, 20])
    gains = [one["value"] for one in needles["improvements"]["0.8"]]
    assert gains == pytest.approx([12.5, 25, 50])
    assert all(one["low"] is None for one in needles["improvements"]["0.8"])
    assert all(math.isfinite(gain) for gain in gains)


def test_a_chart_names_its_buckets_as_its_table_does(found: Findings) -> None:
    (sheet,) = (one for one in found.sheets if one.name == "by-length")
    for one in document.build(found, "t")["figures"]["by_length"][1:]:
        assert len(one["buckets"]) > 1
        # The table has a column for each bucket of any task.
        assert [name for name in sheet.header if name in one["buckets"]] == one["buckets"]
