"""`tables.ranks`: the longest fifth of the documents, and how their ranks change."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cells import RELEVANT, item_rows, relevant, write_cell
from scipy.stats import t

from lcbench.reporting.table import Entry
from lcbench.reporting.table1 import build_tables
from lcbench.reporting.tables.changes import Change
from lcbench.reporting.tables.items_by_length import items_of_tables
from lcbench.reporting.tables.ranks import LongestRanks, rank_of_longest, rank_table, ranks_of
from lcbench.results.cell_items import CellItems
from lcbench.results.folder import Results
from lcbench.tasks.suites import column_of
from lcbench.tempscale.policy import Constant

OURS = Constant(0.8)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def found_in(results: Results) -> list[LongestRanks]:
    scores = results.read(partial(column_of, suites=()), pytest.fail)
    found = (ranks_of(*one) for one in items_of_tables(build_tables(scores), scores))
    return [one for one in found if one is not None]


def test_the_rank_of_the_longest_documents(results: Results) -> None:
    rows = item_rows([0.5] * 5, relevant=RELEVANT)
    files = write_cell(results, "SciFact", 0.5, rows)
    rank, error = rank_of_longest(CellItems(files)) or (None, None)
    assert rank == pytest.approx((10 + 20 + 40 + 30) / 4)
    # Over three queries with sums 10, 60, 30 and counts 1, 2, 1: residuals of 25 a document.
    residuals = np.array([10 - 25, 60 - 50, 30 - 25])
    assert error == pytest.approx(np.sqrt(3 * residuals.var(ddof=1)) / 4)


def test_documents_of_two_splits_are_not_the_same_for_having_one_id(results: Results) -> None:
    """Needles of each length are numbered from 0: the longest fifth is of all, by their length."""
    rows = []
    for split, tokens in (("test_128", 100), ("test_512", 500)):
        found = [relevant((str(place), tokens + place, 1 + place)) for place in range(5)]
        rows += item_rows([0.5] * 5, split=split, relevant=found)
    entries = {(split, "default"): {"main_score": 0.5} for split in ("test_128", "test_512")}
    files = write_cell(results, "LEMBNeedleRetrieval", entries, rows)
    # Two of ten documents: 503 and 504 tokens, with ranks 4 and 5. By their ids there were five.
    assert (rank_of_longest(CellItems(files)) or (None,))[0] == pytest.approx(4.5)


def test_without_relevant_documents_there_is_no_rank(results: Results) -> None:
    assert rank_of_longest(CellItems(write_cell(results, "SciFact", 0.5))) is None
    for rows in (item_rows([0.5]), item_rows([0.5], relevant=[[]])):
        files = write_cell(results, "SciFact", 0.5, rows)
        assert rank_of_longest(CellItems(files)) is None


def test_ranks_of_every_task_with_relevant_documents(results: Results) -> None:
    rows = item_rows([0.5] * 5, relevant=RELEVANT)
    halved = [
        {**row, "relevant": [{**one, "rank": (one["rank"] + 1) // 2} for one in row["relevant"]]}
        for row in rows
    ]
    write_cell(results, "SciFact", 0.5, rows)
    write_cell(results, "SciFact", 0.5, halved, policy=OURS)
    write_cell(results, "SciFact", 0.5, policy=Constant(0.5))
    write_cell(results, "ImdbClassification", 0.5, item_rows([0.5] * 30, gold=["a"] * 30))
    (found,) = found_in(results)
    assert (found.group, found.column, found.task) == ("paper", "Other", "SciFact")
    assert found.label == "bge-base-en-v1.5"
    assert found.ranks == {
        "1": pytest.approx(25.0),
        "0.8": pytest.approx((5 + 10 + 20 + 15) / 4),
        "0.5": None,
    }
    # Three of the ten documents are as long as the second longest.
    assert (found.share, found.unit) == ("3 of 10 documents", "tokens")
    assert list(found.changes) == ["0.8"]
    # Over three queries with changes -5, -30 and -15 of 1, 2 and 1 documents, -12.5 a document.
    residuals = np.array([-5 + 12.5, -30 + 25, -15 + 12.5])
    half = t.ppf(0.975, 2) * np.sqrt(3 * residuals.var(ddof=1)) / 4
    assert found.changes["0.8"].value == pytest.approx(-12.5)
    assert found.changes["0.8"].ends == pytest.approx((-12.5 - half, -12.5 + half), rel=1e-5)
    assert found.changes["0.8"].changed == (0, 3)


def long_documents(ranks: list[int], documents: list[str], **more: Any) -> list[dict[str, Any]]:
    """Return queries with one document each: all fill the window, later ones are longer."""
    found = [
        [{"id": name, "grade": 1, "tokens": 512, "characters": 3000 + int(name), "rank": rank}]
        for name, rank in zip(documents, ranks, strict=True)
    ]
    return item_rows([0.5] * len(ranks), relevant=found, characters=[30] * len(ranks), **more)


def test_the_longest_are_those_of_the_whole_texts(results: Results) -> None:
    """All 100 documents fill the window: by tokens each is one of the longest 20 %."""
    names = [str(place) for place in range(100)]
    raw = [50] * 80 + [10, 20] * 10
    ours = [1] * 80 + [9, 18] * 10
    write_cell(results, "SciFact", 0.5, long_documents(raw, names))
    write_cell(results, "SciFact", 0.5, long_documents(ours, names), policy=OURS)
    (found,) = found_in(results)
    assert (found.share, found.unit) == ("20 of 100 documents", "characters")
    assert found.ranks == {"1": pytest.approx(15.0), "0.8": pytest.approx(13.5)}
    change = found.changes["0.8"]
    assert change.value == pytest.approx(-1.5)
    assert change.ends is not None
    assert change.ends[0] < -1.5 < change.ends[1] < 0
    assert change.changed == (0, 20)


@pytest.mark.parametrize("older", [False, True])
def test_queries_of_one_document_are_one(results: Results, older: bool) -> None:
    """As the items say; older ones do not, but have the ids of their documents."""
    rng = np.random.default_rng(0)
    documents = np.repeat(np.arange(100), 4)
    raw = rng.integers(1, 30, 100)[documents]
    ours = raw + rng.integers(-3, 4, 100)[documents]
    names = [str(place) for place in documents]
    shares = [None if older else [f"{place:016x}"] for place in documents]
    for policy, ranks in ((Constant(1.0), raw), (OURS, ours)):
        rows = long_documents(ranks.tolist(), names, shares=shares)
        write_cell(results, "SciFact", 0.5, rows, policy=policy)
    (found,) = found_in(results)
    change = (ours - raw)[documents >= 80][::4]
    half = t.ppf(0.975, 19) * change.std(ddof=1) / np.sqrt(20)
    low, high = found.changes["0.8"].ends or (0, 0)
    # By queries it would be half as wide.
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert sum(found.changes["0.8"].changed or ()) == (change != 0).sum()


def test_documents_that_are_all_alike_are_left_out(results: Results) -> None:
    rows = []
    for split in ("test_128", "test_512"):
        rows += long_documents([1, 2, 3] * 10, [str(place) for place in range(30)], split=split)
    entries = {(split, "default"): {"main_score": 0.5} for split in ("test_128", "test_512")}
    write_cell(results, "LEMBNeedleRetrieval", entries, rows)
    same = item_rows([0.5] * 40, relevant=[relevant((str(at), 512, 2)) for at in range(40)])
    write_cell(results, "SciFact", 0.5, same)
    found = found_in(results)
    assert [one.ranks for one in found] == [{}, {}]
    assert rank_table(found) is None
    one = LongestRanks(
        group="paper", column="Retr", task="T", label="m", longest=2, documents=9, ranks={"1": 1.5}
    )
    shown = rank_table([*found, one])
    assert shown is not None
    assert shown.notes[-1].startswith("Left out, as all documents, or all of a split, are equally")
    assert "LEMBNeedleRetrieval" in shown.notes[-1]
    assert "SciFact" in shown.notes[-1]


def test_a_single_query_has_a_rank_and_no_interval(results: Results) -> None:
    for policy, rank in ((Constant(1.0), 4), (OURS, 3)):
        rows = item_rows([0.5], relevant=[relevant(("a", 7, rank))])
        write_cell(results, "SciFact", 0.5, rows, policy=policy)
    (found,) = found_in(results)
    assert found.changes == {"0.8": Change(-1.0, None, (0, 1))}
    shown = rank_table([found])
    assert shown is not None
    assert shown.sections[0].rows[1][-1] == Entry("-1.00", -1.0)
    assert any("of a single query" in note for note in shown.notes)


def test_the_table_of_ranks_has_the_change_with_its_interval() -> None:
    one = LongestRanks(
        group="paper",
        column="Rerank",
        task="T",
        label="m",
        longest=80,
        documents=400,
        ranks={"1": 25.04, "0.9": 24.0, "0.8": 12.5, "0.7": 25.0},
        changes={
            "0.9": Change(-1.04, (-2.0, 0.1), (10, 30)),
            "0.8": Change(-12.54, (-20.0, -5.0), (10, 30)),
            "0.7": Change(-0.04, (-0.06, -0.01), (0, 4)),
        },
    )
    two = replace(one, label="n", unit="tokens", ranks={"1": 3.0, "0.9": None}, changes={})
    other = replace(one, column="Retr", task="U")
    shown = rank_table([one, two, other])
    assert shown is not None
    assert (shown.name, shown.labels) == ("ranks", 3)
    header = ("model", "longest 20 %", "", "τ = 1", "τ = 0.9", "τ = 0.8", "τ = 0.7")
    assert shown.header == header
    assert [section.heading for section in shown.sections] == ["T", "U"]
    rank, change, alone = shown.sections[0].rows
    assert [entry.text for entry in rank] == [
        "m",
        "80 of 400 documents",
        "rank",
        "25.04",
        "24.00",
        "12.50",
        "25.00",
    ]
    assert change[2:] == (
        Entry("change", "change"),
        Entry("–"),
        Entry("-1.04 (-2.00 to 0.10)", -1.04, "inconclusive", "10 ranks up, 30 down", -2.0, 0.1),
        Entry("-12.54 (-20.00 to -5.00)", -12.54, "best", "10 ranks up, 30 down", -20.0, -5.0),
        Entry(
            "few: -0.04 (-0.06 to -0.01)",
            *(-0.04, "inconclusive", "0 ranks up, 4 down", -0.06, -0.01),
        ),
    )
    assert [entry.text for entry in alone] == ["n", "80 of 400 documents", "rank", "3.00", *"–––"]
    assert "Lower is better" in shown.notes[0]
    assert any("candidates" in note for note in shown.notes)
    assert any(note.startswith("Of T lengths are in tokens") for note in shown.notes)
    assert not any("candidates" in note for note in (rank_table([other]) or shown).notes)
    assert rank_table([]) is None
