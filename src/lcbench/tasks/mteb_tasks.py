"""mteb's tasks as a source, with data from the hub and mteb's stated sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.tasks.registry import TaskChoice, TaskEntry, registry, splits_of, subsets_of
from lcbench.tasks.sizes import texts_of_entry
from lcbench.tasks.source import Part, Source, Texts, no_subset

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask


@dataclass(frozen=True)
class MtebSource(Source):
    """The tasks of the installed mteb."""

    def names(self) -> Collection[str]:
        """Return the names of all of mteb's tasks, also of those that cannot be run here."""
        return registry().tasks.keys()

    def kind(self, task: str) -> str:
        """Return the type of a task, as mteb names it."""
        return registry().tasks[task].kind

    def subsets(self, task: str) -> Mapping[str, Sequence[str]]:
        """Return the languages of each subset, in mteb's order."""
        return registry().tasks[task].subsets

    def resolve(self, choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
        """Return what is scored of a task; a benchmark's choice of splits overrides the rule."""
        known = registry()
        entry = known.tasks[choice.name]
        if set(entry.modalities) != {"text"}:
            raise RequestError(f"tasks={entry.name} is not a text-only task.")
        every = tuple(entry.subsets)
        own = choice.subsets if choice.subsets is not None else every
        wanted = every if subsets is None else subsets_of(entry.subsets, subsets, known.languages)
        among = set(wanted)
        kept = tuple(one for one in own if one in among)
        if not kept:
            raise no_subset(entry.name, subsets or (), own)
        splits = splits_of(entry, rule, choice.splits)
        return Part(
            name=entry.name,
            subsets=None if kept == every else kept,
            splits=splits,
            asked_subsets=subsets if kept == wanted else kept,
            asked_splits=rule if splits == splits_of(entry, rule, None) else ",".join(splits),
            source=self,
        )

    def make(self, part: Part) -> AbsTask:
        """Return mteb's task, restricted to what is scored; imports mteb."""
        import mteb

        task: AbsTask = mteb.get_task(part.name)
        entry = registry().tasks[part.name]
        for one in (task, *parts_of(task)):
            if part.splits != entry.splits:
                one.filter_eval_splits(list(part.splits))
            if part.subsets is not None:
                one.hf_subsets = list(part.subsets)
        return task

    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        """Return the texts of a task as mteb's descriptive statistics count them.

        For a classification these are the scored texts and samples of the train split, of which
        the expected number of different texts counts, since mteb's seed selects them.
        """
        entry = registry().tasks[part.name]
        if not entry.parts:
            return texts_of_entry(entry, part.splits, part.subsets)
        narrowed = part.splits != entry.splits
        texts = [
            texts_of_entry(one, part.splits if narrowed else one.splits, part.subsets)
            for one in (registry().tasks[name] for name in entry.parts)
        ]
        known = [one for one in texts if one is not None]
        return tuple(chain.from_iterable(known)) if len(known) == len(texts) else None

    def datasets(self, part: Part) -> Sequence[tuple[TaskEntry, tuple[str, ...] | None]]:
        """Return the task, or the tasks that an aggregate is the mean of, with their subsets."""
        tasks = registry().tasks
        entry = tasks[part.name]
        return [(tasks[name], part.subsets) for name in entry.parts or (part.name,)]


def parts_of(task: AbsTask) -> list[AbsTask]:
    """Return the tasks that an aggregate is the mean of; none for any other task."""
    return list(getattr(task, "tasks", ()))
