"""Storage of segments: a folder shared by processes, or memory."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcbench.encode.store.segments import BrokenError
from lcbench.system.files import remove_leftovers, write_atomically

# Two changes of a folder may have the same time; a younger one is not taken for the last.
_SETTLED_NS = 2 * 10**9
# What is left when the store was too large, so that not every segment brings the next eviction.
_KEPT_SHARE = 0.9
# The share of the room left that a process fills before it lists the folder again: eight processes
# at once just fill it.
_LISTED_AFTER_SHARE = 1 / 8
# Another host's temporary file of this age belongs to nobody.
_LEFTOVER_SECONDS = 24 * 3600.0

# Nothing else in the folder is ever touched: it may be one that holds other files as well.
_NAME = re.compile(r"[0-9a-f]{32}\.arrow")


class Folder:
    """Segments as files, `<folder>/<2 digits>/<shelf>/<name>.arrow`.

    The time at which a file was last used is its time of modification.
    """

    # A write to the file system each, so not for every read.
    touch_seconds = 300.0
    on_disk = True

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        # When the folder was last listed, and since then.
        self._room: int | None = None
        self._written = 0

    def _path(self, shelf: str, name: str = "") -> Path:
        return self._folder / shelf[:2] / shelf / name

    def remove_leftovers(self, shelf: str) -> None:
        with suppress(OSError):
            remove_leftovers(self._path(shelf))

    def stamp(self, shelf: str) -> int | None:
        """Return a number that changes with the segments; None: it may not have changed yet."""
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
        """Return a segment's record batch, mapped into memory.

        Raises:
            BrokenError: it is damaged.
            OSError: it is gone or cannot be opened.
        """
        try:
            # Mapped anew each time: a file that another client of a network file system has removed
            # fails to open, whereas touching its mapping would kill the process (SIGBUS).
            reader = pa.ipc.open_file(pa.memory_map(str(self._path(shelf, name))))
            if reader.num_record_batches != 1:
                raise BrokenError
            return reader.get_batch(0)
        except pa.ArrowException as error:
            raise BrokenError from error
        except OSError as error:
            # Arrow's own complaints about what it reads have no number; the system's have.
            if error.errno is None:
                raise BrokenError from error
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
        self._written += batch.nbytes

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

    def evict(self) -> bool:
        """Remove the least recently used segments beyond the size limit.

        The folder is listed only if this process has written enough for it to matter.

        Returns:
            Whether any was removed.
        """
        if self._room is not None and self._written < _LISTED_AFTER_SHARE * self._room:
            return False
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
        superfluous, kept = _superfluous(entries, self._max_bytes)
        for path in superfluous:
            with suppress(OSError):
                path.unlink()
        self._room, self._written = max(0, self._max_bytes - kept), 0
        return bool(superfluous)


class Memory:
    """Segments in this process's memory, with the methods of `Folder`."""

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

    def evict(self) -> bool:
        entries = [
            (used, self._batches[shelf][name].nbytes, (shelf, name))
            for (shelf, name), used in self._used.items()
        ]
        superfluous, _ = _superfluous(entries, self._max_bytes)
        for shelf, name in superfluous:
            self.remove(shelf, name)
        return bool(superfluous)


def _superfluous(entries: list[tuple[int, int, Any]], max_bytes: int) -> tuple[list[Any], int]:
    """Return which of (time used, bytes, segment) to remove, and the bytes of the others.

    The least recently used are removed first.
    """
    total = sum(size for _, size, _ in entries)
    going = []
    if total > max_bytes:
        for _, size, segment in sorted(entries, key=lambda entry: entry[0]):
            if total <= _KEPT_SHARE * max_bytes:
                break
            going.append(segment)
            total -= size
    return going, total
