"""Checks the data of a loaded task: values that cannot be scored, and numbers of texts.

mteb or the encoder would fail on a missing text in the middle of their work, and would not notice a
dataset with fewer rows than it should have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lcbench.errors import RequestError
from lcbench.hub.datasets import digest_of, is_plain, may_lack_files
from lcbench.tasks.registry import registry
from lcbench.tasks.sizes import counts_of

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

# A training split is sampled, not scored: this share may be missing or added without changing the
# score more than another sample would. (The public copy of MASSIVE's that is known to
# lack some lacks 4 of 11,514 rows.)
_TRAIN_TOLERANCE = 0.001
# Errors of some libraries list every known format.
_LONGEST_REASON = 400
# The remark if mteb states no number of texts.
_UNKNOWN = "mteb does not state the number of texts"


class DataError(Exception):
    """A task's data is unsuitable for the task."""


@dataclass(frozen=True)
class Difference:
    """A number of texts that differs from mteb's statistics.

    Attributes:
        place: task, split, subset and column.
        counted: number of texts found; None: their layout is unknown.
        expected: number of texts in mteb's statistics; None: not stated.
        scored: whether they are scored; else classifiers are trained on samples of them.
    """

    place: str
    counted: int | None
    expected: int | None
    scored: bool

    @property
    def is_tolerable(self) -> bool:
        """Whether the difference is small enough to score the data under the dataset's name."""
        if self.counted is None or self.expected is None:
            return True
        off = abs(self.counted - self.expected)
        return not self.scored and off <= _TRAIN_TOLERANCE * self.expected

    def __str__(self) -> str:
        """Return it in words."""
        if self.counted is None:
            return f"{self.place}: its texts cannot be counted"
        if self.expected is None:
            return f"{self.place}: {self.counted:,} texts; {_UNKNOWN}"
        return f"{self.place}: {self.counted:,} texts, mteb counts {self.expected:,}"


@dataclass(frozen=True)
class _Column:
    """A column of a split.

    Attributes:
        place: task, split, subset and column, for messages.
        values: values of all rows.
        kind: required content: texts, turns of conversations or texts, labels of any type, or
            numbers.
        nested: whether a row may hold a list of values.
        split: name of the split.
        subset: name of the subset.
        statistics: mteb's name for the texts.
        scored: whether the split is scored, not only used for training.
    """

    place: str
    values: pa.ChunkedArray
    kind: Literal["text", "turns", "label", "number"]
    nested: bool
    split: str
    subset: str
    statistics: str | None
    scored: bool


def load(task: AbsTask) -> list[Difference]:
    """Load a task's data, check that it can be scored, and count its texts.

    Returns:
        differences from mteb's statistics, for a plain folder or a snapshot that may lack files. A
        commit of the hub whose files all match its tree is the dataset by definition.

    Raises:
        DataError: naming the task, the split, the column, the row, and the folder.
    """
    name, path = task.metadata.name, str(task.metadata.dataset["path"])
    # Name the folder itself, not the link through which it is read.
    folder = str(Path(path).resolve()) if Path(path).is_absolute() else path
    plain = is_plain(task)
    counted = plain or may_lack_files(task)
    try:
        with _each_opened_once():
            task.load_data()
        # mteb does the same before scoring tasks that load their data in an older layout.
        if hasattr(task, "convert_v1_dataset_format_to_v2"):
            task.convert_v1_dataset_format_to_v2(num_proc=None)
    except Exception as error:
        inner = _innermost(error)
        reason = " ".join(f"{type(inner).__name__}: {inner}".replace(path, folder).split())
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} …"
        raise DataError(f"{folder} could not be loaded for {name} ({reason})") from error
    if plain and digest_of(Path(folder)) != task.metadata.revision:
        raise DataError(f"{folder} was changed while it was being read; run the same command again")
    columns = []
    try:
        for column in _columns(task):
            _check(column)
            columns.append(column)
    except DataError as error:
        raise DataError(f"{folder} cannot be scored: {error}") from error
    # The task has its own data layout, which mteb may be able to score.
    except Exception:
        return [Difference(name, None, None, scored=True)] if counted else []
    return _differences(name, columns) if counted else []


