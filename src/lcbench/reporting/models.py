"""Compares models with each other, each without a repair: differences of scores, and ranks.

A pair of models is a block of a table in which one model is the baseline of the other, so that
clusters, draws and intervals are those of repairs, in points instead of percent. `tables.models`
shows the results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import pandas as pd

from lcbench.reporting.cells import rows_by_cell
from lcbench.reporting.intervals import Asked, of_outcomes, outcomes_of
from lcbench.reporting.means import of_families
from lcbench.reporting.notes import listed
from lcbench.reporting.score_table import AVERAGE, BASELINE, Block, Cell, ScoreTable, TaskScores
from lcbench.reporting.statistics import CellKey, Uncertainty
from lcbench.reporting.table1 import build_tables, cell_of, column_means
from lcbench.reporting.task_intervals import TaskItems, link_tasks
from lcbench.results.items import ITEMS
from lcbench.results.rows import COMPARED_VERSIONS, group_without_own

if TYPE_CHECKING:
    from lcbench.results.files import CellFiles

# The policy of the second model in the block of a pair.
_SECOND = "second"
# Conditions that must be equal for the scores of two models to be compared.
_OF_DATA = {
    "dataset_revision": "revisions of the dataset",
    "data": "data",
    "mteb_version": "versions of mteb",
    ITEMS: "items",
}
# Maximum length of a value in a note.
_LONGEST = 60


@dataclass(frozen=True)
class ModelPairs:
    """The models whose scores can be compared, and their pairs.

    Attributes:
        models: scores of all models.
        pairs: a block for each pair, in which the first model is the baseline of the second.
        labels: label of the block of each pair of models, by their labels.
        asked: cells of the pairs (`intervals.asked_cells`).
        notes: sentences on what differs between the models, and what is not compared.
    """

    models: ScoreTable
    pairs: ScoreTable
    labels: Mapping[tuple[str, str], str]
    asked: Asked
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """The difference of two models' scores × 100.

    Attributes:
        first: score of the first model; None: missing, or not comparable.
        second: score of the second model.
        uncertainty: uncertainty of second − first, in points; None: unknown.
    """

    first: float | None
    second: float | None
    uncertainty: Uncertainty | None

    @property
    def value(self) -> float | None:
        """Second − first; None if a score is missing."""
        if self.first is None or self.second is None:
            return None
        return self.second - self.first


@dataclass(frozen=True)
class Rank:
    """The place of a model in a ranking.

    Attributes:
        label: label of the model.
        score: score × 100; None: missing.
        rank: 1 + the number of significantly better models; None: it cannot be ranked.
        tied: labels of the models that it is not separable from.
        behind: its difference from the model with the highest score; None: that model itself, or no
            rank.
    """

    label: str
    score: float | None
    rank: int | None = None
    tied: tuple[str, ...] = ()
    behind: Difference | None = None


@dataclass(frozen=True)
class ModelComparison:
    """The differences between models.

    Attributes:
        of: the models and their pairs.
        cells: uncertainty of differences by label of the pair, policy and task, in points.
        means: the same by column, `Avg` included, as bands over all pairs.
        notes: see `ModelPairs.notes`, and tasks without an interval.
    """

    of: ModelPairs
    cells: Mapping[CellKey, Uncertainty]
    means: Mapping[CellKey, Uncertainty]
    notes: tuple[str, ...]

    def difference(
        self, first: str, second: str, *, column: str = "", task: str = ""
    ) -> Difference:
        """Return the difference of two models in a task, or in the mean of a column.

        Args:
            first: label of the first model.
            second: label of the second model.
            column: name of a column or `Avg`.
            task: name of a task, if no column is given.
        """
        if (first, second) not in self.of.labels:
            return _mirrored(self.difference(second, first, column=column, task=task))
        label = self.of.labels[first, second]
        (block,) = (one for one in self.of.pairs.blocks if one.label == label)
        known = self.means if column else self.cells
        scores = (
            {policy: block.scores[policy][column] for policy in block.policies}
            if column
            else block.scores_of(task)
        )
        return Difference(
            scores[BASELINE], scores[_SECOND], known.get((label, _SECOND, column or task))
        )

    def ranking(self, column: str) -> list[Rank]:
        """Return all models by their score in a column or `Avg`, with ranks.

        Models are ranked if all of their scores can be compared. A pair without an interval counts
        as not separable; without any interval there are no ranks.
        """
        scores = {block.label: block.scores[BASELINE][column] for block in self.of.models.blocks}
        known = [label for label, score in scores.items() if score is not None]
        between = {
            (first, second): self.difference(first, second, column=column)
            for first in known
            for second in known
            if first != second
        }
        partners = {
            label: sum(between[label, other].value is not None for other in known if other != label)
            for label in known
        }
        kept: list[str] = []
        for label in sorted(known, key=lambda one: -partners[one]):
            if all(between[label, other].value is not None for other in kept):
                kept.append(label)
        ordered = sorted(kept, key=lambda one: -float(scores[one] or 0.0))
        if not any(between[pair].uncertainty is not None for pair in combinations(ordered, 2)):
            ordered = []
        ranks = []
        for label in ordered:
            others = [other for other in ordered if other != label]
            better = [other for other in others if _is_better(between[label, other])]
            worse = [other for other in others if _is_better(between[other, label])]
            ranks.append(
                Rank(
                    label,
                    scores[label],
                    1 + len(better),
                    tuple(other for other in others if other not in (*better, *worse)),
                    None if label == ordered[0] else between[ordered[0], label],
                )
            )
        rest = sorted(
            (label for label in scores if label not in ordered),
            key=lambda one: (scores[one] is None, -float(scores[one] or 0.0)),
        )
        return [*ranks, *(Rank(label, scores[label]) for label in rest)]


def pairs_of_tables(tables: Sequence[ScoreTable], scores: pd.DataFrame) -> list[ModelPairs]:
    """Return the pairs of models whose scores can be compared.

    Models of different tables are compared if these differ only in what is the model's own, such
    as prompts, unless a model is in several of them.

    Args:
        tables: result of `table1.build_tables`.
        scores: the frame that they were built from.
    """
    if "files" not in scores.columns:
        return []
    scores = scores[(scores["policy"] == BASELINE) & scores["imported"].isna()]
    protocols = dict(zip(scores["group"], scores["protocol"], strict=True))
    groups: dict[str, list[str]] = {}
    for table in tables:
        if table.group in protocols:
            key = group_without_own(table.group, protocols[table.group])
            groups.setdefault(key, []).append(table.group)
    found = []
    for alike in groups.values():
        identities = scores[scores["group"].isin(alike)].drop_duplicates(
            ["group", "window", "model", "revision"]
        )
        several = identities.duplicated(["window", "model", "revision"]).any()
        for together in [[one] for one in alike] if several else [alike]:
            (models,) = build_tables(
                scores[scores["group"].isin(together)].assign(group=" and ".join(together)),
                _columns([table for table in tables if table.group in together]),
            )
            if len(models.blocks) > 1:
                own = scores[scores["group"].isin(together)].assign(group=models.group)
                found.append(_pairs(models, own))
    return found


def compare_pairs(
    of: ModelPairs,
    items: dict[str, TaskItems],
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> ModelComparison:
    """Return the differences between models, paired over the items of their tasks.

    Intervals of a column, and of `Avg`, are simultaneous over all pairs of models.

    Args:
        of: the models and their pairs.
        items: items of the pairs' cells by task, removed as tasks are done.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of all draws.
        progress: receives the number of finished tasks and of all tasks.
    """
    if not resamples:
        return ModelComparison(of, {}, {}, of.notes)
    linked = link_tasks(items)
    outcomes = outcomes_of(of.asked, items, linked, resamples, seed, progress, points=True)
    cells, draws = of_outcomes(of.pairs, outcomes, linked.families, resamples, seed)
    every = [(block.label, _SECOND) for block in of.pairs.blocks]
    means, _ = of_families(of.pairs, draws, cells, [every], points=True)
    lacking = [
        task
        for task, places in of.asked.items()
        if any(policy == _SECOND and (label, policy, task) not in cells for label, policy in places)
    ]
    notes = list(of.notes)
    if lacking:
        notes.append(
            f"No interval for {listed(lacking)}, in all or some pairs: the items are unknown, or "
            "not the same."
        )
    left_out = {one.note for (*_, column), one in means.items() if column == AVERAGE and one.note}
    notes += [f"{AVERAGE}: {note}." for note in sorted(left_out)]
    return ModelComparison(of, cells, means, tuple(notes))


def _columns(tables: Sequence[ScoreTable]) -> dict[str, list[str]]:
    """Return the tasks of several tables by column."""
    columns: dict[str, dict[str, None]] = {}
    for table in tables:
        for column in table.columns:
            columns.setdefault(column.name, {}).update(dict.fromkeys(column.tasks))
    return {name: list(tasks) for name, tasks in columns.items()}


def _pairs(models: ScoreTable, scores: pd.DataFrame) -> ModelPairs:
    """Return the pairs of a table of models."""
    rows = rows_by_cell(models, scores)
    cells = {(label, task): cell_of(label, of) for (label, _, task), of in rows.items()}
    files = {(label, task): of[-1].files for (label, _, task), of in rows.items()}
    blocks, labels = [], {}
    asked: dict[str, dict[tuple[str, str], tuple[float, CellFiles]]] = {}
    refused: dict[str, dict[str, None]] = {}
    for first, second in combinations(models.blocks, 2):
        label = f"{second.label} − {first.label}"
        tasks = []
        for one, other in zip(first.tasks, second.tasks, strict=True):
            pair = one.scores[BASELINE], other.scores[BASELINE]
            places = (first.label, one.task), (second.label, one.task)
            if None not in pair and (why := _unlike(*(cells[place] for place in places))):
                refused.setdefault(f"{one.task}: different {why}", {})[label] = None
                pair = None, None
            tasks.append(TaskScores(one.column, one.task, {BASELINE: pair[0], _SECOND: pair[1]}))
            for policy, score, place in zip((BASELINE, _SECOND), pair, places, strict=True):
                if score is not None and None not in pair:
                    of_task = asked.setdefault(one.task, {})
                    of_task[label, policy] = score / 100, files[place]
        means = {
            policy: column_means(tasks, policy, models.columns) for policy in (BASELINE, _SECOND)
        }
        blocks.append(
            replace(
                first,
                label=label,
                policies=(BASELINE, _SECOND),
                best=None,
                scores=means,
                improvements={},
                tasks=tuple(tasks),
            )
        )
        labels[first.label, second.label] = label
    notes = [
        *_missing(models.blocks),
        *(f"Not compared: {why} ({listed(list(of))})." for why, of in refused.items()),
        *_differing(models, rows),
    ]
    pairs = replace(models, blocks=tuple(blocks), average_improvement=None, notes=())
    return ModelPairs(models, pairs, labels, asked, tuple(notes))


def _unlike(first: Cell, second: Cell) -> str:
    """Return what differs between the data of two cells, in words; empty: nothing."""
    differing = [
        word
        for key, word in _OF_DATA.items()
        if first.conditions.get(key) != second.conditions.get(key)
        # Results of older versions, or without items, do not have them.
        and not (key == ITEMS and None in (first.conditions.get(key), second.conditions.get(key)))
    ]
    if first.parts != second.parts:
        differing.append("splits or subsets")
    return listed(differing) if differing else ""


def _missing(blocks: Sequence[Block]) -> Iterator[str]:
    """Yield a note for each model that lacks tasks."""
    for block in blocks:
        lacking = [task.task for task in block.tasks if task.scores[BASELINE] is None]
        if lacking:
            yield f"{block.label}: missing {listed(lacking)}; no mean is taken without it."


def _differing(models: ScoreTable, rows: Mapping[CellKey, Sequence[Any]]) -> Iterator[str]:
    """Yield a note for each condition other than the data that differs between models."""
    facts = {}
    for block in models.blocks:
        every = [_facts(of[-1]) for (label, *_), of in rows.items() if label == block.label]
        facts[block.label] = {
            name: _joined([one.get(name, "unknown") for one in every])
            for name in dict.fromkeys(name for one in every for name in one)
        }
    for name in dict.fromkeys(name for of_model in facts.values() for name in of_model):
        values: dict[str, list[str]] = {}
        for label, of_model in facts.items():
            values.setdefault(of_model.get(name, "unknown"), []).append(label)
        if len(values) > 1:
            said = "; ".join(f"{_short(value)} ({listed(of)})" for value, of in values.items())
            yield f"Differs between the models: {name}: {said}."


def _joined(values: Sequence[str]) -> str:
    """Return the values that a model's cells have, as one."""
    return " and ".join(sorted(set(values)))


