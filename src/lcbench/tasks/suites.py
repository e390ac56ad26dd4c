"""Suites: named sets of tasks in the columns of a table; and making a task from its name.

Imports mteb only where a task is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

from lcbench.errors import RequestError, did_you_mean
from lcbench.system.resources import shipped
from lcbench.tasks.docs.names import DOCS_TASKS
from lcbench.tasks.registry import Registry, TaskChoice, TaskEntry, registry, splits_of, subsets_of

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


# The column of a task that no suite names, by its type in mteb.
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


@dataclass(frozen=True)
class Suite:
    """A named set of tasks.

    Attributes:
        name: of its config.
        columns: the tasks of each column of Table 1.
        revisions: the commit of each task's dataset, for the tasks that it is pinned for.
    """

    name: str
    columns: Mapping[str, Sequence[str]]
    revisions: Mapping[str, str]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, in the order of the columns."""
        return tuple(task for tasks in self.columns.values() for task in tasks)


def suite_of(value: Mapping[str, Any]) -> Suite:
    """Return the suite that a config of `conf/suite` says.

    Raises:
        RequestError: its columns or revisions are not those of a suite.
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
        raise RequestError(f"suite.revisions={revisions} does not give tasks their commits.")
    return Suite(name=str(value["name"]), columns=columns, revisions=revisions)


@lru_cache(maxsize=1)
def shipped_suites() -> tuple[Suite, ...]:
    """Return the suites of `conf/suite`."""
    paths = sorted((shipped("conf", "conf") / "suite").glob("*.yaml"))
    return tuple(suite_of(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths)


def column_of(task: str, kind: str | None, suites: Sequence[Suite]) -> str:
    """Return the column of Table 1 of a task: as a suite has it, else by its type in mteb."""
    for suite in suites:
        for column, tasks in suite.columns.items():
            if task in tasks:
                return column
    return _COLUMN_OF_TYPE.get(kind or "", kind or "Other")


@dataclass(frozen=True)
class Part:
    """What is scored of a task: resolved from the protocol's rules and a benchmark's own.

    Attributes:
        name: of the task.
        subsets: those that are scored; None: all.
        splits: those that are scored.
        asked_subsets: what of it belongs to the protocol: as the request has them, where a
            benchmark does not narrow them further; None: all.
        asked_splits: the protocol's rule, or a benchmark's own, joined by commas.
    """

    name: str
    subsets: tuple[str, ...] | None
    splits: tuple[str, ...]
    asked_subsets: tuple[str, ...] | None
    asked_splits: str


def choose(names: Sequence[str], suites: Sequence[Suite]) -> tuple[list[TaskChoice], list[str]]:
    """Return the tasks that names stand for, each once, and those of benchmarks that are left out.

    Args:
        names: of tasks, of suites, of mteb benchmarks.
        suites: that there are.

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
        elif name in in_suites or name in DOCS_TASKS or name in registry().tasks:
            choices = [TaskChoice(name)]
        else:
            choices, without = _of_benchmark(name, registry(), suites_by_name)
            left_out += without
        for choice in choices:
            before = chosen.setdefault(choice.name, choice)
            if before != choice:
                raise RequestError(
                    f"tasks={name}: {choice.name} is asked for twice, with different subsets or "
                    "splits; run these one after the other."
                )
    return list(chosen.values()), left_out


def _of_benchmark(
    name: str, known: Registry, suites: Mapping[str, Suite]
) -> tuple[list[TaskChoice], list[str]]:
    choices = known.benchmark(name)
    if choices is None:
        near = did_you_mean(
            name, {*known.tasks, *known.benchmarks, *known.aliases, *suites, *DOCS_TASKS}
        )
        raise RequestError(
            f"tasks={name}: there is no such task, suite or benchmark of mteb.{near}"
        )
    can, left_out = [], []
    for choice in choices:
        if why := why_left_out(known.tasks[choice.name]):
            left_out.append(f"{choice.name} of {name}: {why}")
        else:
            can.append(choice)
    if not can:
        raise RequestError(f"tasks={name}: none of its tasks is public and made of text alone.")
    return can, left_out


def why_left_out(entry: TaskEntry) -> str | None:
    """Return why a task of a benchmark cannot be run here, or None if it can."""
    if set(entry.modalities) != {"text"}:
        return "it is not made of text alone"
    return None if entry.public else "its data is not public"


def resolve(choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
    """Return what is scored of a task under a protocol's rules.

    Args:
        choice: the task, and what a benchmark takes of it.
        rule: the protocol's for splits.
        subsets: that the protocol is restricted to; None: all.

    Raises:
        RequestError: nothing of the task is left, or mteb's task is not one that can be run here.
    """
    if choice.name in DOCS_TASKS:
        if subsets is not None and not {"en", "eng", "eng-Latn", "default"} & set(subsets):
            raise RequestError(_no_subset(choice.name, subsets, ["default (English)"]))
        return Part(choice.name, None, ("test",), subsets, rule)
    known = registry()
    entry = known.tasks[choice.name]
    if set(entry.modalities) != {"text"}:
        raise RequestError(f"tasks={entry.name}: it is not made of text alone.")
    every = tuple(entry.subsets)
    own = choice.subsets if choice.subsets is not None else every
    wanted = every if subsets is None else subsets_of(entry, subsets, known.languages)
    among = set(wanted)
    kept = tuple(one for one in own if one in among)
    if not kept:
        raise RequestError(_no_subset(entry.name, subsets or (), own))
    splits = splits_of(entry, rule, choice.splits)
    return Part(
        name=entry.name,
        subsets=None if kept == every else kept,
        splits=splits,
        asked_subsets=subsets if kept == wanted else kept,
        asked_splits=rule if splits == splits_of(entry, rule, None) else ",".join(splits),
    )


def resolve_all(
    choices: Sequence[TaskChoice], rule: str, subsets: tuple[str, ...] | None
) -> dict[str, Part]:
    """Return what is scored of each task, by its name; see `resolve`.

    Raises:
        RequestError: naming every task of which nothing is left, or a name in `subsets` that is no
            language and no subset of any of the tasks.
    """
    parts, without = {}, []
    for choice in choices:
        try:
            parts[choice.name] = resolve(choice, rule, subsets)
        except RequestError as error:
            without.append(str(error))
    if without:
        raise RequestError("\n".join(without))
    entries = [registry().tasks[name] for name in parts if name not in DOCS_TASKS and subsets]
    for name in subsets or ():
        languages = registry().languages
        named = any(subsets_of(entry, [name], languages) for entry in entries)
        if not named and not _is_language(name):
            there = {subset for entry in entries for subset in entry.subsets}
            raise RequestError(
                f"subsets={name}: no language, and no subset of any task here."
                f"{did_you_mean(name, {*there, *languages})}"
            )
    return parts


def _is_language(name: str) -> bool:
    codes = registry().languages
    return name in codes or name in codes.values()


def _no_subset(task: str, asked: Sequence[str], there: Sequence[str]) -> str:
    listed = ", ".join(there[:60]) + (" …" if len(there) > 60 else "")
    return f"subsets={','.join(asked)}: {task} has none of these; it has {listed}."


def check_pins(names: Sequence[str], suites: Sequence[Suite]) -> None:
    """See that mteb reads the datasets that the suites are pinned to.

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
            "The installed mteb reads other revisions of datasets than the suite is pinned to: "
            f"{', '.join(moved)}. Install the mteb of constraints.txt."
        )


def parts_of(task: AbsTask) -> list[AbsTask]:
    """Return the tasks that an aggregate is the mean of; none for any other task."""
    return list(getattr(task, "tasks", ()))
