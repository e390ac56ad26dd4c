"""A user's own texts as a source of tasks: one source for each task, identified by content."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.tasks.corpus.layout import digest_of
from lcbench.tasks.corpus.plan import MOST_CLUSTERED, MTEB_KINDS, OwnTask
from lcbench.tasks.corpus.survey import Count, listed, survey
from lcbench.tasks.registry import Drawing
from lcbench.tasks.sizes import expected_union
from lcbench.tasks.source import Origin, Part, Source, Texts

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

    from lcbench.tasks.registry import TaskChoice
    from lcbench.tempscale.policy import Role

# What mteb draws to train a classification.
_DRAWING = Drawing(train_split="train", draws=10, per_label=8)


@dataclass(frozen=True)
class CorpusSource(Source):
    """A task made of a user's texts.

    Attributes:
        task: the task.
        origin: of its texts; each task has its own, since their contents change one by one.
    """

    task: OwnTask
    origin: Origin

    @classmethod
    def of(cls, task: OwnTask) -> CorpusSource:
        """Return the source of a task."""
        return cls(task, Origin(task.name, "own texts", "your own"))

    def names(self) -> Collection[str]:
        """Return the name of its only task."""
        return (self.task.name,)

    def kind(self, task: str) -> str:
        """Return the task's type in mteb."""
        return MTEB_KINDS[self.task.kind]

    def subsets(self, task: str) -> Mapping[str, Sequence[str]]:
        """Return the one subset, `default`, in the language that the request states."""
        return {"default": (self.task.language,)}

    def resolve(self, choice: TaskChoice, rule: str, subsets: tuple[str, ...] | None) -> Part:
        """Return all of the task: whoever names texts of her own wants them, in any language."""
        return Part(choice.name, None, ("test",), subsets, rule, self)

    def make(self, part: Part) -> AbsTask:
        """Return the task as mteb's object, without data; imports mteb."""
        from lcbench.tasks.corpus import build

        return build.make_task(self.task, part.limit)

    def texts(self, part: Part) -> tuple[Texts, ...] | None:
        """Return the numbers of its texts, counted in one pass over the files."""
        if self._absent():
            return None
        known = survey(self.task)
        if self.task.kind == "retrieval":
            return (
                self._texts("queries", known.texts["queries"], "query"),
                self._texts("documents", known.texts["documents"]),
            )
        if self.task.kind == "sts":
            return tuple(self._texts(name, known.texts[name]) for name in ("first", "second"))
        test = self._texts("test", known.texts["test"])
        train = self._texts("train", known.texts["train"])
        if self.task.kind == "clustering":
            texts = (test,) if self.task.is_divided else (test, train)
            share = min(1.0, MOST_CLUSTERED / sum(one.count for one in texts))
            return tuple(_shared(one, share) for one in texts)
        draws, size = _DRAWING.draws, _DRAWING.per_label or 0
        drawn = round(sum(expected_union(count, size, draws) for count in known.labels.values()))
        trained = replace(
            _shared(train, drawn / max(1, train.count)),
            drawn_rows=draws * train.count,
            fitted_labels=draws * len(known.labels),
        )
        return test, trained

    def _texts(self, what: str, count: Count, role: Role = "document") -> Texts:
        origin = f"{self.task.name}/{self.task.digest[:8]}/{what}"
        return Texts(
            origin, count.count, count.unique, count.characters, role, lengths=count.lengths
        )

    def digest(self, task: str) -> str:
        """Return the digest of the files and of what is read of them, as they were asked for."""
        return self.task.digest

    def missing(self, task: str) -> Sequence[str]:
        """Return what keeps the files from being scored: a line that names the file.

        They are read for it once for each content, and counted.
        """
        if absent := self._absent():
            return (absent,)
        try:
            survey(self.task)
        except RequestError as error:
            return (str(error),)
        return ()

    def _absent(self) -> str | None:
        """Return why the files are not those that were asked for, or None if they are."""
        try:
            now = digest_of(self.task.kind, self.task.tables, self.task.language)
        except RequestError as error:
            return str(error)
        return None if now == self.task.digest else self.task.changed

    def remark(self, task: str, model: str, window: int | None) -> str | None:
        """Return what was left out of the files, if anything was."""
        left_out = survey(self.task).left_out
        if not left_out:
            return None
        return f"{self.task.name}: left out: {listed(left_out)}."

    def record(self, task: str) -> Mapping[str, Any]:
        """Return the files and what was left out of them, for the provenance of results."""
        return {
            "own_files": [str(one.rows) for one in self.task.tables],
            "left_out": dict(survey(self.task).left_out),
        }


def _shared(texts: Texts, share: float) -> Texts:
    """Return a part of texts, drawn at random."""
    count = round(texts.count * share)
    return replace(
        texts,
        count=count,
        unique=min(count, texts.unique),
        characters=round(texts.characters * share),
        drawn_from=texts.unique,
    )
