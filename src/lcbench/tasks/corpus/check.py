"""Reads the items of a task from its files, and checks every row.

What cannot be right ends with the file, the line and the remedy. Rows that have nothing to score,
such as an empty text, are left out and counted.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lcbench.tasks.corpus.digests import Numbers, number_of
from lcbench.tasks.corpus.plan import OwnTask, Table
from lcbench.tasks.corpus.read import Row, read_rows, wrong

# A shorter first sentence is an abbreviation or a number more often than a sentence: "Dr. Smith".
_SHORTEST_SENTENCE = 20
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"'”’)\]]*\s+|\s*\n\s*|(?<=[。！？])")
_NAMES_OF_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "validation": None,
    "valid": None,
    "dev": None,
}

LeftOut = Counter[str]
"""Rows that are left out of a task, by reason."""


@dataclass(frozen=True)
class Query:
    """A query of a retrieval task."""

    id: str
    text: str


@dataclass(frozen=True)
class Document:
    """A document of a retrieval task; without a title, `title` is empty."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Judgement:
    """How relevant a document is for a query; from 1 on it is."""

    query: str
    document: str
    grade: int


@dataclass(frozen=True)
class Labelled:
    """A text with its label, in the train or test part."""

    text: str
    label: str | int
    part: str


@dataclass(frozen=True)
class ScoredPair:
    """Two texts and how similar they are."""

    first: str
    second: str
    score: float


def queries_of(task: OwnTask, left_out: LeftOut) -> Iterator[Query]:
    """Yield the queries of a retrieval task; each text once, unless the file has ids."""
    table = task.table("queries")
    if table is None:
        for query, _, _ in search_rows_of(task, left_out):
            if query is not None:
                yield query
        return
    seen = _Ids(table)
    for row in _rows(table):
        id_ = seen.add(row)
        text = _text(table, row, "text")
        if text is None:
            left_out["queries without a text"] += 1
        else:
            yield Query(id_, text)


def documents_of(task: OwnTask, left_out: LeftOut) -> Iterator[Document]:
    """Yield the documents of a retrieval task; each text once, unless the file has ids."""
    table = task.table("corpus")
    if table is None:
        for _, document, _ in search_rows_of(task, left_out):
            if document is not None:
                yield document
        return
    seen = _Ids(table)
    for row in _rows(table):
        id_ = seen.add(row)
        title, text = _text(table, row, "title") or "", _text(table, row, "text") or ""
        if title or text:
            yield Document(id_, text, title)
        else:
            left_out["documents without a text"] += 1


def judgements_of(task: OwnTask, left_out: LeftOut) -> Iterator[Judgement]:
    """Yield the judgements of a retrieval task, without looking for what they judge."""
    table = task.table("qrels")
    if table is None:
        for _, _, judgement in search_rows_of(task, left_out):
            yield judgement
        return
    for row in _rows(table):
        yield judgement_of(table, row)


def judgement_of(table: Table, row: Row) -> Judgement:
    """Return the judgement of a row.

    Raises:
        RequestError: it has no ids, or no whole number.
    """
    query, document = _id(table, row, "query"), _id(table, row, "id")
    value = _value(table, row, "score")
    if value is None:
        value = ""
    try:
        grade = float(value)
    except (TypeError, ValueError):
        grade = math.nan
    if not grade.is_integer() or isinstance(value, bool):
        raise wrong(
            table.rows,
            row.line,
            f"the grade {_shown(value)} is not a whole number (0: not relevant, 1: relevant).",
        )
    return Judgement(query, document, int(grade))


def search_rows_of(
    task: OwnTask, left_out: LeftOut
) -> Iterator[tuple[Query | None, Document | None, Judgement]]:
    """Yield a query, its document and their judgement for each row; None for a repeated text."""
    table = _table(task, "rows")
    asks = "query" if table.column("query") else "title" if table.column("title") else None
    queries, documents = Numbers(), Numbers()
    for number, row in enumerate(_rows(table)):
        text = _text(table, row, "text")
        if text is None:
            left_out["rows without a text"] += 1
            continue
        if asks is not None:
            query = _text(table, row, asks)
            if query is None:
                left_out[f"rows without a {asks}"] += 1
                continue
        else:
            query, text = first_sentence(text)
            if not text:
                left_out["texts of one sentence"] += 1
                continue
        asked = queries.add(number_of(query), number)
        found = documents.add(number_of(text), number)
        query_id, document_id = f"q{asked}", f"d{found}"
        yield (
            Query(query_id, query) if asked == number else None,
            Document(document_id, text) if found == number else None,
            Judgement(query_id, document_id, 1),
        )


def first_sentence(text: str) -> tuple[str, str]:
    """Return a text's first sentence and the rest, which is empty if there is none."""
    text = text.strip()
    for end in _SENTENCE_END.finditer(text, _SHORTEST_SENTENCE):
        first, rest = text[: end.end()].strip(), text[end.end() :].strip()
        if rest:
            return first, rest
    return text, ""


