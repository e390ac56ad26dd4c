"""Recommends a repair for each model of a table, or none, from the items of its tasks.

`tuning.recommend` has the procedure, `advice_text` puts what it finds into words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lcbench.reporting.notes import listed
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, ScoreTable, distance
from lcbench.reporting.statistics import Recommendation
from lcbench.reporting.table1 import column_means
from lcbench.reporting.task_intervals import MOST_LOST
from lcbench.tasks.suites import averaged_columns
from lcbench.tuning.recommend import (
    FEWEST,
    FEWEST_TASKS,
    LEAST_CHANGED,
    Advice,
    Part,
    recommend,
)
from lcbench.uncertainty.clusters import digest_of_names
from lcbench.uncertainty.items import ROUNDING, score_of
from lcbench.uncertainty.variation import Component, components, variations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lcbench.reporting.task_intervals import TaskItems
    from lcbench.tuning.options import Across


@dataclass(frozen=True)
class TaskDifferences:
    """The differences of a model's repairs from its baseline on one task.

    Attributes:
        policies: repairs.
        parts: parts of the task's score; weights are shares of it, sums are fractions.
        signed: whether the score can be negative.
    """

    policies: tuple[str, ...]
    parts: tuple[Part, ...]
    signed: bool = False


def task_differences(
    task: str,
    scores: Mapping[tuple[str, str], float],
    items: TaskItems,
    clusters: Sequence[Sequence[NDArray[np.uint64]]],
) -> dict[str, TaskDifferences]:
    """Return the differences of repairs from the baseline by label of the model.

    Args:
        task: its name.
        scores: the table's score as a fraction, by label and policy.
        items: result of `task_intervals.task_items`.
        clusters: clusters of the items, for each group of cells (`task_intervals.link_tasks`).
    """
    found: dict[str, TaskDifferences] = {}
    for group, of_group in zip(items.groups, clusters, strict=True):
        cells = [one for place in group if (one := items.samples[place]) is not None]
        # A table restricted to some subsets has other scores than the whole task.
        right = [
            place
            for place, cell in enumerate(cells)
            if abs(score_of(cell) - scores[group[place]]) <= 2 * ROUNDING
        ]
        sources = components(cells, task, of_group)
        for label in dict.fromkeys(label for label, _ in group):
            own = {group[place][1]: place for place in right if group[place][0] == label}
            raw = own.pop(BASELINE, None)
            if raw is not None and own:
                parts = tuple(_parts(sources, raw, list(own.values())))
                signed = any(
                    one.gold is not None or (one.values < 0).any()
                    for cell in cells
                    for one in cell.values()
                )
                found[label] = TaskDifferences(tuple(own), parts, signed)
    return found


def _parts(sources: Sequence[Component], raw: int, ours: Sequence[int]) -> Iterable[Part]:
    """Yield the parts of a task's score, each with the experiments that follow it, if any."""
    for place, one in enumerate(sources):
        if one.deviates:
            continue
        differences = np.stack([one.differences(raw, other) for other in ours], axis=1)
        grouped = one.grouped
        sums = grouped.sums(slice(0, len(grouped.members)), differences[grouped.order])
        part = Part(
            one.weight, grouped.members, grouped.sizes.astype(float), sums * len(one.values)
        )
        following = sources[place + 1] if place + 1 < len(sources) else one
        if following.deviates:
            apart = following.values[:, list(ours)] - following.values[:, [raw]]
            noise = (apart - apart.mean(axis=0)) * _without_interaction(one, following, raw, ours)
            part = replace(part, noise=noise)
        yield part


def _without_interaction(
    texts: Component, experiments: Component, raw: int, ours: Sequence[int]
) -> NDArray[np.float64]:
    """Return factors of the experiments' deviations, without what is in those of texts, too.

    The variances of texts and of experiments both contain that of their interaction
    (`variation.variances_of`).
    """
    factors = np.ones(len(ours))
    both = [one.covariance for one in variations([texts]) if one.source == "both"]
    for place, other in enumerate(ours):
        gradient = np.zeros(texts.values.shape[1])
        gradient[[raw, other]] = -1.0, 1.0
        apart = experiments.values @ gradient
        variance = texts.weight**2 * float(apart.var(ddof=1)) / len(apart)
        if variance > 0:
            shared = sum(float(gradient @ one @ gradient) for one in both)
            factors[place] = np.sqrt(max(variance - shared, 0.0) / variance)
    return factors


