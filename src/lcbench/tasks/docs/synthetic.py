"""mteb task classes of the synthetic tasks, modelled on LongEmbed, with one split per length.

Every document hides a fact, every query asks for one of them, and the other documents of the same
length are the distractors. The texts are made in `haystacks`, whose digest is the revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from lcbench.tasks.docs import haystacks
from lcbench.tasks.docs.haystacks import Hidden
from lcbench.tasks.docs.names import NEEDLE, PASSKEY, SYNTHETIC_TASKS
from lcbench.tasks.docs.selection import SyntheticSizes


def _metadata(name: str, description: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description=description,
        dataset={"path": "lcbench/docstrings", "revision": "set when the texts are made"},
        type="Retrieval",
        main_score="ndcg_at_1",
        # Splits depend on the sizes.
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=["text"],
        category="t2t",
        domains=["Programming", "Written"],
        annotations_creators="derived",
        sample_creation="created",
    )


class _Synthetic(AbsTaskRetrieval):
    """Find the document that hides a fact, among documents of the same length."""

    def __init__(self, sizes: SyntheticSizes) -> None:
        self._by_length = haystacks.hidden(self.metadata.name, sizes)
        dataset = {**self.metadata.dataset, "revision": haystacks.digest(sizes)}
        splits = [f"test_{length}" for length in self._by_length]
        update = {"dataset": dataset, "eval_splits": splits}
        self.metadata = self.metadata.model_copy(update=update)
        super().__init__()

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Build the dataset; nothing is read from disk or network."""
        splits = {f"test_{length}": _split(made) for length, made in self._by_length.items()}
        self.dataset = {"default": splits}
        self.data_loaded = True


def _split(made: Sequence[Hidden]) -> RetrievalSplitData:
    documents = [f"document {i}" for i in range(len(made))]
    queries = [f"query {i}" for i in range(len(made))]
    return RetrievalSplitData(
        corpus=Dataset.from_dict({"id": documents, "text": [one.document for one in made]}),
        queries=Dataset.from_dict({"id": queries, "text": [one.query for one in made]}),
        relevant_docs={
            query: {document: 1} for query, document in zip(queries, documents, strict=True)
        },
        top_ranked=None,
    )


class DocstringPasskeyRetrieval(_Synthetic):
    """In one short text, repeated, the same in all documents."""

    metadata = _metadata(PASSKEY, "Find the document that hides a certain person's pass key.")


class DocstringNeedleRetrieval(_Synthetic):
    """In running sentences of docstrings, different in each document."""

    metadata = _metadata(NEEDLE, "Find the document that hides the made-up fact asked for.")


_CLASSES: dict[str, type[_Synthetic]] = {
    kind.metadata.name: kind for kind in (DocstringPasskeyRetrieval, DocstringNeedleRetrieval)
}


def make_task(name: str, sizes: SyntheticSizes) -> AbsTaskRetrieval:
    """Return a synthetic task with its texts.

    Args:
        name: of the task.
        sizes: sizes for a model's window (`SyntheticSizes.at`).

    Raises:
        RequestError: the sizes are impossible.
    """
    return _CLASSES[name](sizes)


if set(_CLASSES) != SYNTHETIC_TASKS:
    raise AssertionError("tasks.docs.names.SYNTHETIC_TASKS and the classes of this module differ")
