"""Suites: named sets of tasks grouped by table column; resolves the scored part of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from lcbench.errors import RequestError, did_you_mean
from lcbench.system.resources import shipped
from lcbench.tasks.corpus.names import is_own
from lcbench.tasks.registry import Registry, TaskChoice, TaskEntry, registry, subsets_of
from lcbench.tasks.source import Part, Source, source_of

# Columns of tasks that are not in a suite, by type in mteb.
_COLUMN_OF_TYPE = {
    "Classification": "Class",
    "MultilabelClassification": "Class",
    "PairClassification": "PairClass",
    "Clustering": "Clust",
    "Summarization": "Summ",
    "STS": "STS",
    "Retrieval": "Retr",
    "InstructionRetrieval": "Retr",
    "Reranking": "Rerank",
    "InstructionReranking": "Rerank",
}


OUTSIDE_AVERAGE = frozenset({"Needle", "Passkey"})
"""Columns that `Avg` leaves out if there are others: one fact in long filler, with few queries.
The paper's averages leave them out as well (its Table 4)."""


@dataclass(frozen=True)
class Suite:
    """A named set of tasks.

    Attributes:
        name: of its config.
        columns: tasks of each column of Table 1.
        revisions: commits of the datasets of pinned tasks.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    revisions: Mapping[str, str]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, in the order of the columns."""
        return tuple(task for tasks in self.columns.values() for task in tasks)


def suite_of(value: Mapping[str, Any]) -> Suite:
    """Return the suite of a config in `conf/suite`.

    Raises:
        RequestError: its columns or revisions are invalid.
    """
    columns, revisions = value["columns"], value.get("revisions") or {}
    if not isinstance(columns, Mapping) or not all(
        isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)
        for tasks in columns.values()
    ):
        raise RequestError(
            f"suite.columns={columns} is not a list of tasks for each column: "
            "{STS: [STS12, STS13]}."
        )
    if not isinstance(revisions, Mapping):
        raise RequestError(f"suite.revisions={revisions} does not map tasks to commits.")
    return Suite(name=str(value["name"]), columns=columns, revisions=revisions)


