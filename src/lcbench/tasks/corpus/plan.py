"""A task made of a user's texts: the columns and files that it reads, and their digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.tasks.corpus.read import Rows

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskType

MTEB_KINDS: dict[str, TaskType] = {
    "retrieval": "Retrieval",
    "classification": "Classification",
    "clustering": "Clustering",
    "sts": "STS",
}
"""The type of a task in mteb, by kind."""
MOST_CLUSTERED = 16_384
"""Most texts that are embedded for a clustering; mteb's sample of each of its ten experiments."""


@dataclass(frozen=True)
class Table:
    """A file of a task.

    Attributes:
        part: what the task reads there: `corpus`, `queries` and `qrels` of a BEIR folder; `train`
            and `test` of labelled texts that are divided already; `rows` of any other file.
        rows: the file.
        columns: name of the column by role, as pairs.
    """

    part: str
    rows: Rows
    columns: tuple[tuple[str, str], ...]

    def column(self, role: str) -> str | None:
        """Return the name of the column of a role, or None if it has none."""
        return dict(self.columns).get(role)


@dataclass(frozen=True)
class OwnTask:
    """A task made of a user's texts.

    Attributes:
        name: of the task.
        kind: `retrieval`, `classification`, `clustering` or `sts`.
        tables: the files that it reads.
        language: of the texts.
        digest: of their content and of what is read of it; paths have no part in it.
    """

    name: str
    kind: str
    tables: tuple[Table, ...]
    language: str
    digest: str

    def table(self, part: str) -> Table | None:
        """Return the file of a part, or None if it has none."""
        return next((one for one in self.tables if one.part == part), None)

    @property
    def is_divided(self) -> bool:
        """Whether labelled texts come in a train and a test part, by files or by a column."""
        return any(one.part == "test" or one.column("split") for one in self.tables)

    @property
    def changed(self) -> str:
        """The message for files that have changed since the task was made of them."""
        files = ", ".join(str(one.rows) for one in self.tables)
        return (
            f"{self.name}: {files} changed since this was planned or begun, and a baseline and a "
            "repair are of the same texts. Restore what was there, or start anew with the texts as "
            "they are now: give tasks= again, without manifest=."
        )
