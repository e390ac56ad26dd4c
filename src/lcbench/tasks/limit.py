"""Reduces a task's data to a number of items for a quick look (`limit=`), the same for all models.

Items are drawn at random, with a seed that depends on the task and split; the items of a smaller
limit are among those of a larger one. The reduced data counts as another dataset, with its own
revision and folder of results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


# Number of documents of a corpus to keep per query: the relevant ones, and others drawn at random.
# The whole corpus would take as long as the whole task.
DOCUMENTS_A_QUERY = 10
# Number of texts to keep of each clustering, if clusterings have separate texts.
_SETS = 10
_SHARES = ("max_fraction_of_documents_to_embed", "max_document_to_embed")
# Tasks whose queries are scored together in groups, so that a sample of them has no score.
_IN_GROUPS = ("max_over_subqueries_", "p-MRR")


class LimitError(Exception):
    """A task's data has an unknown layout, so that items cannot be drawn."""


def quick_look(limit: int) -> str:
    """Return a sentence about what results under a limit mean."""
    return (
        f"a quick look (limit={limit}): of each split and subset {limit} queries, texts or pairs, "
        f"drawn at random; of a corpus the relevant documents and others, {DOCUMENTS_A_QUERY} a "
        "query. Not to be compared with scores of whole tasks"
    )


@contextmanager
def limit_data(task: AbsTask, limit: int) -> Iterator[None]:
    """Keep a random sample of items of each split and subset that a task scores.

    The task's revision shows it while the context lasts. Afterwards all data is restored, since
    mteb keeps one object of some tasks per process, which may be scored in full next.

    A query is kept with its relevant documents, or the candidates that it ranks, and random others,
    up to `DOCUMENTS_A_QUERY` per query. Of clusterings with separate texts, texts are sampled in
    each; of all other data, rows. Training data of classifiers is not changed.

    Args:
        task: task whose data is loaded.
        limit: number of queries, texts or pairs.

    Raises:
        LimitError: its data has an unknown layout.
    """
    from mteb.abstasks import AbsTaskClustering, AbsTaskRetrieval

    metric = task.metadata.main_score
    if metric.startswith(_IN_GROUPS):
        raise LimitError(
            f"limit={limit}: {task.metadata.name} scores its queries in groups ({metric}), and "
            "cannot be cut down; leave it out, or run all of it."
        )
    cut: Callable[[Any, int, str], Any] = _rows
    before: dict[str, Any] = {"metadata": task.metadata}
    if isinstance(task, AbsTaskRetrieval):
        cut = _queries
    elif isinstance(task, AbsTaskClustering):
        # It would reduce the sample further.
        before |= {name: getattr(task, name) for name in _SHARES}
    dataset: Any = task.dataset
    for subset in task.hf_subsets:
        splits = dataset if subset not in dataset and subset == "default" else dataset.get(subset)
        for split in task.eval_splits:
            if not isinstance(splits, dict) or split not in splits:
                raise LimitError(
                    f"limit={limit}: the data of {task.metadata.name} has a layout that cannot be "
                    "sampled. Leave the task out, or run it without limit=."
                )
            splits[split] = cut(splits[split], limit, f"{task.metadata.name}/{split}")
    told = {**task.metadata.dataset, "revision": f"{task.metadata.revision}-limit{limit}"}
    now = {**dict.fromkeys(before), "metadata": task.metadata.model_copy(update={"dataset": told})}
    try:
        for name, value in now.items():
            setattr(task, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(task, name, value)


def drawn(count: int, limit: int, what: str) -> list[int]:
    """Return the indices of `limit` of `count` items, ascending.

    Subsets of equal size get the same indices, so that translations are of the same texts.
    """
    import numpy as np

    digest = hashlib.sha256(f"{what}/{count}".encode()).digest()
    order = np.random.default_rng(list(digest)).permutation(count)
    return sorted(map(int, order[:limit]))


def _rows(data: Any, limit: int, what: str) -> Any:
    """Return a sample of rows; of rows with lists (pairs, sets of texts), a sample of each list."""
    if isinstance(data, Mapping):
        return _of_lists(data, limit, what)
    first = data[0] if len(data) else {}
    lists = {name for name, value in first.items() if isinstance(value, list)}
    if lists and len({len(first[name]) for name in lists}) == 1 and _are_texts(first, lists):
        kept = data.select(drawn(len(data), _SETS, what))
        return kept.map(lambda row: _of_lists(row, limit, what), load_from_cache_file=False)
    return data.select(drawn(len(data), limit, what))


def _are_texts(row: Mapping[str, Any], lists: Collection[str]) -> bool:
    """Return whether the lists of a row hold texts, with one label or the like for each."""
    return len(lists) > 1 and any(
        row[name] and all(isinstance(one, str) for one in row[name]) for name in lists
    )


def _of_lists(row: Mapping[str, Any], limit: int, what: str) -> dict[str, Any]:
    lengths = {len(value) for value in row.values() if isinstance(value, list)}
    if len(lengths) != 1:
        raise LimitError(f"limit={limit}: {what} has lists of several lengths.")
    places = drawn(lengths.pop(), limit, what)
    return {
        name: [value[place] for place in places] if isinstance(value, list) else value
        for name, value in row.items()
    }


def _queries(data: Any, limit: int, what: str) -> dict[str, Any]:
    """Return a sample of queries with their documents, in mteb's layout."""
    asked = data["relevant_docs"]
    queries, corpus, ranked = data["queries"], data["corpus"], data.get("top_ranked")
    # mteb scores the queries that have judgements.
    places = [place for place, one in enumerate(queries["id"]) if one in asked]
    kept = [places[one] for one in drawn(len(places), limit, what)]
    queries = queries.select(kept)
    names: Sequence[str] = list(queries["id"])
    needed = {document for name in names for document, grade in asked[name].items() if grade > 0}
    ids = list(corpus["id"])
    if ranked is not None:
        ranked = {name: ranked[name] for name in names if name in ranked}
        needed |= {document for documents in ranked.values() for document in documents}
    there = [place for place, one in enumerate(ids) if one in needed]
    others = [place for place, one in enumerate(ids) if one not in needed]
    if ranked is None:
        room = max(0, DOCUMENTS_A_QUERY * limit - len(there))
        there += [others[one] for one in drawn(len(others), room, f"{what}/corpus")]
    corpus = corpus.select(sorted(there))
    present = set(corpus["id"])
    return {
        **data,
        "corpus": corpus,
        "queries": queries,
        "relevant_docs": {
            name: {one: grade for one, grade in asked[name].items() if one in present}
            for name in names
        },
        "top_ranked": ranked,
    }