@contextmanager
def _each_opened_once() -> Iterator[None]:
    """Open a dataset once that a task asks for again and again while it loads.

    Some of mteb's tasks, such as LongEmbed's needle, open it three times for each of eight splits,
    which takes a second: longer than scoring what is in it, and anew for each temperature.
    """
    import datasets

    original = datasets.load_dataset
    # Features, which may be among the arguments, cannot be hashed.
    opened: list[tuple[Any, Any]] = []

    def load_dataset(*given: Any, **options: Any) -> Any:
        asked = (given, options)
        found = next((there for one, there in opened if one == asked), None)
        if found is None:
            found = original(*given, **options)
            opened.append((asked, found))
        # A task may replace splits of what it was given.
        return type(found)(found) if isinstance(found, dict) else found

    datasets.load_dataset = load_dataset
    try:
        yield
    finally:
        datasets.load_dataset = original


def documents_in(task: AbsTask) -> list[str]:
    """Return the texts of a loaded task: of a retrieval task its documents, else all that it has.

    A document is its title and its text, as mteb joins them for encoding.

    Raises:
        DataError: it has no texts, or a layout of its own.
    """
    from mteb.abstasks import AbsTaskRetrieval

    texts: list[str] = []
    if isinstance(task, AbsTaskRetrieval):
        for columns in _by_place(_columns(task)):
            titles = columns.get("title") or [""] * len(columns["text"])
            texts += [
                f"{title or ''} {text}".strip()
                for title, text in zip(titles, columns["text"], strict=True)
            ]
    else:
        for column in _columns(task):
            if column.kind == "text" and column.scored:
                values = column.values.to_pylist()
                texts += (
                    [text for row in values for text in row]
                    if values and isinstance(values[0], list)
                    else values
                )
    if not texts:
        raise DataError(f"{task.metadata.name} has no texts that could be measured")
    return texts


def queries_in(task: AbsTask) -> list[str]:
    """Return the queries of a loaded task, if it has any, but for conversations."""
    return [
        text
        for column in _columns(task)
        if column.kind == "turns" and column.statistics == "queries_text"
        for text in column.values.to_pylist()
        if isinstance(text, str)
    ]


def training_texts_in(task: AbsTask) -> list[str]:
    """Return the texts of a loaded task's training split; none if it declares none."""
    return [
        text
        for column in _columns(task)
        if column.kind == "text" and column.split == getattr(task, "train_split", None)
        for text in column.values.to_pylist()
    ]


def _by_place(columns: Iterable[_Column]) -> Iterator[dict[str, list[str]]]:
    """Yield the title and text of each corpus."""
    corpora: dict[str, dict[str, list[str]]] = {}
    for column in columns:
        place, _, name = column.place.rpartition(", column ")
        if place.endswith(", corpus") and name in ("title", "text"):
            corpora.setdefault(place, {})[name] = column.values.to_pylist()
    yield from corpora.values()


def refuse(differences: Sequence[Difference]) -> RequestError:
    """Return the error for data that differs from the dataset it is named after."""
    listed = "\n  ".join(map(str, differences))
    return RequestError(
        f"The data of these tasks differs from mteb's statistics:\n  {listed}\nFix or remove the "
        "mirror's folder. To replace an incomplete snapshot of the hub's cache: "
        "`python -m lcbench prefetch KEYS mirror=PATH`. If it is intentionally another dataset, "
        "unverified_data=true scores it and marks its scores."
    )


def _innermost(error: BaseException) -> BaseException:
    seen = {id(error)}
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        if id(inner) in seen:
            break
        seen.add(id(inner))
        error = inner
    return error


def _differences(name: str, columns: Sequence[_Column]) -> list[Difference]:
    entry = registry().tasks.get(name)
    if entry is None:
        return []
    differences, compared = [], False
    for column in columns:
        if column.statistics is None:
            continue
        subset = column.subset if entry.divided else None
        expected = counts_of(entry, column.split, subset).get(column.statistics)
        if expected is None:
            continue
        compared = compared or column.scored
        values = column.values
        while _is_list(values.type):
            values = pc.list_flatten(values)
        if len(values) != expected:
            differences.append(Difference(column.place, len(values), expected, column.scored))
    if not compared:
        texts = sum(len(one.values) for one in columns if one.kind in {"text", "turns"})
        differences.append(Difference(name, texts, None, scored=True))
    return differences


