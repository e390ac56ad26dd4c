"""Judgments are those that mteb scores: its texts, its grades, its documents."""

from odd_tasks import QUERIES, TEXTS, Candidates, Documents, EqualQueries, TiedPairs
from odd_tasks import TitlesAndDuplicates as Titles

from lcbench.hub.contents import documents_in
from lcbench.hub.judgments import judgments_in


def loaded(kind: type) -> object:
    task = kind()
    task.load_data()
    return task


def test_each_query_has_its_relevant_documents() -> None:
    found = judgments_in(loaded(Documents))  # type: ignore[arg-type]
    assert found is not None
    assert found.queries == tuple(QUERIES)
    assert found.documents == tuple(dict.fromkeys(TEXTS))
    assert [found.documents[one] for (one,) in found.relevant] == TEXTS[:25]
    assert set(found.corpora) == {0}
    assert set(found.itself) == {None}


def test_titles_equal_texts_and_absent_documents() -> None:
    task = loaded(Titles)
    found = judgments_in(task)  # type: ignore[arg-type]
    assert found is not None
    texts = documents_in(task)  # type: ignore[arg-type]
    assert found.documents == tuple(dict.fromkeys(text for text in texts if text))
    for number, relevant in enumerate(found.relevant):
        names = {texts[number], texts[number + 1]}
        assert {found.documents[one] for one in relevant} == names


def test_queries_without_relevant_documents_are_left_out() -> None:
    found = judgments_in(loaded(EqualQueries))  # type: ignore[arg-type]
    assert found is not None
    assert len(found.queries) == len(found.relevant) == len(found.itself) == 7
    found = judgments_in(loaded(Candidates))  # type: ignore[arg-type]
    assert found is not None
    assert len(found.queries) == 10
    assert len(found.documents) == len(set(TEXTS))


def test_a_document_with_the_id_of_a_query_is_not_searched_where_mteb_does_not() -> None:
    task = Documents()
    task.ignore_identical_ids = True
    task.load_data()
    split = task.dataset["default"]["test"]
    split["queries"] = split["queries"].map(lambda row: {"id": f"d{int(row['id'][1:]) + 1}"})
    split["relevant_docs"] = {f"d{i + 1}": {f"d{i}": 1, f"d{i + 1}": 1} for i in range(25)}
    found = judgments_in(task)
    assert found is not None
    assert [found.documents[one] for (one,) in found.relevant] == TEXTS[:25]
    assert [found.documents[one] for one in found.itself if one is not None] == TEXTS[1:26]


def test_corpora_of_several_splits_are_apart() -> None:
    task = Documents()
    task.metadata = task.metadata.model_copy(update={"eval_splits": ["test", "dev"]})
    task.load_data()
    task.dataset["default"]["dev"] = task.dataset["default"]["test"]
    found = judgments_in(task)
    assert found is not None
    assert len(found.queries) == 50
    assert set(found.corpora) == {0, 1}
    for (one,) in found.relevant[25:]:
        assert found.corpora[one] == 1


def test_a_task_without_queries_has_none() -> None:
    assert judgments_in(loaded(TiedPairs)) is None  # type: ignore[arg-type]
