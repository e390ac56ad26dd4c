"""Numbers of texts and characters that a model encodes for an mteb task, without its data.

They come from the descriptive statistics that mteb ships as files. A size that is not stated is
unknown and never guessed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lcbench.tasks.registry import Drawing, TaskEntry
from lcbench.tasks.source import Texts

# Tokens that a tokenizer adds to a text: [CLS] and [SEP].
SPECIAL_TOKENS = 2
# Texts with statistics that mteb does not encode: summarised texts.
_NOT_ENCODED = {("Summarization", "text_statistics")}


def texts_of_entry(
    entry: TaskEntry, splits: Sequence[str], subsets: Sequence[str] | None
) -> tuple[Texts, ...] | None:
    """Return the texts that a model encodes for a task (not an aggregate); None if unknown.

    Args:
        entry: the task.
        splits: scored splits.
        subsets: scored subsets; None: all.
    """
    drawing = entry.drawing
    every = tuple(entry.subsets) if entry.divided else None
    # Limits and samples apply to each subset separately.
    scored = (subsets or every) if drawing.most is not None else subsets
    found: list[Texts | None] = [
        text if text is None else _limited(text, drawing.most, drawing.share)
        for split in splits
        for one in _statistics_of(entry, split, scored)
        for text in one.texts()
    ]
    if drawing.train_split is not None and drawing.train_split not in splits:
        for one in _statistics_of(entry, drawing.train_split, subsets or every):
            found.append(_drawn(one, drawing))
    known = tuple(text for text in found if text is not None)
    return known if len(known) == len(found) else None


def counts_of(entry: TaskEntry, split: str, subset: str | None) -> dict[str, int]:
    """Return the number of texts in each column of a split, by the names in mteb's statistics.

    Args:
        entry: the task.
        split: a split, which may be the training split.
        subset: a subset; None: the task is not divided.

    Returns:
        Numbers by name (`text1`, `documents_text` …); columns without statistics are left out.
    """
    (statistics,) = _statistics_of(entry, split, None if subset is None else [subset])
    return {
        column.removesuffix("_statistics"): _count(value)
        for column, value in statistics.content.items()
        if isinstance(value, Mapping) and "total_text_length" in value
    }


@dataclass(frozen=True)
class _Statistics:
    """mteb's statistics of a split of a task, or of a subset of it; empty if there are none."""

    kind: str
    name: str
    content: Mapping[str, Any]

    def texts(self) -> list[Texts | None]:
        """The texts of each encoded column; None if unknown."""
        columns = {
            column.removesuffix("_statistics"): value
            for column, value in self.content.items()
            if isinstance(value, Mapping)
            and "total_text_length" in value
            and (self.kind, column) not in _NOT_ENCODED
        }
        # Retrieval with one of them only: the other is not text, or not stated.
        if set(columns) in (set(), {"queries_text"}, {"documents_text"}):
            return [None]
        return [
            Texts(
                origin=f"{self.name}/{column}",
                count=_count(value),
                unique=value["unique_texts"],
                characters=value["total_text_length"],
                # Only retrieval and reranking have such a column in mteb.
                role="query" if column == "queries_text" else "document",
            )
            for column, value in columns.items()
        ]


def _statistics_of(
    entry: TaskEntry, split: str, subsets: Sequence[str] | None
) -> Iterator[_Statistics]:
    """Yield the statistics of a split as a whole, or of some of its subsets."""
    whole = _file_of(entry.kind, entry.name).get(split, {})
    name = f"{entry.name}/{split}"
    if subsets is None:
        yield _Statistics(entry.kind, name, whole)
    else:
        by_subset = whole.get("hf_subset_descriptive_stats", {})
        for one in subsets:
            yield _Statistics(entry.kind, f"{name}/{one}", by_subset.get(one, {}))


@lru_cache(maxsize=64)
def _file_of(kind: str, task: str) -> Mapping[str, Any]:
    """Return a task's statistics by split, from `TaskMetadata.descriptive_stat_path`."""
    spec = importlib.util.find_spec("mteb")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / "descriptive_stats" / kind / f"{task}.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _count(statistics: Mapping[str, Any]) -> int:
    """Return the number of texts, which mteb states by their total and average length."""
    average = statistics["average_text_length"]
    return round(statistics["total_text_length"] / average) if average else 0


def _limited(texts: Texts, most: int | None, share: float | None) -> Texts:
    """Return the scored part of a column of which mteb draws a random sample."""
    count = texts.count if share is None else int(share * texts.count)
    return _sample(texts, count if most is None else min(most, count))


def _sample(texts: Texts, count: int) -> Texts:
    if count >= texts.count:
        return texts
    return replace(
        texts,
        count=count,
        unique=min(count, texts.unique),
        characters=round(texts.characters * count / texts.count),
        drawn_from=texts.unique,
    )


def _drawn(train: _Statistics, drawing: Drawing) -> Texts | None:
    """Return the samples drawn from a train split, or None if its statistics do not state them."""
    every = train.texts()[0]
    if every is None:
        return None
    counts = [every.count]
    labels = (train.content.get("label_statistics") or {}).get("labels") or {}
    if drawing.per_label is not None:
        if not labels:
            return None
        counts = [label["count"] for label in labels.values()]
    size = drawing.per_label or drawing.per_draw or 0
    return replace(
        _sample(every, round(sum(expected_union(count, size, drawing.draws) for count in counts))),
        drawn_rows=drawing.draws * every.count,
        fitted_labels=drawing.draws * len(labels),
    )


def expected_union(texts: int, size: int, draws: int) -> float:
    """Return how many of `texts` are in any of `draws` random samples of `size`, on average."""
    return texts * (1 - (1 - min(1.0, size / texts)) ** draws) if texts else 0.0


def rounded(number: int) -> str:
    """Return a number in three digits: `1,400`, `84.3 k`, `2.27 M`, `21.9 G`."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= max(factor, 10**4):
            return f"{float(f'{number / factor:.3g}'):,g} {letter}"
    return f"{number:,}"
