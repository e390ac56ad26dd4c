"""mteb task classes of the docs suite, over the docstrings of four libraries.

Queries are summary lines, documents the rest of the docstrings. `selection` selects the texts; its
digest is the dataset revision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata, TaskType

from lcbench.tasks.docs.docstrings import LIBRARIES, Docstring
from lcbench.tasks.docs.names import DOCS_TASKS, SYNTHETIC_TASKS
from lcbench.tasks.docs.selection import DocsSizes, Selection, clusterings, hash_of, select


def _metadata(name: str, kind: TaskType, main_score: str, description: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description=description,
        dataset={"path": "lcbench/docstrings", "revision": "set when the texts are drawn"},
        type=kind,
        main_score=main_score,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=["text"],
        category="t2c" if kind in ("Classification", "Clustering") else "t2t",
        domains=["Programming", "Written"],
        annotations_creators="derived",
        sample_creation="found",
    )


class _Drawn(AbsTask):
    """Base class of tasks built from a selection of docstrings."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        dataset = {**self.metadata.dataset, "revision": selection.digest}
        self.metadata = self.metadata.model_copy(update={"dataset": dataset})
        super().__init__()

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Build the dataset from the selection; nothing is read from disk or network."""
        self.dataset = self._build()
        self.data_loaded = True

    def _build(self) -> Any:
        raise NotImplementedError


class _DocstringSearch(_Drawn, AbsTaskRetrieval):
    """Retrieval and reranking: find the body of a docstring by its summary."""

    def _documents(self) -> Sequence[Docstring]:
        return self.selection.documents

    def _candidates(self) -> dict[str, list[str]] | None:
        return None

    def _build(self) -> dict[str, dict[str, RetrievalSplitData]]:
        documents = self._documents()
        ids = [doc.id for doc in documents]
        split = RetrievalSplitData(
            corpus=Dataset.from_dict({"id": ids, "text": [doc.body for doc in documents]}),
            # Different from the documents' ids, since mteb can ignore a document with the query's
            # id.
            queries=Dataset.from_dict(
                {"id": [_query(id_) for id_ in ids], "text": [doc.summary for doc in documents]}
            ),
            relevant_docs={_query(id_): {id_: 1} for id_ in ids},
            top_ranked=self._candidates(),
        )
        return {"default": {"test": split}}


def _query(id_: str) -> str:
    """Return the id of the query that was cut from a document."""
    return f"summary of {id_}"


class DocstringRetrieval(_DocstringSearch):
    """Among all documents."""

    metadata = _metadata(
        "DocstringRetrieval",
        "Retrieval",
        "ndcg_at_10",
        "Find the docstring that a summary line was cut from.",
    )


class DocstringLongRetrieval(_DocstringSearch):
    """Among documents of more than 512 words."""

    metadata = _metadata(
        "DocstringLongRetrieval",
        "Retrieval",
        "ndcg_at_10",
        "Find the docstring of more than 512 words that a summary line was cut from.",
    )

    def _documents(self) -> Sequence[Docstring]:
        return self.selection.long_documents


class DocstringReranking(_DocstringSearch):
    """Among the documents of the same module."""

    metadata = _metadata(
        "DocstringReranking",
        "Reranking",
        "map_at_1000",
        "Rank the docstrings of one module by a summary line that was cut from one of them.",
    )

    def _candidates(self) -> dict[str, list[str]]:
        modules: dict[str, list[str]] = {}
        for doc in self.selection.documents:
            modules.setdefault(doc.module, []).append(doc.id)
        return {_query(doc.id): modules[doc.module] for doc in self.selection.documents}


class DocstringLibraryClassification(_Drawn, AbsTaskClassification):
    """Which of the four libraries a document comes from."""

    metadata = _metadata(
        "DocstringLibraryClassification",
        "Classification",
        "accuracy",
        "Tell which of numpy, pandas, scipy and scikit-learn a docstring comes from.",
    )

    def _build(self) -> DatasetDict:
        documents = sorted(self.selection.documents, key=lambda doc: hash_of("split " + doc.id))
        half = len(documents) // 2
        names = ClassLabel(names=list(LIBRARIES))
        return DatasetDict(
            {
                split: Dataset.from_dict(
                    {
                        "text": [doc.body for doc in part],
                        "label": [names.str2int(doc.library) for doc in part],
                    }
                )
                for split, part in (("train", documents[:half]), ("test", documents[half:]))
            }
        )


class _DocstringClustering(_Drawn, AbsTaskClusteringLegacy):
    """Group documents by the subpackage that they come from, in several random draws."""

    def _text(self, doc: Docstring) -> str:
        raise NotImplementedError

    def _build(self) -> DatasetDict:
        sets = clusterings(self.selection)
        return DatasetDict(
            {
                "test": Dataset.from_dict(
                    {
                        "sentences": [[self._text(doc) for doc in one] for one in sets],
                        "labels": [[doc.subpackage for doc in one] for one in sets],
                    }
                )
            }
        )


class DocstringModuleClusteringP2P(_DocstringClustering):
    """Of bodies (paragraphs, P2P)."""

    metadata = _metadata(
        "DocstringModuleClusteringP2P",
        "Clustering",
        "v_measure",
        "Group docstrings, their summary lines left out, by the subpackage they come from.",
    )

    def _text(self, doc: Docstring) -> str:
        return doc.body


class DocstringModuleClusteringS2S(_DocstringClustering):
    """Of summaries (sentences, S2S)."""

    metadata = _metadata(
        "DocstringModuleClusteringS2S",
        "Clustering",
        "v_measure",
        "Group summary lines of docstrings by the subpackage they come from.",
    )

    def _text(self, doc: Docstring) -> str:
        return doc.summary


_CLASSES: Mapping[str, type[_Drawn]] = {
    kind.metadata.name: kind
    for kind in (
        DocstringRetrieval,
        DocstringLongRetrieval,
        DocstringReranking,
        DocstringLibraryClassification,
        DocstringModuleClusteringP2P,
        DocstringModuleClusteringS2S,
    )
}


def make_task(name: str, sizes: DocsSizes) -> AbsTask:
    """Return the task of this module of that name, its texts drawn."""
    return _CLASSES[name](select(sizes))


if set(_CLASSES) != DOCS_TASKS - SYNTHETIC_TASKS:
    raise AssertionError("tasks.docs.names.DOCS_TASKS and the classes of this module differ")