def labelled_of(task: OwnTask, left_out: LeftOut) -> Iterator[Labelled]:
    """Yield labelled texts in their order.

    Texts that are not divided by files or by a column go to the train and the test part by turns,
    for each label.
    """
    several: dict[str | int, int] = {}
    first: tuple[type, str] | None = None
    for table in task.tables:
        for row in _rows(table):
            part = table.part if table.part in ("train", "test") else None
            if part is None and table.column("split"):
                part = _part(table, row)
                if part is None:
                    left_out["rows of other splits than train and test"] += 1
                    continue
            text, label = _text(table, row, "text"), _label(table, row)
            if text is None or label is None:
                left_out[f"rows without a {'text' if text is None else 'label'}"] += 1
                continue
            if first is None:
                first = type(label), row.line
            elif type(label) is not first[0]:
                raise wrong(
                    table.rows,
                    row.line,
                    f"the label {_shown(label)} is {_kind(label)}, and that of {first[1]} is "
                    f"{'a text' if first[0] is str else 'a number'}. Write all of them in one way.",
                )
            if part is None:
                several[label] = several.get(label, 0) + 1
                part = "train" if several[label] % 2 else "test"
            yield Labelled(text, label, part)


def scored_pairs_of(task: OwnTask, left_out: LeftOut) -> Iterator[ScoredPair]:
    """Yield pairs of texts with their scores."""
    table = _table(task, "rows")
    column = table.column("score")
    for row in _rows(table):
        first, second = _text(table, row, "text_a"), _text(table, row, "text_b")
        value = _value(table, row, "score")
        if first is None or second is None:
            left_out["pairs without a text"] += 1
            continue
        if value is None or value == "":
            left_out["pairs without a score"] += 1
            continue
        try:
            score = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise wrong(
                table.rows,
                row.line,
                f"the score {_shown(value)} (column {column}) is not a number.",
            )
        yield ScoredPair(first, second, score)


def unlabelled_texts_of(task: OwnTask) -> Iterator[str]:
    """Yield the texts of a task without queries, labels and scores.

    Those of a corpus with their titles, as mteb joins them; of texts in a train and a test part
    those of the train part; of pairs both texts. An unlabelled text is whole, not without its first
    sentence.
    """
    if task.table("corpus") is not None:
        for document in documents_of(task, Counter()):
            yield f"{document.title} {document.text}".strip()
        return
    roles = ("text_a", "text_b") if task.kind == "sts" else ("text",)
    for table in task.tables:
        for row in _rows(table):
            part = _part(table, row) if table.column("split") else table.part
            if task.is_divided and part != "train":
                continue
            for role in roles:
                text = _text(table, row, role)
                if text is not None:
                    yield text


class _Ids:
    """The ids of a file, none of which may come twice."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._seen = Numbers()

    def add(self, row: Row) -> str:
        """Return the id of a row.

        Raises:
            RequestError: it has none, or an earlier row has the same.
        """
        id_ = _id(self._table, row, "id")
        number = number_of(id_)
        if number in self._seen:
            first = next(one for one in _rows(self._table) if _id(self._table, one, "id") == id_)
            raise wrong(
                self._table.rows,
                row.line,
                f"the id {_shown(id_)} is that of {first.line} as well. Ids are unique: rename or "
                "remove one of them.",
            )
        self._seen.add(number)
        return id_


def _table(task: OwnTask, part: str) -> Table:
    table = task.table(part)
    if table is None:
        raise AssertionError(f"{task.name} has no {part}")
    return table


def _rows(table: Table) -> Iterator[Row]:
    return read_rows(table.rows, [column for _, column in table.columns])


def _value(table: Table, row: Row, role: str) -> Any:
    """Return the value of a row; None if it has none, which data frames write as NaN."""
    column = table.column(role)
    value = None if column is None else row.values.get(column)
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(table: Table, row: Row, role: str) -> str | None:
    """Return the text of a row, or None if it has none or an empty one.

    Raises:
        RequestError: it is not a text.
    """
    column, value = table.column(role), _value(table, row, role)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong(
            table.rows,
            row.line,
            f"the column {column} holds {_kind(value)} ({_shown(value)}), not a text. Write it in "
            "quotes, or map another column.",
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(
            table.rows,
            row.line,
            f"the column {column} holds half a character (a lone surrogate such as \\ud83d). Write "
            "the file anew as UTF-8.",
        ) from None
    return value if value.strip() else None


def _id(table: Table, row: Row, role: str) -> str:
    column, value = table.column(role), _value(table, row, role)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise wrong(
            table.rows,
            row.line,
            f"the column {column} has no id ({_shown(value)}): a text or a whole number.",
        )
    return str(value)


def _label(table: Table, row: Row) -> str | int | None:
    column, value = table.column("label"), _value(table, row, "label")
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | int):
        raise wrong(
            table.rows,
            row.line,
            f"the label (column {column}) is {_kind(value)} ({_shown(value)}), neither a "
            "text nor a whole number.",
        )
    return value


def _part(table: Table, row: Row) -> str | None:
    value = _value(table, row, "split")
    name = str(value).strip().lower()
    if name not in _NAMES_OF_PARTS:
        raise wrong(
            table.rows,
            row.line,
            f"the split {_shown(value)} (column {table.column('split')}) is neither train nor "
            "test.",
        )
    return _NAMES_OF_PARTS[name]


def _kind(value: Any) -> str:
    kinds = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


def _shown(value: Any) -> str:
    """Return a value as a message shows it: short, and printable."""
    text = repr(value) if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"
