"""Counts a task's texts in one pass over its files, checks them as a whole, and remembers it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lcbench.tasks.corpus.check import (
    LeftOut,
    documents_of,
    judgement_of,
    labelled_of,
    queries_of,
    scored_pairs_of,
    search_rows_of,
)
from lcbench.tasks.corpus.digests import Numbers, cached, number_of
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.corpus.read import read_rows, wrong
from lcbench.tasks.source import lengths_of

# Raise it when the rules of `check` or the layout change.
_FORMAT = 2


@dataclass(frozen=True)
class Count:
    """Texts of one kind.

    Attributes:
        count: number of texts.
        unique: number of different ones.
        characters: number of characters in all of them.
        lengths: characters of texts; see `Texts`.
    """

    count: int
    unique: int
    characters: int
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Survey:
    """What is known of a task's texts after reading them once.

    Attributes:
        texts: by what they are: `queries` and `documents`; `test` and `train`; `first`, `second`.
        labels: rows of each label in the train part.
        left_out: rows without anything to score, by reason.
    """

    texts: Mapping[str, Count]
    labels: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def survey(task: OwnTask) -> Survey:
    """Return the numbers of a task's texts; the files are read once for each content.

    Raises:
        RequestError: something is wrong in a file.
    """
    cache = cached(f"survey-{task.digest}-{_FORMAT}")
    known = cache.read(_from_json)
    if known is None:
        known = _READERS[task.kind](task)
        cache.write(asdict(known))
    return known


def _from_json(content: Mapping[str, Any]) -> Survey:
    return Survey(
        {
            name: Count(**{**one, "lengths": tuple(one["lengths"])})
            for name, one in content["texts"].items()
        },
        dict(content["labels"]),
        dict(content["left_out"]),
    )


def listed(left_out: Mapping[str, int]) -> str:
    """Return what was left out in words: `rows without a text (2), rows without a label (1)`."""
    return ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items())


class _Tally:
    """Counts texts as they come."""

    def __init__(self) -> None:
        self._lengths = array("Q")
        self._seen = Numbers()

    def add(self, text: str) -> None:
        self._lengths.append(len(text))
        self._seen.add(number_of(text))

    @property
    def result(self) -> Count:
        lengths = self._lengths
        return Count(len(lengths), len(self._seen), sum(lengths), lengths_of(lengths))


def _retrieval(task: OwnTask) -> Survey:
    left_out = LeftOut()
    queries, documents = _Tally(), _Tally()
    ids = Numbers()
    if task.table("qrels") is None:
        for query, document, _ in search_rows_of(task, left_out):
            if query is not None:
                queries.add(query.text)
            if document is not None:
                documents.add(document.text)
    else:
        judged = _judged(task)
        there = Numbers()
        for document in documents_of(task, left_out):
            there.add(number_of(document.id))
            documents.add(f"{document.title} {document.text}".strip())
        for query in queries_of(task, left_out):
            ids.add(number_of(query.id))
            grades = judged.get(query.id, {})
            if any(grade > 0 and number_of(one) in there for one, grade in grades.items()):
                queries.add(query.text)
            else:
                left_out["queries without a relevant document"] += 1
        _refuse_dangling(task, ids, there, left_out)
    _need(task, queries.result.count, 1, "queries with a relevant document", left_out)
    _need(task, documents.result.count, 2, "different documents", left_out)
    counts = {"queries": queries.result, "documents": documents.result}
    return Survey(counts, left_out=dict(left_out))


def _judged(task: OwnTask) -> dict[str, dict[str, int]]:
    """Return the grades of documents by query.

    Raises:
        RequestError: a pair is judged twice.
    """
    table = task.table("qrels")
    judged: dict[str, dict[str, int]] = {}
    if table is None:
        return judged
    for row in read_rows(table.rows):
        one = judgement_of(table, row)
        grades = judged.setdefault(one.query, {})
        if grades.get(one.document, one.grade) != one.grade:
            raise wrong(
                table.rows,
                row.line,
                f"query {one.query!r} and document {one.document!r} were judged otherwise before "
                f"({grades[one.document]}, now {one.grade}). Keep one of the two lines.",
            )
        grades[one.document] = one.grade
    return judged


def _refuse_dangling(
    task: OwnTask, queries: Numbers, documents: Numbers, left_out: LeftOut
) -> None:
    """Refuse judgements of queries or documents that no file has, and count those without a text.

    Raises:
        RequestError: naming the first line.
    """
    table = task.table("qrels")
    if table is None:
        return
    empty: dict[str, set[str]] | None = None
    for row in read_rows(table.rows):
        one = judgement_of(table, row)
        for part, id_, there in (
            ("queries", one.query, queries),
            ("corpus", one.document, documents),
        ):
            if number_of(id_) in there:
                continue
            if empty is None:
                empty = {name: _ids(task, name) for name in ("queries", "corpus")}
            if id_ in empty[part]:
                left_out[f"judgements of {part} without a text"] += 1
                continue
            holder = task.table(part)
            what = "query" if part == "queries" else "document"
            raise wrong(
                table.rows,
                row.line,
                f"there is no {what} with the id {id_!r} in "
                f"{part if holder is None else holder.rows}. Remove the line, or add the {what}.",
            )


def _ids(task: OwnTask, part: str) -> set[str]:
    """Return the ids of a file, also of rows without a text."""
    table = task.table(part)
    column = None if table is None else table.column("id")
    if table is None or column is None:
        return set()
    return {str(row.values.get(column)) for row in read_rows(table.rows, [column])}


def _labelled(task: OwnTask) -> Survey:
    left_out = LeftOut()
    tallies = {"test": _Tally(), "train": _Tally()}
    labels: dict[str, dict[str, int]] = {"test": {}, "train": {}}
    for one in labelled_of(task, left_out):
        tallies[one.part].add(one.text)
        counts = labels[one.part]
        counts[str(one.label)] = counts.get(str(one.label), 0) + 1
    rows = sum(tally.result.count for tally in tallies.values())
    every = set(labels["test"]) | set(labels["train"])
    _need(task, rows, 2, "labelled texts", left_out)
    _need(task, len(every), 2, "different labels", left_out)
    if len(every) == rows:
        raise wrong(
            _first(task), None, f"each of its {rows:,} labels comes once: {_no_label(task)}"
        )
    for part in ("train", "test") if task.kind == "classification" else ():
        fewest = 2 if part == "train" else 1
        _need(task, len(labels[part]), fewest, f"labels in the {part} part", left_out)
    return Survey(
        {name: tally.result for name, tally in tallies.items()}, labels["train"], dict(left_out)
    )


def _no_label(task: OwnTask) -> str:
    column = task.tables[0].column("label")
    return f"the column {column} does not group the texts. Map another one: label: COLUMN."


def _pairs(task: OwnTask) -> Survey:
    left_out = LeftOut()
    first, second = _Tally(), _Tally()
    scores: set[float] = set()
    for one in scored_pairs_of(task, left_out):
        first.add(one.first)
        second.add(one.second)
        if len(scores) < 2:
            scores.add(one.score)
    _need(task, first.result.count, 2, "pairs", left_out)
    _need(task, len(scores), 2, "different scores", left_out)
    return Survey({"first": first.result, "second": second.result}, left_out=dict(left_out))


def _need(task: OwnTask, count: int, least: int, what: str, left_out: LeftOut) -> None:
    """Check that there are enough of something.

    Raises:
        RequestError: there are not; names what was left out.
    """
    if count >= least:
        return
    reasons = listed(left_out)
    raise wrong(
        _first(task),
        None,
        f"{count:,} {what}, and {task.kind} needs at least {least}."
        f"{f' Left out: {reasons}.' if reasons else ''}",
    )


def _first(task: OwnTask) -> str:
    return str(task.tables[0].rows)


_READERS = {
    "retrieval": _retrieval,
    "classification": _labelled,
    "clustering": _labelled,
    "sts": _pairs,
}
