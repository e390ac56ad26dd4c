"""mteb's task classes over a user's texts: mteb loads, encodes and scores them like its own.

Texts go from the files to a temporary Arrow file that is mapped into memory, so that they need not
fit into it. Under a limit what is drawn is drawn while the files are read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from lcbench.errors import RequestError
from lcbench.tasks.corpus.check import (
    Document,
    Labelled,
    LeftOut,
    documents_of,
    judgements_of,
    labelled_of,
    queries_of,
    scored_pairs_of,
)
from lcbench.tasks.corpus.layout import digest_of
from lcbench.tasks.corpus.plan import MOST_CLUSTERED, MTEB_KINDS, OwnTask
from lcbench.tasks.corpus.sample import draw
from lcbench.tasks.limit import DOCUMENTS_A_QUERY

MAIN_SCORES = {
    "retrieval": "ndcg_at_10",
    "classification": "accuracy",
    "clustering": "v_measure",
    "sts": "cosine_spearman",
}
"""The metric of each kind that is its score."""
# Rows of an Arrow file that are in memory at once.
_BATCH = 1000
# Of large corpora 32 bits are too few to count bytes in a column.
_TEXT = pa.large_string()


def make_task(own: OwnTask, limit: int | None = None) -> AbsTask:
    """Return an mteb task over a user's texts, which are read when mteb loads it.

    Args:
        own: the task.
        limit: most items that are scored; None: all.
    """
    metadata = TaskMetadata(
        name=own.name,
        description="A user's own texts.",
        dataset={"path": f"lcbench/{own.name}", "revision": own.digest},
        type=MTEB_KINDS[own.kind],
        main_score=MAIN_SCORES[own.kind],
        eval_splits=["test"],
        eval_langs=[own.language],
        modalities=["text"],
        category="t2c" if own.kind in ("classification", "clustering") else "t2t",
        domains=["Written"],
        annotations_creators="derived",
        sample_creation="found",
    )
    kind = type(own.name, (_KINDS[own.kind],), {"metadata": metadata})
    task: AbsTask = kind(own, limit)
    return task


def check_unchanged(own: OwnTask) -> None:
    """Check that a task's files still have the content that it was made of.

    Raises:
        RequestError: naming those of which it may have changed.
    """
    if digest_of(own.kind, own.tables, own.language) != own.digest:
        raise RequestError(own.changed)


class _Own(AbsTask):
    """Base class: loads a user's texts, and checks that they are those that were asked for."""

    def __init__(self, own: OwnTask, limit: int | None) -> None:
        self.own = own
        self.limit = limit
        super().__init__()

    def load_data(self, num_proc: int | None = None, **kwargs: Any) -> None:
        """Read the files; nothing of them is executed.

        Raises:
            RequestError: they have changed, or are wrong.
        """
        if self.data_loaded:
            return
        check_unchanged(self.own)
        self.dataset = self._read()
        check_unchanged(self.own)
        self.data_loaded = True

    def _read(self) -> Any:
        raise NotImplementedError

    def _drawn_rows(self, rows: Iterator[Labelled]) -> Iterator[Labelled]:
        drawn = self._drawn(
            enumerate(rows), self.limit or 0, lambda item: f"{item[0]}/{item[1].text}"
        )
        return (one for _, one in drawn)

    def _drawn(self, items: Iterable[Any], count: int, key: Any) -> Iterable[Any]:
        """Return some items under a limit, else all of them."""
        return items if self.limit is None else draw(items, count, key, "lcbench limit")


class OwnRetrieval(_Own, AbsTaskRetrieval):
    """Retrieval, of judgements or of texts of which a part is the query of the rest."""

    def _read(self) -> dict[str, dict[str, RetrievalSplitData]]:
        own, none = self.own, LeftOut()
        # Of texts without judgements each query has its document.
        asked = ids = None
        if own.table("qrels") is not None:
            ids = {one.id for one in documents_of(own, none)}
            asked = {
                one.query
                for one in judgements_of(own, none)
                if one.grade > 0 and one.document in ids
            }
        queries = self._drawn(
            (one for one in queries_of(own, none) if asked is None or one.id in asked),
            self.limit or 0,
            lambda one: one.id,
        )
        queries_data = _dataset(
            ({"id": one.id, "text": one.text} for one in queries), _columns("id", "text")
        )
        kept = set(queries_data["id"])
        relevant: dict[str, dict[str, int]] = {}
        for one in judgements_of(own, none):
            if one.query in kept and (ids is None or one.document in ids):
                relevant.setdefault(one.query, {})[one.document] = one.grade
        titled = own.table("corpus") is not None
        corpus = (
            {"id": one.id, "text": one.text} | ({"title": one.title} if titled else {})
            for one in self._documents(relevant)
        )
        names = ("id", "text", "title") if titled else ("id", "text")
        split = RetrievalSplitData(
            corpus=_dataset(corpus, _columns(*names)),
            queries=queries_data,
            relevant_docs=relevant,
            top_ranked=None,
        )
        return {"default": {"test": split}}

    def _documents(self, relevant: Mapping[str, Mapping[str, int]]) -> Iterable[Document]:
        """Return the documents; under a limit the relevant ones, and others in their order."""
        documents = documents_of(self.own, LeftOut())
        if self.limit is None:
            return documents
        needed = {id_ for grades in relevant.values() for id_, grade in grades.items() if grade > 0}
        room = max(0, DOCUMENTS_A_QUERY * self.limit - len(needed))
        others = self._drawn(
            (one for one in documents if one.id not in needed), room, lambda one: one.id
        )
        chosen = needed | {one.id for one in others}
        return (one for one in documents_of(self.own, LeftOut()) if one.id in chosen)


