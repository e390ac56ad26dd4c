"""The items of a task's cells with their lengths, for all tables by length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.score_table import BASELINE, ScoreTable
from lcbench.results.cell_items import CellItems
from lcbench.results.items import ItemsError
from lcbench.uncertainty.items import column_of_right, ordered_items

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

By = Literal["document", "query", "text", "pair"]
"""The text whose length counts: a query's longest relevant document, the query itself, the
classified text, or the longer text of a pair."""

LENGTH_SPLIT = re.compile(r"test_(\d+)")
"""The name of a split that is a length, as in needle and passkey."""

# Main scores of mteb's tasks with queries, the most common first, since several can have the same
# value.
_METRICS = ("ndcg_at_10", "map_at_1000", "map_at_10", "mrr_at_10", "recall_at_10", "ndcg_at_5")

_IDENTITY = ("split", "subset", "id")
_COLUMNS = ("tokens", "tokens_2", "score", "gold", "relevant")
# Older results lack these.
_NEWER = ("characters", "characters_2", "shares")


@dataclass(frozen=True)
class Place:
    """A task and a model in a table.

    Attributes:
        group: group of the table.
        column: column of the task.
        task: name of the task.
        label: label of the model.
        policies: policies of the table, including the baseline.
        window: the model's window in tokens; None: unknown.
    """

    group: str
    column: str
    task: str
    label: str
    policies: tuple[str, ...]
    window: int | None = None


@dataclass(frozen=True)
class Relevant:
    """Pairs of queries and relevant documents.

    Attributes:
        items: index of the query, shape (pairs,).
        documents: number of the document, which differs between splits and subsets, shape (pairs,).
        grades: relevance grades, shape (pairs,).
        tokens: length of the document as the model reads it, shape (pairs,).
        characters: length of the whole document, shape (pairs,); None in older results.
        ranks: ranks by policy, starting at 1, shape (pairs,).
    """

    items: NDArray[np.int64]
    documents: NDArray[np.int64]
    grades: NDArray[np.float64]
    tokens: NDArray[np.float64]
    characters: NDArray[np.float64] | None
    ranks: Mapping[str, NDArray[np.float64]]

    @property
    def lengths(self) -> NDArray[np.float64]:
        """The characters of each document, or else its tokens."""
        return self.tokens if self.characters is None else self.characters


@dataclass(frozen=True)
class Items:
    """The items of one task and model.

    Attributes:
        metric: name of their score.
        tokens: length as the model reads it, by kind of length, shape (items,); NaN if undefined.
        characters: the same in characters, before truncation; empty in older results.
        values: contributions to the score, or cosines of pairs, by policy, shape (items,).
        right: training draws that classify a text correctly, by policy, shape (items, draws); empty
            if unknown or if nothing is classified.
        gold: gold scores of pairs; None if the score is a mean.
        parts: number of the split and subset, shape (items,).
        clusters: number of the cluster of items that share texts (`uncertainty.clusters`), shape
            (items,).
        relevant: relevant documents of queries; None for other items.
        splits_are_lengths: whether each split has texts of one length.
    """

    metric: str
    tokens: Mapping[By, NDArray[np.float64]]
    characters: Mapping[By, NDArray[np.float64]]
    values: Mapping[str, NDArray[np.float64]]
    right: Mapping[str, NDArray[np.bool_]]
    gold: NDArray[np.float64] | None
    parts: NDArray[np.int64]
    clusters: NDArray[np.uint64]
    relevant: Relevant | None = None
    splits_are_lengths: bool = False

    @property
    def lengths(self) -> Mapping[By, NDArray[np.float64]]:
        """The characters of each item, or else its tokens."""
        return self.characters or self.tokens

    @property
    def unit(self) -> str:
        """The unit of lengths."""
        return "characters" if self.characters else "tokens"

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """Which items have a score in the baseline."""
        return np.isfinite(self.values[BASELINE])

    def column(self, policy: str, chosen: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the contributions of some items to the score, by training draw if known.

        Shape (chosen,) or (chosen, draws).
        """
        if self.right:
            # Contiguous by draw, since there are many items and few draws.
            return np.compress(chosen, self.right[policy].T, axis=1).T.view(np.int8)
        return self.values[policy][chosen]