def _facts(row: Any) -> dict[str, str]:
    """Return the conditions of a cell other than its data: the model's own, and versions."""
    protocol = row.protocol
    prompts = row.conditions.get("prompts")
    facts = {
        "window": "unknown" if pd.isna(row.window) else str(int(row.window)),
        "prompts": _prompts(prompts) or str(protocol.get("prompts", "unknown")),
        "requested pooling": str(protocol.get("pooling") or "none"),
        "requested special tokens": str(protocol.get("special_tokens") or "none"),
        "requested dimensions": str(protocol.get("dimensions") or "none"),
        "code of the model's repository": "run" if protocol.get("own_code") else "not run",
    }
    versions = {name: str(row.conditions.get(name, "unknown")) for name in COMPARED_VERSIONS}
    return facts | {f"version of {name}": version for name, version in versions.items()}


def _prompts(text: str | None) -> str:
    """Return the prompts of a cell in a line; empty if they are unknown or there are none."""
    try:
        found = json.loads(text or "null")
    except ValueError:
        return ""
    if not isinstance(found, Mapping):
        return "" if found is None else str(found)
    return ", ".join(f"{name} {value!r}" for name, value in sorted(found.items()))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _is_better(difference: Difference) -> bool:
    """Return whether the second model is significantly better."""
    found = difference.uncertainty
    return found is not None and found.excludes_zero and found.low > 0


def _mirrored(difference: Difference) -> Difference:
    """Return the difference in the other direction."""
    found = difference.uncertainty
    if found is not None:
        alone = found.alone
        found = replace(
            found,
            low=-found.high,
            high=-found.low,
            alone=None if alone is None else (-alone[1], -alone[0]),
            up=found.down,
            down=found.up,
        )
    return Difference(difference.second, difference.first, found)