class OwnClassification(_Own, AbsTaskClassification):
    """Classification: trained on the train part, scored on the test part."""

    def _read(self) -> DatasetDict:
        numbers = _numbers(self.own)
        return DatasetDict({part: self._part(part, numbers) for part in ("train", "test")})

    def _part(self, part: str, numbers: Mapping[str | int, int]) -> Dataset:
        rows: Iterator[Labelled] = (
            one for one in labelled_of(self.own, LeftOut()) if one.part == part
        )
        if part == "test":
            rows = self._drawn_rows(rows)
        return _labelled(rows, numbers, "text", "label")


class OwnClustering(_Own, AbsTaskClustering):
    """Clustering of the test part where the texts are divided by the user, else of all texts."""

    # mteb's share of 4 % is for its own datasets.
    max_fraction_of_documents_to_embed = None
    max_document_to_embed = MOST_CLUSTERED

    def _read(self) -> DatasetDict:
        rows = (
            one
            for one in labelled_of(self.own, LeftOut())
            if one.part == "test" or not self.own.is_divided
        )
        drawn = self._drawn_rows(rows)
        data = _labelled(drawn, _numbers(self.own), "sentences", "labels")
        # Each experiment is a bootstrap sample; a larger one of few texts repeats them.
        self.max_documents_per_cluster = min(MOST_CLUSTERED, len(data))
        return DatasetDict({"test": data})


class OwnSTS(_Own, AbsTaskSTS):
    """Similarity of pairs; the range of the scores makes no difference to a correlation."""

    min_score = 0
    max_score = 1

    def _read(self) -> DatasetDict:
        drawn = self._drawn(
            enumerate(scored_pairs_of(self.own, LeftOut())),
            self.limit or 0,
            lambda item: f"{item[0]}/{item[1].first}/{item[1].second}",
        )
        rows = (
            {"sentence1": one.first, "sentence2": one.second, "score": one.score}
            for _, one in drawn
        )
        schema = pa.schema([("sentence1", _TEXT), ("sentence2", _TEXT), ("score", pa.float64())])
        return DatasetDict({"test": _dataset(rows, schema)})


_KINDS = {
    "retrieval": OwnRetrieval,
    "classification": OwnClassification,
    "clustering": OwnClustering,
    "sts": OwnSTS,
}


def _numbers(own: OwnTask) -> dict[str | int, int]:
    """Return a number from 0 for each label; mteb's metrics of two labels want 0 and 1."""
    labels = {one.label for one in labelled_of(own, LeftOut())}
    return {label: number for number, label in enumerate(sorted(labels, key=_label_order))}


def _label_order(label: str | int) -> tuple[int, str]:
    return (0, label) if isinstance(label, str) else (label, "")


def _labelled(
    rows: Iterable[Labelled], numbers: Mapping[str | int, int], text: str, label: str
) -> Dataset:
    schema = pa.schema([(text, _TEXT), (label, pa.int64())])
    return _dataset(({text: one.text, label: numbers[one.label]} for one in rows), schema)


def _columns(*names: str) -> pa.Schema:
    return pa.schema([(name, _TEXT) for name in names])


def _dataset(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Dataset:
    """Return rows as a dataset in a file that has no name any more, mapped into memory."""
    rows = iter(rows)
    with tempfile.TemporaryDirectory(prefix="lcbench-own-") as folder:
        path = Path(folder, "rows.arrow")
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            while batch := list(islice(rows, _BATCH)):
                stream.write_batch(pa.RecordBatch.from_pylist(batch, schema))
        return Dataset.from_file(str(path))
