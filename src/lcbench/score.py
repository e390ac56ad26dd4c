"""Score one cell: mteb's task class scores what our encoder encodes, and the items are kept.

Scores come from mteb alone. What is computed here is beside them: one row an item (a query, a pair
of sentences, a text, a document with its summaries), from mteb's own predictions and the embeddings
at hand.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mteb
import numpy as np
import pyarrow as pa
from datasets import Dataset

# The one place where mteb puts a document's title and text, or a query and its instruction,
# together; written again here it could differ from what was encoded.
from mteb._create_dataloaders import _retrieval_texts
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskMultilabelClassification,
    AbsTaskRegression,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.types import PromptType

from lcbench.encode.encoder import Counters, Encoder, role_of
from lcbench.results import SUBQUERIES, digest_of_items, is_possible, lowest_score
from lcbench.tasks.contents import DataError, load
from lcbench.tasks.suites import parts_of

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.results import TaskResult

# Scores of queries with the whole corpus that are held at once (256 MiB), and documents that are
# compared with them at once: a similarity makes copies.
_RANK_SCORES = 2**26
_RANK_DOCUMENTS = 2**16

# mteb derives these from classification, but what they predict is no label.
_CLASSIFIES_OTHERWISE = (AbsTaskMultilabelClassification, AbsTaskRegression)

ITEMS_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("subset", pa.string()),
        # A query's id (of sub-queries, what their ids have in common); else the position in the
        # split (and, for clusterings, in the set).
        ("id", pa.string()),
        # Tokens that the model reads of the item, and of the second text of a pair: of sub-queries,
        # the longest; of a document with summaries the longest machine summary, as mteb encodes
        # its summaries and not itself.
        ("tokens", pa.int32()),
        ("tokens_2", pa.int32()),
        # The item's part of the main score: a query's nDCG, AP …, or that of its sub-queries
        # together; a pair's cosine; the share of experiments that classify a text rightly; a
        # document's correlation of its summaries' similarities with their grades, as its task
        # averages it (SummEval's first version: the mean of Spearman's ρ and its p-value). Null for
        # clusterings, whose sets have scores, in mteb's result, but their texts have none.
        ("score", pa.float64()),
        # What is true of it: a pair's similarity, a text's label.
        ("gold", pa.string()),
        # What was predicted: the label in each experiment, or the cluster.
        ("predictions", pa.list_(pa.string())),
        # Of a query: every relevant document, its grade, its tokens, and its rank over the whole
        # corpus (1 = first), or among the candidates where the task reranks.
        (
            "relevant",
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("grade", pa.int32()),
                        ("tokens", pa.int32()),
                        ("rank", pa.int32()),
                    ]
                )
            ),
        ),
    ]
)


@dataclass(frozen=True)
class Scored:
    """What scoring a cell gave.

    Attributes:
        result: mteb's.
        items: one row an item, in the schema above; None for types of tasks without.
        counters: what the encoder did for it.
        without_items: why there are no items, if there are none.
        items_of_data: digest of what the items are, as far as the data alone says it: ids, labels
            and relevant documents, without scores and ranks; None where they go by the model.
        differs: how its data differs from what mteb knows the dataset by, in one line each.
        seconds: all in all.
        seconds_load: of them, for loading the data.
        seconds_items: of them, for collecting the items.
    """

    result: TaskResult
    items: pa.Table | None
    counters: Counters
    without_items: str | None
    items_of_data: str | None
    differs: tuple[str, ...]
    seconds: float
    seconds_load: float
    seconds_items: float

    def provenance(self) -> dict[str, Any]:
        """Return what a provenance file says of texts and times."""
        work = asdict(self.counters)
        del work["seen"]
        encode, wait = work.pop("seconds"), work.pop("seconds_wait")
        others = encode + wait + self.seconds_load + self.seconds_items
        return {
            **work,
            "seconds": self.seconds,
            "seconds_load": self.seconds_load,
            "seconds_encode": encode,
            "seconds_wait": wait,
            "seconds_items": self.seconds_items,
            "seconds_score": self.seconds - others,
            "without_items": self.without_items,
            "items_of_data": self.items_of_data,
        }


def score(task: AbsTask, encoder: Encoder, *, unverified: bool = False) -> Scored:
    """Score a task with mteb and collect its items.

    An aggregate is scored part by part, and combined by mteb's own rule; its items are those of
    its parts, whose names take the place of the subset.

    Args:
        task: pointed at its data.
        encoder: of its texts.
        unverified: whether data may have another number of texts than mteb knows its dataset by.

    Raises:
        whatever mteb, the data or the model raises: the caller records it.
    """
    if not isinstance(task, AbsTaskAggregate):
        return _score_one(task, encoder, unverified)
    scored = [
        (part.metadata.name, _score_one(part, encoder, unverified)) for part in parts_of(task)
    ]
    tables = [
        one.items.set_column(
            ITEMS_SCHEMA.get_field_index("subset"), "subset", [[name] * len(one.items)]
        ).cast(ITEMS_SCHEMA)
        for name, one in scored
        if one.items is not None
    ]
    missing = [f"{name}: {one.without_items}" for name, one in scored if one.items is None]
    return Scored(
        result=task.combine_task_results([one.result for _, one in scored]),
        items=None if missing else pa.concat_tables(tables),
        counters=_sum_of([one.counters for _, one in scored]),
        without_items="; ".join(missing) or None,
        items_of_data=_joined_digests([one.items_of_data for _, one in scored]),
        differs=tuple(line for _, one in scored for line in one.differs),
        seconds=sum(one.seconds for _, one in scored),
        seconds_load=sum(one.seconds_load for _, one in scored),
        seconds_items=sum(one.seconds_items for _, one in scored),
    )


def _sum_of(counters: Sequence[Counters]) -> Counters:
    total = Counters()
    for one in counters:
        total.texts += one.texts
        total.unique_texts += one.unique_texts
        total.encoded_texts += one.encoded_texts
        total.encoded_tokens += one.encoded_tokens
        total.padded_tokens += one.padded_tokens
        total.seconds += one.seconds
        total.seconds_wait += one.seconds_wait
        total.prompts.update(one.prompts)
    return total


def _score_one(task: AbsTask, encoder: Encoder, unverified: bool) -> Scored:
    started = time.perf_counter()
    encoder.counters = Counters()
    differs = load(task)
    if not unverified and (wrong := [one for one in differs if not one.is_tolerable]):
        # The request was refused for it before; so it has changed since.
        raise DataError("; ".join(map(str, wrong)))
    loaded = time.perf_counter()
    per_query: _PerQuery = {}
    if isinstance(task, AbsTaskRetrieval):
        _keep_queries(task, per_query)
    if isinstance(task, AbsTaskClassification):
        _keep_columns(task)
    try:
        with tempfile.TemporaryDirectory(prefix="lcbench-") as folder:
            outcome = mteb.evaluate(
                encoder,
                task,
                co2_tracker=False,
                cache=None,
                overwrite_strategy="always",
                prediction_folder=folder,
                show_progress_bar=False,
                encode_kwargs={"batch_size": 1024, "show_progress_bar": False},
            )
            (result,) = outcome.task_results
            _check_range(result, task.metadata.main_score)
            # The items below ask the encoder again for what it has encoded: not counted.
            counters, encoder.counters = encoder.counters, Counters()
            scored = time.perf_counter()
            try:
                rows = _items(task, result, encoder, Path(folder), per_query)
                items = None if rows is None else pa.Table.from_pylist(list(rows), ITEMS_SCHEMA)
                without_items = None if items is not None else f"none for {task.metadata.type}"
            # mteb's score stands, whatever a task of a form not foreseen here does to its items.
            except Exception as error:
                items, without_items = None, f"{type(error).__name__}: {error}"
    finally:
        task.unload_data()
    # What the items asked for is encoding and waiting as well, though no text of mteb's.
    asked = encoder.counters
    counters.seconds += asked.seconds
    counters.seconds_wait += asked.seconds_wait
    return Scored(
        result=result,
        items=items,
        counters=counters,
        without_items=without_items,
        items_of_data=None if items is None else _items_of_data(task, items),
        differs=tuple(map(str, differs)),
        seconds=time.perf_counter() - started,
        seconds_load=loaded - started,
        seconds_items=time.perf_counter() - scored - asked.seconds - asked.seconds_wait,
    )


def _check_range(result: TaskResult, metric: str) -> None:
    """See that main scores can be such.

    Args:
        result: mteb's.
        metric: name of the main score.

    Raises:
        ValueError: one cannot, naming its split and subset.
    """
    lowest = lowest_score(metric)
    for split, entries in result.scores.items():
        for entry in entries:
            if not is_possible(entry["main_score"], lowest):
                raise ValueError(
                    f"{result.task_name}, split {split}, subset {entry['hf_subset']}: a main score "
                    f"of {entry['main_score']} is none: {metric} is between {lowest} and 1"
                )


def _items_of_data(task: AbsTask, items: pa.Table) -> str | None:
    """Return the digest of what a task's items are; None where that goes by the model as well.

    Two cells of one dataset have the same, at whatever temperature. Which documents are items of a
    summarisation goes by their similarities, and so does which documents of sub-queries are ranked.
    """
    if isinstance(task, AbsTaskSummarization):
        return None
    return digest_of_items(items, relevant=not task.metadata.main_score.startswith(SUBQUERIES))


def _joined_digests(digests: Sequence[str | None]) -> str | None:
    if None in digests:
        return None
    return hashlib.sha256(" ".join(map(str, digests)).encode()).hexdigest()


class _WithLists(Dataset):  # type: ignore[misc]
    """A dataset that gives a whole column as a list, and keeps it.

    Its own columns are read by the row, 0.1 ms each. mteb looks up every single label of a training
    split, ten times over, to draw from it, and hands the labels of the test split to a dozen
    metrics in each experiment: 3 s a draw and 2 s an experiment for EmotionClassification, whose
    regressions take 0.05 s.
    """

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        kept: dict[str, list[Any]] = self.__dict__.setdefault("_lcbench_columns", {})
        if key not in kept:
            kept[key] = list(super().__getitem__(key))
        return kept[key]


def _keep_columns(task: AbsTaskClassification) -> None:
    """Let the labels of a task's splits be looked up at once; the data stays the same."""
    found: Any = task.dataset
    for splits in (found, *found.values()):
        for split in splits.values() if isinstance(splits, dict) else ():
            if type(split) is Dataset:
                # The task has it for itself.
                split.__class__ = _WithLists


