"""Stores embeddings by content, so that no text is encoded twice.

On disk a shelf is a folder of segments: Arrow files that are written whole, never changed, and
mapped only while rows are read from them. There are no locks: any number of processes add segments
of their own and find those of the others, on a file system that they share as well.

Each segment carries checksums of its rows. One whose rows are no longer those that were written is
removed, and its texts are encoded again.

Segments are written, merged and evicted by a thread of the store's own, so that nothing waits for a
disk. Rows that wait to be written can be read meanwhile.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lcbench.encode.store.folder import Folder, Memory
from lcbench.encode.store.index import LENGTH, ROW, SEGMENT, Index, groups
from lcbench.encode.store.segments import (
    BrokenError,
    Context,
    Keys,
    Rows,
    concatenate,
    is_intact,
    pack,
    unpack,
)
from lcbench.errors import RequestError, StorageError

# Rows wait in memory until they are a segment of this size: 5,300 embeddings of 768 dimensions.
_SEGMENT_BYTES = 16 * 2**20
# Beside a row's values: its key, its length and its place in two indices.
_ROW_BYTES = 64
# A shelf with more segments of less than half the size has them merged: a read opens each segment
# that it needs, which takes 0.24 ms.
_MANY_SMALL = 64
# Segments that are merged into one: each is an open file meanwhile.
_MANY_OPEN = 256
# Maximum number of segments (32 MiB) waiting to be written; then adding rows waits for the disk.
_MANY_WAITING = 2
# What shelves that are not in use may hold: indices (28 bytes a row), and rows not written yet.
_HELD_BYTES = 128 * 2**20
# Segments may be evicted or merged by another process between being listed and being opened.
_ATTEMPTS = 3


def check_writable(folder: Path) -> None:
    """Check that the requested folder of a store can be written; make it if needed.

    Raises:
        RequestError: it cannot be made, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(
            f"store.folder={folder} cannot be written: {error.strerror}. Choose another folder, "
            "or keep nothing on disk: store=none"
        ) from error


class Store:
    """All shelves of a folder, or of this process's memory, bounded in size.

    What was added may be gone at any time: evicted, by another process too, or dropped because the
    disk is full. Threads may share a store.
    """

    def __init__(self, folder: Path | None, max_bytes: int, warn: Callable[[str], None]) -> None:
        """Open a store; nothing is written before rows are added.

        Args:
            folder: folder of the segments; None: in memory.
            max_bytes: limit of the size of all segments; the least recently used are evicted.
            warn: receives, once, the reason why nothing more is kept.
        """
        self._segments = Memory(max_bytes) if folder is None else Folder(folder, max_bytes)
        self._warn = warn
        self._is_writing = True
        self._shelves: dict[str, Shelf] = {}
        # Guards the shelves; not held while a segment is written.
        self._lock = threading.RLock()
        self._written = threading.Condition(self._lock)
        # Segments that were handed to the writing thread, and those that it is done with.
        self._submitted = self._finished = 0
        self._problem: Exception | None = None
        self._writer: ThreadPoolExecutor | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shelf(self, context: Context) -> Shelf:
        """Return the shelf of a context; the same object for the same context."""
        name = context.digest
        with self._lock:
            shelf = self._shelves.pop(name, None) or Shelf(self, context)
            # The last used is the last; a shelf that is released can still be used.
            self._shelves[name] = shelf
            shelf._is_released = False
            held = {former: former._held_bytes for former in self._shelves.values()}
            total = sum(held.values())
            for former in list(held)[:-1]:
                if total <= _HELD_BYTES:
                    break
                former._release()
                total -= held[former]
            return shelf

    def flush(self) -> None:
        """Write rows that were added but not written yet, and wait until they are.

        Raises:
            any error of an earlier write but those of the disk, for which see `warn`.
        """
        with self._lock:
            for shelf in self._shelves.values():
                shelf._seal()
        self._wait(0)

    def close(self) -> None:
        """Write the rows that are not written yet, and release the memory."""
        try:
            self.flush()
        finally:
            with self._lock:
                for shelf in self._shelves.values():
                    shelf._release()
                writer, self._writer = self._writer, None
            if writer is not None:
                writer.shutdown()

    def _submit(self, write: Callable[[], None]) -> None:
        """Have a segment written, by the writing thread if it goes to a disk."""
        if not self._segments.on_disk:
            write()
            return
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "store")
        self._submitted += 1
        self._writer.submit(self._run, write)

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            self._problem = error
        finally:
            with self._lock:
                self._finished += 1
                self._written.notify_all()

    def _wait(self, most: int) -> None:
        """Wait until at most so many of the present segments are still to be written.

        Raises:
            any error of a write that the store does not expect.
        """
        with self._lock:
            enough = self._submitted - most
            self._written.wait_for(lambda: self._finished >= enough)
            problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def _give_up(self, error: StorageError) -> None:
        if self._is_writing:
            cause = error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            reason = os.strerror(number) if number else str(cause or error)
            self._warn(
                f"The store of embeddings cannot be written ({reason}): from now on this run "
                "only reads from it. No result is lost. Free some space or fix the permissions, "
                "or choose: store.folder=PATH, store.max_gib=1, store=none"
            )
        self._is_writing = False