def places_of_tables(
    tables: Sequence[ScoreTable], scores: pd.DataFrame
) -> list[tuple[Place, dict[str, CellFiles]]]:
    """Return each task and model with the files of its cells, in the order of the tables.

    Args:
        tables: results of `table1.build_tables`, which decide which cells count.
        scores: frame that they were built from.

    Returns:
        The files by policy, the baseline first.
    """
    return [
        (
            Place(table.group, column.name, task, block.label, block.policies, block.window),
            {
                policy: cells[block.label, policy, task][-1].files
                for policy in sorted(block.policies, key=lambda policy: policy != BASELINE)
                if block.scores_of(task)[policy] is not None
            },
        )
        for table in tables
        for cells in [rows_by_cell(table, scores)]
        for column in table.columns
        for task in column.tasks
        for block in table.blocks
    ]


def items_of_tables(
    tables: Sequence[ScoreTable], scores: pd.DataFrame
) -> Iterator[tuple[Place, Items]]:
    """Yield the items of `places_of_tables` except those without scores, such as clusterings."""
    for place, cells in places_of_tables(tables, scores):
        items = items_of((policy, CellItems(files)) for policy, files in cells.items())
        if items is not None:
            yield place, items


def items_of(cells: Iterable[tuple[str, CellItems]]) -> Items | None:
    """Return the items of cells by policy; None without a baseline whose items have scores.

    A cell with other items than the baseline has no values, and one with other relevant documents
    no ranks.

    Args:
        cells: policies and cells, the baseline first. Each cell is needed only until the next one.
    """
    found: _Collected | None = None
    for policy, cell in cells:
        if policy == BASELINE:
            found = _collected(cell)
        if found is not None:
            found.add(policy, cell)
    return None if found is None else found.items()


def _collected(cell: CellItems) -> _Collected | None:
    """Return the items of a baseline, to which cells are added; None if they have no scores."""
    baseline = _read(cell, (*_IDENTITY, *_COLUMNS), _NEWER)
    # Clusterings have items, but no score of each.
    if baseline is None or baseline["score"].null_count == len(baseline):
        return None
    baseline, clusters = ordered_items(cell.files.task, baseline)
    is_query = baseline["relevant"].null_count < len(baseline)
    is_pair = not is_query and baseline["tokens_2"].null_count < len(baseline)
    is_text = not (is_query or is_pair) and baseline["gold"].null_count < len(baseline)
    if not (is_query or is_pair or is_text):
        return None
    return _Collected(baseline, clusters, _entries(cell.result), is_query, is_pair)


class _Collected:
    """The items of a baseline, and the values that cells with the same items have of them.

    Args:
        baseline: items in the order of `ordered_items`.
        clusters: cluster of each item.
        entries: mteb's scores of the baseline.
        is_query: whether they are queries.
        is_pair: whether they are pairs; else texts, if not queries.
    """

    def __init__(
        self,
        baseline: pa.Table,
        clusters: NDArray[np.uint64],
        entries: Sequence[Mapping[str, Any]],
        is_query: bool,
        is_pair: bool,
    ) -> None:
        self._baseline = baseline
        self._identity = baseline.select(list(_IDENTITY))
        self._parts = np.unique(_part_numbers(self._identity), return_inverse=True)[1]
        self._clusters = clusters
        self._entries = entries
        self._is_query, self._is_pair = is_query, is_pair
        self._is_text = not (is_query or is_pair)
        self._draws = _draws(entries) if self._is_text else 0
        self._values: dict[str, NDArray[np.float64]] = {}
        self._right: dict[str, NDArray[np.bool_]] = {}
        self._relevant = _Documents(self._parts) if is_query else None

    def add(self, policy: str, cell: CellItems) -> None:
        """Add a policy's values; the baseline's must be added first."""
        names = [*_IDENTITY, "score"]
        names += ["relevant"] * self._is_query + ["gold"] * self._is_text
        table = _read(cell, names, of_draws=self._draws > 0)
        table = None if table is None else _in_order(table, self._identity)
        if table is None:
            return
        self._values[policy] = _numbers(table["score"])
        if self._draws and (found := _right(table, self._draws)) is not None:
            self._right[policy] = found
        if self._relevant is not None:
            self._relevant.add(policy, table["relevant"].combine_chunks())

    def items(self) -> Items:
        baseline = self._baseline
        splits = set(pc.unique(baseline["split"]).to_pylist())
        pairs = None if self._relevant is None else self._relevant.relevant()
        tokens, characters = _lengths(baseline, pairs, self._is_query, self._is_pair)
        metric = "Spearman" if self._is_pair else "accuracy"
        return Items(
            metric=_metric(self._entries) if self._is_query else metric,
            tokens=tokens,
            characters=characters,
            values=self._values,
            right=self._right if self._right.keys() == self._values.keys() else {},
            gold=baseline["gold"].to_numpy().astype(float) if self._is_pair else None,
            parts=self._parts,
            clusters=self._clusters,
            relevant=pairs,
            splits_are_lengths=all(LENGTH_SPLIT.fullmatch(str(split)) for split in splits),
        )


