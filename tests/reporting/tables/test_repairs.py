"""`tables.repairs` and `tables.thirds`: repairs compared by column, length and cost."""

import csv as csv_format
import io
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from report_cells import item_rows, write_cell

from lcbench.api.report import find_report
from lcbench.repair.correction import Correction
from lcbench.repair.repair import parts_of
from lcbench.reporting.findings import Findings, gather
from lcbench.reporting.score_table import kinds_of
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.repairs import exported, repair_values, speed_of
from lcbench.reporting.tables.thirds import LENGTHS
from lcbench.results.folder import Results
from lcbench.settings.schema import ReportSettings
from lcbench.tempscale.policy import BASELINE, Constant

COLUMNS = {"TaskA": "Retr", "TaskB": "Retr", "TaskC": "Rerank"}
ITEMS = 120
CENTRE = Correction("centre")
# What each repair adds to the score of an item of each third.
GAINS = {"0.9": (-0.02, 0.0, 0.05), "correct=centre": (0.03, 0.03, 0.03)}


def scores_of(task: str, gains: tuple[float, ...]) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(sum(map(ord, task)))
    base = rng.uniform(0.3, 0.7, ITEMS)
    noise = rng.normal(0, 0.002, ITEMS) if any(gains) else 0.0
    return np.asarray(base + np.repeat(gains, ITEMS // 3) + noise)


def rows_of(values: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    # From short to long; a text of each length.
    lengths = list(range(10, 10 + ITEMS))
    documents = [[{"id": f"d{n}", "grade": 1, "tokens": n, "rank": 1}] for n in lengths]
    return item_rows(list(values), relevant=documents, tokens=[5] * ITEMS)


def report(folder: Path, encoded: Mapping[str, Mapping[str, Any]] | None = None) -> Findings:
    results = Results(folder)
    repairs = {
        "1": (BASELINE, None, (0.0,) * 3),
        "0.9": (Constant(0.9), None, GAINS["0.9"]),
        "correct=centre": (BASELINE, CENTRE, GAINS["correct=centre"]),
    }
    for task in COLUMNS:
        for name, (policy, correction, gains) in repairs.items():
            values = scores_of(task, gains)
            entry = {
                ("test", "default"): {"main_score": values.mean(), "ndcg_at_10": values.mean()}
            }
            write_cell(
                results,
                task,
                entry,
                rows_of(values),
                policy,
                correction=correction,
                more=(encoded or {}).get(name, {}),
            )
    frame = results.read(lambda task, _: COLUMNS[task], print)
    return gather(build_tables(frame), frame, 1000, 0, None)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    return report(tmp_path_factory.mktemp("cells"))


def test_improvements_by_third_are_those_of_the_means_over_tasks(found: Findings) -> None:
    (one,) = found.repairs
    assert [row.policy for row in one.rows] == ["0.9", "correct=centre"]
    assert one.columns == ("Retr", "Rerank")
    assert set(one.length_tasks) == set(COLUMNS)
    for row in one.rows:
        for third, name in enumerate(LENGTHS):
            rows = slice(third * ITEMS // 3, (third + 1) * ITEMS // 3)
            before, after = (
                fmean(scores_of(task, gains)[rows].mean() for task in COLUMNS)
                for gains in ((0.0,) * 3, GAINS[row.policy])
            )
            assert row.improvements[name] == pytest.approx(100 * (after / before - 1))


def test_intervals_by_third_are_bands_over_all_repairs(found: Findings) -> None:
    tau, centre = found.repairs[0].rows
    assert {known.tried for known in tau.known.values()} == {2}
    assert tau.known["Short"].high < 0 < tau.known["Long"].low
    assert not tau.known["Medium"].excludes_zero
    assert all(centre.known[name].low > 0 for name in (*LENGTHS, "Avg", "Retr", "Rerank"))
    for row in (tau, centre):
        for name, known in row.known.items():
            value = row.improvements[name]
            assert value is not None
            assert known.low < value < known.high


def test_the_table_has_a_row_for_each_repair_with_all_its_numbers(found: Findings) -> None:
    (table,) = (one for one in found.tables if one.name == "repairs")
    assert table.header == (
        *("Repair", "Retr", "Rerank", "Avg", "Short", "Medium", "Long"),
        *("Best for", "Speed", "Vectors", "Exported"),
    )
    tau, centre = table.rows
    assert (tau[0].text, centre[0].text) == ("τ = 0.9", "centre")
    assert tau[4].style == "loss"
    assert tau[6].style == centre[1].style == "gain"
    # Held out, centring is best for all three tasks.
    assert (tau[7].value, centre[7].value) == (0, 3)
    assert (tau[8].text, centre[8].value) == ("–", 1.0)
    assert (tau[10].text, centre[10].text) == ("yes", "with on=")
    assert any("3 tasks: TaskA, TaskB, TaskC" in note for note in table.notes)
    assert "Speed not comparable (embeddings from the store): τ = 0.9." in table.notes
    assert table.notes[0].endswith("△ ▽: not significant.")


def test_the_values_are_for_programs(found: Findings) -> None:
    table = repair_values(found.repairs)
    rows = {(row[4].text, row[5].text, row[6].text): row[7].text for row in table.rows}
    one = found.repairs[0].rows[0]
    assert float(rows["0.9", "Long", "improvement"]) == one.improvements["Long"]
    assert float(rows["0.9", "Long", "low"]) == one.known["Long"].low
    assert rows["correct=centre", "", "held_out"] == "3.0"
    assert rows["correct=centre", "", "exported"] == "with on="


def test_without_intervals_there_are_improvements_alone(tmp_path: Path) -> None:
    results = Results(tmp_path)
    write_cell(results, "TaskA", 0.5)
    write_cell(results, "TaskA", 0.6, policy=Constant(0.9))
    write_cell(results, "TaskA", 0.4, correction=CENTRE)
    frame = results.read(lambda task, _: COLUMNS[task], print)
    found = gather(build_tables(frame), frame, 0, 0, None)
    tau, centre = found.repairs[0].rows
    assert (tau.improvements["Avg"], centre.improvements["Avg"]) == pytest.approx((20, -20))
    assert tau.improvements["Short"] is None
    assert (tau.known, tau.held_out) == ({}, None)
    (table,) = (one for one in found.tables if one.name == "repairs")
    assert table.notes[0].endswith("▲ ▼ not in bold: unknown.")


def test_repairs_of_one_kind_are_compared_on_request_only(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for policy in (BASELINE, Constant(0.9), Constant(0.8)):
        write_cell(results, "TaskA", 0.5, policy=policy)
    frame = results.read(lambda task, _: COLUMNS[task], print)
    tables = build_tables(frame)
    assert gather(tables, frame, 0, 0, None).repairs == ()
    (one,) = gather(tables, frame, 0, 0, None, with_repairs=True).repairs
    assert [row.policy for row in one.rows] == ["0.9", "0.8"]
    assert len(kinds_of(["1", "0.9", "layers_0=1,3=0.8"])) == 1
    assert len(kinds_of(["1", "0.9", "0.9 + correct=centre"])) == 2


HERE, THERE = {"cpu": "a"}, {"cpu": "b"}


def cell(tokens: float, seconds: float, hardware: Mapping[str, str] = HERE) -> dict[str, Any]:
    return {"encoded_tokens": tokens, "seconds_encode": seconds, "hardware": hardware}


@pytest.mark.parametrize(
    ("baseline", "tau", "both", "ratio", "why"),
    [
        (cell(1000, 10), cell(1000, 20), cell(0, 0), 0.5, "1,000 tokens in 20.0 s, the baseline"),
        # What a correction of the same temperature encoded counts for both.
        (cell(1000, 10), cell(0, 0), cell(1000, 5), 2.0, "1,000 tokens in 5.0 s"),
        (cell(1000, 10), cell(0, 0), cell(0, 0), None, "embeddings from the store"),
        (cell(1000, 10), cell(1000, 10, THERE), cell(0, 0), None, "cells of another machine"),
        (cell(1000, 10), cell(2000, 10), cell(0, 0), None, "other numbers of tokens"),
        (cell(1000, 0.1), cell(1000, 0.1), cell(0, 0), None, "less than a second"),
        ({}, {}, {}, None, "embeddings from the store"),
    ],
)
def test_speed_is_compared_only_where_it_is_comparable(
    found: Findings,
    baseline: dict[str, Any],
    tau: dict[str, Any],
    both: dict[str, Any],
    ratio: float | None,
    why: str,
) -> None:
    from dataclasses import replace

    block = replace(found.repairs[0].block, policies=("1", "0.9", "0.9 + correct=centre"))
    label = block.label
    cells = {
        (label, "1", "TaskA"): baseline,
        (label, "0.9", "TaskA"): tau,
        (label, "0.9 + correct=centre", "TaskA"): both,
    }
    for policy in ("0.9", "0.9 + correct=centre"):
        speed = speed_of(block, policy, cells)
        assert speed.ratio == (None if ratio is None else pytest.approx(ratio))
        assert why in speed.why


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("0.8", "yes"),
        ("layers_0=1,3=0.8", "yes"),
        ("length_logn_512", "no"),
        ("heads_1a2b3c4d + correct=centre", "unless by length"),
        ("query=0.8,document=1", "no"),
        ("correct=centre", "with on="),
        ("0.8 + correct=abtt=3,on=docstrings-1", "yes"),
        ("0.8 + correct=centre_bins=5,on=docstrings-1", "no"),
        ("length_logn_512 + correct=centre", "no"),
        ("extend=pi=1024", "yes"),
        ("0.9 + extend=selfextend=1024", "no"),
        ("attend=anything", "no"),
    ],
)
def test_what_can_be_exported(policy: str, expected: str) -> None:
    assert exported(parts_of(policy)) == expected


def test_the_data_of_the_figure_are_those_of_the_table(found: Findings) -> None:
    from lcbench.reporting.figures.short_and_long import repair_csv, repair_figures, repair_panels

    rows = list(csv_format.DictReader(io.StringIO(repair_csv(found.repairs))))
    assert [row["repair"] for row in rows] == ["0.9", "correct=centre"]
    tau = found.repairs[0].rows[0]
    assert float(rows[0]["short"]) == tau.improvements["Short"]
    assert float(rows[0]["long_high"]) == tau.known["Long"].high
    (panel,) = repair_panels(found.repairs)
    assert [mark.known for mark in panel.marks] == ["sure", "sure"]
    (figure,) = repair_figures(found.repairs)
    assert len(figure.axes) == 1


def test_the_command_compares_repairs_of_one_kind_on_request(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for policy in (BASELINE, Constant(0.9)):
        write_cell(results, "TaskA", 0.5, policy=policy)
    for show, expected in ((("repairs",), True), (("scores",), False)):
        asked = ReportSettings(tmp_path, None, None, resamples=0, show=show)
        made = find_report(asked, print)
        assert made is not None
        assert any(one.name == "repairs" for one in made.findings.tables) is expected
