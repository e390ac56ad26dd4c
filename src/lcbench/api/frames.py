"""Data frames of results: scores, Table 1, scores by length, items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lcbench.repair.repair import PARTS, parts_of
from lcbench.reporting.score_table import AVERAGE, Block, ScoreTable, temperature
from lcbench.reporting.tables.by_length import LengthBuckets, buckets_of
from lcbench.reporting.tables.items_by_length import items_of_tables

if TYPE_CHECKING:
    from lcbench.reporting.table import Table
    from lcbench.results.files import CellFiles

_BLOCK = ["protocol", "window", "model"]
_SCORES = [*_BLOCK, "revision", "column", "task", "tau", "score", "baseline", "improvement"]
_MEASURED = ("score", "baseline", "improvement", "low", "high")
_BY_LENGTH = [
    *("protocol", "model", "column", "task", "by", "metric", "shortest", "longest", "count"),
    *("tau", "score", "improvement", "low", "high"),
]


def frame_of_tables(tables: Iterable[ScoreTable]) -> pd.DataFrame:
    """Return the scores × 100 of tasks and of their baselines, a row per model, task and τ."""
    return _with_numbers(
        pd.DataFrame(
            [
                [
                    *_named(table, block),
                    block.revision,
                    task.column,
                    task.task,
                    policy,
                    task.scores[policy],
                    task.scores["1"],
                    0.0 if policy == "1" else task.improvement(policy),
                ]
                for table in tables
                for block in table.blocks
                for task in block.tasks
                for policy in block.policies
            ],
            columns=_SCORES,
        )
    )


def table1(tables: Sequence[ScoreTable]) -> pd.DataFrame:
    """Return the scores × 100 by column and their average, a row per model and τ."""
    rows = _with_numbers(
        pd.DataFrame(
            [
                {
                    **dict(zip(_BLOCK, _named(table, block), strict=True)),
                    "tau": policy,
                    **{name: block.scores[policy][name] for name in table.column_names},
                }
                for table in tables
                for block in table.blocks
                for policy in block.policies
            ]
        )
    )
    # Tables may differ in their columns; the average stays last.
    keys = [*_BLOCK, *(name for name in PARTS if name in rows)]
    names = [name for name in rows.columns if name not in (*keys, AVERAGE)]
    return rows.set_index(keys)[[*names, AVERAGE]]


def frame_by_length(
    tables: Sequence[ScoreTable], scores: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Return scores × 100 by length, a row per model, task, τ and range of tokens."""
    buckets = [
        bucket
        for place, items in items_of_tables(tables, scores)
        for bucket in buckets_of(place, items, resamples, seed)
    ]
    rows = [row for one in buckets for row in _rows_by_length(one)]
    frame = _with_numbers(pd.DataFrame(rows, columns=_BY_LENGTH))
    return frame.astype({"longest": "Int64"})


def _rows_by_length(one: LengthBuckets) -> Iterator[list[Any]]:
    for policy in one.policies:
        for place, bucket in enumerate(one.buckets):
            change = one.change(policy, place)
            yield [
                *(one.group, one.label, one.column, one.task, one.by, one.metric),
                *(bucket.low, bucket.high, bucket.count),
                *(policy, one.scores[policy][place]),
                *(change.value, *(change.ends or (None, None))),
            ]


def frame_of_items(tables: Sequence[ScoreTable], scores: pd.DataFrame) -> pd.DataFrame:
    """Return the items of the scores, a row per model, τ, task and query, text or pair."""
    import pyarrow as pa

    from lcbench.results.items import ItemsError, whole_items

    labels = {
        (table.group, block.window, block.model, block.revision): block.label
        for table in tables
        for block in table.blocks
    }
    frames = []
    seen: set[CellFiles] = set()
    for row in scores.itertuples(index=False):
        window = None if pd.isna(row.window) else int(row.window)
        label = labels.get((str(row.group), window, row.model, row.revision))
        if label is None or row.files in seen:
            continue
        seen.add(row.files)
        try:
            items = _read(row.files, whole_items)
        # The cell has no items, or they were changed, which reading the scores has reported.
        except (OSError, ItemsError, pa.ArrowException):
            continue
        named = [str(row.group), window, label, str(row.task), str(row.policy)]
        for place, (name, value) in enumerate(zip([*_BLOCK, "task", "tau"], named, strict=True)):
            items.insert(place, name, value)
        frames.append(items)
    if not frames:
        return pd.DataFrame(columns=[*_BLOCK, "task", "tau"])
    return _with_numbers(pd.concat(frames, ignore_index=True))


def _read(files: CellFiles, open_items: Any) -> pd.DataFrame:
    import pyarrow.parquet as pq

    with pq.ParquetFile(open_items(files)) as file:
        return file.read().to_pandas()


def frame_of_table(shown: Table) -> pd.DataFrame:
    """Return a table of a report, with numbers in full precision."""
    rows = [
        [section.heading, *(entry.value for entry in row)]
        for section in shown.sections
        for row in section.rows
    ]
    frame = pd.DataFrame(rows, columns=["", *shown.header])
    return frame if any(section.heading for section in shown.sections) else frame.iloc[:, 1:]


def _named(table: ScoreTable, block: Block) -> list[Any]:
    return [table.group, block.window, block.label]


def _with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with numeric windows, and numeric temperatures if all are constants.

    Other parts of repairs, if there are any, have a column each; "" is none.
    """
    if frame.empty:
        return frame
    parts = [parts_of(policy) for policy in frame["tau"]]
    others = [key for key in PARTS if key != "tau" and any(key in one for one in parts)]
    if others:
        place = int(frame.columns.get_indexer(["tau"])[0])
        frame["tau"] = [one.get("tau", "1") for one in parts]
        for after, key in enumerate(others, 1):
            frame.insert(place + after, key, [one.get(key, "") for one in parts])
    # A column without any number would have the dtype object.
    measured = [name for name in _MEASURED if name in frame]
    frame = frame.astype(dict.fromkeys(measured, float))
    numbers = [temperature(policy) for policy in frame["tau"]]
    if None not in numbers:
        frame["tau"] = pd.Series(numbers, index=frame.index, dtype=float)
    if "window" in frame:
        frame["window"] = frame["window"].astype("Int64")
    return frame
