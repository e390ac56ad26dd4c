"""The interface of task sources, such as mteb and the docs suite.

Packages above this one use only the interface. A new source is a subclass of `Source` that is added
to `Settings.sources`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.tasks.limit import DOCUMENTS_A_QUERY

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.registry import TaskChoice, TaskEntry
    from lcbench.tempscale.policy import Role


# English, with MiniLM's tokenizer (the vocabulary of bge, gist and e5 too): 4.0 in QMSum's
# meetings, 4.2 in Banking77, 4.4 in STSBenchmark, 4.7 in MassiveIntent, 4.8 in Emotion. Docstrings,
# which are half code, have 3.2; other languages fewer too: German 2.6, Turkish 2.2, Russian 1.3
# (the messages of a program).
CHARACTERS_PER_TOKEN = 4.3
_GROUPS = 16


def lengths_of(characters: Iterable[int]) -> tuple[int, ...]:
    """Return the average numbers of characters in up to 16 groups of equally many texts, rising."""
    rising = sorted(characters)
    count = min(_GROUPS, len(rising))
    bounds = [len(rising) * group // count for group in range(count + 1)] if count else []
    return tuple(round(sum(rising[begin:end]) / (end - begin)) for begin, end in pairwise(bounds))


@dataclass(frozen=True)
class Texts:
    """Texts of one kind that a model encodes for a task.

    Attributes:
        origin: identifier; texts of the same origin are contained in the largest set of it.
        count: number of texts, including repetitions.
        unique: number of different texts per dataset column: a text in two columns (of a pair)
            counts in both.
        characters: number of characters in all `count` texts.
        role: role, which a policy by role depends on.
        drawn_rows: rows of the train split visited to draw them, once per sample.
        fitted_labels: labels of the classifiers fitted on them, once per sample.
        drawn_from: number of different texts that these are a sample of, all of which a correction
            may be fitted on; None: they are no sample.
        lengths: characters of texts as `lengths_of` has them; empty: only their sum is known.
        characters_per_token: characters of a token.
    """

    origin: str
    count: int
    unique: int
    characters: int
    role: Role = "document"
    drawn_rows: int = 0
    fitted_labels: int = 0
    drawn_from: int | None = None
    lengths: tuple[int, ...] = ()
    characters_per_token: float = CHARACTERS_PER_TOKEN


def searches(kind: str) -> bool:
    """Return whether a type of task in mteb has queries and documents; others have neither."""
    return "Retrieval" in kind or "Reranking" in kind


def limited(texts: Iterable[Texts], kind: str, limit: int, subsets: int) -> tuple[Texts, ...]:
    """Return the texts that are encoded under a limit, as far as known.

    Args:
        texts: texts of the whole task.
        kind: type of the task in mteb.
        limit: number of items per split and subset.
        subsets: number of scored splits and subsets.
    """
    reduced = []
    for one in texts:
        most = limit * subsets
        if searches(kind) and one.role == "document":
            most *= DOCUMENTS_A_QUERY
        # Samples of a training split are not reduced.
        if one.drawn_rows or not one.count:
            reduced.append(one)
            continue
        count = min(most, one.count)
        reduced.append(
            replace(
                one,
                # Measurements of the sample do not apply to all texts.
                origin=f"limit {limit}/{one.origin}",
                count=count,
                unique=min(count, one.unique),
                characters=round(one.characters * count / one.count),
                drawn_from=None,
            )
        )
    return tuple(reduced)


@dataclass(frozen=True)
class Part:
    """The part of a task that is scored, by the rules of protocol and benchmark.

    Attributes:
        name: name of the task.
        subsets: scored subsets; None: all.
        splits: scored splits.
        asked_subsets: subsets in the protocol: those of the request, unless a benchmark narrows
            them further; None: all.
        asked_splits: the protocol's rule, or a benchmark's splits joined by commas.
        source: source of the task.
        limit: number of items scored in each split and subset; None: all.
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
        """Return the texts that a model encodes for it, or None if unknown.

        Raises:
            RequestError: they cannot be read, although nothing is `missing`.
        """
        texts = self.source.texts(self)
        if texts is None or self.limit is None:
            return texts
        subsets = len(self.source.subsets(self.name) if self.subsets is None else self.subsets)
        return limited(texts, self.source.kind(self.name), self.limit, max(1, subsets))


