"""Builds tables like the paper's Table 1: means, best τ, relative improvement, missing values.

Takes scores as a data frame and gives values; `formats` makes text of them and `figures` a plot.
Whatever cannot be averaged or compared is missing, with a note that says why.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean
from typing import Any

import pandas as pd

from lcbench.repair.repair import label_of
from lcbench.reporting.notes import (
    BASELINE_WITHOUT_SCORE,
    MISSING,
    NO_BASELINE,
    NO_SCORE,
    Reason,
    candidate_policies,
    choice_notes,
    joined,
    listing,
    missing_notes,
    share_notes,
    taus,
    version_notes,
)
from lcbench.reporting.score_table import (
    AVERAGE,
    BASELINE,
    COLUMN_ORDER,
    Block,
    Cell,
    Cells,
    Column,
    ScoreTable,
    TaskScores,
    Values,
    distance,
    ordered_policies,
    relative_improvement,
)
from lcbench.results.items import ITEMS
from lcbench.results.rows import ASSUMED_POOLING, MODEL_DIGEST
from lcbench.tasks.suites import averaged_columns

SCORE_COLUMNS = (
    "group",
    "window",
    "model",
    "revision",
    "policy",
    "task",
    "column",
    "split",
    "subset",
    "score",
    "conditions",
)
"""The columns that a frame of scores must have."""

# A column that a frame may have: where a model's folder is, as it was asked for.
_PATH = "path"
# The same: what `model.label=` calls a model.
_LABEL = "label"


# A git revision is recognised by this many characters; more are shown only to tell two apart.
_REVISION_CHARACTERS = 8


# Conditions of a comparison that not every result has, and what is said where two differ.
_NOT_ALWAYS_KNOWN = {
    ITEMS: "the items are not those of the baseline",
    MODEL_DIGEST: "the model's files are not those of the baseline",
}


def build_tables(
    scores: pd.DataFrame,
    expected: Mapping[str, Sequence[str]] | None = None,
    policies_expected: Mapping[str, Sequence[str]] | None = None,
) -> list[ScoreTable]:
    """Build a table per group, by the rules of the paper's Table 1.

    A task is the unweighted mean over its splits of the unweighted mean over their subsets, a
    column that of its tasks, `Avg` that of the columns; the relative improvement is
    100 · (ours − raw) / raw, before any rounding (paper, Table 1).

    `scores` has one row per cell, split and subset and the columns `SCORE_COLUMNS`, with scores
    as fractions. `expected` gives the tasks by column that a table should contain (by default:
    every task that the group has), `policies_expected` the policies by model's name (by default,
    and for models that it does not name: those present). What is present beyond either is left
    out with a note.

    Raises `ValueError` if a column is missing, a task stands under two columns, a split and
    subset of one cell comes twice, or `expected` names no task.
    """
    absent = [name for name in SCORE_COLUMNS if name not in scores.columns]
    if absent:
        raise ValueError(f"scores lack the columns {', '.join(absent)}")
    groups: dict[str, list[Any]] = {}
    columns = [name for name in (*SCORE_COLUMNS, _PATH, _LABEL) if name in scores.columns]
    for record in scores[columns].itertuples(index=False):
        groups.setdefault(str(record.group), []).append(record)
    measured = {str(record.model) for records in groups.values() for record in records}
    unmeasured = tuple(
        f"{model}: no results" for model in policies_expected or {} if model not in measured
    )
    return [
        _table(group, records, expected, policies_expected or {}, unmeasured)
        for group, records in groups.items()
    ]


@dataclass(frozen=True)
class _Identity:
    """The identity of a block; scores are never compared with another block's baseline."""

    window: int | None
    model: str
    revision: str


