"""Chunking: a long text's embedding is made from chunks of its tokens, as requested.

Which tokens each chunk has and how their embeddings are combined is in `encode.chunks`; nothing
here imports numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lcbench.errors import RequestError
from lcbench.repair.values import check_options, kind_of, shown
from lcbench.tempscale.policy import ModelShape

Kind = Literal["first", "mean", "late", "max"]
Last = Literal["full", "rest"]
Normalise = Literal["after", "before"]

_EXAMPLES = (
    "chunks= takes mean, {mean: 256}, {late: 128}, {max: 256} and {first: 128}; the number is the "
    "tokens of a chunk; with options: 'chunks={mean: {size: 256, overlap: 32}}'"
)
# The options of each kind besides the size.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "first": ("queries",),
    "mean": ("overlap", "last", "normalise", "most", "queries"),
    "late": ("normalise", "queries"),
    "max": ("overlap", "last", "most"),
}


@dataclass(frozen=True)
class Chunks:
    """Reads a long text in chunks; a text that fits into one is read as without chunking.

    Attributes:
        kind: `first`: the first chunk alone, so that less of a text is read; `mean`: the mean of
            the chunks' embeddings, each encoded on its own (PCW in arXiv:2404.12096); `late`: one
            forward pass over all that the window holds, then the mean of its chunks' means (after
            late chunking, arXiv:2409.04701); `max`: a vector for each chunk, the similarity of a
            document being the largest of its chunks'.
        size: tokens of a chunk, with its prompt and special tokens (of `late`: of those read);
            None: the model's window.
        overlap: tokens that a chunk repeats of the one before, besides the prompt.
        last: `full`: the last chunk is filled with tokens before it, as PCW does; `rest`: it is
            shorter.
        normalise: whether embeddings are scaled to length 1 `after` the mean (PCW), which weights
            chunks by their lengths as vectors, or `before` as well.
        most: the most tokens of a text that are read, prompt and special tokens counted once;
            None: all.
        queries: whether queries are read in chunks too.
    """

    kind: Kind
    size: int | None = None
    overlap: int = 0
    last: Last = "full"
    normalise: Normalise = "after"
    most: int | None = None
    queries: bool = False

    @property
    def canonical(self) -> str:
        """The name in results, without `:` and `/`; the same however it was written."""
        name = self.kind if self.size is None else f"{self.kind}={self.size}"
        return ",".join([name, *(f"{key}={shown(value)}" for key, value in self._options())])

    def written(self) -> str | dict[str, Any]:
        """Return it as `chunks=` has it, so that `parse` gives it back; JSON types only."""
        options = dict(self._options())
        if self.size is None:
            return {self.kind: options} if options else self.kind
        return {self.kind: {"size": self.size, **options} if options else self.size}

    @property
    def limit(self) -> int | None:
        """The most tokens of a text that are read; None: all, or all that the window holds."""
        return self.size if self.kind == "first" else self.most

    def for_role(self, role: str) -> Chunks | None:
        """Return the chunking of the texts of one role; None: they are read as without it."""
        return None if role == "query" and not self.queries else self

    def resolve(self, shape: ModelShape) -> Chunks | None:
        """Return the chunking for a model; None: it reads texts as without it.

        Raises:
            RequestError: a chunk is longer than the window, or there is no window to take.
        """
        if self.size is None:
            if shape.window is None:
                raise RequestError(
                    f"chunks={shown(self.written())}: this model has no window. Name the tokens "
                    f"of a chunk: chunks={{{self.kind}: 512}}."
                )
            return replace(self, size=shape.window).checked().resolve(shape)
        if shape.window is not None and self.size > shape.window:
            raise RequestError(
                f"chunks={shown(self.written())}: a chunk of {self.size} tokens is longer than "
                f"the window of {shape.window} tokens: chunks={{{self.kind}: {shape.window}}} or "
                "fewer."
            )
        return None if self.size == shape.window and self._has_one_chunk else self

    def tokens_of(self, length: float, special: int) -> float:
        """Return the tokens that go through the model for a text, in all of its chunks together.

        Args:
            length: tokens of the text, special tokens included.
            special: special tokens of a chunk.
        """
        size, length = self.size or length, min(length, self.limit or length)
        room = size - special
        if length <= size or room <= self.overlap:
            return length
        further = math.ceil((length - size) / (room - self.overlap))
        if self.last == "full":
            return (1 + further) * size
        return length + further * (special + self.overlap)

    def checked(self) -> Chunks:
        """Return it if its numbers fit together.

        Raises:
            RequestError: chunks overlap by a whole chunk, or fewer tokens are read than one has.
        """
        written = f"chunks={shown(self.written())}"
        if self.size is not None and self.overlap >= self.size:
            raise RequestError(
                f"{written}: chunks of {self.size} tokens cannot overlap by {self.overlap}. An "
                f"eighth of them is usual: overlap: {self.size // 8}."
            )
        if self.size is not None and self.most is not None and self.most < self.size:
            raise RequestError(
                f"{written}: no text would be read in chunks, since most is below the {self.size} "
                "tokens of one. model.window reads less of every text."
            )
        return self

    @property
    def _has_one_chunk(self) -> bool:
        """Whether no more is read than one chunk holds, given that a chunk fills the window."""
        return self.kind == "late" or self.size == self.limit

    def _options(self) -> list[tuple[str, Any]]:
        """Return the options that differ from their defaults."""
        default = Chunks(self.kind)
        return [
            (name, value)
            for name in _OPTIONS[self.kind]
            if (value := getattr(self, name)) != getattr(default, name)
        ]

    def __str__(self) -> str:
        return self.canonical


def parse(value: Any) -> Chunks:
    """Return the chunking that a value of `chunks=` stands for.

    Raises:
        RequestError: it is none.
    """
    written = f"chunks={shown(value)}"
    kind, given = kind_of(value, "chunks", "chunking", _OPTIONS, _EXAMPLES)
    options = given if isinstance(given, Mapping) else {} if given is None else {"size": given}
    check_options(options, ("size", *_OPTIONS[kind]), written, kind)
    for key, one in options.items():
        _check(written, key, one)
    if kind in ("first", "late") and "size" not in options:
        raise RequestError(
            f"{written}: {kind} needs the tokens of a chunk, fewer than the window: "
            f"chunks={{{kind}: 128}}."
        )
    return Chunks(kind, **options).checked()  # type: ignore[arg-type]


def _check(written: str, key: str, value: Any) -> None:
    """Refuse an option's value."""
    choices = {"last": ("full", "rest"), "normalise": ("after", "before")}.get(key)
    if choices is not None:
        if value not in choices:
            raise RequestError(f"{written}: {key} is {' or '.join(choices)}.")
    elif key == "queries":
        if not isinstance(value, bool):
            raise RequestError(f"{written}: queries is true or false.")
    else:
        least = 0 if key == "overlap" else 1
        if type(value) is not int or value < least:
            raise RequestError(f"{written}: {key} is not a whole number of at least {least}.")
