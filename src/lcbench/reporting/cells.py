"""Finds the rows of a frame of scores that belong to the cells of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any, TypeVar

import pandas as pd

from lcbench.reporting.score_table import ScoreTable
from lcbench.reporting.statistics import CellKey

Part = TypeVar("Part")


def rows_by_cell(table: ScoreTable, scores: pd.DataFrame) -> dict[CellKey, list[Any]]:
    """Return the rows of each cell of a table's models, one per split and subset.

    Args:
        table: one of `table1.build_tables`.
        scores: frame that it was built from.
    """
    labels = {(block.window, block.model, block.revision): block.label for block in table.blocks}
    found: dict[CellKey, list[Any]] = {}
    for row in scores[scores["group"] == table.group].itertuples(index=False):
        # pandas stores a column with missing windows as floats.
        window = None if pd.isna(row.window) else int(row.window)
        label = labels.get((window, str(row.model), str(row.revision)))
        if label is not None:
            found.setdefault((label, str(row.policy), str(row.task)), []).append(row)
    return found


def means_by(part: Callable[[Any], Part], rows: Iterable[Any]) -> dict[Part, float]:
    """Return the mean score, as a fraction, of the rows of each part; NaN if one has no score."""
    parts: dict[Part, list[float]] = {}
    for row in rows:
        score = math.nan if pd.isna(row.score) else float(row.score)
        parts.setdefault(part(row), []).append(score)
    return {one: fmean(of_part) for one, of_part in parts.items()}
