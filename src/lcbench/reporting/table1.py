"""Tables of the shape of the paper's Table 1: means, best τ, relative improvement, holes.

Takes scores as a data frame and gives values; `render` makes text of them and `figures` a plot.
Whatever cannot be averaged or compared is a hole with a note that says why.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from statistics import fmean
from typing import Any, Literal

import pandas as pd

from lcbench.results.folder import ASSUMED_POOLING, ITEMS

BASELINE = "1"
"""The canonical policy that leaves attention unchanged (τ = 1)."""

AVERAGE = "Avg"
"""The name of the last column, the unweighted mean over the others."""

COLUMN_ORDER = (
    "Class",
    "PairClass",
    "Clust",
    "Summ",
    "STS",
    "BeirRetr",
    "Retr",
    "LongRetr",
    "Rerank",
    "LongEmbRetr",
)
"""The paper's order of columns, with mteb's other task types in between; others come after."""

OUTSIDE_AVERAGE = frozenset({"Needle", "Passkey"})
"""Columns that are not part of `Avg` beside others: one fact in much filler, where few queries say
little. The paper's averages leave them out as well (its Table 4)."""

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

# A note lists so many names, and of more the first ones.
_MOST_NAMES = 6
_FIRST_NAMES = 5

_KEPT_BIAS = "_bias=kept"
# What policies of one kind are called together, by how their names begin.
_KINDS = {"query=": "by role", "layers_": "by layer", "length_": "by length"}

# A git revision is recognised by this many characters; more are shown only to tell two apart.
_REVISION_CHARACTERS = 8

Values = Mapping[str, float | None]
"""Values by column name, `Avg` included; `None` is a hole."""


@dataclass(frozen=True)
class Column:
    """A column of the table and the tasks that it is the mean of."""

    name: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table: scores × 100 (`raw`, `ours`) or relative improvement in %.

    `partial` has the columns that are holes although some of their tasks have a score: how many, of
    how many.
    """

    kind: Literal["raw", "ours", "relative"]
    policy: str
    values: Values
    partial: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskScores:
    """The scores × 100 of one task by policy; `None` is a hole."""

    column: str
    task: str
    scores: Values

    def improvement(self, policy: str) -> float | None:
        """The relative improvement over the baseline in %; `None` for a hole."""
        return relative_improvement(self.scores[policy], self.scores[BASELINE])


@dataclass(frozen=True)
class Block:
    """All that a table says of one model (at one revision and window; `None`: window unknown).

    `scores` are × 100 and `improvements` % of the baseline, both by policy, then by column with
    `Avg`; `improvements` has no entry for the baseline. `best` is the policy of the line "ours", a
    constant where one has a score, `None` where there is none but the baseline. `policies` goes
    from large τ to small, those that are no constant last.
    """

    window: int | None
    model: str
    revision: str
    label: str
    policies: tuple[str, ...]
    best: str | None
    scores: Mapping[str, Values]
    improvements: Mapping[str, Values]
    tasks: tuple[TaskScores, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The lines raw, ours and relative; raw alone where only the baseline was asked for."""
        raw = Row("raw", BASELINE, self.scores[BASELINE], self.partial(BASELINE))
        if self.best is None:
            return (raw,)
        ours = self.partial(self.best)
        return (
            raw,
            Row("ours", self.best, self.scores[self.best], ours),
            # What has a score at the best policy has one in the baseline: else it is refused.
            Row("relative", self.best, self.improvements[self.best], ours),
        )

    def partial(self, policy: str) -> dict[str, tuple[int, int]]:
        """How many tasks of a column have a score, of how many, where it is some and not all."""
        every = Counter(task.column for task in self.tasks)
        present = Counter(task.column for task in self.tasks if task.scores[policy] is not None)
        return {
            column: (present[column], every[column])
            for column in every
            if 0 < present[column] < every[column]
        }


