"""Multi-vector embeddings: several vectors for a text, of which the most similar counts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from lcbench.errors import StorageError

# Similarities of one block of vectors with all queries: 256 MiB in float32.
_SIMILARITIES = 2**26


class MultiVectors(Sequence[NDArray[np.float32]]):
    """Embeddings of texts that have several vectors each; an item is [vectors, dimensions].

    Attributes:
        rows: vectors, [vectors, dimensions].
        bounds: first and last row of each text: [texts, 2].
    """

    def __init__(self, rows: NDArray[np.float32], bounds: NDArray[np.int64]) -> None:
        self.rows = rows
        self.bounds = bounds

    def __len__(self) -> int:
        return len(self.bounds)

    @overload
    def __getitem__(self, which: int) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, which: slice) -> MultiVectors: ...
    def __getitem__(self, which: int | slice) -> NDArray[np.float32] | MultiVectors:
        if isinstance(which, slice):
            return MultiVectors(self.rows, self.bounds[which])
        start, stop = self.bounds[which]
        return self.rows[start:stop]


class MultiVectorsBuilder:
    """Collects the vectors of texts in a file, so that those of a corpus need not fit into memory.

    The file has no name, and is gone with the last reference to its vectors.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._file = tempfile.TemporaryFile(prefix="lcbench-")  # noqa: SIM115 (kept open)
        self._rows = self._dimensions = 0

    def add(self, rows: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add vectors, text after text, and return the bounds of each text: [texts, 2].

        Raises:
            StorageError: there is no room for them.
        """
        ends = self._rows + np.cumsum(counts)
        try:
            self._file.write(np.ascontiguousarray(rows, dtype=np.float32).data)
        except OSError as error:
            raise StorageError(
                f"{int(ends[-1])} vectors of chunks, of {rows.shape[1]} numbers each, do not fit "
                f"into {tempfile.gettempdir()}: {os.strerror(error.errno or 0)}. Free some space, "
                "or choose another folder: TMPDIR=PATH."
            ) from error
        self._rows, self._dimensions = int(ends[-1]), rows.shape[1]
        return np.stack([ends - counts, ends], axis=1)

    def finish(self, bounds: NDArray[np.int64]) -> MultiVectors:
        """Return the vectors of all texts.

        Args:
            bounds: of each text, as `add` returned them: [texts, 2].
        """
        shape = (self._rows, self._dimensions)
        if not self._rows:
            return MultiVectors(np.empty(shape, dtype=np.float32), bounds)
        self._file.flush()
        rows = np.memmap(self._file, dtype=np.float32, mode="r+", shape=shape)
        return MultiVectors(np.asarray(rows), bounds)


def max_similarity(
    similarity: Callable[[Any, Any], torch.Tensor], left: Any, right: Sequence[Any]
) -> torch.Tensor:
    """Return the largest similarity of each vector with those of each text: [left, texts].

    Args:
        similarity: returns the similarities of two arrays of vectors: [left, right].
        left: vectors, [left, dimensions].
        right: vectors of each text, [vectors, dimensions] each.
    """
    # Neither the similarities of a block nor its vectors take more than that.
    most = max(1, _SIMILARITIES // max(1, len(left), int(left.shape[1])))
    found = [np.empty((len(left), 0), dtype=np.float32)]
    for texts in _blocks(right, most):
        starts = np.cumsum([0, *map(len, texts)])[:-1]
        scores = similarity(left, torch.from_numpy(np.concatenate(texts))).numpy()
        found.append(np.maximum.reduceat(scores, starts, axis=1))
    return torch.from_numpy(np.concatenate(found, axis=1))


def _blocks(right: Sequence[Any], most: int) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the vectors of some texts at a time, at most about so many vectors."""
    block: list[NDArray[np.float32]] = []
    vectors = 0
    for text in right:
        block.append(np.asarray(text))
        vectors += len(block[-1])
        if vectors >= most:
            yield block
            block, vectors = [], 0
    if block:
        yield block