@lru_cache(maxsize=1)
def shipped_suites() -> tuple[Suite, ...]:
    """Return the suites of `conf/suite`."""
    paths = sorted((shipped("conf", "conf") / "suite").glob("*.yaml"))
    return tuple(suite_of(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths)


def column_of(task: str, kind: str | None, suites: Sequence[Suite]) -> str:
    """Return the column of Table 1 of a task, from a suite or else by its type in mteb.

    A user's own texts have separate columns.
    """
    if is_own(task):
        return f"{_COLUMN_OF_TYPE.get(kind or '', kind or 'Other')} (own)"
    for suite in suites:
        for column, tasks in suite.columns.items():
            if task in tasks:
                return column
    return _COLUMN_OF_TYPE.get(kind or "", kind or "Other")


def averaged_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that `Avg` averages: not `OUTSIDE_AVERAGE`, unless there are no others."""
    return tuple(name for name in columns if name not in OUTSIDE_AVERAGE) or tuple(columns)


def choose(
    names: Sequence[str], suites: Sequence[Suite], sources: Sequence[Source]
) -> tuple[list[TaskChoice], list[str]]:
    """Return the distinct tasks that names stand for, and omitted tasks of benchmarks.

    Args:
        names: names of tasks, suites or mteb benchmarks.
        suites: known suites.
        sources: sources of tasks.

    Raises:
        RequestError: a name is none of these, or two benchmarks ask for different parts of a task.
    """
    suites_by_name = {suite.name: suite for suite in suites}
    in_suites = {task for suite in suites for task in suite.tasks}
    chosen: dict[str, TaskChoice] = {}
    left_out: list[str] = []
    for name in names:
        if name in suites_by_name:
            choices = [TaskChoice(task) for task in suites_by_name[name].tasks]
        elif name in in_suites or any(name in source.names() for source in sources):
            choices = [TaskChoice(name)]
        else:
            choices, without = _of_benchmark(name, registry(), suites_by_name, sources)
            left_out += without
        for choice in choices:
            before = chosen.setdefault(choice.name, choice)
            if before != choice:
                raise RequestError(
                    f"tasks={name}: {choice.name} is requested twice, with different subsets or "
                    "splits; run these separately."
                )
    return list(chosen.values()), left_out


def _of_benchmark(
    name: str, known: Registry, suites: Mapping[str, Suite], sources: Sequence[Source]
) -> tuple[list[TaskChoice], list[str]]:
    choices = known.benchmark(name)
    if choices is None:
        tasks = {task for source in sources for task in source.names()}
        near = did_you_mean(name, {*tasks, *known.benchmarks, *known.aliases, *suites})
        folder = f" For the folder: tasks=./{name}" if Path(name).is_dir() else ""
        raise RequestError(
            f"tasks={name}: there is no such task, suite or benchmark of mteb.{near}{folder}"
        )
    can, left_out = [], []
    for choice in choices:
        if why := why_left_out(known.tasks[choice.name]):
            left_out.append(f"{choice.name} of {name}: {why}")
        else:
            can.append(choice)
    if not can:
        raise RequestError(f"tasks={name}: none of its tasks is public and text-only.")
    return can, left_out


def why_left_out(entry: TaskEntry) -> str | None:
    """Return why a task of a benchmark cannot be run here, or None if it can."""
    if set(entry.modalities) != {"text"}:
        return "it is not text-only"
    return None if entry.public else "its data is not public"


def resolve(
    choice: TaskChoice,
    rule: str,
    subsets: tuple[str, ...] | None,
    sources: Sequence[Source],
) -> Part:
    """Return what is scored of a task under a protocol's rules; see `Source.resolve`.

    Raises:
        RequestError: nothing of the task is left, or it cannot be run here.
    """
    return source_of(choice.name, sources).resolve(choice, rule, subsets)


def resolve_all(
    choices: Sequence[TaskChoice],
    rule: str,
    subsets: tuple[str, ...] | None,
    sources: Sequence[Source],
    limit: int | None = None,
) -> dict[str, Part]:
    """Return what is scored of each task, by its name; see `resolve` and `Part.limit`.

    Raises:
        RequestError: naming every task of which nothing is left, or a name in `subsets` that is no
            language and no subset of any of the tasks.
    """
    parts, without = {}, []
    for choice in choices:
        try:
            parts[choice.name] = replace(resolve(choice, rule, subsets, sources), limit=limit)
        except RequestError as error:
            without.append(str(error))
    if without:
        raise RequestError("\n".join(without))
    every = [part.source.subsets(part.name) for part in parts.values()]
    for name in subsets or ():
        languages = registry().languages
        named = any(subsets_of(one, [name], languages) for one in every)
        if not named and not _is_language(name):
            there = {subset for one in every for subset in one}
            raise RequestError(
                f"subsets={name} is neither a language nor a subset of any task here."
                f"{did_you_mean(name, {*there, *languages})}"
            )
    return parts


def _is_language(name: str) -> bool:
    codes = registry().languages
    return name in codes or name in codes.values()


def check_pins(names: Sequence[str], suites: Sequence[Suite]) -> None:
    """Check that mteb reads the dataset revisions that suites are pinned to.

    Raises:
        RequestError: naming each task that the installed mteb reads at another revision.
    """
    pins = {task: pin for suite in suites for task, pin in suite.revisions.items()}
    moved = [
        f"{name} ({registry().tasks[name].revision}, not {pins[name]})"
        for name in names
        if name in pins and registry().tasks[name].revision != pins[name]
    ]
    if moved:
        raise RequestError(
            "The installed mteb reads other dataset revisions than the suite is pinned to: "
            f"{', '.join(moved)}. Install the mteb of constraints.txt."
        )
