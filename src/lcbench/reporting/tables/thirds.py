"""Scores of short, medium and long texts: the items of each task in thirds by length.

The thirds of a model's tasks make a table of scores with a column for each, so that means over
tasks, their intervals and bands are those of Table 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lcbench.reporting.intervals import of_outcomes
from lcbench.reporting.means import of_table
from lcbench.reporting.score_table import (
    BASELINE,
    Block,
    Column,
    ScoreTable,
    TaskScores,
    relative_improvement,
)
from lcbench.reporting.statistics import Uncertainty
from lcbench.reporting.table1 import column_means
from lcbench.reporting.tables.changes import FEWEST_ITEMS
from lcbench.reporting.task_intervals import TaskItems, task_outcome
from lcbench.uncertainty.items import Sample, Samples, as_bits, score_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.reporting.tables.items_by_length import Items, Place

LENGTHS = ("Short", "Medium", "Long")
"""The columns of thirds, from short to long texts."""


@dataclass(frozen=True)
class Thirds:
    """The items of a model on a task in thirds by length.

    Attributes:
        group: group of the table.
        label: label of the model.
        task: name of the task.
        samples: items by third (`LENGTHS`) and policy.
        clusters: cluster of each item by third and part of the samples.
    """

    group: str
    label: str
    task: str
    samples: Mapping[str, Mapping[str, Samples]]
    clusters: Mapping[str, Sequence[NDArray[np.uint64]]]


@dataclass(frozen=True)
class LengthScores:
    """The scores of a model by third of length, averaged over tasks.

    Attributes:
        improvements: relative improvements in % by policy and third; None is a missing value.
        means: their uncertainty by policy and third, in bands over all policies.
        tasks: tasks that are averaged.
    """

    improvements: Mapping[str, Mapping[str, float | None]]
    means: Mapping[tuple[str, str], Uncertainty]
    tasks: tuple[str, ...]


def thirds_of(place: Place, items: Items) -> Thirds | None:
    """Return the items of a task in thirds by length; None if a third would have too few.

    The length of a query's item is that of its longest relevant document, of a pair's that of the
    longer text, in characters before truncation if they are known. Items as long as the last of a
    third belong to it, and the thirds at the ends take them from the one in the middle.

    Args:
        place: task and model of the items.
        items: items of `items_by_length`.
    """
    lengths = next(iter(items.lengths.values()))
    known = items.scored & np.isfinite(lengths)
    ordered = np.sort(lengths[known])
    third = math.ceil(len(ordered) / 3)
    if third < FEWEST_ITEMS or ordered[third - 1] >= ordered[-third]:
        return None
    short = known & (lengths <= ordered[third - 1])
    long = known & (lengths >= ordered[-third])
    chosen = dict(zip(LENGTHS, (short, known & ~short & ~long, long), strict=True))
    parts = {name: _parts(items, mask) for name, mask in chosen.items()}
    if not all(parts.values()):
        return None
    return Thirds(
        place.group,
        place.label,
        place.task,
        {
            name: {
                policy: samples
                for policy in items.values
                if (samples := _samples(items, policy, of)) is not None
            }
            for name, of in parts.items()
        },
        {name: [items.clusters[rows] for rows in of] for name, of in parts.items()},
    )


def _parts(items: Items, chosen: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the rows of each part of a score: of correlations one for each split and subset."""
    parts = [chosen]
    if items.gold is not None:
        parts = [chosen & (items.parts == part) for part in range(int(items.parts.max()) + 1)]
    rows = [np.flatnonzero(part) for part in parts]
    return [one for one in rows if len(one) >= FEWEST_ITEMS]


def _samples(items: Items, policy: str, parts: Sequence[NDArray[np.int64]]) -> Samples | None:
    """Return the samples of a policy; None if one of its items has no score."""
    found = {}
    for number, rows in enumerate(parts):
        values = items.values[policy][rows]
        if not np.isfinite(values).all():
            return None
        draws, bits = None, None
        if items.right:
            right = items.right[policy][rows]
            draws, bits = right.mean(axis=0, dtype=np.float64), as_bits(right)
        gold = None if items.gold is None else items.gold[rows]
        found["", str(number)] = Sample((number,), values, gold, draws, "items", bits)
    return found


def scores_by_third(
    block: Block,
    found: Sequence[Thirds],
    families: Mapping[str, str],
    resamples: int,
    seed: int,
) -> LengthScores | None:
    """Return a model's scores by third of length, averaged over tasks; None without any task.

    Args:
        block: block of the model in its table.
        found: thirds of the model's tasks.
        families: name of each task's family of tasks that share items.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
    """
    if not found:
        return None
    columns = tuple(Column(name, tuple(_name(one.task, name) for one in found)) for name in LENGTHS)
    tasks = tuple(
        TaskScores(
            name,
            _name(one.task, name),
            {
                policy: 100 * score_of(samples)
                if (samples := one.samples[name].get(policy)) is not None
                else None
                for policy in block.policies
            },
        )
        for name in LENGTHS
        for one in found
    )
    scores = {policy: column_means(tasks, policy, columns) for policy in block.policies}
    raw = scores[BASELINE]
    improvements = {
        policy: {name: relative_improvement(row[name], raw[name]) for name in row}
        for policy, row in scores.items()
        if policy != BASELINE
    }
    own = replace(block, scores=scores, improvements=improvements, tasks=tasks)
    table = ScoreTable("", columns, (own,), None, ())
    means: dict[tuple[str, str], Uncertainty] = {}
    if resamples:
        outcomes = {
            _name(one.task, name): task_outcome(
                _name(one.task, name),
                {(block.label, policy): score_of(of) for policy, of in samples.items()},
                TaskItems(
                    {(block.label, policy): of for policy, of in samples.items()},
                    {},
                    [[(block.label, policy) for policy in samples]],
                    (),
                ),
                [one.clusters[name]],
                resamples,
                seed,
            )
            for one in found
            for name, samples in one.samples.items()
        }
        shared = {
            _name(one.task, name): families.get(one.task, one.task)
            for one in found
            for name in LENGTHS
        }
        cells, draws = of_outcomes(table, outcomes, shared, resamples, seed)
        known, _ = of_table(table, draws, cells, together=True)
        means = {(policy, name): one for (_, policy, name), one in known.items()}
    return LengthScores(improvements, means, tuple(one.task for one in found))


def _name(task: str, third: str) -> str:
    return f"{task} ({third.lower()})"