def _table(
    group: str,
    records: Sequence[Any],
    expected: Mapping[str, Sequence[str]] | None,
    policies_expected: Mapping[str, Sequence[str]],
    unmeasured: Sequence[str],
) -> ScoreTable:
    present = _columns_of_tasks(group, records)
    columns = _columns(present if expected is None else _columns_expected(expected))
    blocks = []
    said: dict[str, list[str]] = {}
    cells_by_identity = _cells_by_identity(records)
    labels = _labels(cells_by_identity, _texts_of(records, _PATH), _texts_of(records, _LABEL))
    # A stable sort: within a window the models stay in the order in which they came.
    for identity in sorted(cells_by_identity, key=_unknown_window_last):
        asked = policies_expected.get(identity.model)
        block, block_notes = _block(
            identity, labels[identity], cells_by_identity[identity], columns, asked
        )
        blocks.append(block)
        for note in block_notes:
            said.setdefault(note, []).append(block.label)
    notes = [f"{_models(those, len(blocks))}{note}" for note, those in said.items()]
    average, average_notes = _average_improvement(blocks, [column.name for column in columns])
    notes.extend(average_notes)
    notes.extend(unmeasured)
    kept = {task for column in columns for task in column.tasks}
    unexpected = sorted(set(present) - kept)
    if unexpected:
        notes.append(f"left out, not among the table's tasks: {joined(unexpected)}")
    return ScoreTable(group, columns, tuple(blocks), average, tuple(notes))


def _models(labels: Sequence[str], every: int) -> str:
    """Return the models of a note, which appears once for all of them."""
    return "every model" if len(labels) == every > 1 else listing(labels)


def _unknown_window_last(identity: _Identity) -> float:
    return math.inf if identity.window is None else identity.window


def _columns_of_tasks(group: str, records: Sequence[Any]) -> dict[str, str]:
    """Return the column of each task in the scores."""
    columns: dict[str, str] = {}
    for record in records:
        task, column = str(record.task), str(record.column)
        if columns.setdefault(task, column) != column:
            raise ValueError(
                f"{group}: {task} stands under two columns, {columns[task]} and {column}"
            )
    return dict(sorted(columns.items()))


