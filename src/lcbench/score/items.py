"""Collects the items of a score (queries, pairs, texts, clusters) from mteb's evaluators."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskMultilabelClassification,
    AbsTaskRegression,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.types import PromptType

from lcbench.encode.encoder import Encoder, role_of
from lcbench.results.content import SUBQUERIES
from lcbench.system.thirdparty import retrieval_scores, retrieval_texts, summary_metrics

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.results import TaskResult

# Maximum number of scores of queries with the whole corpus in memory (256 MiB), and of documents
# per similarity call, which makes copies.
_RANK_SCORES = 2**26
_RANK_DOCUMENTS = 2**16

# mteb derives these from classification, but they do not predict labels.
_CLASSIFIES_OTHERWISE = (AbsTaskMultilabelClassification, AbsTaskRegression)

# Metrics of every query, or similarities of its documents, by split and subset.
PerQuery = dict[tuple[str, str], Mapping[str, Mapping[str, float]]]


def items_of(
    task: AbsTask,
    result: TaskResult,
    encoder: Encoder,
    folder: Path,
    per_query: PerQuery,
) -> Iterator[dict[str, Any]] | None:
    """Return one row per item; None for types of tasks whose items are not collected."""
    if isinstance(task, AbsTaskRetrieval):
        if task.metadata.main_score.startswith(SUBQUERIES):
            return _subquery_items(task, encoder, per_query)
        return _retrieval_items(task, encoder, per_query)
    if getattr(task, "is_cross_validation", False) or isinstance(task, _CLASSIFIES_OTHERWISE):
        return None
    readers: tuple[tuple[type, Callable[..., Iterator[dict[str, Any]]]], ...] = (
        (AbsTaskSTS, _pair_items),
        (AbsTaskClassification, _classification_items),
        (AbsTaskClusteringLegacy, _clustering_items),
        (AbsTaskSummarization, _summary_items),
    )
    for kind, reader in readers:
        if isinstance(task, kind):
            predictions = json.loads(
                (folder / task.prediction_file_name).read_text(encoding="utf-8")
            )
            return _over_subsets(task, result, predictions, encoder, reader)
    return None


def _over_subsets(
    task: AbsTask,
    result: TaskResult,
    predictions: dict[str, Any],
    encoder: Encoder,
    reader: Callable[..., Iterator[dict[str, Any]]],
) -> Iterator[dict[str, Any]]:
    dataset: Any = task.dataset
    for split, entries in result.scores.items():
        for entry in entries:
            subset = entry["hf_subset"]
            for row in reader(
                task, dataset.get(subset, dataset)[split], predictions[subset][split], encoder
            ):
                yield {"split": split, "subset": subset, **row}


def _pair_items(
    task: AbsTaskSTS, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    first, second = task.column_names
    kinds = (task.input1_prompt_type, task.input2_prompt_type)
    tokens = [
        encoder.lengths(list(data[column]), encoder.prompt_of(task.metadata, kind), role_of(kind))
        for column, kind in zip((first, second), kinds, strict=True)
    ]
    characters = [map(len, data[column]) for column in (first, second)]
    shares = map(_shares, zip(data[first], data[second], strict=True))
    cosines = predictions["cosine_scores"]
    rows = zip(*tokens, *characters, data["score"], cosines, shares, strict=True)
    for i, (length, length_2, own, own_2, gold, cosine, shared) in enumerate(rows):
        yield {
            "id": str(i),
            "tokens": length,
            "tokens_2": length_2,
            "characters": own,
            "characters_2": own_2,
            "gold": str(gold),
            "score": cosine,
            "shares": shared,
        }


def _classification_items(
    task: AbsTaskClassification, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    labels = [str(label) for label in data[task.label_column_name]]
    prompt = encoder.prompt_of(task.metadata, None)
    texts = list(data[task.input_column_name])
    lengths = encoder.lengths(texts, prompt)
    for i, (text, label, length) in enumerate(zip(texts, labels, lengths, strict=True)):
        predicted = [str(experiment[i]) for experiment in predictions]
        right = [one == label for one in predicted]
        yield {
            "id": str(i),
            "tokens": length,
            "characters": len(text),
            "gold": label,
            "predictions": predicted,
            "score": sum(right) / len(right),
            "right": _bits(right),
            "shares": _shares([text]),
        }


def _clustering_items(
    task: AbsTaskClusteringLegacy, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    # mteb's predictions leave out sets with a single label.
    sets = [one for one in data if len(set(one[task.label_column_name])) > 1]
    for number, (one, clusters) in enumerate(zip(sets, predictions, strict=True)):
        prompt = encoder.prompt_of(task.metadata, None)
        texts = one[task.input_column_name]
        lengths, shares = encoder.lengths(texts, prompt), _shares(texts)
        labels = one[task.label_column_name]
        for i, row in enumerate(zip(texts, labels, lengths, clusters, strict=True)):
            text, label, length, cluster = row
            yield {
                "id": f"{number}/{i}",
                "tokens": length,
                "characters": len(text),
                "gold": str(label),
                "predictions": [str(cluster)],
                "shares": shares,
            }


def _summary_items(
    task: AbsTaskSummarization, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    # mteb's own rule, applied to each document separately: the score is the mean of the results.
    metrics: Callable[..., Any] = summary_metrics(task)
    summaries = list(data[task.machine_summaries_column_name])
    prompt = encoder.prompt_of(task.metadata, None)
    lengths = iter(encoder.lengths([text for several in summaries for text in several], prompt))
    longest = [max(next(lengths) for _ in several) for several in summaries]
    # In the order of mteb's predictions.
    grades = [
        ((np.array(one) - task.min_score) / (task.max_score - task.min_score)).tolist()
        for one in data[task.relevancy_column_name]
    ]
    position = -1
    for i, own in enumerate(predictions["human_scores"]):
        # mteb leaves out documents whose grades or similarities are all equal, without saying
        # which. They are matched by their grades, which differ between all known documents.
        position = grades.index(own, position + 1)
        document = {name: [values[i]] for name, values in predictions.items()}
        yield {
            "id": str(position),
            "tokens": longest[position],
            "characters": max(map(len, summaries[position])),
            "score": metrics(None, document)[task.metadata.main_score],
            "shares": _shares([data[task.text_column_name][position]]),
        }


def _retrieval_items(
    task: AbsTaskRetrieval, encoder: Encoder, per_query: PerQuery
) -> Iterator[dict[str, Any]]:
    for (split, subset), metrics in per_query.items():
        data = task.dataset[subset][split]
        queries = _texts_by_id(data["queries"], PromptType.query)
        corpus = _texts_by_id(data["corpus"], PromptType.document)
        ranks = _ranks(task, data, queries, corpus, encoder)
        tokens = _tokens_by_id(task, encoder, corpus, PromptType.document)
        lengths = _tokens_by_id(task, encoder, queries, PromptType.query)
        shares = _query_shares(
            {query: [text] for query, text in queries.items()}, data["relevant_docs"], corpus
        )
        for query, length in lengths.items():
            yield {
                "split": split,
                "subset": subset,
                "id": query,
                "tokens": length,
                "characters": len(queries[query]),
                "score": _query_metric(metrics.get(query, {}), task.metadata.main_score),
                "relevant": [
                    {
                        "id": id_,
                        "grade": grade,
                        "tokens": tokens[id_],
                        "characters": len(corpus[id_]),
                        "rank": ranks[query, id_],
                    }
                    for id_, grade in data["relevant_docs"][query].items()
                    if (query, id_) in ranks
                ],
                "shares": shares[query],
            }


def _subquery_items(
    task: AbsTaskRetrieval, encoder: Encoder, per_query: PerQuery
) -> Iterator[dict[str, Any]]:
    """Return one row per query for its sub-queries, which mteb scores together.

    A document's similarity is its maximum over the sub-queries (mteb's `max_over_subqueries`).
    Ranks are among all documents that mteb kept for any sub-query: all candidates, up to 1,000
    each.
    """
    metric = task.metadata.main_score.removeprefix(SUBQUERIES)
    for split, subset in list(per_query):
        data = task.dataset[subset][split]
        members: dict[str, list[str]] = {}
        for query in data["relevant_docs"]:
            members.setdefault(query.rpartition("_")[0], []).append(query)
        # MIND has tens of millions of similarities, which are freed as soon as they are merged.
        results = per_query.pop((split, subset))
        merged = {query: _largest([results[one] for one in own]) for query, own in members.items()}
        del results
        # As in mteb, the same for all sub-queries.
        grades = {query: data["relevant_docs"][own[-1]] for query, own in members.items()}
        scores = retrieval_scores(merged, grades, task.k_values)
        queries = _texts_by_id(data["queries"], PromptType.query)
        corpus = _texts_by_id(data["corpus"], PromptType.document)
        tokens = _tokens_by_id(task, encoder, corpus, PromptType.document)
        lengths = _tokens_by_id(task, encoder, queries, PromptType.query)
        asked = {query: [queries[one] for one in own] for query, own in members.items()}
        shares = _query_shares(asked, grades, corpus)
        # mteb groups the judgments by query in a different order at each reading, but items must be
        # the same at every temperature.
        for query in dict.fromkeys(one.rpartition("_")[0] for one in data["queries"]["id"]):
            if query not in members:
                continue
            own = members[query]
            similarities = np.fromiter(merged[query].values(), dtype=np.float64)
            yield {
                "split": split,
                "subset": subset,
                "id": query,
                "tokens": max(lengths[one] for one in own),
                "characters": max(len(queries[one]) for one in own),
                "score": _query_metric(scores[query], metric),
                "relevant": [
                    {
                        "id": id_,
                        "grade": grade,
                        "tokens": tokens[id_],
                        "characters": len(corpus[id_]),
                        "rank": 1 + int((similarities > merged[query][id_]).sum()),
                    }
                    for id_, grade in grades[query].items()
                    if grade > 0 and id_ in merged[query]
                ],
                "shares": shares[query],
            }


def _query_shares(
    queries: Mapping[str, Collection[str]],
    grades: Mapping[str, Mapping[str, int]],
    corpus: Mapping[str, str],
) -> dict[str, list[str]]:
    """Return digests of what queries share with others: their text and relevant documents.

    Several relevant documents only count together: through single ones, nearly all queries of some
    tasks would be linked. A text that several queries of a split have, such as "What is the
    passkey?", is a mere phrase, and does not identify what is searched for.

    Args:
        queries: texts of each query; several if sub-queries are scored together.
        grades: grades of documents, by query.
        corpus: texts of documents, by id.
    """
    own = {query: _shares(texts) for query, texts in queries.items()}
    times = Counter(text for (text,) in own.values())
    shares = {}
    for query, (text,) in own.items():
        relevant = [corpus[id_] for id_, g in grades[query].items() if g > 0 and id_ in corpus]
        unlike = [text] if times[text] == 1 else []
        shares[query] = unlike + (_shares(relevant) if relevant else [])
    return shares


def _shares(texts: Collection[str]) -> list[str]:
    """Return one digest of several texts, independent of their order.

    mteb strips documents with titles, but not the texts of other tasks.
    """
    digest = hashlib.blake2b(digest_size=8)
    for text in sorted({text.strip() for text in texts}):
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return [digest.hexdigest()]


def _bits(flags: Sequence[bool]) -> int | None:
    """Return booleans as the bits of a number; None if there are too many."""
    return None if len(flags) > 63 else sum(1 << place for place, flag in enumerate(flags) if flag)


def _largest(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the largest value of each key."""
    found: dict[str, float] = {}
    for one in several:
        for key, value in one.items():
            if value > found.get(key, -np.inf):
                found[key] = value
    return found


