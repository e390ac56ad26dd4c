"""The embeddings that a request lacks, by the context that they are stored under.

A text that is read in chunks is stored under the repair's own context. One that fits into a single
chunk has the embedding that it has without chunking, and shares it. A short text that a repair
leaves as it is has the embedding that it has without it, which is taken if it is there; what is
computed under a repair is never stored as that of a simpler one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.chunks import Cut, Unscaled, combined, finished, unique
from lcbench.encode.store.segments import Context, Keys, digests
from lcbench.encode.store.shelf import Shelf
from lcbench.encode.tokens import Tokens
from lcbench.repair.chunks import Chunks
from lcbench.repair.repair import Repair


def unusable(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return a mask of embeddings that are zero or not finite: [n]."""
    mask = ~np.isfinite(embeddings).all(axis=1) | ~embeddings.any(axis=1)
    return np.asarray(mask)


@dataclass
class Missing:
    """Embeddings under one context that have to be computed.

    Attributes:
        context: what they are stored under.
        shelf: where they are stored.
        keys: of the embeddings, [n].
        rows: their places among those of the request, [n].
        texts: index of the text that each is made of, [n].
        cuts: tokens that each is made of, once known: [n].
        chunks: how chunks are combined to one embedding; None: each is a single input.
        is_cut: whether the inputs are chunks of texts.
    """

    context: Context
    shelf: Shelf
    keys: Keys
    rows: NDArray[np.int64]
    texts: NDArray[np.int64]
    cuts: list[Cut] = field(default_factory=list)
    chunks: Chunks | None = None
    is_cut: bool = False

    def look_up(
        self,
        embeddings: NDArray[np.float32],
        shelf: Shelf | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> None:
        """Copy the embeddings that are stored to their rows; they are missing no longer.

        Args:
            embeddings: array with these rows.
            shelf: another shelf that has them too.
            among: mask of those that are looked for, [n]; None: all.
        """
        found = np.ones(len(self.keys), dtype=bool) if among is None else among.copy()
        rows = self.rows[found]
        found[found] = (shelf or self.shelf).read(self.keys[found], embeddings, rows)
        # Invalid embeddings are not taken from the store either.
        found[found] = ~unusable(embeddings[self.rows[found]])
        self.cuts = list(compress(self.cuts, ~found))
        self.keys, self.rows, self.texts = self.keys[~found], self.rows[~found], self.texts[~found]

    def inputs(self) -> tuple[list[Tokens], Unscaled | None]:
        """Return what goes through the model, each once, and how embeddings are taken out of it."""
        chunks = self.chunks
        if chunks is None:
            return [one.chunks[0] for one in self.cuts], None
        before = chunks.normalise == "before"
        if chunks.kind == "late":
            return [one.chunks[0] for one in self.cuts], Unscaled(chunks.size, before)
        every = [chunk for one in self.cuts for chunk in one.chunks]
        return [every[i] for i in unique(every)[0]], Unscaled()

    def outcome(
        self, outputs: NDArray[np.float64], model_scales: bool, dimensions: int
    ) -> NDArray[np.float32]:
        """Return the embeddings of texts that are read in chunks: [n, dimensions].

        Args:
            outputs: of the model, for what `inputs` returned.
            model_scales: whether the model scales embeddings to length 1.
            dimensions: of an embedding.
        """
        chunks = self.chunks
        if chunks is not None and chunks.kind in ("first", "mean"):
            _, which = unique([chunk for one in self.cuts for chunk in one.chunks])
            counts = [len(one.chunks) for one in self.cuts]
            outputs = combined(outputs[which], counts, before=chunks.normalise == "before")
        return finished(outputs, model_scales, dimensions)


@dataclass
class Wanted:
    """What a request wants.

    Attributes:
        embeddings: array for them; those that were stored are there.
        missing: the others.
        rows: row of each vector of the answer; None: all rows, in order.
        counts: vectors of each text; None: one.
    """

    embeddings: NDArray[np.float32]
    missing: list[Missing]
    rows: NDArray[np.int64] | None = None
    counts: NDArray[np.int64] | None = None

    def answer(self) -> NDArray[np.float32]:
        """Return the vectors of all texts, once no embedding is missing."""
        return self.embeddings if self.rows is None else self.embeddings[self.rows]


def wanted(
    texts: Sequence[str],
    dimensions: int,
    repair: Repair,
    window: int | None,
    open_shelf: Callable[[Repair], tuple[Context, Shelf]],
    cut: Callable[[list[str]], list[Cut]],
) -> Wanted:
    """Return what is stored of some texts, and what is missing.

    Args:
        texts: distinct texts.
        dimensions: of an embedding.
        repair: applied to them.
        window: the most tokens that the model reads of a text without it; None: no limit.
        open_shelf: returns the context of embeddings under a repair, and its shelf.
        cut: returns the tokens of texts, in the chunks of the repair.
    """
    keys, every, chunks = digests(texts), np.arange(len(texts)), repair.chunks
    if chunks is not None and chunks.kind == "max":
        return _of_each_chunk(cut(list(texts)), keys, dimensions, repair, window, open_shelf)
    embeddings = np.empty((len(texts), dimensions), dtype=np.float32)
    own = Missing(*open_shelf(repair), keys, every, every)
    own.look_up(embeddings)
    own.cuts = cut([texts[i] for i in own.texts])
    if not len(own.keys):
        return Wanted(embeddings, [own])
    if chunks is None:
        _look_up_simpler(own, repair, window, embeddings, open_shelf)
        return Wanted(embeddings, [own])
    fits = np.array([one.is_whole for one in own.cuts])
    whole = _part(own, fits, *open_shelf(replace(repair, chunks=None)))
    whole.look_up(embeddings)
    _look_up_simpler(whole, repair, window, embeddings, open_shelf)
    rest = _part(own, ~fits, own.context, own.shelf)
    rest.chunks, rest.is_cut = chunks, chunks.kind != "late"
    return Wanted(embeddings, [whole, rest])


def _look_up_simpler(
    missing: Missing,
    repair: Repair,
    window: int | None,
    embeddings: NDArray[np.float32],
    open_shelf: Callable[[Repair], tuple[Context, Shelf]],
) -> None:
    """Copy the embeddings of short texts that are stored under a simpler repair.

    Args:
        missing: of texts that are read at once.
        repair: applied to them.
        window: the most tokens that the model reads of a text without it.
        embeddings: array for them.
        open_shelf: as in `wanted`.
    """
    for most, simpler in repair.simpler(window):
        short = np.array([one.length <= most for one in missing.cuts], dtype=bool)
        if short.any():
            missing.look_up(embeddings, open_shelf(simpler)[1], short)


def _part(missing: Missing, which: NDArray[np.bool_], context: Context, shelf: Shelf) -> Missing:
    cuts = list(compress(missing.cuts, which))
    return Missing(
        context, shelf, missing.keys[which], missing.rows[which], missing.texts[which], cuts
    )


def _of_each_chunk(
    cuts: list[Cut],
    keys: Keys,
    dimensions: int,
    repair: Repair,
    window: int | None,
    open_shelf: Callable[[Repair], tuple[Context, Shelf]],
) -> Wanted:
    """Return what is stored and missing of an embedding for each chunk.

    A chunk is known by its token ids, whatever text it is of.
    """
    counts = np.array([len(one.chunks) for one in cuts], dtype=np.int64)
    every = [chunk for one in cuts for chunk in one.chunks]
    first, rows = unique(every)
    # A chunk that several texts have counts for the first of them.
    text = np.repeat(np.arange(len(cuts)), counts)[first]
    embeddings = np.empty((len(first), dimensions), dtype=np.float32)
    found = Missing(
        *open_shelf(replace(repair, chunks=None)),
        keys[text],
        np.arange(len(first)),
        text,
        [Cut([every[i]], every[i].length, is_whole=True) for i in first],
    )
    fits = np.array([one.is_whole for one in cuts])[text]
    whole = _part(found, fits, found.context, found.shelf)
    rest = _part(found, ~fits, *open_shelf(repair))
    rest.is_cut = True
    digested = b"".join(
        hashlib.blake2b(one.chunks[0].ids.tobytes(), digest_size=16).digest() for one in rest.cuts
    )
    rest.keys = np.frombuffer(digested, dtype=keys.dtype)
    for one in (whole, rest):
        one.look_up(embeddings)
    _look_up_simpler(whole, repair, window, embeddings, open_shelf)
    return Wanted(embeddings, [whole, rest], rows, counts)
