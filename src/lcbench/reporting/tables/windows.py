"""Score by how much of a document is read: truncated, in chunks, or by an extended window.

What is read of a document is in the items of each cell, since it depends on the repair. Only tables
with a repair that reads more or less than the model's window have this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lcbench.repair.repair import label_of, parts_of
from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.score_table import BASELINE, ScoreTable
from lcbench.reporting.statistics import TableStatistics
from lcbench.reporting.table import Entry, Section, Table, formatted, improvement, name, number
from lcbench.reporting.text import signed
from lcbench.results.cell_items import CellItems
from lcbench.results.items import ItemsError

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results.files import CellFiles

# Parts of a repair that change how much is read.
_READING = ("chunks", "extend")
# A score this close to the best, in %, is as good for the advice.
_AS_GOOD = 1.0


@dataclass(frozen=True)
class Extent:
    """What a repair reads of a task's relevant documents, and its score.

    Attributes:
        policy: name of the repair in results.
        tokens: tokens that are read of a relevant document, on average over the documents.
        score: × 100.
        improvement: relative improvement over the baseline in %; None: it is the baseline's.
    """

    policy: str
    tokens: float
    score: float
    improvement: float | None

    @property
    def is_truncated(self) -> bool:
        """Whether the beginning of a document is read at once, at τ = 1."""
        parts = parts_of(self.policy)
        first = parts.pop("chunks", "first=").startswith("first=")
        return first and not parts


@dataclass(frozen=True)
class Extents:
    """The repairs of one model on one task, by tokens read.

    Attributes:
        group: table of scores.
        label: name of the model.
        task: a retrieval or reranking task.
        extents: at least the baseline and another one.
    """

    group: str
    label: str
    task: str
    extents: tuple[Extent, ...]

    @property
    def sentence(self) -> str:
        """Which repair scores best, what it reads, and which reads least for about as much."""
        base = next(one for one in self.extents if one.policy == BASELINE)
        best = max(self.extents, key=lambda one: (one.score, -one.tokens))
        enough = [one for one in self.extents if one.score >= best.score * (1 - _AS_GOOD / 100)]
        least = min(enough, key=lambda one: one.tokens)
        said = (
            f"{self.label}, {self.task}: the model reads {base.tokens:,.0f} tokens of a relevant "
            f"document and scores {base.score:.2f}. "
        )
        if best is base:
            said += "No repair that reads more or less scores higher."
        else:
            said += (
                f"The best, {label_of(best.policy)}, scores {best.score:.2f} "
                f"({signed(best.improvement or 0.0)} %) and reads {best.tokens:,.0f} tokens, "
                f"{best.tokens / base.tokens:.1f} times as many."
            )
        if least is not best:
            said += (
                f" {label_of(least.policy)} is within {_AS_GOOD:g} % of it with "
                f"{least.tokens:,.0f} tokens."
            )
        return said


def extents_of(table: ScoreTable, scores: pd.DataFrame) -> list[Extents]:
    """Return what the repairs of a table read; empty if all read the model's window.

    Args:
        table: one of `table1.build_tables`.
        scores: frame that it was built from.
    """
    found = []
    rows = None
    for block in table.blocks:
        if not any(set(_READING) & parts_of(policy).keys() for policy in block.policies):
            continue
        rows = rows_by_cell(table, scores) if rows is None else rows
        for task in block.tasks:
            extents = []
            for policy in block.policies:
                score = task.scores[policy]
                cell = rows.get((block.label, policy, task.task))
                tokens = None if score is None or not cell else _tokens_read(cell[-1].files)
                if score is not None and tokens is not None:
                    gain = None if policy == BASELINE else task.improvement(policy)
                    extents.append(Extent(policy, tokens, score, gain))
            if len(extents) > 1 and any(one.policy == BASELINE for one in extents):
                extents.sort(key=lambda one: (one.tokens, one.policy))
                found.append(Extents(table.group, block.label, task.task, tuple(extents)))
    return found


def windows_table(
    found: Sequence[Extents], statistics: Mapping[str, TableStatistics]
) -> Table | None:
    """Return scores by what is read of a document; None if there is nothing to show.

    Args:
        found: results of `extents_of`.
        statistics: statistics of each table of scores, by group.
    """
    if not found:
        return None
    return Table(
        name="windows",
        title="Scores by how much of a document is read",
        header=("Repair", "Tokens read", "Of τ = 1", "Score", "Relative (%)"),
        labels=1,
        sections=tuple(
            Section(f"{one.label}, {one.task}", tuple(_rows(one, statistics[one.group])), one.group)
            for one in found
        ),
        notes=(
            "Tokens read: of a relevant document, on average over these; prompt and special tokens "
            "counted once. Chunks add those to each chunk. The time of a forward pass grows faster "
            "than the tokens that are read at once, and as fast as the number of chunks.",
            *(one.sentence for one in found),
        ),
    )


def _rows(one: Extents, statistics: TableStatistics) -> list[tuple[Entry, ...]]:
    base = next(extent.tokens for extent in one.extents if extent.policy == BASELINE)
    return [
        (
            name(label_of(extent.policy)),
            formatted(extent.tokens, ",.0f"),
            formatted(extent.tokens / base, ".2f"),
            number(extent.score),
            Entry("")
            if extent.policy == BASELINE
            else improvement(
                extent.improvement, statistics.cells.get((one.label, extent.policy, one.task))
            ),
        )
        for extent in one.extents
    ]


def _tokens_read(files: CellFiles) -> float | None:
    """Return the mean tokens read of a relevant document; None if a cell has no such items."""
    try:
        table = CellItems(files).table(["split", "subset", "relevant"])
    except (OSError, ItemsError, pa.ArrowException, KeyError):
        return None
    tokens: dict[tuple[str, str, str], int] = {}
    for split, subset, relevant in zip(*(one.to_pylist() for one in table.columns), strict=True):
        for document in relevant or ():
            tokens[split, subset, document["id"]] = document["tokens"]
    return float(np.mean(list(tokens.values()))) if tokens else None