@dataclass
class _Segment:
    """A segment in the index: its name, its bytes, and when this process last touched it."""

    name: str
    size: int
    touched: float


class Shelf:
    """The embeddings of one context.

    A call opens each segment that it needs, so that few calls with many keys are the fast ones.
    """

    def __init__(self, store: Store, context: Context) -> None:
        """Open a shelf; called by `Store.shelf`."""
        self._store = store
        self._context = context
        self._name = context.digest
        self._dimensions: int | None = None
        self._stamp: int | None = None
        self._next = 0
        self._known: dict[int, _Segment] = {}
        self._index = Index()
        self._buffer: dict[int, Rows] = {}
        self._buffered = Index()
        self._buffer_bytes = 0
        # Segments that wait to be written; they are in the index.
        self._sealed: dict[int, Rows] = {}
        self._is_released = False
        store._segments.remove_leftovers(self._name)

    @property
    def dimensions(self) -> int | None:
        """The dimensions of the shelf's embeddings; None while it is empty."""
        with self._store._lock:
            if self._dimensions is None:
                self._refresh()
            return self._dimensions

    def lengths(self, keys: Keys) -> NDArray[np.int32]:
        """Return the number of tokens of each text, -1 if it is unknown: [keys].

        No row is read for it, and a row that is known here may be gone when it is read.
        """
        with self._store._lock:
            lengths: NDArray[np.int32] = self._find(keys)[:, LENGTH]
        return lengths

    def read(
        self, keys: Keys, out: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Copy the embeddings that are stored.

        Args:
            keys: [n]
            out: [m, dimensions]; the embedding of `keys[i]` becomes `out[rows[i]]`.
            rows: [n]

        Returns:
            Which were found: [n]. The rows of `out` for others are unchanged.
        """

        def take(which: NDArray[np.intp], found: Rows, at: NDArray[np.int32]) -> None:
            if out.shape[1:] != found.values.shape[1:]:
                raise ValueError(f"{out.shape} has no room for rows of {found.values.shape}")
            out[rows[which]] = found.values[at]

        with self._store._lock:
            return self._collect(keys, take)

    def add(self, keys: Keys, lengths: NDArray[np.int32], embeddings: NDArray[np.float32]) -> None:
        """Store embeddings; those that are stored already are skipped.

        Waits for the disk while too many segments have to be written.

        Args:
            keys: [n]
            lengths: tokens that were read of each text, [n].
            embeddings: [n, dimensions]
        """
        with self._store._lock:
            # Those of the segments come first: one that differs would be taken for broken.
            known = self.dimensions or embeddings.shape[1]
            if embeddings.shape != (len(keys), known) or lengths.shape != keys.shape:
                raise ValueError(f"{embeddings.shape}: not {len(keys)} rows of {known} dimensions")
            self._dimensions = known
            fresh = self._fresh(keys)
            per_piece = max(1, _SEGMENT_BYTES // (4 * known + _ROW_BYTES))
            for start in range(0, len(fresh), per_piece):
                at = fresh[start : start + per_piece]
                self._keep(
                    Rows(
                        keys[at],
                        lengths[at].astype(np.int32),
                        embeddings[at].astype(np.float32, copy=False),
                    )
                )
        self._store._wait(_MANY_WAITING)

    @property
    def _held_bytes(self) -> int:
        return self._buffer_bytes + self._index.bytes

    def _seal(self) -> None:
        """Have the added rows written; they can be read in the meantime."""
        if not self._buffer:
            return
        rows, number = concatenate(self._buffer.values()), self._next
        self._buffer, self._buffered, self._buffer_bytes = {}, Index(), 0
        self._next += 1
        self._sealed[number] = rows
        self._index.add([(number, rows)])
        self._store._submit(lambda: self._write_sealed(number, rows))

    def _write_sealed(self, number: int, rows: Rows) -> None:
        segment = None
        try:
            segment = self._write(rows)
        finally:
            with self._store._lock:
                del self._sealed[number]
                if segment is None:
                    self._index.drop([number])
                else:
                    self._known[number] = segment
        if segment is None:
            return
        self._merge()
        evicted = self._store._segments.evict()
        with self._store._lock:
            if evicted:
                self._refresh()
            if self._is_released:
                self._forget()

    def _release(self) -> None:
        """Release the memory as soon as the added rows are written."""
        self._seal()
        self._is_released = True
        self._forget()

    def _forget(self) -> None:
        self._known, self._index, self._stamp = {}, Index(), None
        self._index.add(self._sealed.items())

    def _fresh(self, keys: Keys) -> NDArray[np.intp]:
        """Return which of the keys are new, each once."""
        if not self._store._is_writing:
            return np.zeros(0, dtype=np.intp)
        _, first = np.unique(keys, return_index=True)
        first.sort()
        fresh: NDArray[np.intp] = first[self._find(keys[first])[:, SEGMENT] < 0]
        return fresh

    def _keep(self, rows: Rows) -> None:
        size = rows.values.nbytes + _ROW_BYTES * len(rows.keys)
        if self._buffer_bytes + size > _SEGMENT_BYTES:
            self._seal()
        if not self._store._is_writing:
            return
        self._buffer[self._next] = rows
        self._buffered.add([(self._next, rows)])
        self._buffer_bytes += size
        self._next += 1
        if self._buffer_bytes >= _SEGMENT_BYTES:
            self._seal()

    def _places(self, keys: Keys) -> NDArray[np.int32]:
        """Return where the rows are, as far as this process knows; see `Index.find`."""
        places = self._index.find(keys)
        missing = np.flatnonzero(places[:, SEGMENT] < 0)
        if self._buffer and len(missing):
            places[missing] = self._buffered.find(keys[missing])
        return places

    def _find(self, keys: Keys) -> NDArray[np.int32]:
        """Return where the rows are, including those of other processes; see `Index.find`."""
        places = self._places(keys)
        if (places[:, SEGMENT] < 0).any() and self._refresh():
            places = self._places(keys)
        return places

    def _collect(
        self, keys: Keys, take: Callable[[NDArray[np.intp], Rows, NDArray[np.int32]], None]
    ) -> NDArray[np.bool_]:
        """Pass the rows of each segment to `take`, and return which keys were found."""
        found = np.zeros(len(keys), dtype=np.bool_)
        for _ in range(_ATTEMPTS):
            waiting = np.flatnonzero(~found)
            places = self._find(keys[waiting])
            lost = []
            for segment, which in groups(places[:, SEGMENT]):
                rows = self._buffer.get(segment) or self._sealed.get(segment)
                if rows is None:
                    rows = self._open(self._known[segment])
                if rows is None:
                    lost.append(segment)
                else:
                    take(waiting[which], rows, places[which, ROW])
                    found[waiting[which]] = True
            if not lost:
                break
            self._drop(lost)
            self._stamp = None
        return found

    def _open(self, segment: _Segment, *, only_keys: bool = False) -> Rows | None:
        """Return the rows of a segment; None: it is gone or damaged.

        Args:
            segment: segment to open.
            only_keys: whether values are not read, so that their checksum is not verified.
        """
        segments = self._store._segments
        try:
            batch = segments.open(self._name, segment.name)
        except BrokenError:
            segments.remove(self._name, segment.name)
            return None
        except OSError:
            return None
        rows = unpack(batch, self._context, self._dimensions)
        if rows is None or (segments.on_disk and not is_intact(batch, rows, only_keys=only_keys)):
            segments.remove(self._name, segment.name)
            return None
        self._dimensions = rows.values.shape[1]
        segment.size = batch.nbytes
        if time.monotonic() - segment.touched > segments.touch_seconds:
            segment.touched = time.monotonic()
            segments.touch(self._name, segment.name)
        return rows

    def _refresh(self) -> bool:
        """Look for new and removed segments, and return whether there are any."""
        stamp = self._store._segments.stamp(self._name)
        if stamp is not None and stamp == self._stamp:
            return False
        present = self._store._segments.names(self._name)
        self._stamp = stamp
        known = {segment.name for segment in self._known.values()}
        gone = [i for i, segment in self._known.items() if segment.name not in present]
        self._drop(gone)
        came = []
        for name in sorted(present - known):
            # Finding out what is in a segment is no use of it.
            segment = _Segment(name, 0, time.monotonic())
            rows = self._open(segment, only_keys=True)
            if rows is None:
                self._stamp = None
                continue
            segment.touched = float("-inf")
            self._known[self._next] = segment
            came.append((self._next, rows.without_values()))
            self._next += 1
        self._index.add(came)
        return bool(gone or came)

    def _drop(self, segments: Sequence[int]) -> None:
        for segment in segments:
            del self._known[segment]
        self._index.drop(segments)

    def _write(self, rows: Rows, used: int | None = None) -> _Segment | None:
        """Write a segment and return it; None: nothing can be written."""
        if not self._store._is_writing:
            return None
        name = f"{uuid.uuid4().hex}.arrow"
        batch = pack(rows, self._context)
        try:
            self._store._segments.write(self._name, name, batch, used)
        except StorageError as error:
            self._store._give_up(error)
            return None
        return _Segment(name, batch.nbytes, time.monotonic())

    def _merge(self) -> None:
        """Merge small segments if there are many.

        Several processes may do so at once: then rows are there twice, which harms no reader.
        """
        with self._store._lock:
            small = {i: s.size for i, s in self._known.items() if s.size < _SEGMENT_BYTES // 2}
        if len(small) <= _MANY_SMALL:
            return
        group: list[int] = []
        for i in small:
            group.append(i)
            size = sum(small[one] for one in group)
            if size >= _SEGMENT_BYTES // 2 or len(group) == _MANY_OPEN:
                self._join(group)
                group = []
        if len(group) > 1:
            self._join(group)

    def _join(self, group: Sequence[int]) -> None:
        """Replace some segments by a single one; those that are gone are skipped."""
        segments, lock = self._store._segments, self._store._lock
        with lock:
            known = {i: self._known[i] for i in group if i in self._known}
            # Before they are opened, which is a use as well.
            used = max((segments.used(self._name, one.name) for one in known.values()), default=0)
            opened = {i: rows for i, one in known.items() if (rows := self._open(one)) is not None}
        merged = concatenate(opened.values()) if opened else None
        segment = None if merged is None else self._write(merged, used)
        if merged is not None and segment is None:
            return
        with lock:
            if merged is not None and segment is not None:
                self._known[self._next] = segment
                self._index.add([(self._next, merged)])
                self._next += 1
            self._drop([i for i in known if i in self._known])
        for i in opened:
            segments.remove(self._name, known[i].name)
