"""`tables.splits_by_length`: values per length out of a frame, missing as in Table 1."""

import csv as csv_format
import io
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from report_frames import cell, frame
from screens import printed

from lcbench.cli.tables import rendered
from lcbench.reporting import formats
from lcbench.reporting.table import Table
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.splits_by_length import (
    LengthTable,
    build_length_tables,
    length_table,
    length_values,
)


def lengths(*scores: float, start: int = 128) -> dict[tuple[str, str], float]:
    """Scores by (split, subset) for doubling lengths."""
    return {(f"test_{start * 2**i}", "default"): score for i, score in enumerate(scores)}


def shown(made: LengthTable) -> Table:
    """Return it as it is shown."""
    table = length_table([made])
    assert table is not None
    return table


def csv_lengths(tables: list[LengthTable]) -> str:
    return formats.csv(length_values(tables))


def needle(
    policy: str, scores: Mapping[tuple[str, str], float], **options: object
) -> list[dict[str, object]]:
    return cell(policy, "Needle", scores, "Needle", **options)  # type: ignore[arg-type]


def built(
    scores: pd.DataFrame, asked: Mapping[str, Sequence[str]] | None = None
) -> list[LengthTable]:
    return build_length_tables(scores, build_tables(scores, None, asked))


@pytest.fixture
def table() -> LengthTable:
    """A model at two windows, whose lengths go by it; τ = 0.8 of the larger lacks one."""
    (made,) = built(
        frame(
            needle("0.9", lengths(0.5, 0.25)),
            needle("1", lengths(0.75, 0.5)),
            needle("1", lengths(1.0, 0.6, 0.2), window=1024),
            needle("0.8", lengths(0.4, 0.3), window=1024),
            needle("0.9", lengths(0.9, 0.5, 0.1), window=1024),
        )
    )
    return made


def test_values_by_length_of_every_policy(table: LengthTable) -> None:
    assert (table.group, table.task) == ("paper, window 512", "Needle")
    assert table.lengths == (128, 256, 512)
    assert [(row.window, row.policy) for row in table.rows] == [
        *((512, "1"), (512, "0.9")),
        *((1024, "1"), (1024, "0.9"), (1024, "0.8")),
    ]
    assert table.rows[0].scores == {128: 75.0, 256: 50.0}
    assert table.rows[1].scores == {128: 50.0, 256: 25.0}
    assert table.rows[2].scores == pytest.approx({128: 100.0, 256: 60.0, 512: 20.0})
    assert [row.mean for row in table.rows[:4]] == pytest.approx([62.5, 37.5, 60.0, 50.0])


def test_what_table_1_does_not_count_is_a_missing_value_at_every_length(table: LengthTable) -> None:
    # One length fewer than its baseline has: the cell is refused as a whole.
    assert table.rows[4].scores == {128: None, 256: None, 512: None}
    assert table.rows[4].mean is None
    (refused,) = built(
        frame(needle("1", lengths(0.75, 0.5)), needle("0.9", lengths(0.5, 0.25), mteb="2.0"))
    )
    assert refused.rows[1].scores == {128: None, 256: None}
    (missing,) = built(frame(needle("1", lengths(0.75, 0.5))), {"org/model": ["1", "0.7"]})
    assert [row.policy for row in missing.rows] == ["1", "0.7"]
    assert missing.rows[1].scores == {128: None, 256: None}
    (without_score,) = built(frame(needle("1", lengths(0.75, float("nan")))))
    assert without_score.rows[0].scores == {128: None, 256: None}


def test_tasks_whose_splits_are_no_lengths_have_no_table() -> None:
    mixed = {("test_128", "default"): 0.5, ("test", "default"): 0.5}
    assert built(frame(cell("1", "A", 0.5), cell("1", "B", mixed))) == []


def test_lengths_are_ordered_as_numbers_and_subsets_averaged() -> None:
    scores = {
        ("test_1024", "en"): 0.2,
        ("test_1024", "de"): 0.4,
        ("test_256", "en"): 0.6,
        ("test_256", "de"): 0.9,
    }
    (made,) = built(frame(cell("1", "Needle", scores)))
    assert made.lengths == (256, 1024)
    assert made.rows[0].scores == pytest.approx({256: 75.0, 1024: 30.0})


def test_a_window_that_is_not_known() -> None:
    """Scores from elsewhere do not say what was read of a text."""
    known, unknown = needle("1", lengths(0.5)), needle("1", lengths(0.25), model="org/other")
    for row in unknown:
        row["window"] = None
    (made,) = built(frame(known, unknown))
    assert [(row.window, row.scores) for row in made.rows] == [
        (512, {128: 50.0}),
        (None, {128: 25.0}),
    ]
    assert "| other |  | 1 | 25.00 | 25.00 |" in formats.markdown(shown(made)).splitlines()
    assert [row["window"] for row in csv_format.DictReader(io.StringIO(csv_lengths([made])))] == [
        *("512", "")
    ]


def test_markdown(table: LengthTable) -> None:
    lines = formats.markdown(shown(table)).splitlines()
    assert lines[2:10] == [
        "| Model | Window | τ | 128 | 256 | 512 | Mean |",
        "| :-- | :-- | :-- | --: | --: | --: | --: |",
        "| **Needle** |  |  |  |  |  |  |",
        "| model (window 512) | 512 | 1 | 75.00 | 50.00 |  | 62.50 |",
        "| model (window 512) | 512 | 0.9 | 50.00 | 25.00 |  | 37.50 |",
        "| model (window 1024) | 1024 | 1 | 100.00 | 60.00 | 20.00 | 60.00 |",
        "| model (window 1024) | 1024 | 0.9 | 90.00 | 50.00 | 10.00 | 50.00 |",
        "| model (window 1024) | 1024 | 0.8 | – | – | – | – |",
    ]
    assert length_table([]) is None


def test_repairs_of_several_kinds_have_their_names() -> None:
    (made,) = built(
        frame(
            needle("1", lengths(0.75, 0.5)),
            needle("0.9", lengths(0.5, 0.25)),
            needle("chunks=mean=128", lengths(0.5, 0.75)),
        )
    )
    table = shown(made)
    assert table.header[2] == "Repair"
    names = [row[2].text for row in table.sections[0].rows]
    assert names == ["τ = 1", "τ = 0.9", "chunks mean=128"]


def test_eight_lengths_fit_100_columns() -> None:
    scores = lengths(*[1.0] * 8, start=256)
    policies = ["1", "query=0.8,document=1"]
    (made,) = built(frame(*(needle(policy, scores) for policy in policies)))
    text = printed(rendered(shown(made)))
    assert text.count("100.00") == 18
    assert "32768" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_csv_in_full_precision(table: LengthTable) -> None:
    rows = list(csv_format.DictReader(io.StringIO(csv_lengths([table]))))
    assert len(rows) == 2 * 2 + 3 * 3
    assert rows[0] == {
        "group": "paper, window 512",
        "window": "512",
        "model": "org/model",
        "revision": "0123456789abcdef",
        "task": "Needle",
        "policy": "1",
        "length": "128",
        "value": "75.0",
    }
    assert [row["value"] for row in rows if row["policy"] == "0.8"] == ["", "", ""]
