"""Suites: named sets of tasks in the columns of a table; and making a task from its name.

Imports mteb only where a task is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.selection import DocsSizes

# The tasks that lcbench.tasks.docs makes.
DOCS_TASKS = frozenset(
    {
        "DocstringRetrieval",
        "DocstringLongRetrieval",
        "DocstringReranking",
        "DocstringLibraryClassification",
        "DocstringModuleClusteringP2P",
        "DocstringModuleClusteringS2S",
    }
)

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
    """

    name: str
    columns: Mapping[str, Sequence[str]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, in the order of the columns."""
        return tuple(task for tasks in self.columns.values() for task in tasks)


def column_of(task: str, kind: str | None, suites: Sequence[Suite]) -> str:
    """Return the column of Table 1 of a task: as a suite has it, else by its type in mteb."""
    for suite in suites:
        for column, tasks in suite.columns.items():
            if task in tasks:
                return column
    return _COLUMN_OF_TYPE.get(kind or "", kind or "Other")


def make_task(name: str, sizes: DocsSizes, splits: str) -> AbsTask:
    """Return a task of ours, or of mteb, restricted to the protocol's splits.

    Args:
        name: of the task.
        sizes: of the docs suite.
        splits: `test`: the test split if the task has one, else all that mteb evaluates.

    Raises:
        RequestError: there is no such task; the message has the nearest names.
    """
    if name in DOCS_TASKS:
        from lcbench.tasks import docs

        return docs.make_task(name, sizes)
    import mteb
    from mteb.abstasks.aggregated_task import AbsTaskAggregate
    from mteb.get_tasks import TASK_LIST

    known = {kind.metadata.name for kind in TASK_LIST}
    if name not in known:
        raise RequestError(
            f"tasks={name}: there is no such task.{did_you_mean(name, known | DOCS_TASKS)}"
        )
    task = mteb.get_task(name)
    if isinstance(task, AbsTaskAggregate):
        parts = ",".join(part.metadata.name for part in task.metadata.tasks)
        raise RequestError(f"tasks={name} is made of several tasks; name those: 'tasks=[{parts}]'")
    if set(task.metadata.modalities) != {"text"}:
        raise RequestError(f"tasks={name}: it is not made of text alone.")
    if splits == "test" and "test" in task.eval_splits:
        task.filter_eval_splits(["test"])
    return task
