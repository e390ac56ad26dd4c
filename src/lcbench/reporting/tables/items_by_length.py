"""Items of a task's cells with the length that each counts under."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lcbench.reporting.table import BASELINE, Block, Table
from lcbench.results.items import ItemsError, whole_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.results.files import CellFiles

By = Literal["document", "query", "text", "pair"]
"""Whose length: of a query's longest relevant document, of the query itself, of the text that is
classified, of the longer text of a pair."""

# The metrics that mteb has as main scores of tasks with queries, more common ones first: several
# can have the same value.
_METRICS = ("ndcg_at_10", "map_at_1000", "map_at_10", "mrr_at_10", "recall_at_10", "ndcg_at_5")

_Key = tuple[str, int | None, str, str, str, str]  # group, window, model, revision, policy, task


def files_by_key(scores: pd.DataFrame) -> dict[_Key, CellFiles]:
    found = {}
    for one in scores.itertuples(index=False):
        # In a column with unknown windows pandas keeps the known ones as fractions.
        window = None if pd.isna(one.window) else int(one.window)
        key = (one.group, window, one.model, one.revision, one.policy, one.task)
        found[key] = one.files
    return found


def counted_cells(
    files: Mapping[_Key, CellFiles], table: Table, block: Block, task: str
) -> dict[str, CellFiles]:
    """Return the files of the cells that count in the table, by policy."""
    (counted,) = (one.scores for one in block.tasks if one.task == task)
    return {
        policy: files[table.group, block.window, block.model, block.revision, policy, task]
        for policy in block.policies
        if counted[policy] is not None
    }


@dataclass(frozen=True)
class Items:
    """The items of one task and model.

    Attributes:
        tokens: of each, shape (items,).
        values: its part of the score, or a pair's cosine, by policy, shape (items,).
        gold: what pairs are correlated with; None where the score is a mean.
        parts: which split and subset each is of, shape (items,).
    """

    tokens: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    gold: NDArray[np.float64] | None
    parts: NDArray[np.int64]

    def where(self, chosen: NDArray[np.bool_]) -> Items:
        return Items(
            self.tokens[chosen],
            {policy: values[chosen] for policy, values in self.values.items()},
            None if self.gold is None else self.gold[chosen],
            self.parts[chosen],
        )


def items_of(cells: Mapping[str, CellFiles]) -> Iterator[tuple[By, str, Items]]:
    """Yield the items by each length that they have, and what their score is called."""
    if BASELINE not in cells:
        return
    columns = ["split", "subset", "id", "tokens", "tokens_2", "score", "gold", "relevant"]
    baseline = read_columns(cells[BASELINE], columns)
    # Clusterings have items, but no score of each.
    if baseline is None or baseline["score"].null_count == len(baseline):
        return
    values = {BASELINE: numbers_in(baseline["score"])}
    identity = baseline.select(["split", "subset", "id"])
    for policy, files in cells.items():
        other = (
            read_columns(files, ["split", "subset", "id", "score"]) if policy != BASELINE else None
        )
        if other is not None and (own := _in_order(other, identity)) is not None:
            values[policy] = own
    parts = np.unique(part_numbers(identity), return_inverse=True)[1]
    scored = np.isfinite(values[BASELINE])
    tokens = numbers_in(baseline["tokens"])
    if baseline["relevant"].null_count < len(baseline):
        metric = _metric(cells[BASELINE])
        longest = _longest(baseline["relevant"].combine_chunks(), len(baseline))
        yield "document", metric, _known(longest, values, None, parts, scored)
        yield "query", metric, _known(tokens, values, None, parts, scored)
    elif baseline["tokens_2"].null_count < len(baseline):
        lengths = np.maximum(tokens, numbers_in(baseline["tokens_2"]))
        gold = baseline["gold"].to_numpy().astype(float)
        yield "pair", "Spearman", _known(lengths, values, gold, parts, scored)
    elif baseline["gold"].null_count < len(baseline):
        yield "text", "accuracy", _known(tokens, values, None, parts, scored)


def read_columns(files: CellFiles, columns: Sequence[str]) -> pa.Table | None:
    """Return columns of a cell's items; None if they are missing, broken or of another layout."""
    try:
        return pq.read_table(whole_items(files), columns=list(columns)).select(list(columns))
    except (OSError, ItemsError, KeyError, pa.ArrowException):
        return None


def _in_order(items: pa.Table, identity: pa.Table) -> NDArray[np.float64] | None:
    """Return the scores of items in the order of others; None if they are not the same items."""
    own, scores = items.select(identity.column_names), numbers_in(items["score"])
    if own.equals(identity):
        return scores
    keys = [(name, "ascending") for name in identity.column_names]
    wanted, found = (pc.sort_indices(table, sort_keys=keys) for table in (identity, own))
    if not own.take(found).equals(identity.take(wanted)):
        return None
    ordered = np.empty(len(scores))
    ordered[wanted.to_numpy()] = scores[found.to_numpy()]
    return ordered


def numbers_in(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a column as numbers, NaN where it is null."""
    return np.asarray(column.to_numpy(), dtype=np.float64)


def part_numbers(identity: pa.Table) -> NDArray[Any]:
    """Return which split and subset each item is of, as one number."""
    split, subset = (
        identity[name].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        for name in ("split", "subset")
    )
    return np.asarray(split * (subset.max(initial=0) + 1) + subset)


def _longest(relevant: pa.ListArray, queries: int) -> NDArray[np.float64]:
    """Return the tokens of each query's longest relevant document, NaN without one."""
    found = np.full(queries, -np.inf)
    places = relevant.value_parent_indices().to_numpy()
    np.maximum.at(found, places, relevant.flatten().field("tokens").to_numpy())
    return np.where(np.isfinite(found), found, np.nan)


def _known(
    tokens: NDArray[np.float64],
    values: Mapping[str, NDArray[np.float64]],
    gold: NDArray[np.float64] | None,
    parts: NDArray[np.int64],
    scored: NDArray[np.bool_],
) -> Items:
    """Return the items that have a length and a score."""
    known = scored & np.isfinite(tokens)
    whole = np.where(known, tokens, 0).astype(np.int64)
    return Items(whole, values, gold, parts).where(known)


def _metric(files: CellFiles) -> str:
    """Return the name of the metric that is the main score: the one that equals it everywhere."""
    try:
        result = json.loads(files.result.read_text(encoding="utf-8"))
        entries = [entry for of_split in result["scores"].values() for entry in of_split]
        equal = [
            name
            for name in entries[0]
            if name != "main_score" and all(one[name] == one["main_score"] for one in entries)
        ]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return "main score"
    return next((name for name in _METRICS if name in equal), (equal or ["main score"])[0])