@dataclass(frozen=True)
class Table:
    """One table: a group's models, by window and then in the order in which they came.

    `average_improvement` is the row `Avg Improv.` in %, `None` with fewer than two models that
    have a line "ours". `notes` say what every hole comes from.
    """

    group: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    average_improvement: Values | None
    notes: tuple[str, ...]

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of all columns in the order of the table, `Avg` last."""
        return (*(column.name for column in self.columns), AVERAGE)


def build_tables(
    scores: pd.DataFrame,
    expected: Mapping[str, Sequence[str]] | None = None,
    policies_expected: Mapping[str, Sequence[str]] | None = None,
) -> list[Table]:
    """One table a group, by the rule behind the paper's Table 1.

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
    columns = [name for name in (*SCORE_COLUMNS, _PATH) if name in scores.columns]
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


def temperature(policy: str) -> float | None:
    """The τ of a constant policy, `None` for a policy that is no positive finite number."""
    try:
        value = float(policy)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def ordered_policies(policies: Iterable[str]) -> tuple[str, ...]:
    """Each policy once: constants from large τ to small, then the others by name."""

    def place(policy: str) -> tuple[bool, float, str]:
        tau = temperature(policy)
        return (tau is None, 0.0 if tau is None else -tau, policy)

    return tuple(sorted(set(policies), key=place))


def relative_improvement(ours: float | None, raw: float | None) -> float | None:
    """100 · (ours − raw) / raw in % (paper, Table 1); `None` for a hole or a raw not above 0.

    A correlation can be 0 or negative, where a share of it would have no meaning.
    """
    if ours is None or raw is None or raw <= 0:
        return None
    return 100 * (ours - raw) / raw


@dataclass(frozen=True)
class _Identity:
    """What makes a block: nothing in it may be compared with another block's baseline."""

    window: int | None
    model: str
    revision: str


@dataclass(frozen=True)
class _Cell:
    """A cell's score as a fraction (NaN where it has none) and what it was measured under."""

    score: float
    parts: frozenset[tuple[str, str]]
    conditions: Mapping[str, str]


@dataclass(frozen=True)
class _Reason:
    """Why a score does not count, as the words around the names of the tasks."""

    before: str
    after: str = ""

    def text(self, tasks: Sequence[str]) -> str:
        return f"{self.before}{_joined(tasks)}{self.after}"


_Cells = Mapping[str, Mapping[str, _Cell]]  # by policy, then by task

_MISSING = _Reason("missing ")
_NO_SCORE = _Reason("no score (NaN) for ")
_NO_BASELINE = _Reason("no baseline (τ = 1) for ")
_BASELINE_WITHOUT_SCORE = _Reason("no score (NaN) in the baseline for ")


def _table(
    group: str,
    records: Sequence[Any],
    expected: Mapping[str, Sequence[str]] | None,
    policies_expected: Mapping[str, Sequence[str]],
    unmeasured: Sequence[str],
) -> Table:
    present = _columns_of_tasks(group, records)
    columns = _columns(present if expected is None else _columns_expected(expected))
    blocks = []
    said: dict[str, list[str]] = {}
    cells_by_identity = _cells_by_identity(records)
    labels = _labels(cells_by_identity, _paths(records))
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
        notes.append(f"left out, not among the table's tasks: {_joined(unexpected)}")
    return Table(group, columns, tuple(blocks), average, tuple(notes))


def _models(labels: Sequence[str], every: int) -> str:
    """The models of a note; it is said once for all that it holds for."""
    return "every model" if len(labels) == every > 1 else _listing(labels)


def _unknown_window_last(identity: _Identity) -> float:
    return math.inf if identity.window is None else identity.window


def _columns_of_tasks(group: str, records: Sequence[Any]) -> dict[str, str]:
    """The column by task as the scores have it."""
    columns: dict[str, str] = {}
    for record in records:
        task, column = str(record.task), str(record.column)
        if columns.setdefault(task, column) != column:
            raise ValueError(
                f"{group}: {task} stands under two columns, {columns[task]} and {column}"
            )
    return dict(sorted(columns.items()))


