"""Where embeddings are kept by content, so that no text is encoded twice.

On disk a shelf is a folder of segments: Arrow files that are written whole, never changed, and
mapped only while rows are read from them. There are no locks: any number of processes add segments
of their own and find those of the others, on a file system that they share as well.

Each segment carries checksums of its rows. One whose rows are no longer those that were written is
removed, and its texts are encoded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from lcbench.errors import RequestError, StorageError
from lcbench.files import remove_leftovers, write_atomically

Keys = NDArray[np.bytes_]

# Of what is written below; another layout is another folder.
_LAYOUT = 2
_KEY_BYTES = 16
# Rows wait in memory until they are a segment of this size: 5,300 embeddings of 768 dimensions.
_SEGMENT_BYTES = 16 * 2**20
# Beside a row's values: its key, its length and its place in two indices.
_ROW_BYTES = 64
# A shelf with more segments of less than half the size has them merged: a read opens each segment
# that it needs, which takes 0.24 ms.
_MANY_SMALL = 64
# Segments that are merged into one: each is an open file meanwhile.
_MANY_OPEN = 256
# What shelves that are not in use may hold: indices (28 bytes a row), and rows not written yet.
_HELD_BYTES = 128 * 2**20
# Two changes of a folder may have the same time; a younger one is not taken for the last.
_SETTLED_NS = 2 * 10**9
# What is left when the store was too large, so that not every segment brings the next eviction.
_KEPT_SHARE = 0.9
# Another host's temporary file of this age belongs to nobody.
_LEFTOVER_SECONDS = 24 * 3600.0
# Segments may be evicted or merged by another process between being listed and being opened.
_ATTEMPTS = 3
# Names of the checksums that a segment carries: of keys and lengths, and of the values.
_CHECKSUMS = ("index", "values")
# Nothing else in the folder is ever touched: it may be one that holds other files as well.
_NAME = re.compile(r"[0-9a-f]{32}\.arrow")


@dataclass(frozen=True)
class Context:
    """What all rows of a shelf have in common: texts differ, nothing else does.

    Attributes:
        model: its name.
        revision: of its weights and tokenizer.
        window: tokens that are read of a text.
        dtype: that the model computes in.
        temperature: canonical, as the text's role has it.
        prompt: put before each text.
        role: of the texts, where the model may make something else of one by its role; else "".
        made_by: a digest of the versions of the libraries, and of the code, that make the rows.
        pooling: that was asked for in the place of the model's; None: the model's.
    """

    model: str
    revision: str | None
    window: int | None
    dtype: str
    temperature: str
    prompt: str
    made_by: str
    role: str = ""
    pooling: str | None = None

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that name the shelf."""
        return hashlib.blake2b(self.described.encode("ascii"), digest_size=16).hexdigest()

    @property
    def described(self) -> str:
        """All fields as JSON, as each segment carries them."""
        # Folders of earlier versions also have tokens, which nothing reads and which are evicted.
        kept = {"layout": _LAYOUT, "kind": "embedding", **asdict(self)}
        return json.dumps(kept, sort_keys=True)


def digests(texts: Sequence[str]) -> Keys:
    """Return the keys of texts: BLAKE2b of 16 bytes of each, as an array of dtype S16."""
    made = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()
        for text in texts
    )
    return np.frombuffer(made, dtype=f"S{_KEY_BYTES}")


