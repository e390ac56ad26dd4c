"""A task of mteb's or of lcbench's own, made ready to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.tasks.docs.names import DOCS_TASKS, SYNTHETIC_TASKS
from lcbench.tasks.registry import TaskEntry, registry
from lcbench.tasks.suites import Part, parts_of

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.docs.selection import DocsSizes


def docs_digest(task: str, sizes: DocsSizes, window: int | None) -> str | None:
    """Return the digest of the texts of a task that is made of docstrings; None for any other.

    Args:
        task: its name.
        sizes: of the docs suite.
        window: the model's, in tokens; None: not limited. The synthetic tasks' lengths go by it.

    Raises:
        RequestError: the sizes cannot be had.
    """
    if task in SYNTHETIC_TASKS:
        from lcbench.tasks.docs import haystacks

        return haystacks.digest(sizes.synthetic.at(window))
    if task in DOCS_TASKS:
        from lcbench.tasks.docs.selection import select

        return select(sizes).digest
    return None


def make_task(part: Part, sizes: DocsSizes) -> AbsTask:
    """Return a task of ours, or of mteb, restricted to its splits and subsets.

    Args:
        part: what is scored of the task.
        sizes: of the docs suite, for the model's window (`DocsSizes.at`).
    """
    if part.name in SYNTHETIC_TASKS:
        from lcbench.tasks.docs import synthetic

        return synthetic.make_task(part.name, sizes.synthetic)
    if part.name in DOCS_TASKS:
        from lcbench.tasks.docs import tasks as docs

        return docs.make_task(part.name, sizes)
    import mteb

    task: AbsTask = mteb.get_task(part.name)
    entry: TaskEntry = registry().tasks[part.name]
    for one in (task, *parts_of(task)):
        if part.splits != entry.splits:
            one.filter_eval_splits(list(part.splits))
        if part.subsets is not None:
            one.hf_subsets = list(part.subsets)
    return task
