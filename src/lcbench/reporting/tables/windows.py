"""Shows scores by how much of a document is read: truncated, in chunks, or in a longer window.

The tokens that are read are in the items of each cell, since they depend on the repair. Only models
with a repair that reads in chunks or extends the window are shown.
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
from lcbench.reporting.tables.repairs import vectors_of
from lcbench.reporting.text import signed
from lcbench.results.cell_items import CellItems
from lcbench.results.items import ItemsError

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results.files import CellFiles

# Keys of parts of a repair that change how much is read.
_READING = ("chunks", "extend")
# Scores that are below the best by less than this, in %, count as equally good in the sentence.
_AS_GOOD = 1.0


@dataclass(frozen=True)
class WindowRow:
    """The tokens that a repair reads of a task's relevant documents, and its score.

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
        """Whether only the beginning of a document is read, at τ = 1."""
        parts = parts_of(self.policy)
        first = parts.pop("chunks", "first=").startswith("first=")
        return first and not parts


@dataclass(frozen=True)
class WindowComparison:
    """The repairs of one model on one task, by tokens read.

    Attributes:
        group: table of scores.
        label: name of the model.
        task: a retrieval or reranking task.
        rows: the baseline and at least one repair, by tokens read.
    """

    group: str
    label: str
    task: str
    rows: tuple[WindowRow, ...]

    @property
    def sentence(self) -> str:
        """Which repair scores best, what it reads, and which reads least for about as much."""
        base = next(one for one in self.rows if one.policy == BASELINE)
        best = max(self.rows, key=lambda one: (one.score, -one.tokens))
        enough = [one for one in self.rows if one.score >= best.score * (1 - _AS_GOOD / 100)]
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


def compare_windows(table: ScoreTable, scores: pd.DataFrame) -> list[WindowComparison]:
    """Compare the repairs of a table by the tokens read; empty if all read the model's window.

    Args:
        table: one of `table1.build_tables`.
        scores: frame that it was built from.
    """
    found = []
    cells = None
    for block in table.blocks:
        if not any(set(_READING) & parts_of(policy).keys() for policy in block.policies):
            continue
        cells = rows_by_cell(table, scores) if cells is None else cells
        for task in block.tasks:
            rows = []
            for policy in block.policies:
                score = task.scores[policy]
                cell = cells.get((block.label, policy, task.task))
                tokens = None if score is None or not cell else _tokens_read(cell[-1].files)
                if score is not None and tokens is not None:
                    gain = None if policy == BASELINE else task.improvement(policy)
                    rows.append(WindowRow(policy, tokens, score, gain))
            if len(rows) > 1 and any(one.policy == BASELINE for one in rows):
                rows.sort(key=lambda one: (one.tokens, one.policy))
                found.append(WindowComparison(table.group, block.label, task.task, tuple(rows)))
    return found


def windows_table(
    found: Sequence[WindowComparison], statistics: Mapping[str, TableStatistics]
) -> Table | None:
    """Return scores by what is read of a document; None if there is nothing to show.

    Args:
        found: results of `compare_windows`.
        statistics: statistics of each table of scores, by group.
    """
    if not found:
        return None
    return Table(
        name="windows",
        title="Scores by how much of a document is read",
        header=("Repair", "Tokens read", "× baseline", "Vectors", "Score", "Gain (%)"),
        labels=1,
        sections=tuple(
            Section(f"{one.label}, {one.task}", tuple(_rows(one, statistics[one.group])), one.group)
            for one in found
        ),
        notes=(
            "Tokens read: of a relevant document, on average over these; prompt and special tokens "
            "counted once, though each chunk has them. The time of encoding is proportional to the "
            "number of chunks; it grows faster than the tokens that are read at once. Vectors: per "
            "document.",
            *(one.sentence for one in found),
        ),
    )


def _rows(one: WindowComparison, statistics: TableStatistics) -> list[tuple[Entry, ...]]:
    base = next(row.tokens for row in one.rows if row.policy == BASELINE)
    return [
        (
            name(label_of(row.policy)),
            formatted(row.tokens, ",.0f"),
            formatted(row.tokens / base, ".2f"),
            Entry(vectors_of(parts_of(row.policy))),
            number(row.score),
            Entry("")
            if row.policy == BASELINE
            else improvement(
                row.improvement, statistics.cells.get((one.label, row.policy, one.task))
            ),
        )
        for row in one.rows
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