def _check(column: _Column) -> None:
    """Check that a column has the required content.

    Raises:
        DataError: naming the row.
    """
    values, place = column.values, column.place
    rows: Any = None
    if not len(values):
        raise DataError(f"{place} has no rows")
    while True:
        if values.null_count:
            first = pc.index(values.is_null(), True).as_py()
            row = first if rows is None else rows[first].as_py()
            raise DataError(f"{place}, row {row} (counted from 0): the value is missing (null)")
        if not (column.nested and _is_list(values.type)):
            break
        parents = pc.list_parent_indices(values.combine_chunks())
        rows = parents if rows is None else rows.take(parents)
        values = pc.list_flatten(values)
    kind = values.type
    if pa.types.is_floating(kind) and (nans := pc.is_nan(values)) and pc.any(nans).as_py():
        first = pc.index(nans, True).as_py()
        row = first if rows is None else rows[first].as_py()
        raise DataError(f"{place}, row {row} (counted from 0): it is not a number (NaN)")
    if column.kind == "number" and not _is_number(kind) and len(values):
        raise DataError(f"{place} holds {kind}, not numbers")
    if column.kind == "text" and not _is_text(kind) and len(values):
        raise DataError(f"{place} holds {kind}, not texts")
    if column.kind == "turns" and _is_number(kind):
        raise DataError(f"{place} holds {kind}, not texts")


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _columns(task: Any) -> Iterator[_Column]:
    """Yield the columns that a task of a known mteb type reads; nothing for other types.

    Raises:
        DataError: a column or a split is missing.
    """
    from mteb.abstasks import AbsTaskBitextMining, AbsTaskRetrieval

    readers, name = _readers(task), task.metadata.name
    if task.dataset is None or not (readers or isinstance(task, AbsTaskRetrieval)):
        return
    parallel = isinstance(task, AbsTaskBitextMining) and task.parallel_subsets
    if task.metadata.is_multilingual and not parallel:
        missing = [subset for subset in task.hf_subsets if subset not in task.dataset]
        if missing:
            raise DataError(f"it lacks subsets that {name} needs: {', '.join(missing)}")
    for split in _splits(task):
        scored = split in task.eval_splits
        for subset in task.hf_subsets:
            there: Any = task.dataset
            if subset in there:
                there = there[subset]
            if split not in there:
                listed = ", ".join(map(str, there)) or "none"
                raise DataError(f"{_place(name, split, subset)} is missing; there are: {listed}")
            data = there[split]
            if isinstance(task, AbsTaskRetrieval):
                yield from _of_retrieval(name, data, split, subset)
                continue
            if isinstance(data, list) and len(data) == 1:
                # mteb's first layout of pairs had all of them in one row.
                data = data[0]
            chosen = readers
            if parallel:
                first, second = subset.split("-")
                chosen = (("sentence1", first, "text", True), ("sentence2", second, "text", True))
            for statistics, column, kind, nested in chosen:
                place = f"{_place(name, split, subset)}, column {column}"
                yield _Column(
                    place=place,
                    values=_values(data, column, place),
                    kind=kind,
                    nested=nested,
                    split=split,
                    subset=subset,
                    statistics=statistics,
                    scored=scored,
                )


_Reader = tuple[str | None, str, Literal["text", "turns", "label", "number"], bool]