# mteb's name of a metric at a cut → that of pytrec_eval, which mteb keeps per query.
_PER_QUERY = {
    "ndcg": "ndcg_cut",
    "map": "map_cut",
    "recall": "recall",
    "precision": "P",
    "hit_rate": "success",
}


def _query_metric(metrics: Mapping[str, float], main_score: str) -> float | None:
    """Return a query's value of the main score; None if mteb keeps none per query."""
    name, _, cut = main_score.rpartition("_at_")
    return metrics.get(f"{_PER_QUERY.get(name, name)}_{cut}")


def _texts_by_id(rows: Any, prompt_type: PromptType) -> dict[str, str]:
    """Return the texts of queries or documents as the model reads them, by id."""
    return dict(zip(rows["id"], retrieval_texts(rows, prompt_type), strict=True))


def _tokens_by_id(
    task: AbsTaskRetrieval, encoder: Encoder, texts: dict[str, str], prompt_type: PromptType
) -> dict[str, int]:
    """Return the tokens that the model reads of queries or documents, by id."""
    prompt = encoder.prompt_of(task.metadata, prompt_type)
    lengths = encoder.lengths(list(texts.values()), prompt, role_of(prompt_type))
    return dict(zip(texts, lengths, strict=True))


def _ranks(
    task: AbsTaskRetrieval,
    data: Any,
    queries: dict[str, str],
    corpus: dict[str, str],
    encoder: Encoder,
) -> dict[tuple[str, str], int]:
    """Return the rank of every relevant document of every query: 1 + the documents before it.

    Ranks are over the whole corpus (of which mteb keeps the first 1,000), or among a query's
    candidates. If the task ignores documents identical to the query, they are not counted.
    """
    positions = {id_: i for i, id_ in enumerate(corpus)}
    of_document = encoder.prompt_of(task.metadata, PromptType.document)
    of_query = encoder.prompt_of(task.metadata, PromptType.query)
    documents = encoder.vectors(list(corpus.values()), "document", of_document)
    vectors = encoder.embed(list(queries.values()), "query", of_query)
    ids = list(queries)
    ranks: dict[tuple[str, str], int] = {}
    step = max(1, _RANK_SCORES // max(1, len(corpus)))
    for start in range(0, len(ids), step):
        some = vectors[start : start + step]
        scores = np.concatenate(
            [
                encoder.similarity(some, documents[first : first + _RANK_DOCUMENTS]).numpy()
                for first in range(0, len(documents), _RANK_DOCUMENTS)
            ],
            axis=1,
        )
        for query, row in zip(ids[start : start + step], scores, strict=True):
            candidates = data["top_ranked"][query] if data["top_ranked"] else None
            if task.ignore_identical_ids and query in positions:
                row[positions[query]] = -np.inf
            pool = row if candidates is None else row[[positions[id_] for id_ in candidates]]
            for id_ in _relevant(data, query, positions, candidates):
                ranks[query, id_] = 1 + int((pool > row[positions[id_]]).sum())
    return ranks


def _relevant(
    data: Any, query: str, place: dict[str, int], candidates: Sequence[str] | None
) -> list[str]:
    """Return the relevant documents that can be found: in the corpus, and among the candidates."""
    among = place if candidates is None else set(candidates)
    grades = data["relevant_docs"][query]
    return [id_ for id_, grade in grades.items() if grade > 0 and id_ in among and id_ in place]