def _columns_expected(expected: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The column by task as the caller wants it, in the caller's order of tasks."""
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


def _cells_by_identity(records: Sequence[Any]) -> dict[_Identity, dict[str, dict[str, _Cell]]]:
    """The cells by identity, policy and task."""
    rows: dict[tuple[_Identity, str, str], list[Any]] = {}
    for record in records:
        window = None if pd.isna(record.window) else int(record.window)
        identity = _Identity(window, str(record.model), str(record.revision))
        rows.setdefault((identity, str(record.policy), str(record.task)), []).append(record)
    cells: dict[_Identity, dict[str, dict[str, _Cell]]] = {}
    for (identity, policy, task), parts in rows.items():
        where = f"{identity.model}, τ = {policy}, {task}"
        cells.setdefault(identity, {}).setdefault(policy, {})[task] = _cell(where, parts)
    return cells


def _cell(where: str, records: Sequence[Any]) -> _Cell:
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
    return _Cell(
        score=_mean_or_nan([_mean_or_nan(list(subsets.values())) for subsets in splits.values()]),
        parts=frozenset((split, subset) for split, subsets in splits.items() for subset in subsets),
        conditions={key: " and ".join(sorted(values)) for key, values in conditions.items()},
    )


def _mean_or_nan(values: Sequence[float]) -> float:
    return fmean(values) if all(math.isfinite(value) for value in values) else math.nan


def _mean_or_hole(values: Iterable[float | None]) -> float | None:
    """The unweighted mean; a hole if there is one among the values, which is never left out."""
    known = []
    for value in values:
        if value is None:
            return None
        known.append(value)
    return fmean(known)


def _paths(records: Sequence[Any]) -> dict[tuple[str, str], str]:
    """The folder of a model and revision as it was asked for; not of a model of the hub."""
    paths: dict[tuple[str, str], str] = {}
    for record in records:
        path = getattr(record, _PATH, None)
        if isinstance(path, str):
            paths.setdefault((str(record.model), str(record.revision)), path)
    return paths


def _labels(
    identities: Iterable[_Identity], paths: Mapping[tuple[str, str], str]
) -> dict[_Identity, str]:
    """The short name of each model, with what tells it from the others of the table."""
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
    labels = {}
    for identity in identities:
        model, revision = key = identity.model, identity.revision
        short = _short_name(model)
        name = tails.get(key) or (model if len(models_by_name[short]) > 1 else short)
        apart = []
        if len(revisions[model]) > 1 and (key not in tails or alike[name] > 1):
            apart.append(_short_revision(revision, revisions[model]))
        if len(windows[key]) > 1:
            apart.append(f"window {'unknown' if identity.window is None else identity.window}")
        labels[identity] = f"{name} ({', '.join(apart)})" if apart else name
    return labels


def _tails(
    models: Iterable[tuple[str, str]], paths: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """The ends of the paths of folders that share a name, as short as tells them apart."""
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
    """The name without its organisation or folder."""
    return model.rstrip("/").rsplit("/", maxsplit=1)[-1] or model


def _short_revision(revision: str, others: Iterable[str]) -> str:
    """The first characters of a revision: eight, or as many as tell it from the others."""
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
    cells: _Cells,
    columns: Sequence[Column],
    asked: Sequence[str] | None,
) -> tuple[Block, list[str]]:
    """A model's part of the table, and its notes, each as it goes on after the model's label."""
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
    scores = {policy: _column_means(tasks, policy, columns) for policy in policies}
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
    notes = _hole_notes(cells, policies, columns, reasons)
    notes.extend(_choice_notes(block))
    notes.extend(_share_notes(block))
    notes.extend(_version_notes(cells, columns, reasons))
    notes.extend(_data_notes(cells, columns))
    notes.extend(_pooling_notes(cells))
    unasked = ordered_policies(policy for policy in cells if policy not in policies)
    if unasked:
        notes.append(f": left out, not asked for: {_taus(unasked)}")
    return block, notes


def _reasons(
    cells: _Cells, policies: Sequence[str], columns: Sequence[Column]
) -> dict[tuple[str, str], _Reason]:
    """Why the score of a (policy, task) does not count; what is not in it counts."""
    reasons = {}
    for policy in policies:
        for task in (task for column in columns for task in column.tasks):
            cell = cells.get(policy, {}).get(task)
            baseline = cells.get(BASELINE, {}).get(task)
            reason = _reason(cell, baseline)
            if reason is not None:
                reasons[policy, task] = reason
    return reasons


def _reason(cell: _Cell | None, baseline: _Cell | None) -> _Reason | None:
    if cell is None:
        return _MISSING
    if math.isnan(cell.score):
        return _NO_SCORE
    if baseline is None:
        return _NO_BASELINE
    if math.isnan(baseline.score):
        return _BASELINE_WITHOUT_SCORE
    differences = _differences(cell, baseline)
    if differences:
        return _Reason("refused ", f" ({'; '.join(differences)})")
    return None


def _differences(cell: _Cell, baseline: _Cell) -> list[str]:
    """What differs besides the policy, one text a key."""
    differences = []
    for key in sorted({*cell.conditions, *baseline.conditions}):
        here = cell.conditions.get(key, "absent")
        there = baseline.conditions.get(key, "absent")
        if key == ASSUMED_POOLING:
            continue  # the same for a model at one revision; results of older versions say none
        if key == ITEMS:
            # Of a result of an older version, or without items, they are not known.
            if here != there and "absent" not in (here, there):
                differences.append("the items are not those of the baseline")
        elif here != there:
            differences.append(f"{key}: {here} here, {there} in the baseline")
    for parts, where in (
        (cell.parts - baseline.parts, "here"),
        (baseline.parts - cell.parts, "in the baseline"),
    ):
        if parts:
            names = _joined([f"{split}/{subset}" for split, subset in sorted(parts)])
            differences.append(f"split/subset: {names} only {where}")
    return differences


def averaged_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that `Avg` is the mean of: not `OUTSIDE_AVERAGE`, unless there are only those."""
    return tuple(name for name in columns if name not in OUTSIDE_AVERAGE) or tuple(columns)


def _column_means(
    tasks: Sequence[TaskScores], policy: str, columns: Sequence[Column]
) -> dict[str, float | None]:
    means = {
        column.name: _mean_or_hole(
            task.scores[policy] for task in tasks if task.column == column.name
        )
        for column in columns
    }
    averaged = averaged_columns([column.name for column in columns])
    return {**means, AVERAGE: _mean_or_hole(means[name] for name in averaged)}


def _best_policy(tasks: Sequence[TaskScores], scores: Mapping[str, Values]) -> str | None:
    """The complete candidate with the highest `Avg`, of equals the one nearest to τ = 1.

    Where none is complete, the one with the most tasks; `None` where there is but the baseline.
    """

    def merit(policy: str) -> tuple[bool, float, float]:
        average = scores[policy][AVERAGE]
        present = sum(task.scores[policy] is not None for task in tasks)
        tau = temperature(policy)
        distance = math.inf if tau is None else abs(tau - 1)
        return (average is not None, present if average is None else average, -distance)

    return max(_candidates(tasks, list(scores)), key=merit, default=None)


def _candidates(tasks: Sequence[TaskScores], policies: Sequence[str]) -> list[str]:
    """The policies that the line "ours" is chosen among: constants, as the paper chooses.

    The best of dozens of policies by role or layer would be more optimistic still, and `choice` has
    no gain with tasks held out to set beside it. Constants that leave a position bias as it is come
    next, and others only where no constant has a score.
    """
    others = [policy for policy in policies if policy != BASELINE]
    constant = [policy for policy in others if temperature(policy) is not None]
    kept = [policy for policy in others if temperature(policy.removesuffix(_KEPT_BIAS)) is not None]
    for those in (constant, kept):
        if any(task.scores[policy] is not None for task in tasks for policy in those):
            return those
    return others


def _hole_notes(
    cells: _Cells,
    policies: Sequence[str],
    columns: Sequence[Column],
    reasons: Mapping[tuple[str, str], _Reason],
) -> list[str]:
    """What is missing or refused, each thing said once for all policies that it holds for."""
    names = {task for column in columns for task in column.tasks}
    empty = tuple(policy for policy in policies if not names & set(cells.get(policy, {})))
    notes = []
    if empty:
        notes.append(f", {_which(empty, policies)}: no results")
    if BASELINE in empty and len(empty) < len(policies):
        notes.append(f": no baseline (τ = {BASELINE}), so nothing can be compared")
    absent = {
        policy: those
        for policy in policies
        if policy not in empty and (those := _absent_columns(policy, columns, reasons))
    }
    alike: dict[tuple[str, ...], list[str]] = {}
    for policy, those in absent.items():
        alike.setdefault(tuple(column.name for column in those), []).append(policy)
    for lacking, concerned in alike.items():
        # A policy without any result lacks these columns as well.
        which = _with_empty(concerned, empty, policies)
        rest = [column.name for column in columns if column.name not in lacking]
        what = f"only {_listing(rest)}" if len(rest) <= len(lacking) else ""
        notes.append(f", {which}: {what or f'nothing of {_listing(lacking)}'}")
    shared: dict[tuple[tuple[str, ...], _Reason], list[tuple[str, str]]] = {}
    for column in columns:
        for task in column.tasks:
            affected: dict[_Reason, list[str]] = {}
            for policy in policies:
                reason = reasons.get((policy, task))
                said_above = (
                    policy in empty
                    or column in absent.get(policy, ())
                    or (reason == _NO_BASELINE and BASELINE in empty)
                )
                if reason is not None and not said_above:
                    affected.setdefault(reason, []).append(policy)
            for reason, concerned in affected.items():
                shared.setdefault((tuple(concerned), reason), []).append((column.name, task))
    for (those_policies, reason), places in shared.items():
        which = _which(those_policies, policies)
        if reason == _MISSING:
            which = _with_empty(those_policies, empty, policies)
        where = _listing(dict.fromkeys(column for column, _ in places))
        notes.append(f", {which}, {where}: {reason.text([task for _, task in places])}")
    return notes


def _absent_columns(
    policy: str, columns: Sequence[Column], reasons: Mapping[tuple[str, str], _Reason]
) -> tuple[Column, ...]:
    """The columns of which a policy has nothing, if their tasks are too many to be listed."""
    absent = tuple(
        column
        for column in columns
        if all(reasons.get((policy, task)) == _MISSING for task in column.tasks)
    )
    return absent if sum(len(column.tasks) for column in absent) > _MOST_NAMES else ()


def _with_empty(those: Sequence[str], empty: Sequence[str], policies: Sequence[str]) -> str:
    """The policies that lack something in words: "every τ" where all others have no results."""
    every = (*those, *empty)
    return _which(every if set(every) == set(policies) else those, policies)


def _choice_notes(block: Block) -> list[str]:
    """What a reader must know of how the policy of the line "ours" was chosen."""
    if block.best is None:
        return []
    candidates = _candidates(block.tasks, block.policies)
    constant = "constant " if len(candidates) < len(block.policies) - 1 else ""
    ours, raw = block.scores[block.best][AVERAGE], block.scores[BASELINE][AVERAGE]
    if ours is None or raw is None:
        if all(task.scores[block.best] is None for task in block.tasks):
            return []
        return [f": no {constant}τ has all tasks; τ = {block.best} has the most"]
    if ours > raw:
        return []
    incomplete = any(block.scores[policy][AVERAGE] is None for policy in candidates)
    what = f"no {constant}temperature{' that has all tasks' if incomplete else ''}"
    return [f": {what} beat τ = {BASELINE}"]


def _version_notes(
    cells: _Cells,
    columns: Sequence[Column],
    reasons: Mapping[tuple[str, str], _Reason],
) -> list[str]:
    """That tasks were scored by several versions of mteb, each together with its baseline."""
    tasks: dict[str, list[str]] = {}
    for task in (task for column in columns for task in column.tasks):
        cell = cells.get(BASELINE, {}).get(task)
        if cell is not None and (BASELINE, task) not in reasons:
            tasks.setdefault(cell.conditions.get("mteb_version", ""), []).append(task)
    if len(tasks) < 2:
        return []
    listed = "; ".join(f"{version or 'unknown'}: {_joined(of)}" for version, of in tasks.items())
    return [f": scored by several versions of mteb ({listed})"]


def _pooling_notes(cells: _Cells) -> list[str]:
    """That a model names no pooling, and which one its scores assume."""
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


def _data_notes(cells: _Cells, columns: Sequence[Column]) -> list[str]:
    """Which tasks were scored on data that is not, or not quite, what it is named after."""
    told: dict[str, None] = {}
    for task in (task for column in columns for task in column.tasks):
        for of_policy in cells.values():
            if (cell := of_policy.get(task)) is not None:
                told |= dict.fromkeys(_differing_data(cell.conditions.get("data", "")))
    return [f": not quite the data that it is named after: {line}" for line in told]


def _differing_data(data: str) -> list[str]:
    """Return how a cell's data differs from what mteb knows the dataset by, by its provenance."""
    try:
        content = json.loads(data)
        return [str(line) for line in content.get("differs") or ()]
    except (ValueError, AttributeError, TypeError):
        return []


def _share_notes(block: Block) -> list[str]:
    """Which columns have scores but no relative improvement."""
    if block.best is None:
        return []
    columns = [
        name
        for name, raw in block.scores[BASELINE].items()
        if raw is not None and raw <= 0 and block.scores[block.best][name] is not None
    ]
    if not columns:
        return []
    return [f", {_listing(columns)}: no relative improvement over a raw of 0 or less"]


def _average_improvement(
    blocks: Sequence[Block], columns: Sequence[str]
) -> tuple[Values | None, list[str]]:
    """The row `Avg Improv.` (paper, Table 1): the mean over the models of their improvements."""
    improved = {
        block.label: block.improvements[block.best] for block in blocks if block.best is not None
    }
    if len(improved) < 2:
        return None, []
    models = [block.model for block in blocks if block.best is not None]
    if twice := [model for model in dict.fromkeys(models) if models.count(model) > 1]:
        return None, [f"Avg Improv.: left out, {_listing(twice)} stands in more than one row"]
    names = (*columns, AVERAGE)
    values = {name: _mean_or_hole(row[name] for row in improved.values()) for name in names}
    notes = []
    holes: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        holders = tuple(label for label, row in improved.items() if row[name] is None)
        if holders:
            holes.setdefault(holders, []).append(name)
    for holders, where in holes.items():
        notes.append(f"Avg Improv., {_listing(where)}: a hole as in {_listing(holders)}")
    without = [block.label for block in blocks if block.best is None]
    if without:
        notes.append(f"Avg Improv.: without {_listing(without)}, measured at τ = {BASELINE} alone")
    return values, notes


def _which(policies: Sequence[str], every: Sequence[str]) -> str:
    """The policies in words, by a collective name where there is one."""
    chosen = set(policies)
    if len(every) > 1 and chosen == set(every):
        return "every τ"
    if len(every) > 2 and chosen == set(every) - {BASELINE}:
        return f"every τ but {BASELINE}"
    of_kind = {
        kind: {policy for policy in every if policy.startswith(start)}
        for start, kind in _KINDS.items()
    }
    kinds = [kind for kind, those in of_kind.items() if those and those <= chosen]
    if len(chosen) > 1 and chosen == {policy for kind in kinds for policy in of_kind[kind]}:
        return f"every τ {_listing(kinds)}"
    return _taus(policies)


def _taus(policies: Iterable[str]) -> str:
    return f"τ = {_listing(policies)}"


def _listing(names: Iterable[str]) -> str:
    """Names as in a sentence: "a", "a and b", "a, b and c"; many: "a, b, c, d, e and 31 more"."""
    names = list(names)
    if len(names) > _MOST_NAMES:
        names = [*names[:_FIRST_NAMES], f"{len(names) - _FIRST_NAMES} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _joined(names: Sequence[str]) -> str:
    """Names as a list: "a, b, c"; many as `_listing` has them."""
    return ", ".join(names) if len(names) <= _MOST_NAMES else _listing(names)
