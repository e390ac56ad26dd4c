"""A task's data cut down to some items: which are kept, and that mteb scores them."""

from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset
from docs_tasks import SIZES

from lcbench.tasks import limit
from lcbench.tasks.docs import tasks as docs
from lcbench.tasks.source import Texts, limited


def texts(role: str, count: int, **more: Any) -> Texts:
    return Texts(f"T/test/{role}", count, count // 2, 10 * count, role=role, **more)  # type: ignore[arg-type]


def test_items_of_a_smaller_number_are_among_those_of_a_larger_one() -> None:
    every = limit.drawn(1000, 1000, "T/test")
    assert every == list(range(1000))
    more, fewer = limit.drawn(1000, 100, "T/test"), limit.drawn(1000, 10, "T/test")
    assert len(more) == 100
    assert set(fewer) < set(more)
    assert more == sorted(more)
    assert max(more) > 800
    # Of another task and split others; the same wherever it is drawn.
    assert limit.drawn(1000, 10, "S/test") != fewer
    assert limit.drawn(8, 4, "T/test") == [0, 1, 4, 5]


def retrieval(ranked: bool = False) -> dict[str, Any]:
    """Forty queries with two relevant documents each, of 1,000."""
    queries = [f"q{n}" for n in range(40)]
    return {
        "corpus": Dataset.from_dict({"id": [f"d{n}" for n in range(1000)], "text": ["t"] * 1000}),
        "queries": Dataset.from_dict({"id": queries, "text": queries}),
        "relevant_docs": {
            f"q{n}": {f"d{n}": 1, f"d{n + 500}": 2, f"d{n + 900}": 0} for n in range(40)
        },
        "top_ranked": {one: ["d1", "d2", f"d{n}"] for n, one in enumerate(queries)}
        if ranked
        else None,
    }


def test_queries_keep_their_relevant_documents_among_others() -> None:
    kept = limit._queries(retrieval(), 6, "T/test")
    names = kept["queries"]["id"]
    assert len(names) == 6
    assert list(kept["relevant_docs"]) == names
    corpus = kept["corpus"]["id"]
    assert len(set(corpus)) == len(corpus) == 60
    for name in names:
        number = int(name[1:])
        assert {f"d{number}", f"d{number + 500}"} <= set(corpus)
        graded = kept["relevant_docs"][name]
        assert (graded[f"d{number}"], graded[f"d{number + 500}"]) == (1, 2)
        assert set(graded) <= set(corpus)
    assert kept["top_ranked"] is None
    assert kept == limit._queries(retrieval(), 6, "T/test") or kept["corpus"]["id"] == corpus


def test_a_corpus_that_is_small_enough_stays_whole() -> None:
    data = retrieval()
    kept = limit._queries(data, 200, "T/test")
    assert kept["corpus"]["id"] == data["corpus"]["id"]
    assert kept["relevant_docs"] == data["relevant_docs"]


def test_candidates_that_are_ranked_stay_whole() -> None:
    kept = limit._queries(retrieval(ranked=True), 6, "T/test")
    names = kept["queries"]["id"]
    assert kept["top_ranked"] == {one: ["d1", "d2", f"d{one[1:]}"] for one in names}
    needed = {"d1", "d2"} | {f"d{int(one[1:]) + more}" for one in names for more in (0, 500)}
    assert set(kept["corpus"]["id"]) == needed


def test_rows_pairs_in_lists_and_sets() -> None:
    rows = Dataset.from_dict({"text": [str(n) for n in range(50)], "label": list(range(50))})
    kept = limit._rows(rows, 5, "T/test")
    assert [str(label) for label in kept["label"]] == kept["text"]
    assert len(kept) == 5
    several = Dataset.from_dict({"text": [["a", "b"], ["c"]] * 20})
    assert len(limit._rows(several, 5, "T/test")) == 5
    pairs = {"sentence1": [str(n) for n in range(50)], "labels": list(range(50))}
    one = limit._rows(Dataset.from_dict({key: [value] for key, value in pairs.items()}), 5, "T")
    assert len(one) == 1
    assert [str(label) for label in one[0]["labels"]] == one[0]["sentence1"]
    assert len(one[0]["labels"]) == 5
    assert limit._rows(pairs, 5, "T") == one[0]
    sets = Dataset.from_dict({key: [value] * 30 for key, value in pairs.items()})
    found = limit._rows(sets, 5, "T")
    assert len(found) == 10
    assert {len(row["labels"]) for row in found} == {5}


def test_the_docs_tasks_are_cut_down() -> None:
    counts = {}
    for name in ("DocstringRetrieval", "DocstringReranking", "DocstringLibraryClassification"):
        task = docs.make_task(name, SIZES)
        task.load_data()
        revision = task.metadata.revision
        train = len(task.dataset["train"]) if "train" in task.dataset else 0
        with limit.limit_data(task, 7):
            assert task.metadata.revision == f"{revision}-limit7"
        assert task.metadata.revision == revision
        data = task.dataset["test"] if "test" in task.dataset else task.dataset["default"]["test"]
        counts[name] = len(data["queries"] if isinstance(data, dict) else data)
        if train:
            assert len(task.dataset["train"]) == train
    assert set(counts.values()) == {7}


@pytest.mark.parametrize("metric", ["p-MRR", "max_over_subqueries_map_at_1000"])
def test_queries_that_are_scored_together_are_refused(metric: str) -> None:
    task: Any = SimpleNamespace(metadata=SimpleNamespace(main_score=metric, name="T"))
    with (
        pytest.raises(limit.LimitError, match=r"limit=5: T scores its queries in groups"),
        limit.limit_data(task, 5),
    ):
        pytest.fail("it was cut down")


def test_texts_to_be_encoded_are_reported_beforehand() -> None:
    every = (
        texts("query", 300),
        texts("document", 50_000),
        texts("document", 90, drawn_rows=5),
    )
    found = limited(every, "Retrieval", 10, 2)
    assert [one.count for one in found] == [20, 200, 90]
    assert [one.unique for one in found] == [20, 200, 45]
    assert [one.characters for one in found] == [200, 2000, 900]
    assert found[0].origin == "limit 10/T/test/query"
    assert [one.count for one in limited(every[1:2], "STS", 10, 1)] == [10]