class _Documents:
    """The relevant documents of the baseline, and other policies' ranks in the same order."""

    def __init__(self, parts: NDArray[np.int64]) -> None:
        self._parts = parts
        self._ids: pa.Array | None = None
        self._found: dict[str, Any] = {}
        self._ranks: dict[str, NDArray[np.float64]] = {}

    def add(self, policy: str, lists: pa.ListArray) -> None:
        """Add a policy's ranks; the baseline's must be added first."""
        items = lists.value_parent_indices().to_numpy().astype(np.int64)
        rows = lists.flatten()
        names = {rows.type.field(place).name for place in range(rows.type.num_fields)}
        ids = rows.field("id")
        order = np.arange(len(rows))
        if self._ids is None:
            self._ids = ids
            documents = ids.dictionary_encode()
            numbers = documents.indices.to_numpy().astype(np.int64)
            # Splits and subsets have separate corpora that may use the same ids.
            numbers = self._parts[items] * (len(documents.dictionary) + 1) + numbers
            known = "characters" in names and rows.field("characters").null_count == 0
            self._found = {
                "items": items,
                "documents": numbers,
                "grades": _numbers(rows.field("grade")),
                "tokens": _numbers(rows.field("tokens")),
                "characters": _numbers(rows.field("characters")) if known else None,
            }
        elif not (np.array_equal(items, self._found["items"]) and ids.equals(self._ids)):
            same = _same_pairs(self._found["items"], self._ids, items, ids)
            if same is None:
                return
            order = same
        self._ranks[policy] = _numbers(rows.field("rank"))[order]

    def relevant(self) -> Relevant | None:
        return Relevant(ranks=self._ranks, **self._found) if self._found else None


def _same_pairs(
    items: NDArray[np.int64], ids: pa.Array, others: NDArray[np.int64], other_ids: pa.Array
) -> NDArray[np.int64] | None:
    """Return the positions of pairs of item and id among others; None if the pairs differ."""
    if len(items) != len(others):
        return None
    places = {
        pair: place for place, pair in enumerate(zip(others, other_ids.to_pylist(), strict=True))
    }
    found = [places.get(pair, -1) for pair in zip(items, ids.to_pylist(), strict=True)]
    return None if -1 in found else np.array(found, dtype=np.int64)


def _read(
    cell: CellItems,
    columns: Sequence[str],
    optional: Sequence[str] = (),
    *,
    of_draws: bool = False,
) -> pa.Table | None:
    """Return columns of a cell's items, including optional ones if present.

    None if they are missing, broken or of another layout.

    Args:
        cell: the cell.
        columns: names of columns.
        optional: names of columns that older results lack.
        of_draws: whether to include which training draws classify a text correctly, if known.
    """
    try:
        there = [name for name in optional if name in cell.names]
        if of_draws and (right := column_of_right(cell)) in cell.names:
            there.append(right)
        table = cell.table([*columns, *there])
    except (OSError, ItemsError, KeyError, pa.ArrowException):
        return None
    for name in ("split", "subset"):
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(pa.string()))
    return table