def check_writable(folder: Path) -> None:
    """Make the folder of a store that the request names, where there is none.

    Raises:
        RequestError: it cannot be made, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(
            f"store.folder={folder} cannot be written: {error.strerror}. Name another folder, or "
            "keep nothing on disk: store=none"
        ) from error


class Store:
    """All shelves of a folder, or of this process's memory, bounded in size.

    What was added may be gone at any time: evicted, by another process too, or dropped because the
    disk is full. A store belongs to one thread.
    """

    def __init__(self, folder: Path | None, max_bytes: int, warn: Callable[[str], None]) -> None:
        """Open a store; nothing is written before rows are added.

        Args:
            folder: in which the segments lie; None: in memory.
            max_bytes: that all segments may have together; the least recently used go first.
            warn: is told, once, why nothing more is kept.
        """
        self._segments = _Memory(max_bytes) if folder is None else _Folder(folder, max_bytes)
        self._warn = warn
        self._is_writing = True
        self._shelves: dict[str, Shelf] = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shelf(self, context: Context) -> Shelf:
        """Return the shelf of a context; the same object for the same context."""
        name = context.digest
        shelf = self._shelves.pop(name, None) or Shelf(self, context)
        # The last used is the last; a shelf that is released can still be used.
        self._shelves[name] = shelf
        held = {former: former._held_bytes for former in self._shelves.values()}
        total = sum(held.values())
        for former in list(held)[:-1]:
            if total <= _HELD_BYTES:
                break
            former._release()
            total -= held[former]
        return shelf

    def flush(self) -> None:
        """Write what was added and is not written yet."""
        for shelf in self._shelves.values():
            shelf.flush()

    def close(self) -> None:
        """Write what is not written yet, and give the memory back."""
        for shelf in self._shelves.values():
            shelf._release()

    def _give_up(self, error: StorageError) -> None:
        if self._is_writing:
            cause = error.__cause__
            number = cause.errno if isinstance(cause, OSError) else None
            reason = os.strerror(number) if number else str(cause or error)
            self._warn(
                f"The store of embeddings cannot be written ({reason}): from here on this run "
                "reads from it and keeps nothing more. No result is lost. Make room or mend the "
                "permissions, or choose: store.folder=PATH, store.max_gib=1, store=none"
            )
        self._is_writing = False


@dataclass
class _Segment:
    """One that is in the index: its name, its bytes, and when this process last touched it."""

    name: str
    size: int
    touched: float


class Shelf:
    """The embeddings of one context.

    A call opens each segment that it needs, so that few calls with many keys are the fast ones.
    """

    def __init__(self, store: Store, context: Context) -> None:
        """Open a shelf; `Store.shelf` is the way to one."""
        self._store = store
        self._context = context
        self._name = context.digest
        self._dimensions: int | None = None
        self._stamp: int | None = None
        self._next = 0
        self._known: dict[int, _Segment] = {}
        self._index = _Index()
        self._buffer: dict[int, _Rows] = {}
        self._buffered = _Index()
        self._buffer_bytes = 0
        store._segments.remove_leftovers(self._name)

    @property
    def dimensions(self) -> int | None:
        """Of the shelf's embeddings; None while there is none."""
        if self._dimensions is None:
            self._refresh()
        return self._dimensions

    def lengths(self, keys: Keys) -> NDArray[np.int32]:
        """Return the tokens of each text, -1 where they are not known: [keys].

        No row is read for it, and a row that is known here may be gone when it is read.
        """
        lengths: NDArray[np.int32] = self._find(keys)[:, _LENGTH]
        return lengths

    def read(
        self, keys: Keys, out: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Copy the embeddings that are here.

        Args:
            keys: [n]
            out: [m, dimensions]; the embedding of `keys[i]` becomes `out[rows[i]]`.
            rows: [n]

        Returns:
            Which were found: [n]. What was not has left `out` as it was.
        """

        def take(which: NDArray[np.intp], found: _Rows, at: NDArray[np.int32]) -> None:
            if out.shape[1:] != found.values.shape[1:]:
                raise ValueError(f"{out.shape} has no room for rows of {found.values.shape}")
            out[rows[which]] = found.values[at]

        return self._collect(keys, take)

    def add(self, keys: Keys, lengths: NDArray[np.int32], embeddings: NDArray[np.float32]) -> None:
        """Keep embeddings; those that are here already are passed over.

        Args:
            keys: [n]
            lengths: tokens that were read of each text, [n].
            embeddings: [n, dimensions]
        """
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
                _Rows(
                    keys[at],
                    lengths[at].astype(np.int32),
                    embeddings[at].astype(np.float32, copy=False),
                )
            )

    def flush(self) -> None:
        """Write what was added and is not written yet."""
        if self._buffer:
            rows = _concatenate(self._buffer.values())
            self._buffer, self._buffered, self._buffer_bytes = {}, _Index(), 0
            if self._write(rows) is not None:
                self._merge()
                self._store._segments.evict()
                self._refresh()

    @property
    def _held_bytes(self) -> int:
        return self._buffer_bytes + self._index.bytes

    def _release(self) -> None:
        self.flush()
        self._known, self._index, self._stamp = {}, _Index(), None

    def _fresh(self, keys: Keys) -> NDArray[np.intp]:
        """Return which of the keys are to be kept: each that is not here, once."""
        if not self._store._is_writing:
            return np.zeros(0, dtype=np.intp)
        _, first = np.unique(keys, return_index=True)
        first.sort()
        fresh: NDArray[np.intp] = first[self._find(keys[first])[:, _SEGMENT] < 0]
        return fresh

    def _keep(self, rows: _Rows) -> None:
        size = rows.values.nbytes + _ROW_BYTES * len(rows.keys)
        if self._buffer_bytes + size > _SEGMENT_BYTES:
            self.flush()
        if not self._store._is_writing:
            return
        self._buffer[self._next] = rows
        self._buffered.add([(self._next, rows)])
        self._buffer_bytes += size
        self._next += 1
        if self._buffer_bytes >= _SEGMENT_BYTES:
            self.flush()

    def _places(self, keys: Keys) -> NDArray[np.int32]:
        """Return where the rows are, as far as this process knows: see `_Index.find`."""
        places = self._index.find(keys)
        missing = np.flatnonzero(places[:, _SEGMENT] < 0)
        if self._buffer and len(missing):
            places[missing] = self._buffered.find(keys[missing])
        return places

    def _find(self, keys: Keys) -> NDArray[np.int32]:
        """Return where the rows are, other processes' among them: see `_Index.find`."""
        places = self._places(keys)
        if (places[:, _SEGMENT] < 0).any() and self._refresh():
            places = self._places(keys)
        return places

    def _collect(
        self, keys: Keys, take: Callable[[NDArray[np.intp], _Rows, NDArray[np.int32]], None]
    ) -> NDArray[np.bool_]:
        """Hand the rows of each segment to `take`, and return which keys had one."""
        found = np.zeros(len(keys), dtype=np.bool_)
        for _ in range(_ATTEMPTS):
            waiting = np.flatnonzero(~found)
            places = self._find(keys[waiting])
            lost = []
            for segment, which in _groups(places[:, _SEGMENT]):
                buffered = self._buffer.get(segment)
                rows = self._open(self._known[segment]) if buffered is None else buffered
                if rows is None:
                    lost.append(segment)
                else:
                    take(waiting[which], rows, places[which, _ROW])
                    found[waiting[which]] = True
            if not lost:
                break
            self._drop(lost)
            self._stamp = None
        return found

    def _open(self, segment: _Segment, *, only_keys: bool = False) -> _Rows | None:
        """Return the rows of a segment, or None if there is none any more, or a damaged one.

        Args:
            segment: to open.
            only_keys: the values are not going to be read, and so not compared with their checksum.
        """
        segments = self._store._segments
        try:
            batch = segments.open(self._name, segment.name)
        except _BrokenError:
            segments.remove(self._name, segment.name)
            return None
        except OSError:
            return None
        rows = _unpack(batch, self._context, self._dimensions)
        if rows is None or (segments.on_disk and not _is_intact(batch, rows, only_keys=only_keys)):
            segments.remove(self._name, segment.name)
            return None
        self._dimensions = rows.values.shape[1]
        segment.size = batch.nbytes
        if time.monotonic() - segment.touched > segments.touch_seconds:
            segment.touched = time.monotonic()
            segments.touch(self._name, segment.name)
        return rows

    def _refresh(self) -> bool:
        """Look for segments that came or went, and return whether any did."""
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

    def _write(self, rows: _Rows, used: int | None = None) -> _Segment | None:
        """Write a segment, and return it, or None where nothing can be written."""
        if not self._store._is_writing:
            return None
        name = f"{uuid.uuid4().hex}.arrow"
        batch = _pack(rows, self._context)
        try:
            self._store._segments.write(self._name, name, batch, used)
        except StorageError as error:
            self._store._give_up(error)
            return None
        segment = _Segment(name, batch.nbytes, time.monotonic())
        self._known[self._next] = segment
        self._index.add([(self._next, rows)])
        self._next += 1
        return segment

    def _merge(self) -> None:
        """Make few segments of many small ones.

        Several processes may do so at once: then rows are there twice, which harms no reader.
        """
        small = {i: s for i, s in self._known.items() if s.size < _SEGMENT_BYTES // 2}
        if len(small) <= _MANY_SMALL:
            return
        group: list[int] = []
        for i in small:
            group.append(i)
            size = sum(small[one].size for one in group)
            if size >= _SEGMENT_BYTES // 2 or len(group) == _MANY_OPEN:
                self._join(group)
                group = []
        if len(group) > 1:
            self._join(group)

    def _join(self, group: Sequence[int]) -> None:
        segments = self._store._segments
        names = {i: self._known[i].name for i in group}
        used = max(segments.used(self._name, name) for name in names.values())
        opened = {i: rows for i in group if (rows := self._open(self._known[i])) is not None}
        if opened and self._write(_concatenate(opened.values()), used) is None:
            return
        for i in opened:
            segments.remove(self._name, names[i])
        self._drop(group)


# Columns of what `_Index.find` returns.
_SEGMENT, _ROW, _LENGTH = range(3)


@dataclass(frozen=True)
class _Rows:
    """Rows as they are in a segment.

    Attributes:
        keys: [n]
        lengths: in tokens, [n].
        values: embeddings, [n, dimensions].
    """

    keys: Keys
    lengths: NDArray[np.int32]
    values: NDArray[Any]

    def without_values(self) -> _Rows:
        """Return a copy that keeps no file mapped."""
        return _Rows(self.keys.copy(), self.lengths.copy(), np.zeros(0))


class _Index:
    """Where the row of each key is: sorted runs, each at least twice as long as the next.

    28 bytes a row, so that a million rows are 27 MiB.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, NDArray[np.int32]]] = []

    @property
    def bytes(self) -> int:
        """What it holds."""
        return sum(keys.nbytes + places.nbytes for keys, places in self._runs)

    def add(self, segments: Iterable[tuple[int, _Rows]]) -> None:
        """Enter all rows of segments, each with its number."""
        keys, places = [], []
        for segment, rows in segments:
            if not len(rows.keys):
                continue
            own = np.empty((len(rows.keys), 3), dtype=np.int32)
            own[:, _SEGMENT] = segment
            own[:, _ROW] = np.arange(len(own))
            own[:, _LENGTH] = rows.lengths
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
                kept = ~np.isin(places[:, _SEGMENT], np.array(segments))
                if kept.any():
                    runs.append((keys[kept], places[kept]))
            self._runs = runs


def _sorted(keys: list[Keys], places: list[NDArray[np.int32]]) -> tuple[Keys, NDArray[np.int32]]:
    joined = np.concatenate(keys)
    # The stable sort takes runs that are sorted already for what they are.
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(places)[order]


def _groups(segments: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each segment, without -1, and where it is among `segments`."""
    if not len(segments):
        return
    order = np.argsort(segments, kind="stable")
    numbers, starts = np.unique(segments[order], return_index=True)
    for number, which in zip(numbers, np.split(order, starts[1:]), strict=True):
        if number >= 0:
            yield int(number), which


def _concatenate(pieces: Iterable[_Rows]) -> _Rows:
    parts = list(pieces)
    if len(parts) == 1:
        return parts[0]
    return _Rows(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _schema(context: Context, kind: Any, checksums: Mapping[str, str]) -> Any:
    """Return a segment's columns; `kind` is Arrow's type of the values of a row."""
    columns = [("key", pa.binary(_KEY_BYTES)), ("length", pa.int32()), ("embedding", kind)]
    return pa.schema(columns, metadata={"context": context.described, **checksums})


def _checksums(rows: _Rows, *, only_keys: bool = False) -> dict[str, str]:
    """Return the checksums of rows: of keys and lengths, and of the values.

    XXH3 of 128 bits, since it costs nothing beside reading: a segment takes 0.4 ms, and 22 ms with
    BLAKE2b. It is made for damage, not for forgery: whoever can write the store can also write
    segments of his own.
    """
    index = xxhash.xxh3_128(np.ascontiguousarray(rows.keys).data)
    index.update(np.ascontiguousarray(rows.lengths, np.int32).data)
    found = {"index": index.hexdigest()}
    if not only_keys:
        found["values"] = xxhash.xxh3_128(np.ascontiguousarray(rows.values).data).hexdigest()
    return found


def _is_intact(batch: Any, rows: _Rows, *, only_keys: bool) -> bool:
    """Whether the rows of a segment have the checksums that it carries."""
    carried = batch.schema.metadata
    return all(
        carried[name.encode()] == value.encode()
        for name, value in _checksums(rows, only_keys=only_keys).items()
    )


def _pack(rows: _Rows, context: Context) -> Any:
    """Return rows as Arrow's record batch."""
    vectors = pa.FixedSizeListArray.from_arrays(
        _column(rows.values.reshape(-1), pa.float32()), rows.values.shape[1]
    )
    keys, lengths = _column(rows.keys, pa.binary(_KEY_BYTES)), _column(rows.lengths, pa.int32())
    schema = _schema(context, vectors.type, _checksums(rows))
    return pa.RecordBatch.from_arrays([keys, lengths, vectors], schema=schema)


def _column(values: NDArray[Any], kind: Any) -> Any:
    """Return an Arrow array of the same memory; `pyarrow.array` would import pandas first."""
    return pa.Array.from_buffers(
        kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def _unpack(batch: Any, context: Context, dimensions: int | None) -> _Rows | None:
    """Return the rows of a record batch, without a copy, or None if it is not what it should be."""
    try:
        last = batch.column(batch.num_columns - 1)
        size = getattr(last.type, "list_size", None) if dimensions is None else dimensions
        carried = batch.schema.metadata
        checksums = {name: carried[name.encode()] for name in _CHECKSUMS}
        schema = _schema(context, pa.list_(pa.float32(), size), checksums) if size else None
        batch.validate(full=True)
    except (ValueError, IndexError, KeyError, TypeError):
        # Arrow's own error is a ValueError, and so is a name that is no text; or without columns;
        # or without checksums, or without any metadata.
        return None
    if schema is None or not batch.schema.equals(schema, check_metadata=True):
        return None
    if any(column.null_count for column in batch.columns):
        return None
    vectors = _numbers(last.flatten(), "float32").reshape(-1, last.type.list_size)
    keys, lengths = _numbers(batch.column(0), f"S{_KEY_BYTES}"), _numbers(batch.column(1), "int32")
    return _Rows(keys, lengths, vectors)


def _numbers(array: Any, dtype: str) -> NDArray[Any]:
    """Return an Arrow array's memory; its own `to_numpy` would import pandas first."""
    buffer, kind = array.buffers()[1], np.dtype(dtype)
    if buffer is None:
        return np.zeros(0, dtype=kind)
    return np.frombuffer(buffer, kind, count=len(array), offset=array.offset * kind.itemsize)


class _BrokenError(Exception):
    """A segment's file that is not one."""


class _Folder:
    """Segments as files, `<folder>/<2 digits>/<shelf>/<name>.arrow`.

    The time at which a file was last used is its time of modification.
    """

    # A write to the file system each, so not for every read.
    touch_seconds = 300.0
    on_disk = True

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def _path(self, shelf: str, name: str = "") -> Path:
        return self._folder / shelf[:2] / shelf / name

    def remove_leftovers(self, shelf: str) -> None:
        with suppress(OSError):
            remove_leftovers(self._path(shelf))

    def stamp(self, shelf: str) -> int | None:
        """Return a number that changes with the segments; None where that cannot be relied on."""
        try:
            changed = self._path(shelf).stat().st_mtime_ns
        except OSError:
            return None
        return changed if time.time_ns() - changed > _SETTLED_NS else None

    def names(self, shelf: str) -> set[str]:
        try:
            names = [path.name for path in self._path(shelf).iterdir()]
        except OSError:
            return set()
        return {name for name in names if _NAME.fullmatch(name)}

    def open(self, shelf: str, name: str) -> Any:
        """Return a segment's record batch, mapped.

        Raises:
            _BrokenError: it is torn.
            OSError: it is gone, or cannot be opened.
        """
        try:
            # Mapped anew each time: a file that another client of a network file system has removed
            # fails to open, whereas touching its mapping would kill the process (SIGBUS).
            reader = pa.ipc.open_file(pa.memory_map(str(self._path(shelf, name))))
            if reader.num_record_batches != 1:
                raise _BrokenError
            return reader.get_batch(0)
        except pa.ArrowException as error:
            raise _BrokenError from error
        except OSError as error:
            # Arrow's own complaints about what it reads have no number; the system's have.
            if error.errno is None:
                raise _BrokenError from error
            raise

    def write(self, shelf: str, name: str, batch: Any, used: int | None) -> None:
        """Write a segment; it was last used at `used` (nanoseconds), or is now.

        Raises:
            StorageError: a full disk, a folder without permission.
        """

        def fill(path: Path) -> None:
            with pa.ipc.new_file(str(path), batch.schema) as file:
                file.write_batch(batch)
            if used is not None:
                os.utime(path, ns=(used, used))

        # Its fsync is wanted here too: without it a power cut can leave a file of the right size
        # with holes of zeros, which nothing below would notice.
        write_atomically(self._path(shelf, name), fill)

    def touch(self, shelf: str, name: str) -> None:
        with suppress(OSError):
            os.utime(self._path(shelf, name))

    def used(self, shelf: str, name: str) -> int:
        try:
            return self._path(shelf, name).stat().st_mtime_ns
        except OSError:
            return 0

    def remove(self, shelf: str, name: str) -> None:
        with suppress(OSError):
            self._path(shelf, name).unlink()

    def evict(self) -> None:
        """Remove the least recently used segments where there is more than the bound."""
        entries = []
        for path in self._folder.glob(f"??/{'?' * 32}/*.*"):
            name = _NAME.search(path.name)
            if name is None:
                continue
            with suppress(OSError):
                status = path.stat()
                if name[0] == path.name:
                    entries.append((status.st_mtime_ns, status.st_size, path))
                elif time.time() - status.st_mtime > _LEFTOVER_SECONDS:
                    path.unlink()
        for path in _superfluous(entries, self._max_bytes):
            with suppress(OSError):
                path.unlink()


class _Memory:
    """Segments in this process's memory, with the methods of `_Folder`."""

    touch_seconds = 0.0
    on_disk = False

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._changes = 0
        self._batches: dict[str, dict[str, Any]] = {}
        self._used: dict[tuple[str, str], int] = {}

    def remove_leftovers(self, shelf: str) -> None:
        pass

    def stamp(self, shelf: str) -> int | None:
        return self._changes

    def names(self, shelf: str) -> set[str]:
        return set(self._batches.get(shelf, ()))

    def open(self, shelf: str, name: str) -> Any:
        try:
            return self._batches[shelf][name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def write(self, shelf: str, name: str, batch: Any, used: int | None) -> None:
        self._changes += 1
        self._batches.setdefault(shelf, {})[name] = batch
        self._used[shelf, name] = time.time_ns() if used is None else used

    def touch(self, shelf: str, name: str) -> None:
        self._used[shelf, name] = time.time_ns()

    def used(self, shelf: str, name: str) -> int:
        return self._used.get((shelf, name), 0)

    def remove(self, shelf: str, name: str) -> None:
        self._changes += 1
        self._batches.get(shelf, {}).pop(name, None)
        self._used.pop((shelf, name), None)

    def evict(self) -> None:
        entries = [
            (used, self._batches[shelf][name].nbytes, (shelf, name))
            for (shelf, name), used in self._used.items()
        ]
        for shelf, name in _superfluous(entries, self._max_bytes):
            self.remove(shelf, name)


def _superfluous(entries: list[tuple[int, int, Any]], max_bytes: int) -> list[Any]:
    """Return which of (time used, bytes, segment) have to go, the least recently used first."""
    total = sum(size for _, size, _ in entries)
    going = []
    if total > max_bytes:
        for _, size, segment in sorted(entries, key=lambda entry: entry[0]):
            if total <= _KEPT_SHARE * max_bytes:
                break
            going.append(segment)
            total -= size
    return going
