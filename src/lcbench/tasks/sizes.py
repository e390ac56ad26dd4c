"""How many texts and characters a model has to encode for a task, told without its data.

The numbers are those of the descriptive statistics that mteb ships, read as files; those of the
docs suite are its texts' own. A size that is nowhere stated is unknown, and never guessed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from lcbench.tasks.docs.names import DOCS_TYPES, SYNTHETIC_TASKS
from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, clusterings, select
from lcbench.tasks.registry import Drawing, TaskEntry, registry
from lcbench.tasks.suites import Part
from lcbench.tempscale.policy import Role

# What mteb has statistics of, and encodes nothing of: the text that was summarised.
_NOT_ENCODED = {("Summarization", "text_statistics")}
# Samples of a classification that says nothing else (mteb's `AbsTaskClassification.n_experiments`).
_DRAWS = 10


@dataclass(frozen=True)
class Texts:
    """Texts of one kind that a model encodes for a task.

    Attributes:
        origin: which texts they are: texts of the same origin are all among the largest of them.
        count: how many, repetitions included.
        unique: how many different ones, over one column of the dataset: a text that stands in two
            columns (a pair's first and second) counts in both.
        characters: of all `count` of them.
        role: which temperature a policy by role gives them.
        drawn_rows: rows of the train split that are gone through to draw them, each once a sample.
        fitted_labels: labels of the classifiers that are fitted on them, each once a sample.
    """

    origin: str
    count: int
    unique: int
    characters: int
    role: Role = "document"
    drawn_rows: int = 0
    fitted_labels: int = 0


def texts_of(part: Part, docs: DocsSizes) -> tuple[Texts, ...] | None:
    """Return the texts that a model encodes for a task, or None where that is not known.

    Of a classification these are the texts that are scored, and the samples of the train split: of
    those the expected number of different texts, since which are drawn is mteb's seed's to say.

    Args:
        part: what is scored of the task.
        docs: sizes of the docs suite; those of its synthetic tasks are not known before the window
            is (`DocsSizes.at`).

    Raises:
        RequestError: the docs suite asks for more texts than there are.
    """
    if part.name in SYNTHETIC_TASKS:
        return _of_synthetic(part.name, docs.synthetic)
    if part.name in DOCS_TYPES:
        return _of_docs(part.name, docs)
    entry = registry().tasks[part.name]
    if not entry.parts:
        return _of_task(entry, part.splits, part.subsets)
    own = [registry().tasks[name] for name in entry.parts]
    narrowed = part.splits != entry.splits
    texts = [_of_task(one, part.splits if narrowed else one.splits, part.subsets) for one in own]
    known = [one for one in texts if one is not None]
    return tuple(chain.from_iterable(known)) if len(known) == len(texts) else None


def _of_task(
    entry: TaskEntry, splits: Sequence[str], subsets: Sequence[str] | None
) -> tuple[Texts, ...] | None:
    drawing = entry.drawing
    every = tuple(entry.subsets) if entry.divided else None
    # A limit on what is scored holds for each subset by itself, and so does a sample.
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
    """Return how many texts each column of a split has, as mteb's statistics name the columns.

    Args:
        entry: the task.
        split: of it; also the one that it is trained on.
        subset: of it; None: the task is not divided.

    Returns:
        `text1`, `documents_text` … to numbers; nothing of what mteb has no statistics of.
    """
    (statistics,) = _statistics_of(entry, split, None if subset is None else [subset])
    return {
        column.removesuffix("_statistics"): _count(value)
        for column, value in statistics.content.items()
        if isinstance(value, Mapping) and "total_text_length" in value
    }


@dataclass(frozen=True)
class _Statistics:
    """mteb's statistics of a split of a task, or of a subset of it; empty where it has none."""

    kind: str
    name: str
    content: Mapping[str, Any]

    def texts(self) -> list[Texts | None]:
        """Return the texts of each column that is encoded; None in the place of what is unknown."""
        columns = {
            column.removesuffix("_statistics"): value
            for column, value in self.content.items()
            if isinstance(value, Mapping)
            and "total_text_length" in value
            and (self.kind, column) not in _NOT_ENCODED
        }
        # Of retrieval one alone: the other is not made of text, or not stated.
        if set(columns) in (set(), {"queries_text"}, {"documents_text"}):
            return [None]
        return [
            Texts(
                origin=f"{self.name}/{column}",
                count=_count(value),
                unique=value["unique_texts"],
                characters=value["total_text_length"],
                # Of retrieval and reranking; of no other type has mteb such a column.
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
    """Return a task's statistics by split, from where `TaskMetadata.descriptive_stat_path` is."""
    spec = importlib.util.find_spec("mteb")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).parent / "descriptive_stats" / kind / f"{task}.json"
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _count(statistics: Mapping[str, Any]) -> int:
    """Return how many texts there are, which mteb states by their total and average length."""
    average = statistics["average_text_length"]
    return round(statistics["total_text_length"] / average) if average else 0


def _limited(texts: Texts, most: int | None, share: float | None) -> Texts:
    """Return what is left of a column of which mteb scores a part, drawn at random."""
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
    )


def _drawn(train: _Statistics, drawing: Drawing) -> Texts | None:
    """Return what is drawn of a train split, or None where its statistics do not say."""
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
        _sample(every, round(sum(_union(count, size, drawing.draws) for count in counts))),
        drawn_rows=drawing.draws * every.count,
        fitted_labels=drawing.draws * len(labels),
    )