# By split and subset, of every query: its metrics, or its documents' similarities.
_PerQuery = dict[tuple[str, str], Mapping[str, Mapping[str, float]]]


def _keep_queries(task: AbsTaskRetrieval, kept: _PerQuery) -> None:
    """Keep the metrics of every query, which mteb hands to this hook and then averages.

    Where sub-queries are scored together their own metrics have no part in the score (and MIND has
    2.4 million of them): what is kept are the similarities that mteb merges.
    """
    original: Callable[..., dict[str, float]] = task.task_specific_scores
    merges = task.metadata.main_score.startswith(SUBQUERIES)

    def hook(
        scores: dict[str, dict[str, float]],
        qrels: Any,
        results: dict[str, dict[str, float]],
        hf_split: str,
        hf_subset: str,
    ) -> dict[str, float]:
        kept[hf_split, hf_subset] = results if merges else scores
        return original(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

    task.task_specific_scores = hook  # type: ignore[method-assign]


def _items(
    task: AbsTask,
    result: TaskResult,
    encoder: Encoder,
    folder: Path,
    per_query: _PerQuery,
) -> Iterator[dict[str, Any]] | None:
    """Return one row an item, or None for a type of task that has none here."""
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
    rows = zip(*tokens, data["score"], predictions["cosine_scores"], strict=True)
    for i, (length, length_2, gold, cosine) in enumerate(rows):
        yield {
            "id": str(i),
            "tokens": length,
            "tokens_2": length_2,
            "gold": str(gold),
            "score": cosine,
        }


def _classification_items(
    task: AbsTaskClassification, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    labels = [str(label) for label in data[task.label_column_name]]
    prompt = encoder.prompt_of(task.metadata, None)
    lengths = encoder.lengths(list(data[task.input_column_name]), prompt)
    for i, (label, length) in enumerate(zip(labels, lengths, strict=True)):
        predicted = [str(experiment[i]) for experiment in predictions]
        yield {
            "id": str(i),
            "tokens": length,
            "gold": label,
            "predictions": predicted,
            "score": sum(one == label for one in predicted) / len(predicted),
        }


def _clustering_items(
    task: AbsTaskClusteringLegacy, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    # mteb leaves sets of a single label out of its predictions.
    sets = [one for one in data if len(set(one[task.label_column_name])) > 1]
    for number, (one, clusters) in enumerate(zip(sets, predictions, strict=True)):
        prompt = encoder.prompt_of(task.metadata, None)
        lengths = encoder.lengths(one[task.input_column_name], prompt)
        labels = one[task.label_column_name]
        for i, row in enumerate(zip(labels, lengths, clusters, strict=True)):
            label, length, cluster = row
            yield {
                "id": f"{number}/{i}",
                "tokens": length,
                "gold": str(label),
                "predictions": [str(cluster)],
            }


def _summary_items(
    task: AbsTaskSummarization, data: Any, predictions: Any, encoder: Encoder
) -> Iterator[dict[str, Any]]:
    # mteb's own rule, of one document at a time: the score is the mean of what it gives.
    metrics: Callable[..., Any] = task.evaluator._calculate_metrics
    summaries = list(data[task.machine_summaries_column_name])
    prompt = encoder.prompt_of(task.metadata, None)
    lengths = iter(encoder.lengths([text for several in summaries for text in several], prompt))
    longest = [max(next(lengths) for _ in several) for several in summaries]
    # As mteb has them in its predictions.
    grades = [
        ((np.array(one) - task.min_score) / (task.max_score - task.min_score)).tolist()
        for one in data[task.relevancy_column_name]
    ]
    place = -1
    for i, own in enumerate(predictions["human_scores"]):
        # mteb leaves out documents whose grades or similarities are all the same, and says not
        # which. The next document with these grades is the one: two with the same are not known.
        place = grades.index(own, place + 1)
        document = {name: [values[i]] for name, values in predictions.items()}
        yield {
            "id": str(place),
            "tokens": longest[place],
            "score": metrics(None, document)[task.metadata.main_score],
        }


def _retrieval_items(
    task: AbsTaskRetrieval, encoder: Encoder, per_query: _PerQuery
) -> Iterator[dict[str, Any]]:
    for (split, subset), metrics in per_query.items():
        data = task.dataset[subset][split]
        queries = _texts_by_id(data["queries"], PromptType.query)
        corpus = _texts_by_id(data["corpus"], PromptType.document)
        ranks = _ranks(task, data, queries, corpus, encoder)
        tokens = _tokens_by_id(task, encoder, corpus, PromptType.document)
        lengths = _tokens_by_id(task, encoder, queries, PromptType.query)
        for query, length in lengths.items():
            yield {
                "split": split,
                "subset": subset,
                "id": query,
                "tokens": length,
                "score": _query_metric(metrics.get(query, {}), task.metadata.main_score),
                "relevant": [
                    {"id": id_, "grade": grade, "tokens": tokens[id_], "rank": ranks[query, id_]}
                    for id_, grade in data["relevant_docs"][query].items()
                    if (query, id_) in ranks
                ],
            }


def _subquery_items(
    task: AbsTaskRetrieval, encoder: Encoder, per_query: _PerQuery
) -> Iterator[dict[str, Any]]:
    """Return one row for all sub-queries of a query, which mteb scores together.

    A document's similarity is its largest to any of them (mteb's `max_over_subqueries`). Ranks are
    those among the documents that mteb kept for any of them: all candidates, up to 1,000 each.
    """
    metric = task.metadata.main_score.removeprefix(SUBQUERIES)
    for split, subset in list(per_query):
        data = task.dataset[subset][split]
        members: dict[str, list[str]] = {}
        for query in data["relevant_docs"]:
            members.setdefault(query.rpartition("_")[0], []).append(query)
        # Tens of millions of similarities for MIND: let go of as soon as they are merged.
        results = per_query.pop((split, subset))
        merged = {query: _largest([results[one] for one in own]) for query, own in members.items()}
        del results
        # As mteb has it: the same for all sub-queries.
        grades = {query: data["relevant_docs"][own[-1]] for query, own in members.items()}
        scores = calculate_retrieval_scores(merged, grades, list(task.k_values)).all_scores
        queries = _texts_by_id(data["queries"], PromptType.query)
        corpus = _texts_by_id(data["corpus"], PromptType.document)
        tokens = _tokens_by_id(task, encoder, corpus, PromptType.document)
        lengths = _tokens_by_id(task, encoder, queries, PromptType.query)
        # mteb groups the judgments by query in another order each time that it reads them; items
        # have to be the same at every temperature.
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
                "score": _query_metric(scores[query], metric),
                "relevant": [
                    {
                        "id": id_,
                        "grade": grade,
                        "tokens": tokens[id_],
                        "rank": 1 + int((similarities > merged[query][id_]).sum()),
                    }
                    for id_, grade in grades[query].items()
                    if grade > 0 and id_ in merged[query]
                ],
            }


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
    """Return a query's own value of the main score; None where mteb keeps none per query."""
    name, _, cut = main_score.rpartition("_at_")
    return metrics.get(f"{_PER_QUERY.get(name, name)}_{cut}")


def _texts_by_id(rows: Any, prompt_type: PromptType) -> dict[str, str]:
    """Return the texts of queries or documents as the model reads them, by id."""
    return dict(zip(rows["id"], _retrieval_texts(rows, prompt_type), strict=True))


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

    Over the whole corpus (mteb keeps its first 1,000), or among a query's candidates. A document
    that is the query itself is no rival where the task leaves it out.
    """
    place = {id_: i for i, id_ in enumerate(corpus)}
    of_document = encoder.prompt_of(task.metadata, PromptType.document)
    of_query = encoder.prompt_of(task.metadata, PromptType.query)
    documents = encoder.embed(list(corpus.values()), "document", of_document)
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
            if task.ignore_identical_ids and query in place:
                row[place[query]] = -np.inf
            pool = row if candidates is None else row[[place[id_] for id_ in candidates]]
            for id_ in _relevant(data, query, place, candidates):
                ranks[query, id_] = 1 + int((pool > row[place[id_]]).sum())
    return ranks


def _relevant(
    data: Any, query: str, place: dict[str, int], candidates: Sequence[str] | None
) -> list[str]:
    """Return the relevant documents that can be found: in the corpus, and among the candidates."""
    among = place if candidates is None else set(candidates)
    grades = data["relevant_docs"][query]
    return [id_ for id_, grade in grades.items() if grade > 0 and id_ in among and id_ in place]
