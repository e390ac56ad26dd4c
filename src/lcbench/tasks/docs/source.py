"""The docs suite as a source of tasks, identified by a digest of its texts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from lcbench.tasks.docs.docstrings import Docstring
from lcbench.tasks.docs.names import DOCS_TYPES, SYNTHETIC_TASKS
from lcbench.tasks.docs.selection import DocsSizes, SyntheticSizes, clusterings, select
from lcbench.tasks.source import (
    CHARACTERS_PER_TOKEN,
    Origin,
    Part,
    Source,
    Texts,
    lengths_of,
    no_subset,
)

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.registry import TaskChoice
    from lcbench.tempscale.policy import Role

# Names of the only subset that a request may use.
_SUBSET_NAMES = frozenset({"en", "eng", "eng-Latn", "default"})
# Default number of samples of a classification (mteb's `AbsTaskClassification.n_experiments`).
_DRAWS = 10
# Characters of a token in whole docstrings; their first lines are plain English.
_HALF_CODE = 3.2


@dataclass(frozen=True)
class DocsSource(Source):
    """The tasks built from docstrings.

    Attributes:
        sizes: sizes of the docs suite; those of synthetic tasks depend on the window.
    """

    sizes: DocsSizes

    origin = Origin("docstrings", "installed libraries", "made here")

    def names(self) -> Collection[str]:
        """Return the names of the docs suite's tasks."""
        return DOCS_TYPES.keys()

    def kind(self, task: str) -> str:
        """Return the mteb type of a task: `Retrieval`, `Classification` …"""
        return DOCS_TYPES[task]

    def subsets(self, task: str) -> Mapping[str, Sequence[str]]:
        """Return the one subset, `default`, in English."""
        return {"default": ("eng-Latn",)}

    def resolve(self, choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
        """Return the whole task, which is in English."""
        if subsets is not None and not _SUBSET_NAMES & set(subsets):
            raise no_subset(choice.name, subsets, ["default (English)"])
        return Part(choice.name, None, ("test",), subsets, rule, self)

    def make(self, part: Part) -> AbsTask:
        """Return a task as an mteb object with its texts; imports mteb."""
        if part.name in SYNTHETIC_TASKS:
            from lcbench.tasks.docs import synthetic

            return synthetic.make_task(part.name, self.sizes.synthetic)
        from lcbench.tasks.docs import tasks

        return tasks.make_task(part.name, self.sizes)

    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        """Return the texts of a task; None for a synthetic one whose window is not known yet."""
        if part.name in SYNTHETIC_TASKS:
            return _synthetic_texts(part.name, self.sizes.synthetic)
        return _docs_texts(part.name, self.sizes)

    def at(self, window: int | None) -> DocsSource:
        """Return the source with the synthetic tasks' lengths for a window in tokens."""
        return replace(self, sizes=self.sizes.at(window))

    def digest(self, task: str) -> str:
        """Return the digest of the selected docstrings and of the sizes.

        Raises:
            RequestError: the sizes exceed the available texts.
        """
        if task in SYNTHETIC_TASKS:
            from lcbench.tasks.docs import haystacks

            return haystacks.digest(self.sizes.synthetic)
        return select(self.sizes).digest

    def depends_on_window(self, task: str) -> bool:
        """Return whether a task is synthetic: its documents' lengths are parts of the window."""
        return task in SYNTHETIC_TASKS

    def remark(self, task: str, model: str, window: int | None) -> str | None:
        """Return a remark if the window makes synthetic documents long; else None."""
        if task not in SYNTHETIC_TASKS:
            return None
        return self.sizes.synthetic.describe_long(model, window)


def _docs_texts(name: str, sizes: DocsSizes) -> tuple[Texts, ...]:
    selection = select(sizes)
    documents, long = selection.documents, selection.long_documents
    bodies = _bodies("bodies", documents)
    if DOCS_TYPES[name] == "Classification":
        # Half of them are the train split.
        rows, labels = len(documents) // 2, len({doc.library for doc in documents})
        return (replace(bodies, drawn_rows=_DRAWS * rows, fitted_labels=_DRAWS * labels),)
    if DOCS_TYPES[name] == "Clustering":
        drawn = list(chain.from_iterable(clusterings(selection)))
        if name.endswith("S2S"):
            return (_docstrings("summaries", [doc.summary for doc in drawn]),)
        return (_bodies("bodies", drawn),)
    if name == "DocstringLongRetrieval":
        return (
            _docstrings("long summaries", [doc.summary for doc in long], "query"),
            _bodies("long bodies", long),
        )
    return (_docstrings("summaries", [doc.summary for doc in documents], "query"), bodies)


def _synthetic_texts(name: str, sizes: SyntheticSizes) -> tuple[Texts, ...] | None:
    if sizes.lengths is None:
        return None
    from lcbench.tasks.docs import haystacks

    by_length = haystacks.hidden(name, sizes)
    # The queries are the same at every length.
    queries = [one.query for made in by_length.values() for one in made]
    documents = [
        _docstrings(f"{name}/{length}", [one.document for one in made])
        for length, made in by_length.items()
    ]
    return (_docstrings(f"{name}/queries", queries, "query"), *documents)


def _docstrings(
    kind: str,
    texts: Sequence[str],
    role: Role = "document",
    characters_per_token: float = CHARACTERS_PER_TOKEN,
) -> Texts:
    characters = [len(text) for text in texts]
    return Texts(
        f"docstrings/{kind}",
        len(texts),
        len(set(texts)),
        sum(characters),
        role,
        lengths=lengths_of(characters),
        characters_per_token=characters_per_token,
    )


def _bodies(kind: str, documents: Iterable[Docstring]) -> Texts:
    return _docstrings(kind, [one.body for one in documents], characters_per_token=_HALF_CODE)
