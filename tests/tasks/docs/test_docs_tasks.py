"""The tasks of the docs suite: their data, and scores of encoders whose right answer is known."""

from typing import Any

import mteb
import numpy as np
import pytest
from docs_tasks import SIZES, Oracle

from lcbench.tasks.docs.names import DOCS_TASKS, SYNTHETIC_TASKS
from lcbench.tasks.docs.selection import LONG_WORDS, select
from lcbench.tasks.docs.tasks import make_task

TASKS = sorted(DOCS_TASKS - SYNTHETIC_TASKS)


def loaded(name: str) -> Any:
    task = make_task(name, SIZES)
    task.load_data()
    return task


@pytest.mark.parametrize("name", TASKS)
def test_the_revision_is_the_digest_of_the_texts(name: str) -> None:
    task = make_task(name, SIZES)
    assert task.metadata.name == name
    assert task.metadata.revision == select(SIZES).digest
    assert task.eval_splits == ["test"]
    # Drawing texts for one task leaves the class, and so every other task, as it was.
    assert type(task).metadata.revision == "set when the texts are drawn"


@pytest.mark.parametrize(
    ("name", "documents"), [("DocstringRetrieval", 120), ("DocstringLongRetrieval", 40)]
)
def test_retrieval_data(name: str, documents: int) -> None:
    split = loaded(name).dataset["default"]["test"]
    texts = dict(zip(split["corpus"]["id"], split["corpus"]["text"], strict=True))
    queries = dict(zip(split["queries"]["id"], split["queries"]["text"], strict=True))
    assert len(texts) == len(queries) == documents
    for query, relevant in split["relevant_docs"].items():
        ((document, grade),) = relevant.items()
        assert grade == 1
        assert queries[query] not in texts[document]
        assert query == f"summary of {document}"
    if name == "DocstringLongRetrieval":
        assert min(len(text.split()) for text in texts.values()) > LONG_WORDS


def test_reranking_candidates_are_the_documents_of_the_module() -> None:
    split = loaded("DocstringReranking").dataset["default"]["test"]
    for query, candidates in split["top_ranked"].items():
        document = query.removeprefix("summary of ")
        module = document.partition(":")[0]
        assert document in candidates
        assert {id_.partition(":")[0] for id_ in candidates} == {module}
    assert np.median([len(one) for one in split["top_ranked"].values()]) >= 4


def test_classification_data() -> None:
    dataset = loaded("DocstringLibraryClassification").dataset
    assert (len(dataset["train"]), len(dataset["test"])) == (60, 60)
    assert not set(dataset["train"]["text"]) & set(dataset["test"]["text"])
    libraries = {doc.body: doc.library for doc in select(SIZES).documents}
    names = ["numpy", "pandas", "scipy", "sklearn"]
    for row in dataset["test"]:
        assert names[row["label"]] == libraries[row["text"]]


@pytest.mark.parametrize("kind", ["P2P", "S2S"])
def test_clustering_data(kind: str) -> None:
    sets = loaded(f"DocstringModuleClustering{kind}").dataset["test"]
    docs = select(SIZES).documents
    subpackages = {doc.body if kind == "P2P" else doc.summary: doc.subpackage for doc in docs}
    assert len(sets) == SIZES.clustering_sets
    assert len({tuple(one["sentences"]) for one in sets}) == SIZES.clustering_sets
    for one in sets:
        assert [subpackages[text] for text in one["sentences"]] == one["labels"]
        assert len(set(one["labels"])) > 3


def answers_of(name: str) -> dict[str, int]:
    drawn = select(SIZES)
    docs = drawn.long_documents if "Long" in name else drawn.documents
    keys = {
        "Classification": lambda doc: doc.library,
        "ClusteringP2P": lambda doc: doc.subpackage,
        "ClusteringS2S": lambda doc: doc.subpackage,
    }
    key = next((key for kind, key in keys.items() if name.endswith(kind)), lambda doc: doc.id)
    numbers = {value: i for i, value in enumerate(sorted({key(doc) for doc in docs}))}
    return {text: numbers[key(doc)] for doc in docs for text in (doc.summary, doc.body)}


@pytest.mark.parametrize("name", TASKS)
def test_an_oracle_scores_1_and_noise_does_not(name: str) -> None:
    scores = []
    for noise in (False, True):
        encoder: Any = Oracle(answers_of(name), noise)
        outcome = mteb.evaluate(
            encoder, make_task(name, SIZES), cache=None, co2_tracker=False, show_progress_bar=False
        )
        scores.append(outcome.task_results[0].get_score())
    assert scores[0] > (0.97 if "Clustering" in name else 0.999)
    assert scores[1] < 0.65