def _readers(task: Any) -> tuple[_Reader, ...]:
    """Return the columns of a task type: mteb's name for the texts, column, kind, nesting."""
    from mteb.abstasks import (
        AbsTaskBitextMining,
        AbsTaskClassification,
        AbsTaskClustering,
        AbsTaskMultilabelClassification,
        AbsTaskPairClassification,
        AbsTaskRegression,
        AbsTaskSTS,
        AbsTaskSummarization,
    )
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy

    if isinstance(task, AbsTaskSTS):
        first, second = task.column_names
        pair: tuple[_Reader, ...] = (
            ("text1", str(first), "text", False),
            ("text2", str(second), "text", False),
            (None, "score", "number", False),
        )
        return pair
    if isinstance(task, AbsTaskPairClassification):
        return (
            ("text1", str(task.input1_column_name), "text", True),
            ("text2", str(task.input2_column_name), "text", True),
            (None, task.label_column_name, "label", True),
        )
    if isinstance(task, AbsTaskClassification):
        kind: Literal["label", "number"] = (
            "number" if isinstance(task, AbsTaskRegression) else "label"
        )
        several = isinstance(task, AbsTaskMultilabelClassification)
        return (
            ("text", str(task.input_column_name), "text", False),
            (None, task.label_column_name, kind, several),
        )
    if isinstance(task, AbsTaskClustering | AbsTaskClusteringLegacy):
        return (
            ("text", str(task.input_column_name), "text", True),
            (None, task.label_column_name, "label", True),
        )
    if isinstance(task, AbsTaskBitextMining):
        return (
            ("sentence1", "sentence1", "text", True),
            ("sentence2", "sentence2", "text", True),
        )
    if isinstance(task, AbsTaskSummarization):
        return (
            ("text", task.text_column_name, "text", False),
            ("human_summaries", task.human_summaries_column_name, "text", True),
            ("machine_summaries", task.machine_summaries_column_name, "text", True),
            (None, task.relevancy_column_name, "number", True),
        )
    return ()


def _splits(task: Any) -> list[str]:
    """Return the splits that a task scores, and its training split."""
    from mteb.abstasks import AbsTaskClassification

    splits = list(task.eval_splits)
    trains = isinstance(task, AbsTaskClassification) and not task.is_cross_validation
    if trains and task.train_split not in splits:
        splits.append(task.train_split)
    return splits


def _of_retrieval(name: str, data: Mapping[str, Any], split: str, subset: str) -> Iterator[_Column]:
    place = _place(name, split, subset)
    kinds: tuple[tuple[str, str, Literal["text", "turns"]], ...] = (
        ("corpus", "documents_text", "text"),
        # A query may be a conversation, whose turns mteb joins.
        ("queries", "queries_text", "turns"),
    )
    for part, statistics, kind in kinds:
        rows = data[part]
        title: tuple[_Reader, ...] = (
            ((None, "title", "text", False),)
            if part == "corpus" and "title" in rows.column_names
            else ()
        )
        readers: tuple[_Reader, ...] = (
            (None, "id", "label", False),
            (statistics, "text", kind, False),
            *title,
        )
        for counted, column, needs, nested in readers:
            where = f"{place}, {part}, column {column}"
            yield _Column(
                place=where,
                values=_values(rows, column, where),
                kind=needs,
                nested=nested,
                split=split,
                subset=subset,
                statistics=counted,
                scored=True,
            )
    grades = data["relevant_docs"]
    if not grades:
        raise DataError(f"{place}: no query has a relevant document")
    for query, documents in grades.items():
        for document, grade in documents.items():
            if not isinstance(grade, int | float) or grade != grade:
                raise DataError(
                    f"{place}, relevant documents: the grade of {document} for query {query} is "
                    f"{grade!r}, not a number"
                )


def _place(name: str, split: str, subset: str) -> str:
    return f"{name}, split {split}" + ("" if subset == "default" else f", subset {subset}")


def _values(data: Any, column: str, place: str) -> pa.ChunkedArray:
    """Return a column as Arrow stores it, without decoding.

    Raises:
        DataError: it is missing.
    """
    from datasets import Dataset

    there = data.column_names if isinstance(data, Dataset) else list(data)
    if column not in there:
        raise DataError(f"{place} is missing; there are: {', '.join(map(str, there))}")
    if isinstance(data, Dataset):
        return data.select_columns([column]).with_format("arrow")[:][column]
    try:
        return pa.chunked_array([pa.array(list(data[column]))])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{place} holds values of several types ({error})") from error
