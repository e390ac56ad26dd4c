"""`uncertainty.clusters` and `items.read_shares`: what hangs together through shared texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cells import item_rows, relevant, share, write_cell

from lcbench.results.cell_items import CellItems
from lcbench.results.folder import Results
from lcbench.uncertainty.clusters import Shared, families, link, numbered
from lcbench.uncertainty.items import ItemShares, read_samples, read_shares


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "runs")


def sharing(name: str, *texts: tuple[int, ...]) -> Shared:
    """Items that share these texts."""
    owners = [place for place, own in enumerate(texts) for _ in own]
    flat = [text for own in texts for text in own]
    return Shared(
        np.array(owners, dtype=np.int64),
        np.array(flat, dtype=np.uint64),
        numbered(len(texts), name),
    )


def test_items_that_share_a_text_are_of_one_cluster_whatever_their_task() -> None:
    first = sharing("first", (5, 11), (6, 11), (7, 12), (), (8, 13))
    second = sharing("second", (13,), (14,), ())
    third = sharing("third", (7,), (14, 9))
    found = [list(one) for one in link([first, second, third])]
    # The number of a cluster is the least of its texts'.
    assert found[0][:3] == [5, 5, 7]
    assert found[0][3] == first.alone[3]
    assert found[0][4] == found[1][0] == 8
    assert found[1][1] == found[2][1] == 9
    assert found[1][2] == second.alone[2]
    assert found[2][0] == 7
    assert len({one for several in found for one in several}) == 6
    # Beside what shares nothing with it a task has the clusters that it has alone.
    (alone,) = link([third])
    assert list(alone) == [7, 9]
    assert [list(one) for one in link([sharing("x", (99,)), third])] == [[99], [7, 9]]
    assert link([]) == []


def test_numbers_of_items_that_share_nothing_go_by_task_and_place() -> None:
    numbers = numbered(1000, "task", "part")
    assert len(set(numbers.tolist())) == 1000
    assert list(numbers[:3]) == list(numbered(3, "task", "part"))
    assert not set(numbers.tolist()) & set(numbered(1000, "task", "other").tolist())


def test_tasks_that_share_items_or_documents_are_a_family() -> None:
    count = 300
    of = {
        "Retr": [numbered(count, "a")],
        "Rerank": [numbered(count, "a")[100:140]],
        # Two of 300: an accident.
        "Class": [np.append(numbered(count, "c"), numbered(2, "a"))],
        "STS12": [numbered(50, "d"), numbered(50, "e")],
        "STSB": [np.append(numbered(count, "f"), numbered(5, "e"))],
        "ArxivClusteringP2P": [numbered(10, "g")],
        "ArxivClusteringS2S": [numbered(10, "h")],
        "RedditClustering": [numbered(10, "i")],
        "RedditClusteringP2P": [numbered(10, "j")],
    }
    assert families(of) == {
        "Retr": "Retr",
        "Rerank": "Retr",
        "Class": "Class",
        "STS12": "STS12",
        "STSB": "STS12",
        "ArxivClusteringP2P": "ArxivClusteringP2P",
        "ArxivClusteringS2S": "ArxivClusteringP2P",
        "RedditClustering": "RedditClustering",
        "RedditClusteringP2P": "RedditClustering",
    }
    assert families({}) == {}


def clusters_of(files: Any) -> tuple[ItemShares, list[list[int]]]:
    """What a cell's items share, and their clusters, numbered as they come."""
    cell = CellItems(files)
    samples = read_samples(cell)
    assert samples is not None
    shares = read_shares(cell, samples)
    found = []
    for one in link(shares.parts):
        numbers: dict[int, int] = {}
        found.append([numbers.setdefault(int(cluster), len(numbers)) for cluster in one])
    return shares, found


def test_the_shares_of_items_are_read_in_the_order_of_their_ids(results: Results) -> None:
    rows = item_rows([0.1, 0.2, 0.3, 0.4], shares=[[share("a")], [share("b")], [], [share("a")]])
    rows[2]["id"] = "10"
    files = write_cell(results, "NFCorpus", 0.25, [rows[i] for i in (2, 3, 0, 1)])
    shares, found = clusters_of(files)
    # 0, 1, 3, 10
    assert found == [[0, 1, 0, 2]]
    assert (shares.are_older, shares.lacking) == (False, 1)
    assert shares.parts[0].texts[0] == int(share("a"), 16)


def test_translations_share_what_any_of_them_does(results: Results) -> None:
    entries = {("test", language): {"main_score": 0.5} for language in ("de", "en")}
    rows = []
    for language, texts in (("de", "aab"), ("en", "xyy")):
        own = [[share(text)] for text in texts]
        rows += item_rows([0.5] * 3, subset=language, gold=["1", "2", "3"], shares=own)
    _, found = clusters_of(write_cell(results, "Massive", entries, rows))
    assert found == [[0, 0, 0]]


def of_documents(*names: str) -> list[Any]:
    return [relevant(*((one, 5, 1) for one in own.split())) for own in names]


def test_older_queries_share_all_of_their_relevant_documents(results: Results) -> None:
    documents = of_documents("a", "b a", "a b", "a", "", "")
    rows = item_rows([0.5] * 6, relevant=documents, shares=[None] * 6)
    entries = {("test", "default"): {"main_score": 0.5}, ("dev", "default"): {"main_score": 0.5}}
    others = item_rows([0.5] * 6, split="dev", relevant=documents, shares=[None] * 6)
    others[0]["id"] = "another"
    shares, found = clusters_of(write_cell(results, "NFCorpus", entries, rows + others))
    # By length of id: "another" comes last.
    assert found == [[0, 1, 1, 0, 2, 3], [0, 0, 1, 2, 3, 1]]
    first, second = link(shares.parts)
    assert not set(first.tolist()) & set(second.tolist())
    assert shares.are_older
    # Where all splits have the same queries, as lengths of our own tasks do, they are one sample.
    others[0]["id"] = "0"
    shares, _ = clusters_of(write_cell(results, "NFCorpus", entries, rows + others))
    first, second = link(shares.parts)
    assert list(first[:4]) == list(second[:4])


def test_sets_and_older_texts_are_by_themselves(results: Results) -> None:
    entry = {"main_score": 0.4, "v_measures": [0.3, 0.4, 0.5]}
    shares, found = clusters_of(
        write_cell(results, "ArxivClusteringP2P", {("test", "default"): entry})
    )
    assert (found, shares.are_older) == ([[0, 1, 2]], False)
    rows = item_rows([0.5] * 3, gold=["a"] * 3, shares=[None] * 3)
    shares, found = clusters_of(write_cell(results, "Banking77Classification", 0.5, rows))
    assert (found, shares.are_older, shares.lacking) == ([[0, 1, 2]], True, 0)