def _columns_expected(expected: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the column of each task as requested, in the requested order."""
    columns: dict[str, str] = {}
    for column, tasks in expected.items():
        for task in tasks:
            if columns.setdefault(task, column) != column:
                raise ValueError(f"{task} is expected in two columns, {columns[task]} and {column}")
    if not columns:
        raise ValueError("no task is expected: give at least one, or leave `expected` out")
    return columns


def _columns(column_of_task: Mapping[str, str]) -> tuple[Column, ...]:
    tasks: dict[str, list[str]] = {}
    for task, column in column_of_task.items():
        tasks.setdefault(column, []).append(task)
    if AVERAGE in tasks:
        raise ValueError(f"{AVERAGE} is the mean of the columns and cannot be the column of a task")
    known = [name for name in COLUMN_ORDER if name in tasks]
    others = sorted(name for name in tasks if name not in COLUMN_ORDER)
    return tuple(Column(name, tuple(tasks[name])) for name in [*known, *others])


def _cells_by_identity(records: Sequence[Any]) -> dict[_Identity, dict[str, dict[str, Cell]]]:
    """Return the cells by identity, policy and task."""
    rows: dict[tuple[_Identity, str, str], list[Any]] = {}
    for record in records:
        window = None if pd.isna(record.window) else int(record.window)
        identity = _Identity(window, str(record.model), str(record.revision))
        rows.setdefault((identity, str(record.policy), str(record.task)), []).append(record)
    cells: dict[_Identity, dict[str, dict[str, Cell]]] = {}
    for (identity, policy, task), parts in rows.items():
        where = f"{identity.model}, {label_of(policy)}, {task}"
        cells.setdefault(identity, {}).setdefault(policy, {})[task] = cell_of(where, parts)
    return cells


def cell_of(where: str, records: Sequence[Any]) -> Cell:
    """Return a cell's score, parts and conditions from its rows, one per split and subset.

    Raises `ValueError`, which names `where`, if a split and subset comes twice.
    """
    splits: dict[str, dict[str, float]] = {}
    conditions: dict[str, set[str]] = {}
    for record in records:
        subsets = splits.setdefault(str(record.split), {})
        subset = str(record.subset)
        if subset in subsets:
            raise ValueError(f"{where}: split {record.split}, subset {subset} comes twice")
        subsets[subset] = math.nan if pd.isna(record.score) else float(record.score)
        for key, value in record.conditions.items():
            conditions.setdefault(str(key), set()).add(str(value))
    return Cell(
        score=_mean_or_nan([_mean_or_nan(list(subsets.values())) for subsets in splits.values()]),
        parts=frozenset((split, subset) for split, subsets in splits.items() for subset in subsets),
        conditions={key: " and ".join(sorted(values)) for key, values in conditions.items()},
    )


def _mean_or_nan(values: Sequence[float]) -> float:
    return fmean(values) if all(math.isfinite(value) for value in values) else math.nan


def _mean_or_none(values: Iterable[float | None]) -> float | None:
    """Return the unweighted mean; missing if any value is missing."""
    known = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return fmean(known)


def _texts_of(records: Sequence[Any], column: str) -> dict[tuple[str, str], str]:
    """Return the text of each model and revision in a column that may be missing or empty."""
    found: dict[tuple[str, str], str] = {}
    for record in records:
        text = getattr(record, column, None)
        if isinstance(text, str):
            found.setdefault((str(record.model), str(record.revision)), text)
    return found


def _labels(
    identities: Iterable[_Identity],
    paths: Mapping[tuple[str, str], str],
    given: Mapping[tuple[str, str], str],
) -> dict[_Identity, str]:
    """Return the user's label of each model or its short name, made unique."""
    identities = list(identities)
    models_by_name: dict[str, set[str]] = {}
    revisions: dict[str, set[str]] = {}
    windows: dict[tuple[str, str], set[int | None]] = {}
    for identity in identities:
        models_by_name.setdefault(_short_name(identity.model), set()).add(identity.model)
        revisions.setdefault(identity.model, set()).add(identity.revision)
        windows.setdefault((identity.model, identity.revision), set()).add(identity.window)
    # Not a folder's that is called as a model of the hub is.
    tails = {key: tail for key, tail in _tails(windows, paths).items() if tail not in revisions}
    alike = Counter(tails.values())
    # Of those that have no label.
    names = {_short_name(model) for model, revision in windows if (model, revision) not in given}
    labels = {}
    for identity in identities:
        model, revision = key = identity.model, identity.revision
        short = _short_name(model)
        name = tails.get(key) or (model if len(models_by_name[short]) > 1 else short)
        if key in given:
            name = given[key]
            is_alone = list(given.values()).count(name) == 1 and name not in names
        else:
            is_alone = len(revisions[model]) == 1 or (key in tails and alike[name] == 1)
        apart = []
        if not is_alone:
            apart.append(_short_revision(revision, revisions[model]))
        if len(windows[key]) > 1:
            apart.append(f"window {'unknown' if identity.window is None else identity.window}")
        labels[identity] = f"{name} ({', '.join(apart)})" if apart else name
    return labels


def _tails(
    models: Iterable[tuple[str, str]], paths: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """Return the shortest distinct ends of paths of folders with the same name."""
    parts_of: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {}
    for key in models:
        # `.` and `..` are no names.
        parts = PurePath(paths.get(key, "")).parts
        if parts and parts[-1] != "..":
            parts_of.setdefault(key[0], {})[key] = parts
    tails = {}
    for those in parts_of.values():
        different = set(those.values())
        if len(different) == 1:
            continue
        for key, parts in those.items():
            others = different - {parts}
            length = next(
                (
                    count
                    for count in range(1, len(parts))
                    if all(other[-count:] != parts[-count:] for other in others)
                ),
                len(parts),
            )
            tails[key] = str(PurePath(*parts[-length:]))
    return tails


def _short_name(model: str) -> str:
    """Return a name without its organisation or folder."""
    return model.rstrip("/").rsplit("/", maxsplit=1)[-1] or model


def _short_revision(revision: str, others: Iterable[str]) -> str:
    """Return the first characters of a revision: eight, or as many as make it unique."""
    others = set(others) - {revision}
    characters = _REVISION_CHARACTERS
    while characters < len(revision) and any(
        other[:characters] == revision[:characters] for other in others
    ):
        characters += 1
    return revision[:characters] or "no revision"


def _block(
    identity: _Identity,
    label: str,
    cells: Cells,
    columns: Sequence[Column],
    asked: Sequence[str] | None,
) -> tuple[Block, list[str]]:
    """Return a model's part of the table, and its notes, each to follow the model's label."""
    policies = ordered_policies([BASELINE, *(cells if asked is None else asked)])
    reasons = _reasons(cells, policies, columns)
    tasks = tuple(
        TaskScores(
            column.name,
            task,
            {
                policy: None if (policy, task) in reasons else 100 * cells[policy][task].score
                for policy in policies
            },
        )
        for column in columns
        for task in column.tasks
    )
    scores = {policy: column_means(tasks, policy, columns) for policy in policies}
    raw = scores[BASELINE]
    improvements = {
        policy: {name: relative_improvement(score, raw[name]) for name, score in row.items()}
        for policy, row in scores.items()
        if policy != BASELINE
    }
    best = _best_policy(tasks, scores)
    block = Block(
        window=identity.window,
        model=identity.model,
        revision=identity.revision,
        label=label,
        policies=policies,
        best=best,
        scores=scores,
        improvements=improvements,
        tasks=tasks,
    )
    notes = missing_notes(cells, policies, columns, reasons)
    notes.extend(choice_notes(block))
    notes.extend(share_notes(block))
    notes.extend(version_notes(cells, columns, reasons))
    notes.extend(_data_notes(cells, columns))
    notes.extend(_pooling_notes(cells))
    unasked = ordered_policies(policy for policy in cells if policy not in policies)
    if unasked:
        notes.append(f": left out, not asked for: {taus(unasked)}")
    return block, notes


def _reasons(
    cells: Cells, policies: Sequence[str], columns: Sequence[Column]
) -> dict[tuple[str, str], Reason]:
    """Return the reasons why scores do not count, by policy and task; all others count."""
    reasons = {}
    for policy in policies:
        for task in (task for column in columns for task in column.tasks):
            cell = cells.get(policy, {}).get(task)
            baseline = cells.get(BASELINE, {}).get(task)
            reason = _reason(cell, baseline)
            if reason is not None:
                reasons[policy, task] = reason
    return reasons


def _reason(cell: Cell | None, baseline: Cell | None) -> Reason | None:
    if cell is None:
        return MISSING
    if math.isnan(cell.score):
        return NO_SCORE
    if baseline is None:
        return NO_BASELINE
    if math.isnan(baseline.score):
        return BASELINE_WITHOUT_SCORE
    differences = _differences(cell, baseline)
    if differences:
        return Reason("refused ", f" ({'; '.join(differences)})")
    return None


def _differences(cell: Cell, baseline: Cell) -> list[str]:
    """Return the conditions that differ besides the policy, one text per key."""
    differences = []
    for key in sorted({*cell.conditions, *baseline.conditions}):
        here = cell.conditions.get(key, "absent")
        there = baseline.conditions.get(key, "absent")
        if key == ASSUMED_POOLING:
            continue  # the same for a model at one revision; results of older versions say none
        if key in _NOT_ALWAYS_KNOWN:
            # Of a result of an older version, or without items, they are not known.
            if here != there and "absent" not in (here, there):
                differences.append(_NOT_ALWAYS_KNOWN[key])
        elif here != there:
            differences.append(f"{key}: {here} here, {there} in the baseline")
    for parts, where in (
        (cell.parts - baseline.parts, "here"),
        (baseline.parts - cell.parts, "in the baseline"),
    ):
        if parts:
            names = joined([f"{split}/{subset}" for split, subset in sorted(parts)])
            differences.append(f"split/subset: {names} only {where}")
    return differences


def column_means(
    tasks: Sequence[TaskScores], policy: str, columns: Sequence[Column]
) -> dict[str, float | None]:
    """Return the means of a policy by column, and `Avg`; None if a task has no score."""
    means = {
        column.name: _mean_or_none(
            task.scores[policy] for task in tasks if task.column == column.name
        )
        for column in columns
    }
    averaged = averaged_columns([column.name for column in columns])
    return {**means, AVERAGE: _mean_or_none(means[name] for name in averaged)}


def _best_policy(tasks: Sequence[TaskScores], scores: Mapping[str, Values]) -> str | None:
    """Return the complete candidate with the highest `Avg`; among equals, the one closest to the
    baseline (`distance`).

    Where none is complete, the one with the most tasks; `None` where there is but the baseline.
    """

    def merit(policy: str) -> tuple[bool, float, int, float]:
        average = scores[policy][AVERAGE]
        present = sum(task.scores[policy] is not None for task in tasks)
        parts, tau = distance(policy)
        return (average is not None, present if average is None else average, -parts, -tau)

    return max(candidate_policies(tasks, list(scores)), key=merit, default=None)


def _pooling_notes(cells: Cells) -> list[str]:
    """Return notes on models that specify no pooling, with the pooling that was assumed."""
    assumed = {
        cell.conditions[ASSUMED_POOLING]: None
        for of_policy in cells.values()
        for cell in of_policy.values()
        if ASSUMED_POOLING in cell.conditions
    }
    return [
        f": names no pooling of its own; {pooling} pooling is assumed (model.pooling chooses it)"
        for pooling in assumed
    ]


def _data_notes(cells: Cells, columns: Sequence[Column]) -> list[str]:
    """Return notes on tasks scored on data that differs from the dataset it is named after."""
    differences: dict[str, None] = {}
    for task in (task for column in columns for task in column.tasks):
        for of_policy in cells.values():
            if (cell := of_policy.get(task)) is not None:
                differences |= dict.fromkeys(_differing_data(cell.conditions.get("data", "")))
    return [f": not quite the data that it is named after: {line}" for line in differences]


def _differing_data(data: str) -> list[str]:
    """Return the differences of a cell's data from mteb's statistics, from its provenance."""
    try:
        content = json.loads(data)
        return [str(line) for line in content.get("differs") or ()]
    except (ValueError, AttributeError, TypeError):
        return []


def _average_improvement(
    blocks: Sequence[Block], columns: Sequence[str]
) -> tuple[Values | None, list[str]]:
    """Return the row `Avg Improv.` (paper, Table 1): the mean of the models' improvements."""
    improved = {
        block.label: block.improvements[block.best] for block in blocks if block.best is not None
    }
    if len(improved) < 2:
        return None, []
    models = [block.model for block in blocks if block.best is not None]
    if twice := [model for model in dict.fromkeys(models) if models.count(model) > 1]:
        return None, [f"Avg Improv.: left out, {listing(twice)} stands in more than one row"]
    names = (*columns, AVERAGE)
    values = {name: _mean_or_none(row[name] for row in improved.values()) for name in names}
    notes = []
    missing: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        holders = tuple(label for label, row in improved.items() if row[name] is None)
        if holders:
            missing.setdefault(holders, []).append(name)
    for holders, where in missing.items():
        notes.append(f"Avg Improv., {listing(where)}: missing as in {listing(holders)}")
    without = [block.label for block in blocks if block.best is None]
    if without:
        notes.append(f"Avg Improv.: without {listing(without)}, measured at τ = {BASELINE} alone")
    return values, notes
