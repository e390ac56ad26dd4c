"""Scores a task with mteb, and collects the items of the score.

Scores come from mteb alone. In addition, one row per item (query, pair, text, document with
summaries) is collected from mteb's predictions and the embeddings.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mteb
import pyarrow as pa
from datasets import Dataset

# mteb's own code that joins a document's title and text, or a query and its instruction. A copy of
# it here could differ from what was encoded.
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskRetrieval,
    AbsTaskSummarization,
)
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from lcbench.encode.encoder import Counters, Encoder
from lcbench.hub.contents import DataError, load
from lcbench.results.content import SUBQUERIES, is_possible, lowest_score
from lcbench.results.items import ITEMS_SCHEMA, digest_of_items
from lcbench.score.correct import fit_to
from lcbench.score.items import PerQuery, items_of
from lcbench.system.thirdparty import score_any_two_labels
from lcbench.tasks.limit import limit_data
from lcbench.tasks.mteb_tasks import parts_of

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.results import TaskResult

    from lcbench.repair.correction import Correction


@dataclass(frozen=True)
class Scored:
    """The outcome of scoring a cell.

    Attributes:
        result: mteb's.
        items: one row per item, in the schema above; None for types of tasks without items.
        counters: counts of texts and tokens, and times, of the encoder.
        without_items: reason if there are no items; else None.
        items_of_data: digest of the items' content that the data alone determines: ids, labels and
            relevant documents, without scores and ranks; None if items depend on the model.
        differs: differences of its data from mteb's statistics of the dataset, in one line each.
        corrections: what the correction of each part was fitted on; none without a correction.
        seconds: total time.
        seconds_load: time for loading the data.
        seconds_items: time for collecting the items.
    """

    result: TaskResult
    items: pa.Table | None
    counters: Counters
    without_items: str | None
    items_of_data: str | None
    differs: tuple[str, ...]
    corrections: tuple[Mapping[str, Any], ...]
    seconds: float
    seconds_load: float
    seconds_items: float

    def provenance(self) -> dict[str, Any]:
        """Return the counts and times for a provenance file."""
        work = asdict(self.counters)
        del work["seen"]
        if not work["encoded_chunks"]:
            del work["encoded_chunks"]
        vectors, texts = work.pop("vectors"), work.pop("vectors_of")
        if texts:
            work["vectors_per_document"] = vectors / texts
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
            **({"corrections": list(self.corrections)} if self.corrections else {}),
        }


def score(
    task: AbsTask,
    encoder: Encoder,
    *,
    unverified: bool = False,
    limit: int | None = None,
    correction: Correction | None = None,
) -> Scored:
    """Score a task with mteb and collect its items.

    The parts of an aggregate are scored separately and combined by mteb's own rule; its items are
    those of its parts, with the name of the part as the subset.

    Args:
        task: task that was pointed at its data.
        encoder: encoder of its texts.
        unverified: whether data may have another number of texts than mteb's statistics.
        limit: number of items scored in each split and subset; None: all.
        correction: correction of the embeddings, fitted to each part, if any.

    Raises:
        any error of mteb, the data or the model; the caller records it.
    """
    if not isinstance(task, AbsTaskAggregate):
        return _score_one(task, encoder, unverified, limit, correction)
    scored = [
        (part.metadata.name, _score_one(part, encoder, unverified, limit, correction))
        for part in parts_of(task)
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
        corrections=tuple(record for _, one in scored for record in one.corrections),
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
        total.encoded_chunks += one.encoded_chunks
        total.vectors += one.vectors
        total.vectors_of += one.vectors_of
        total.seconds += one.seconds
        total.seconds_wait += one.seconds_wait
        total.prompts.update(one.prompts)
    return total


def _score_one(
    task: AbsTask,
    encoder: Encoder,
    unverified: bool,
    limit: int | None,
    correction: Correction | None,
) -> Scored:
    started = time.perf_counter()
    encoder.counters, encoder.correction = Counters(), None
    corrections: list[Mapping[str, Any]] = []
    differs = load(task)
    if not unverified and (wrong := [one for one in differs if not one.is_tolerable]):
        # An earlier check would have refused it, so the data has changed since.
        raise DataError("; ".join(map(str, wrong)))
    cut = ExitStack()
    if limit is not None:
        cut.enter_context(limit_data(task, limit))
    loaded = time.perf_counter()
    per_query: PerQuery = {}
    if isinstance(task, AbsTaskRetrieval):
        _keep_queries(task, per_query)
    if isinstance(task, AbsTaskClassification):
        _keep_columns(task)
        score_any_two_labels(task)
    try:
        if correction is not None:
            encoder.correction, record = fit_to(task, encoder, correction)
            corrections.append(record)
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
            # Collecting items requests embeddings a second time, which is not counted.
            counters, encoder.counters = encoder.counters, Counters()
            scored = time.perf_counter()
            try:
                rows = items_of(task, result, encoder, Path(folder), per_query)
                items = None if rows is None else pa.Table.from_pylist(list(rows), ITEMS_SCHEMA)
                without_items = None if items is not None else f"none for {task.metadata.type}"
            # An unforeseen form of task may break the items; mteb's score is valid all the same.
            except Exception as error:
                items, without_items = None, f"{type(error).__name__}: {error}"
    finally:
        cut.close()
        task.unload_data()
    # Requests for items also take encoding and waiting time, although they add no texts.
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
        corrections=tuple(corrections),
        seconds=time.perf_counter() - started,
        seconds_load=loaded - started,
        seconds_items=time.perf_counter() - scored - asked.seconds - asked.seconds_wait,
    )


def _check_range(result: TaskResult, metric: str) -> None:
    """Check that main scores are within the range of their metric.

    Args:
        result: mteb's.
        metric: name of the main score.

    Raises:
        ValueError: one is not; the message names its split and subset.
    """
    lowest = lowest_score(metric)
    for split, entries in result.scores.items():
        for entry in entries:
            if not is_possible(entry["main_score"], lowest):
                raise ValueError(
                    f"{result.task_name}, split {split}, subset {entry['hf_subset']}: a main score "
                    f"of {entry['main_score']} is impossible: {metric} is between {lowest} and 1"
                )


def _items_of_data(task: AbsTask, items: pa.Table) -> str | None:
    """Return the digest of a task's items; None if they also depend on the model.

    Cells of one dataset have the same digest at all temperatures. In summarisation the similarities
    determine which documents are items, and with sub-queries which documents are ranked.
    """
    if isinstance(task, AbsTaskSummarization):
        return None
    return digest_of_items(items, relevant=not task.metadata.main_score.startswith(SUBQUERIES))


def _joined_digests(digests: Sequence[str | None]) -> str | None:
    if None in digests:
        return None
    return hashlib.sha256(" ".join(map(str, digests)).encode()).hexdigest()


class _WithLists(Dataset):  # type: ignore[misc]
    """A dataset that returns columns as lists and caches them.

    Columns of `datasets` are read row by row, which takes 0.1 ms each. mteb looks up every label of
    a training split, ten times over, to draw samples, and passes the labels of the test split to a
    dozen metrics in each experiment: 3 s per draw and 2 s per experiment for EmotionClassification,
    whose regressions take 0.05 s.
    """

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        kept: dict[str, list[Any]] = self.__dict__.setdefault("_lcbench_columns", {})
        if key not in kept:
            kept[key] = list(super().__getitem__(key))
        return kept[key]


def _keep_columns(task: AbsTaskClassification) -> None:
    """Cache the label columns of a task's splits; the data stays the same."""
    found: Any = task.dataset
    for splits in (found, *found.values()):
        for split in splits.values() if isinstance(splits, dict) else ():
            if type(split) is Dataset:
                # The task has its own copy.
                split.__class__ = _WithLists


def _keep_queries(task: AbsTaskRetrieval, kept: PerQuery) -> None:
    """Keep the metrics of every query, which mteb passes to this hook before it averages them.

    If sub-queries are scored together, the score does not depend on their own metrics (of which
    MIND has 2.4 million), so the similarities that mteb merges are kept instead.
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
