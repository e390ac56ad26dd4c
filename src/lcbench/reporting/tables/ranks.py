"""The ranks of the longest documents: the paper's Table 3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lcbench.reporting.sheet import Entry, Section, Sheet
from lcbench.reporting.table import BASELINE, Table, ordered_policies
from lcbench.reporting.tables.by_length import HOLE
from lcbench.reporting.tables.items_by_length import counted_cells, files_by_key, part_numbers
from lcbench.results.items import ItemsError, whole_items
from lcbench.uncertainty.covariance import ratio_error

if TYPE_CHECKING:
    from lcbench.results.files import CellFiles


@dataclass(frozen=True)
class LongestRanks:
    """The mean rank of the longest relevant documents of one model and task.

    Attributes:
        group: of the table.
        column: of the task.
        task: its name.
        label: of the model.
        ranks: by policy, the rank and its standard error (None: of a single query), as
            `rank_of_longest` has them; None is a hole.
    """

    group: str
    column: str
    task: str
    label: str
    ranks: Mapping[str, tuple[float, float | None] | None]


def longest_ranks(tables: Sequence[Table], scores: pd.DataFrame) -> list[LongestRanks]:
    """Return the ranks of the longest relevant documents, of all tasks that have such documents.

    Args:
        tables: of `table1.build_tables`; they say which cells count.
        scores: the frame that they were built from.
    """
    files = files_by_key(scores)
    found = []
    for table in tables:
        for column in table.columns:
            for task in column.tasks:
                for block in table.blocks:
                    cells = counted_cells(files, table, block, task)
                    if BASELINE not in cells or rank_of_longest(cells[BASELINE]) is None:
                        continue
                    ranks = {
                        policy: rank_of_longest(cells[policy]) if policy in cells else None
                        for policy in block.policies
                    }
                    found.append(LongestRanks(table.group, column.name, task, block.label, ranks))
    return found


def rank_of_longest(files: CellFiles) -> tuple[float, float | None] | None:
    """Return the mean rank of the longest 20 % of the relevant documents, and its standard error.

    The paper (Table 3) says no more of how they are chosen. Here: of the distinct documents that
    are relevant to any query, the fifth (rounded up) with the most tokens, and all that are as long
    as the shortest of them, since a window makes many equally long. The average is over all pairs
    of a query and such a document of its own; a rank is 1 + the documents before it, over the whole
    corpus. The queries are the sample that the error is of (`covariance.ratio_error`).

    Args:
        files: of a cell of a retrieval task.

    Returns:
        None if its items are missing or have no relevant documents.
    """
    try:
        items = pq.read_table(whole_items(files), columns=["split", "subset", "relevant"])
        relevant = items["relevant"].combine_chunks()
        pairs = relevant.flatten()
        queries = relevant.value_parent_indices().to_numpy()
        # Splits and subsets have corpora of their own, and ids that are used again.
        corpora = np.unique(part_numbers(items), return_inverse=True)[1][queries]
        documents = np.unique(pairs.field("id").to_numpy(zero_copy_only=False), return_inverse=True)
        tokens, ranks = (pairs.field(name).to_numpy() for name in ("tokens", "rank"))
    # A missing or broken file, or one of another layout.
    except (OSError, ItemsError, KeyError, pa.ArrowException, AttributeError):
        return None
    if len(pairs) == 0:
        return None
    distinct = corpora.astype(np.int64) * len(documents[0]) + documents[1]
    lengths = np.sort(tokens[np.unique(distinct, return_index=True)[1]])
    long = tokens >= lengths[-math.ceil(len(lengths) / 5)]
    _, query = np.unique(queries[long], return_inverse=True)
    sums, counts = (
        np.asarray(np.bincount(query, weights=weights), dtype=np.float64)
        for weights in (ranks[long], None)
    )
    return float(ranks[long].mean()), ratio_error(sums, counts)


def rank_sheet(found: Sequence[LongestRanks]) -> Sheet | None:
    """Return the ranks of the longest documents: a section a task, a row a model, a column a τ.

    Args:
        found: of `longest_ranks`.

    Returns:
        None if there are none.
    """
    if not found:
        return None
    several = len({one.group for one in found}) > 1
    policies = ordered_policies(policy for one in found for policy in one.ranks)
    rows: dict[str, list[tuple[Entry, ...]]] = {}
    for one in found:
        heading = f"{one.group}: {one.task}" if several else one.task
        rows.setdefault(heading, []).append(_rank_row(one, policies))
    notes = [
        "Lower is better. Of the longest 20 % of the documents that are relevant to a query, in "
        "tokens as the model reads them, and all as long as the shortest of these: more than 20 % "
        "where many fill the window. Bold is the lowest of a row; that it is lower is not tested."
    ]
    if any(one.column == "Rerank" for one in found):
        notes.append("Where a task reranks, the rank among the query's candidates.")
    return Sheet(
        name="ranks",
        title="Mean rank of the longest relevant documents",
        header=("model", *(f"τ = {policy}" for policy in policies)),
        labels=1,
        sections=tuple(Section(heading, tuple(of_task)) for heading, of_task in rows.items()),
        notes=tuple(notes),
    )


def _rank_row(one: LongestRanks, policies: Sequence[str]) -> tuple[Entry, ...]:
    # By what is shown: of several that read alike none stands out.
    shown = [f"{found[0]:.1f}" for found in one.ranks.values() if found is not None]
    lowest = min(shown, key=float, default="")
    entries = []
    for policy in policies:
        found = one.ranks.get(policy)
        if found is None:
            entries.append(HOLE)
            continue
        rank, error = found
        best = len(shown) > 1 and f"{rank:.1f}" == lowest and shown.count(lowest) == 1
        more = "" if error is None else f"standard error {error:.2f}"
        entries.append(Entry(f"{rank:.1f}", rank, "strong" if best else "plain", more))
    return (Entry(one.label, one.label), *entries)