def _union(texts: int, size: int, draws: int) -> float:
    """Return how many of `texts` are in any of `draws` random samples of `size`, on average."""
    return texts * (1 - (1 - min(1.0, size / texts)) ** draws) if texts else 0.0


def _of_docs(name: str, sizes: DocsSizes) -> tuple[Texts, ...]:
    selection = select(sizes)
    documents, long = selection.documents, selection.long_documents
    bodies = _docstrings("bodies", [doc.body for doc in documents])
    if DOCS_TYPES[name] == "Classification":
        # Half of them are the train split.
        rows, labels = len(documents) // 2, len({doc.library for doc in documents})
        return (replace(bodies, drawn_rows=_DRAWS * rows, fitted_labels=_DRAWS * labels),)
    if DOCS_TYPES[name] == "Clustering":
        drawn = list(chain.from_iterable(clusterings(selection)))
        if name.endswith("S2S"):
            return (_docstrings("summaries", [doc.summary for doc in drawn]),)
        return (_docstrings("bodies", [doc.body for doc in drawn]),)
    if name == "DocstringLongRetrieval":
        return (
            _docstrings("long summaries", [doc.summary for doc in long], "query"),
            _docstrings("long bodies", [doc.body for doc in long]),
        )
    return (_docstrings("summaries", [doc.summary for doc in documents], "query"), bodies)


def _of_synthetic(name: str, sizes: SyntheticSizes) -> tuple[Texts, ...] | None:
    if sizes.lengths is None:
        return None
    from lcbench.tasks.docs import haystacks

    by_length = haystacks.hidden(name, sizes)
    # The queries are the same at every length.
    queries = [one.query for made in by_length.values() for one in made]
    documents = [
        _docstrings(f"{name}/{length}", [one.document for one in made])
        for length, made in by_length.items()
    ]
    return (_docstrings(f"{name}/queries", queries, "query"), *documents)


def _docstrings(kind: str, texts: Sequence[str], role: Role = "document") -> Texts:
    return Texts(f"docstrings/{kind}", len(texts), len(set(texts)), sum(map(len, texts)), role)


def rounded(number: int) -> str:
    """Return a number in three digits: `1,400`, `84.3 k`, `2.27 M`, `21.9 G`."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= max(factor, 10**4):
            return f"{float(f'{number / factor:.3g}'):,g} {letter}"
    return f"{number:,}"
