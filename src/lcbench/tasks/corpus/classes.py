"""A user's own task class of mteb, imported by the name that a request spells out.

Importing runs the module's code: it happens only for a name such as `mypackage.tasks:MyTask`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.system.plugins import plugins
from lcbench.system.words import reason_of
from lcbench.tasks.corpus.names import OWN, safe_name
from lcbench.tasks.registry import registry, subsets_of
from lcbench.tasks.source import Origin, Part, Source, Texts, no_subset

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.registry import TaskChoice


@dataclass(frozen=True)
class OwnClass:
    """A task class of a user's.

    Attributes:
        target: module and class, `mypackage.tasks:MyTask`.
        folder: folder that the request was made in, where modules are looked for last; empty: they
            are looked for in the environment alone.
        name: of the task: `own-` and the class's own.
        kind: its type in mteb.
        splits: that it evaluates.
        subsets: languages of each subset, as pairs.
        digest: of the module's source, and of the name and revision of its dataset.
        package: installed package that adds it by an entry point, with its version; empty: none.
    """

    target: str
    folder: str
    name: str
    kind: str
    splits: tuple[str, ...]
    subsets: tuple[tuple[str, tuple[str, ...]], ...]
    digest: str
    package: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether an installed package adds exactly this class."""
        added = {(one.target, one.package) for one in plugins("tasks").values()}
        return not self.folder and (self.target, self.package) in added


def read_class(target: str, folder: str = "", package: str = "") -> OwnClass:
    """Import a task class, and return what is known of it.

    Args:
        target: module and class, `mypackage.tasks:MyTask`.
        folder: where modules are looked for last; empty: nowhere but in the environment.
        package: installed package that adds it, if any.

    Raises:
        RequestError: there is no such module or class, or it is no task of texts.
    """
    kind = _imported(target, folder)
    metadata = kind.metadata
    if list(metadata.modalities) != ["text"]:
        raise RequestError(f"tasks={target}: {metadata.name} is not a text-only task.")
    return OwnClass(
        target=target,
        folder=folder,
        name=f"{OWN}{safe_name(metadata.name)}",
        kind=str(metadata.type),
        splits=tuple(metadata.eval_splits),
        subsets=tuple(
            (subset, tuple(languages))
            for subset, languages in metadata.hf_subsets_to_langscripts.items()
        ),
        digest=_digest(target, kind),
        package=package,
    )


def _imported(target: str, folder: str) -> Any:
    """Return the class.

    Raises:
        RequestError: it cannot be imported, or is no task class.
    """
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.aggregated_task import AbsTaskAggregate

    module, _, name = target.partition(":")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    try:
        found: Any = getattr(import_module(module), name, None)
    except Exception as error:
        raise RequestError(
            f"tasks={target}: {module} cannot be imported ({reason_of(error)}). Modules are looked "
            f"for in the environment{f' and in {folder}' if folder else ''}."
        ) from error
    is_task = isinstance(found, type) and issubclass(found, AbsTask)
    if not is_task or issubclass(found, AbsTaskAggregate) or not hasattr(found, "metadata"):
        raise RequestError(
            f"tasks={target}: {name} is not a task class of mteb with metadata in {module}."
        )
    return found


def _digest(target: str, kind: Any) -> str:
    source = Path(inspect.getfile(kind)).read_bytes()
    content = [
        target,
        hashlib.sha256(source).hexdigest(),
        str(kind.metadata.dataset["path"]),
        str(kind.metadata.dataset["revision"]),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class ClassSource(Source):
    """A task class of a user's as a source.

    Attributes:
        task: the class.
        origin: of its texts.
    """

    task: OwnClass
    origin: Origin

    @classmethod
    def of(cls, task: OwnClass) -> ClassSource:
        """Return the source of a class."""
        return cls(task, Origin(task.name, "own task class", "your own"))

    def names(self) -> Collection[str]:
        """Return the name of its only task."""
        return (self.task.name,)

    def kind(self, task: str) -> str:
        """Return the task's type in mteb."""
        return self.task.kind

    def subsets(self, task: str) -> Mapping[str, Sequence[str]]:
        """Return the languages of each subset."""
        return dict(self.task.subsets)

    def resolve(self, choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
        """Return what is scored of the task, by the same rules as of mteb's."""
        every = tuple(name for name, _ in self.task.subsets)
        kept = every
        if subsets is not None:
            kept = subsets_of(dict(self.task.subsets), subsets, registry().languages)
            if not kept:
                raise no_subset(self.task.name, subsets, every)
        splits = ("test",) if rule == "test" and "test" in self.task.splits else self.task.splits
        narrowed = None if kept == every else kept
        return Part(choice.name, narrowed, splits, subsets, rule, self)

    def make(self, part: Part) -> AbsTask:
        """Return an object of the class, under its name here; imports it and mteb.

        Raises:
            RequestError: the module has changed since the request was made.
        """
        kind = _imported(self.task.target, self.task.folder)
        if _digest(self.task.target, kind) != self.task.digest:
            raise RequestError(
                f"{self.task.name}: {inspect.getfile(kind)} changed since this was planned or "
                "begun. Restore it, or start anew: give tasks= again, without manifest=."
            )
        task: AbsTask = kind()
        task.metadata = task.metadata.model_copy(update={"name": self.task.name})
        if part.splits != self.task.splits:
            task.filter_eval_splits(list(part.splits))
        if part.subsets is not None:
            task.hf_subsets = list(part.subsets)
        return task

    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        """Return None: only the class knows how many there are."""
        return None

    def digest(self, task: str) -> str:
        """Return the digest of the module's source and of its dataset's revision."""
        return self.task.digest

    def record(self, task: str) -> Mapping[str, Any]:
        """Return where the class is, for the provenance of results."""
        package = {"package": self.task.package} if self.task.package else {}
        return {"own_class": self.task.target, **package}
