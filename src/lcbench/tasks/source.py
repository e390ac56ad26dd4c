"""Where tasks come from: the one interface of mteb, the docstrings, and whatever else has tasks.

Everything above this package asks a task's source, and knows no source by name. A new one is a
subclass of `Source` that the settings of a request name (`Settings.sources`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.tasks.limit import DOCUMENTS_A_QUERY

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.registry import TaskChoice, TaskEntry
    from lcbench.tempscale.policy import Role


@dataclass(frozen=True)
class Texts:
    """Texts of one kind that a model encodes for a task.

    Attributes:
        origin: which texts they are: texts of the same origin are all among the largest of them.
        count: how many, repetitions included.
        unique: how many different ones, over one column of the dataset: a text that stands in two
            columns (a pair's first and second) counts in both.
        characters: of all `count` of them.
        role: which temperature a policy by role gives them.
        drawn_rows: rows of the train split that are gone through to draw them, each once a sample.
        fitted_labels: labels of the classifiers that are fitted on them, each once a sample.
    """

    origin: str
    count: int
    unique: int
    characters: int
    role: Role = "document"
    drawn_rows: int = 0
    fitted_labels: int = 0


def limited(texts: Iterable[Texts], kind: str, limit: int, subsets: int) -> tuple[Texts, ...]:
    """Return what of a task's texts is encoded under a limit, as far as that can be told.

    Args:
        texts: of the whole task.
        kind: its type in mteb.
        limit: items a split and subset.
        subsets: how many of these are scored.
    """
    searches = "Retrieval" in kind or "Reranking" in kind
    found = []
    for one in texts:
        most = limit * subsets
        if searches and one.role == "document":
            most *= DOCUMENTS_A_QUERY
        # Of a training split as much is drawn as ever.
        if one.drawn_rows or not one.count:
            found.append(one)
            continue
        count = min(most, one.count)
        found.append(
            replace(
                one,
                # What is measured of them says nothing of all of them.
                origin=f"limit {limit}/{one.origin}",
                count=count,
                unique=min(count, one.unique),
                characters=round(one.characters * count / one.count),
            )
        )
    return tuple(found)


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
        source: where the task comes from.
        limit: how many items of each split and subset are scored; None: all.
    """

    name: str
    subsets: tuple[str, ...] | None
    splits: tuple[str, ...]
    asked_subsets: tuple[str, ...] | None
    asked_splits: str
    source: Source
    limit: int | None = None

    def at(self, window: int | None) -> Part:
        """Return the same part for a model's window (in tokens; None: not limited)."""
        return replace(self, source=self.source.at(window))

    def texts(self) -> tuple[Texts, ...] | None:
        """Return the texts that a model encodes for it, or None where that is not known.

        Raises:
            RequestError: they cannot be had, although nothing is `missing`.
        """
        texts = self.source.texts(self)
        if texts is None or self.limit is None:
            return texts
        subsets = len(self.source.subsets(self.name) if self.subsets is None else self.subsets)
        return limited(texts, self.source.kind(self.name), self.limit, max(1, subsets))


@dataclass(frozen=True)
class Origin:
    """Where texts come from that are not read from a dataset of the hub.

    Attributes:
        dataset: their name in provenance. Results of one name and several digests are reported in
            tables of their own, so that all tasks of an origin have one digest.
        place: where they are taken from, in provenance.
        listed_as: the same in a listing of tasks, in two words.
    """

    dataset: str
    place: str
    listed_as: str


class Source(ABC):
    """Tasks of one origin.

    A source travels to the processes that score: it can be pickled, and equal ones make equal
    tasks. Where texts go by a model's window (`at`), `make`, `texts` and `digest` are asked of the
    source for that window.

    Attributes:
        origin: of the texts; None: they are datasets of the hub (`datasets`), which are looked for,
            fetched and identified in `lcbench.hub`.
    """

    origin: Origin | None = None

    @abstractmethod
    def names(self) -> Collection[str]:
        """Return the names of its tasks. No two sources have one in common."""

    @abstractmethod
    def kind(self, task: str) -> str:
        """Return the type of a task in mteb: `Retrieval`, `Classification` …"""

    @abstractmethod
    def subsets(self, task: str) -> Mapping[str, Sequence[str]]:
        """Return the languages (`eng-Latn`) of each subset; one subset `default` if undivided."""

    @abstractmethod
    def resolve(self, choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
        """Return what is scored of a task under a protocol's rules.

        Args:
            choice: the task, and what a benchmark takes of it.
            rule: the protocol's for splits.
            subsets: that the protocol is restricted to; None: all.

        Raises:
            RequestError: nothing of the task is left, or it is not one that can be run here.
        """

    @abstractmethod
    def make(self, part: Part) -> AbsTask:
        """Return the task as an object of mteb's, restricted to what is scored, not yet loaded.

        The dataset of a task that is not of the hub has `digest` as its revision, and as its path a
        name that is no absolute path: those are folders of a mirror.

        Raises:
            RequestError: it cannot be made.
        """

    @abstractmethod
    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        """Return the texts that a model encodes for a task, or None where that is not known.

        Raises:
            RequestError: they cannot be had, although nothing is `missing`.
        """

    def at(self, window: int | None) -> Source:
        """Return the same source for a model's window, where its texts go by it.

        Args:
            window: in tokens; None: not limited.
        """
        return self

    def digest(self, task: str) -> str | None:
        """Return the digest of a task's texts, which belongs to the protocol's key.

        Returns:
            None: the texts are a commit of the hub's, which the task itself names.

        Raises:
            RequestError: the texts cannot be had; names the key or the file.
        """
        return None

    def depends_on_window(self, task: str) -> bool:
        """Return whether a task has other texts for a model with another window."""
        return False

    def missing(self, task: str) -> Sequence[str]:
        """Return what of a task's own texts is not here, one line each: the key or file, and why.

        Datasets of the hub (`datasets`) are not among them: `lcbench.hub.datasets.missing_data`
        looks for those, in mirrors and caches, and what is missing there can be fetched.
        """
        return ()

    def datasets(self, part: Part) -> Sequence[tuple[TaskEntry, tuple[str, ...] | None]]:
        """Return mteb's tasks whose datasets a part is read from, and their subsets (None: all)."""
        return ()

    def remark(self, task: str, model: str, window: int | None) -> str | None:
        """Return a line about what a model's window makes of a task; None: there is nothing to say.

        Args:
            task: its name.
            model: its name.
            window: of the model, in tokens; None: not limited.
        """
        return None


def source_of(task: str, sources: Iterable[Source]) -> Source:
    """Return the source of a task.

    Raises:
        RequestError: none of them has it.
    """
    for source in sources:
        if task in source.names():
            return source
    raise RequestError(f"tasks={task}: there is no such task.")


def check_texts(parts: Iterable[Part]) -> None:
    """See that the texts of tasks that are not the hub's are here.

    Raises:
        RequestError: naming everything that is missing.
    """
    lines = [line for part in parts for line in part.source.missing(part.name)]
    if lines:
        raise RequestError("\n".join(dict.fromkeys(lines)))


def remarks(parts: Iterable[Part], model: str, window: int | None) -> list[str]:
    """Return what there is to say about what a model's window makes of tasks, each line once."""
    lines = (part.source.remark(part.name, model, window) for part in parts)
    return list(dict.fromkeys(line for line in lines if line is not None))


def no_subset(task: str, asked: Sequence[str], there: Sequence[str]) -> RequestError:
    """Return the error that says that a task has none of the subsets that were asked for."""
    listed = ", ".join(there[:60]) + (" …" if len(there) > 60 else "")
    return RequestError(f"subsets={','.join(asked)}: {task} has none of these; it has {listed}.")
