"""The index of a shelf: the segment and row of each text's embedding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.store.segments import Keys, Rows

# Columns of what `Index.find` returns.
SEGMENT, ROW, LENGTH = range(3)


class Index:
    """The segment and row of each key, in sorted runs, each at least twice as long as the next.

    28 bytes a row, so that a million rows are 27 MiB.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, NDArray[np.int32]]] = []

    @property
    def bytes(self) -> int:
        """The size of the index in bytes."""
        return sum(keys.nbytes + places.nbytes for keys, places in self._runs)

    def add(self, segments: Iterable[tuple[int, Rows]]) -> None:
        """Enter all rows of segments, each with its number."""
        keys, places = [], []
        for segment, rows in segments:
            if not len(rows.keys):
                continue
            own = np.empty((len(rows.keys), 3), dtype=np.int32)
            own[:, SEGMENT] = segment
            own[:, ROW] = np.arange(len(own))
            own[:, LENGTH] = rows.lengths
            keys.append(rows.keys)
            places.append(own)
        if not keys:
            return
        run = _sorted(keys, places)
        while self._runs and len(self._runs[-1][0]) < 2 * len(run[0]):
            former = self._runs.pop()
            run = _sorted([former[0], run[0]], [former[1], run[1]])
        self._runs.append(run)

    def find(self, keys: Keys) -> NDArray[np.int32]:
        """Return segment, row and length in tokens of each key, -1 where there is none: [n, 3]."""
        places = np.full((len(keys), 3), -1, dtype=np.int32)
        # A million keys in order are looked up in 0.3 s, as they come in 0.8.
        waiting = np.argsort(keys, kind="stable")
        for own, where in self._runs:
            at = np.searchsorted(own, keys[waiting])
            at[at == len(own)] = 0
            hit = own[at] == keys[waiting]
            places[waiting[hit]] = where[at[hit]]
            waiting = waiting[~hit]
        return places

    def drop(self, segments: Sequence[int]) -> None:
        """Forget all rows of segments."""
        if segments:
            runs = []
            for keys, places in self._runs:
                kept = ~np.isin(places[:, SEGMENT], np.array(segments))
                if kept.any():
                    runs.append((keys[kept], places[kept]))
            self._runs = runs


def _sorted(keys: list[Keys], places: list[NDArray[np.int32]]) -> tuple[Keys, NDArray[np.int32]]:
    joined = np.concatenate(keys)
    # The stable sort takes runs that are sorted already for what they are.
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(places)[order]


def groups(segments: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each segment, without -1, and where it is among `segments`."""
    if not len(segments):
        return
    order = np.argsort(segments, kind="stable")
    numbers, starts = np.unique(segments[order], return_index=True)
    for number, which in zip(numbers, np.split(order, starts[1:]), strict=True):
        if number >= 0:
            yield int(number), which
