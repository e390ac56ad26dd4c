"""Reads which documents of a loaded task are relevant to which of its queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.system.thirdparty import retrieval_texts

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


@dataclass(frozen=True)
class Judgments:
    """Queries with relevant documents, and the documents among which these are searched.

    Attributes:
        queries: texts of queries with a relevant document.
        documents: texts of documents; equal ones of a corpus count once.
        corpora: number of each document's corpus: a task may have one for each split and language.
        relevant: of each query, the numbers of its relevant documents, all of one corpus.
        itself: of each query, the number of the document that mteb does not search because it has
            the query's id; None: there is none.
    """

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    corpora: tuple[int, ...]
    relevant: tuple[tuple[int, ...], ...]
    itself: tuple[int | None, ...]


def judgments_in(task: AbsTask) -> Judgments | None:
    """Return the judgments of a loaded task, as mteb scores them.

    A document is relevant if its grade is above 0. Empty texts are left out. Ranks are among all
    documents of a corpus, whatever candidates a reranking task names.

    Returns:
        None if it is no retrieval task.
    """
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.types import PromptType

    if not isinstance(task, AbsTaskRetrieval):
        return None
    documents: dict[tuple[int, str], int] = {}
    queries: list[str] = []
    relevant: list[tuple[int, ...]] = []
    itself: list[int | None] = []
    places = [(split, subset) for split in task.eval_splits for subset in task.hf_subsets]
    for corpus, (split, subset) in enumerate(places):
        data = task.dataset[subset][split]
        number_of: dict[str, int] = {}
        texts = retrieval_texts(data["corpus"], PromptType.document)
        for name, text in zip(data["corpus"]["id"], map(str.strip, texts), strict=True):
            if text:
                number_of[name] = documents.setdefault((corpus, text), len(documents))
        rows, grades = data["queries"], data["relevant_docs"]
        asked = rows.select([row for row, name in enumerate(rows["id"]) if name in grades])
        for name, text in zip(asked["id"], retrieval_texts(asked, PromptType.query), strict=True):
            found = dict.fromkeys(
                number_of[document]
                for document, grade in grades[name].items()
                if grade > 0 and document in number_of
            )
            own = number_of.get(name) if task.ignore_identical_ids else None
            if own is not None:
                found.pop(own, None)
            if found and text.strip():
                queries.append(text)
                relevant.append(tuple(found))
                itself.append(own)
    return Judgments(
        tuple(queries),
        tuple(text for _, text in documents),
        tuple(corpus for corpus, _ in documents),
        tuple(relevant),
        tuple(itself),
    )