@dataclass(frozen=True)
class Origin:
    """The origin of texts that are not from the hub.

    Attributes:
        dataset: name in provenance. Results of one name with several digests are reported in
            separate tables, so all tasks of an origin should share a digest.
        place: location in provenance.
        listed_as: location in a listing of tasks, in two words.
    """

    dataset: str
    place: str
    listed_as: str


class Source(ABC):
    """A source of tasks.

    A source is sent to scoring processes: it can be pickled, and equal sources make equal tasks. If
    texts depend on a model's window (`at`), `make`, `texts` and `digest` are called on the source
    for that window.

    Attributes:
        origin: origin of the texts; None: they are datasets of the hub (`datasets`), which
            `lcbench.hub` finds, fetches and identifies.
    """

    origin: Origin | None = None

    @abstractmethod
    def names(self) -> Collection[str]:
        """Return the names of its tasks, which are unique among sources."""

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
            choice: the task, and a benchmark's restriction of it.
            rule: the protocol's rule for splits.
            subsets: subsets that the protocol is restricted to; None: all.

        Raises:
            RequestError: nothing of the task is left, or it cannot be run here.
        """

    @abstractmethod
    def make(self, part: Part) -> AbsTask:
        """Return the task as an mteb object, restricted to the scored part, without data.

        A dataset that is not from the hub has `digest` as its revision. Its path must not be
        absolute, as absolute paths are folders of a mirror.

        Raises:
            RequestError: it cannot be made.
        """

    @abstractmethod
    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        """Return the texts that a model encodes for a task, or None if unknown.

        Raises:
            RequestError: they cannot be read, although nothing is `missing`.
        """

    def at(self, window: int | None) -> Source:
        """Return the source for a model's window, if its texts depend on it.

        Args:
            window: in tokens; None: not limited.
        """
        return self

    def digest(self, task: str) -> str | None:
        """Return the digest of a task's texts, which belongs to the protocol's key.

        Returns:
            The digest; None if the texts are a commit of the hub, which the task itself names.

        Raises:
            RequestError: the texts cannot be read; names the key or the file.
        """
        return None

    def depends_on_window(self, task: str) -> bool:
        """Return whether a task's texts depend on the model's window."""
        return False

    def missing(self, task: str) -> Sequence[str]:
        """Return a line for each missing part of a task's own texts: the key or file, and why.

        Datasets of the hub (`datasets`) are not included: `lcbench.hub.datasets.missing_data` looks
        for them in mirrors and caches, and they can be fetched.
        """
        return ()

    def datasets(self, part: Part) -> Sequence[tuple[TaskEntry, tuple[str, ...] | None]]:
        """Return the mteb tasks whose datasets a part reads, with their subsets (None: all)."""
        return ()

    def record(self, task: str) -> Mapping[str, Any]:
        """Return what the provenance of a task's results says of its texts besides their digest."""
        return {}

    def remark(self, task: str, model: str, window: int | None) -> str | None:
        """Return a remark about the effect of a model's window on a task, or None.

        Args:
            task: its name.
            model: its name.
            window: of the model, in tokens; None: not limited.
        """
        return None


def source_of(task: str, sources: Iterable[Source]) -> Source:
    """Return the source of a task.

    Raises:
        RequestError: no source has it.
    """
    for source in sources:
        if task in source.names():
            return source
    raise RequestError(f"tasks={task}: there is no such task.")


def check_texts(parts: Iterable[Part]) -> None:
    """Check that texts that are not from the hub are present.

    Raises:
        RequestError: naming everything that is missing.
    """
    lines = [line for part in parts for line in part.source.missing(part.name)]
    if lines:
        raise RequestError("\n".join(dict.fromkeys(lines)))


def remarks(parts: Iterable[Part], model: str, window: int | None) -> list[str]:
    """Return distinct remarks about the effect of a model's window on tasks."""
    lines = (part.source.remark(part.name, model, window) for part in parts)
    return list(dict.fromkeys(line for line in lines if line is not None))


def no_subset(task: str, asked: Sequence[str], there: Sequence[str]) -> RequestError:
    """Return the error for a task without any of the requested subsets."""
    listed = ", ".join(there[:60]) + (" …" if len(there) > 60 else "")
    return RequestError(f"subsets={','.join(asked)}: {task} has none of these; it has {listed}.")
