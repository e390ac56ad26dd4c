"""Sets of unlabelled texts that corrections of embeddings can be fitted on, for all tasks alike."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from lcbench.errors import RequestError, did_you_mean
from lcbench.tasks.corpus.check import unlabelled_texts_of
from lcbench.tasks.corpus.digests import number_of
from lcbench.tasks.corpus.layout import digest_of, tasks_of
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.corpus.spec import OwnTexts, is_path, read_spec
from lcbench.tasks.source import Texts, lengths_of

DOCSTRINGS = "docstrings"
# Enough to estimate a covariance of 768 dimensions.
_DOCSTRINGS_COUNT = 1_000
_DIGITS = 8
# Of a set of texts of a user's, as it is written: the digest of the files.
_DIGEST = "digest"


class ChangedError(RequestError):
    """Texts that a correction is fitted on have changed since they were asked for."""


@dataclass(frozen=True)
class OwnReference:
    """A set of texts of a user's own.

    Attributes:
        spec: what was asked for, with an absolute path.
        task: the files that are read, and the digest of their content.
    """

    spec: OwnTexts
    task: OwnTask

    @property
    def name(self) -> str:
        """The name in results, with a part of the digest."""
        stem = self.task.name.removesuffix(f"-{self.task.kind}")
        # In the name of a folder two underscores separate the parts of a repair.
        return f"{re.sub('__+', '_', stem)}-{self.task.digest[:_DIGITS]}"

    def check(self) -> None:
        """Check that the files still have the content that was asked for.

        Raises:
            RequestError: they have not, or cannot be read.
        """
        task = self.task
        if digest_of(task.kind, task.tables, task.language) != task.digest:
            raise ChangedError(_changed(self.spec.path))


@dataclass(frozen=True)
class Reference:
    """A set of texts; equal to another one of the same name.

    Attributes:
        name: name in results, with a digest of the texts: `docstrings-1a2b3c4d`.
        own: the files of a user's own texts; None: `docstrings`.
    """

    name: str
    own: OwnReference | None = field(default=None, compare=False)

    @property
    def files(self) -> tuple[str, ...]:
        """The files of a user's own texts; none of `docstrings`."""
        return () if self.own is None else tuple(str(one.rows) for one in self.own.task.tables)

    def written(self) -> str | dict[str, Any]:
        """Return it so that `read_reference` gives it back; JSON types only."""
        if self.own is None:
            return self.name
        spec = {key: value for key, value in asdict(self.own.spec).items() if value is not None}
        columns = spec.pop("columns")
        return {**spec, **columns, _DIGEST: self.own.task.digest}

    def __str__(self) -> str:
        return self.name


def read_reference(value: str | Mapping[str, Any]) -> Reference:
    """Return the set of texts that a value of `on` stands for.

    Args:
        value: `docstrings`, with or without a digest; the path of a file or folder of texts; or a
            mapping with a path and columns, as in `tasks=`.

    Raises:
        RequestError: there is no such set, file or column, the texts have another digest, or there
            are fewer than two.
    """
    if isinstance(value, Mapping) or is_path(value):
        return _own(value)
    known, _, digest = value.partition("-")
    if known != DOCSTRINGS:
        near = did_you_mean(known, [DOCSTRINGS])
        raise RequestError(
            f"on: {value}: there is no such set of texts, only {DOCSTRINGS} (of numpy, scipy, "
            f"scikit-learn and pandas).{near} A file or folder of your own has a / in it "
            f"(on: ./{value}). Without on, each task's own texts are used."
        )
    here = _digest()
    if digest and digest != here:
        raise RequestError(
            f"on: {value}: the docstrings of the libraries installed here are others "
            f"({DOCSTRINGS}-{here}). Install the same versions of numpy, scipy, scikit-learn and "
            f"pandas, or fit on those here: on: {DOCSTRINGS}."
        )
    return Reference(f"{DOCSTRINGS}-{here}")


def texts_of(reference: Reference) -> list[str]:
    """Return the texts of a set, in which some may be repeated.

    Raises:
        RequestError: they have changed, or cannot be read.
    """
    if reference.own is None:
        read_reference(reference.name)
        return list(_docstrings())
    reference.own.check()
    return list(unlabelled_texts_of(reference.own.task))


def size_of(reference: Reference, most: int) -> Texts:
    """Return the number of texts of a set that a model encodes, and of their characters.

    Args:
        reference: the set.
        most: number of different texts of a larger set that are encoded.

    Raises:
        RequestError: the texts have changed, or cannot be read.
    """
    lengths = {number_of(text): len(text) for text in texts_of(reference)}
    count = min(most, len(lengths))
    characters = round(sum(lengths.values()) * count / max(1, len(lengths)))
    return Texts(
        f"reference/{reference.name}",
        count,
        count,
        characters,
        lengths=lengths_of(lengths.values()),
    )


def _own(value: str | Mapping[str, Any]) -> Reference:
    expected = value.get(_DIGEST) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):
        value = {key: one for key, one in value.items() if key != _DIGEST}
    try:
        spec = read_spec(value)
        if spec.is_of_hub:
            raise RequestError(
                f"{spec.path}: corrections are fitted on files, not on datasets of the hub. "
                "Download it, and name a file of it."
            )
        path = os.path.abspath(os.path.expanduser(spec.path))  # noqa: PTH100, PTH111
        own = OwnReference(replace(spec, path=path), tasks_of(spec)[0])
        count = sum(1 for _ in islice(unlabelled_texts_of(own.task), 2))
    except RequestError as error:
        raise RequestError(f"on: {str(error).removeprefix('tasks=')}") from error
    if expected is not None and own.task.digest != expected:
        raise ChangedError(_changed(path))
    if count < 2:
        raise RequestError(
            f"on: {path} has {'no text' if count == 0 else 'one text'}; a correction is fitted on "
            "at least two."
        )
    return Reference(own.name, own)


def _changed(path: str) -> str:
    return (
        f"on: {path} changed since this was planned or begun, and all cells of a correction are "
        "fitted on the same texts. Restore what was there, or start anew with the texts as they "
        "are now: name the file again, without manifest=."
    )


@lru_cache(maxsize=1)
def _docstrings() -> tuple[str, ...]:
    """Return distinct docstrings without their summary lines, drawn by a hash of their ids."""
    from lcbench.tasks.docs.selection import collection, hash_of

    drawn = sorted(collection(), key=lambda doc: hash_of(doc.id))
    return tuple(dict.fromkeys(doc.body for doc in drawn))[:_DOCSTRINGS_COUNT]


@lru_cache(maxsize=1)
def _digest() -> str:
    return hashlib.sha256("\0".join(_docstrings()).encode()).hexdigest()[:_DIGITS]