def recommend_block(
    table: ScoreTable,
    block: Block,
    differences: Mapping[str, Mapping[str, TaskDifferences]],
    families: Mapping[str, str],
    across: Across | None = None,
    seed: int = 0,
) -> Recommendation:
    """Return the recommendation for a model.

    The score is `Avg`: the mean over columns of the mean over their tasks, of which those are left
    out whose items are not known. Independent units are clusters of items that share texts, each
    with its items in all tasks; or, across tasks, families of tasks that share items.

    Args:
        table: the table.
        block: the model's part of it.
        differences: by task, then by label (`task_differences`).
        families: name of each task's family of tasks that share items.
        across: what it is cross-validated over; None: tasks, if there are `FEWEST_TASKS`
            independent ones and more than one in each column, otherwise texts.
        seed: seed of folds and draws.
    """
    averaged = averaged_columns([column.name for column in table.columns])
    every = [column.tasks for column in table.columns if column.name in averaged]
    of_model = {
        task: one
        for of_column in every
        for task in of_column
        if (one := differences.get(task, {}).get(block.label)) is not None
    }
    columns = [known for of_column in every if (known := [t for t in of_column if t in of_model])]
    tasks = tuple(of_model)
    left_out = tuple(task for of_column in every for task in of_column if task not in of_model)
    independent = len({families.get(task, task) for task in tasks})
    # How such a column varies from task to task cannot be seen.
    alone = [
        of_column[0]
        for of_column in columns
        if len({families.get(task, task) for task in of_column}) == 1
    ]
    enough = independent >= FEWEST_TASKS and not alone
    chosen: Across = across or ("tasks" if enough else "texts")
    policies = sorted(
        (
            policy
            for policy in block.policies
            if policy != BASELINE and all(policy in one.policies for one in of_model.values())
        ),
        key=distance,
    )
    found = Recommendation(
        *(block.label, block.model, block.revision, block.window, tuple(policies), tasks, chosen),
        advice=None,
        left_out=left_out,
    )
    if not of_model:
        return replace(found, why=f"the items of {listed(left_out)} are not known")
    if not policies:
        return replace(found, why="no repair has results of all tasks")
    raw = column_means(
        [task for task in block.tasks if task.task in of_model],
        BASELINE,
        [column for column in table.columns if any(task in of_model for task in column.tasks)],
    )[AVERAGE]
    by_column = [
        [_of_policies(of_model[task], policies) for task in of_column] for of_column in columns
    ]
    if chosen == "tasks":
        names = [[families.get(task, task) for task in of_column] for of_column in columns]
        parts = [
            _of_families(of_tasks, of_column)
            for of_tasks, of_column in zip(by_column, names, strict=True)
        ]
    else:
        parts = [
            replace(part, weight=part.weight / len(of_tasks))
            for of_tasks in by_column
            for of_task in of_tasks
            for part in of_task
        ]
    units = len(np.unique(np.concatenate([part.units for part in parts])))
    least = FEWEST_TASKS if chosen == "tasks" else FEWEST
    if units < least:
        kind = "tasks that share no texts" if chosen == "tasks" else "independent texts or queries"
        there = f"there {'is' if units == 1 else 'are'} {units}"
        why = f"{least} {kind} are needed to choose a repair, and {there}"
        return replace(found, why=why)
    if chosen == "tasks" and alone:
        why = (
            f"how gains vary from task to task is unknown where a column has one task: "
            f"{listed(alone)}. Take across=texts"
        )
        return replace(found, why=why)
    if raw is None or raw <= 0:
        return replace(found, why="the baseline is not above 0")
    parts = [_scaled(part, 1 / len(columns), 100 / (raw / 100)) for part in parts]
    few = chosen == "tasks"
    advice = recommend(parts, seed=seed, few=few, changed=1 if few else LEAST_CHANGED)
    signed = any(one.signed for one in of_model.values())
    return replace(found, advice=advice if signed else _possible(advice))


def _possible(advice: Advice) -> Advice:
    """Return an advice whose intervals are of scores that are never below 0."""
    return replace(
        advice,
        low=np.maximum(advice.low, MOST_LOST),
        high=np.maximum(advice.high, MOST_LOST),
        expected_low=max(advice.expected_low, MOST_LOST),
        expected_high=max(advice.expected_high, MOST_LOST),
    )


def _of_policies(one: TaskDifferences, policies: Sequence[str]) -> list[Part]:
    places = [one.policies.index(policy) for policy in policies]
    return [
        replace(
            part,
            sums=part.sums[:, places],
            noise=None if part.noise is None else part.noise[:, places],
        )
        for part in one.parts
    ]


def _of_families(of_tasks: Sequence[Sequence[Part]], families: Sequence[str]) -> Part:
    """Return a column whose units are families of tasks; a family counts by its tasks."""
    means = np.stack(
        [
            np.sum(
                [part.weight * part.sums.sum(axis=0) / part.sizes.sum() for part in of_task], axis=0
            )
            for of_task in of_tasks
        ]
    )
    names, places = np.unique(families, return_inverse=True)
    sums = np.zeros((len(names), means.shape[1]))
    np.add.at(sums, places, means)
    units = np.array([digest_of_names("family", name) for name in names], dtype=np.uint64)
    return Part(1.0, units, np.bincount(places).astype(float), sums)


def _scaled(part: Part, weight: float, scale: float) -> Part:
    noise = None if part.noise is None else part.noise * scale
    return replace(part, weight=part.weight * weight, sums=part.sums * scale, noise=noise)