def _in_order(items: pa.Table, identity: pa.Table) -> pa.Table | None:
    """Return items in the order of an identity; None if they are not the same items."""
    own = items.select(identity.column_names)
    if own.equals(identity):
        return items
    keys = [(name, "ascending") for name in identity.column_names]
    wanted, found = (pc.sort_indices(table, sort_keys=keys) for table in (identity, own))
    if not own.take(found).equals(identity.take(wanted)):
        return None
    order = np.empty(len(own), dtype=np.int64)
    order[wanted.to_numpy()] = found.to_numpy()
    return items.take(order)


def _numbers(column: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where it is null."""
    if isinstance(column, pa.Array):
        column = pa.chunked_array([column])
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _part_numbers(identity: pa.Table) -> NDArray[Any]:
    """Return a number for the split and subset of each item."""
    split, subset = (
        identity[name].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        for name in ("split", "subset")
    )
    return np.asarray(split * (subset.max(initial=0) + 1) + subset)


def _lengths(
    baseline: pa.Table, pairs: Relevant | None, is_query: bool, is_pair: bool
) -> tuple[dict[By, NDArray[np.float64]], dict[By, NDArray[np.float64]]]:
    """Return the tokens of items by kind of length, and their characters, if all are known."""
    tokens = _numbers(baseline["tokens"])
    characters = None
    if "characters" in baseline.column_names and baseline["characters"].null_count == 0:
        characters = _numbers(baseline["characters"])
    if is_query and pairs is not None:
        longest = _longest(pairs.items, pairs.tokens, len(tokens))
        if characters is None or pairs.characters is None:
            return {"document": longest, "query": tokens}, {}
        whole = _longest(pairs.items, pairs.characters, len(tokens))
        return (
            {"document": longest, "query": tokens},
            {"document": whole, "query": characters},
        )
    if is_pair:
        tokens = np.maximum(tokens, _numbers(baseline["tokens_2"]))
        if characters is None or "characters_2" not in baseline.column_names:
            return {"pair": tokens}, {}
        return {"pair": tokens}, {
            "pair": np.maximum(characters, _numbers(baseline["characters_2"]))
        }
    return {"text": tokens}, {} if characters is None else {"text": characters}


def _longest(
    items: NDArray[np.int64], lengths: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Return the length of each query's longest relevant document, NaN without one."""
    found = np.full(count, -np.inf)
    np.maximum.at(found, items, lengths)
    return np.where(np.isfinite(found), found, np.nan)


def _right(items: pa.Table, draws: int) -> NDArray[np.bool_] | None:
    """Return which training draws classify each text correctly, (items, draws); None if unknown."""
    names = items.column_names
    if "right" in names and items["right"].null_count == 0:
        bits = items["right"].to_numpy()
        return np.asarray((bits >> np.arange(draws)[:, None]) & 1, dtype=np.bool_).T
    if "predictions" not in names or items["predictions"].null_count:
        return None
    lists = items["predictions"].combine_chunks()
    if not pc.all(pc.equal(lists.value_lengths(), draws)).as_py():
        return None
    gold = items["gold"].combine_chunks().take(pa.array(np.repeat(np.arange(len(items)), draws)))
    same = pc.equal(lists.flatten(), gold)
    flags = same.to_numpy(zero_copy_only=False).astype(np.bool_)
    return np.asfortranarray(flags.reshape(len(items), draws))


def _entries(result: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return mteb's scores of each split and subset; none of an unreadable result."""
    of_splits = {} if result is None else result["scores"]
    return [entry for of_split in of_splits.values() for entry in of_split]


def _draws(entries: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of training draws of each classifier; 0 if unknown."""
    counts = {len(entry.get("scores_per_experiment") or ()) for entry in entries}
    draws = counts.pop() if len(counts) == 1 else 0
    return draws if draws > 1 else 0


def _metric(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric that is the main score: the one that equals it everywhere."""
    try:
        equal = [
            name
            for name in entries[0]
            if name != "main_score" and all(one[name] == one["main_score"] for one in entries)
        ]
    except (KeyError, IndexError):
        return "main score"
    return next((name for name in _METRICS if name in equal), (equal or ["main score"])[0])
