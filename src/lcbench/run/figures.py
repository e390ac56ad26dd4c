"""Figures of the paper by number for a loaded model: their texts, and the model's embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.errors import RequestError
from lcbench.measures.classes import Classes
from lcbench.measures.figures import OF_CLASSES, Material, Number

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from lcbench.plan.layout import Grid

# Texts whose word embeddings are in memory together.
_TEXTS_AT_ONCE = 256


def check_figures(grid: Grid, numbers: Sequence[Number]) -> None:
    """Check that each figure can be made of one of a request's tasks.

    Raises:
        RequestError: a figure needs a classification task, and there is none.
    """
    kinds = {name: part.source.kind(name) for name, part in grid.parts.items()}
    for number in numbers:
        if not any(fits(number, kind) for kind in kinds.values()):
            raise RequestError(
                f"figures={number}: Figure {number} shows a classification by length, and none of "
                f"these tasks is one: {', '.join(kinds)}. Add one, such as "
                "tasks=DocstringLibraryClassification."
            )


def fits(number: Number, kind: str) -> bool:
    """Return whether a figure can be made of a task of this type."""
    return number not in OF_CLASSES or kind == "Classification"


def material_of(task: AbsTask, texts: Sequence[str], splits: Sequence[str]) -> Material:
    """Return the texts of a loaded task that figures are made of.

    Args:
        task: with its data.
        texts: its texts without empty ones (`hub.contents.documents_in`).
        splits: that are scored.
    """
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.classification import AbsTaskClassification

    documents = tuple(dict.fromkeys(texts))
    if isinstance(task, AbsTaskRetrieval):
        titles, queries = _titles(task, splits), _queries(task, splits)
        return Material(documents, titles or queries, "title" if titles else "query")
    if isinstance(task, AbsTaskClassification):
        return Material(documents, classes=_classes(task, splits))
    return Material(documents)


def word_vectors(model: SentenceTransformer, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the mean of the word-embedding rows of each text's tokens, special ones left out.

    Neither positions nor LayerNorm take part: what Figure 3 of arXiv:2410.24200 calls a text's word
    embedding.

    Returns:
        Shape (texts, dimensions).
    """
    import torch

    from lcbench.tempscale.transformer import find_transformer

    embeddings: Any = find_transformer(model).get_input_embeddings()
    rows = embeddings.weight.detach().float().cpu()
    tokenizer: Any = model.tokenizer
    found = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = list(texts[start : start + _TEXTS_AT_ONCE])
        ids = tokenizer(some, add_special_tokens=False, truncation=False, verbose=False)
        found += [rows[torch.tensor(one)].mean(0).numpy() for one in ids["input_ids"]]
    return np.stack(found)


def _splits(task: Any, splits: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for subset in task.dataset.values():
        for name, data in subset.items():
            if name in splits:
                yield data


def _titles(task: Any, splits: Sequence[str]) -> dict[str, str]:
    """Return titles by document, as mteb joins the two for encoding."""
    return {
        f"{row['title']} {row['text']}".strip(): row["title"].strip()
        for data in _splits(task, splits)
        for row in (data["corpus"] if "title" in data["corpus"].column_names else ())
        if (row["title"] or "").strip()
    }


def _queries(task: Any, splits: Sequence[str]) -> dict[str, str]:
    """Return queries by document, where each is the only one of the other."""
    found: dict[str, str] = {}
    for data in _splits(task, splits):
        of_document: dict[str, list[str]] = {}
        for query, judged in data["relevant_docs"].items():
            relevant = [document for document, score in judged.items() if score > 0]
            if len(relevant) == 1:
                of_document.setdefault(relevant[0], []).append(query)
        queries = {row["id"]: row["text"] for row in data["queries"]}
        found |= {
            row["text"].strip(): queries[of_document[row["id"]][0]]
            for row in data["corpus"]
            if len(of_document.get(row["id"], ())) == 1
        }
    return found


def _classes(task: Any, splits: Sequence[str]) -> Classes:
    """Return the labelled texts of a classification's first subset."""
    train_name = task.train_split
    data = task.dataset
    if train_name not in data:
        data = data[task.hf_subsets[0]]
    text, label = task.input_column_name, task.label_column_name

    def columns(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        rows = [
            (one, str(of))
            for one, of in zip(data[name][text], data[name][label], strict=True)
            if one.strip()
        ]
        texts, labels = zip(*rows, strict=True)
        return texts, labels

    scored = next(name for name in splits if name in data)
    return Classes(*columns(train_name), *columns(scored))
