"""Digests of files, remembered by path, size and time, and of texts."""

from __future__ import annotations

import hashlib
import time
from array import array
from pathlib import Path

from lcbench.errors import RequestError
from lcbench.system.files import cache_folder
from lcbench.system.json_cache import JsonCache

# A file that was changed within this time may be changed again without another time stamp.
_SETTLED_SECONDS = 2.0


def cached(name: str) -> JsonCache:
    """Return a file of the cache folder for what is known of a user's texts."""
    return JsonCache(f"{name}.json", cache_folder() / "own")


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces; nothing is read if it is unchanged.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        stat = path.stat()
        state = [str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]
        cache = cached(f"file-{hashlib.sha256(str(path).encode('utf-8', 'replace')).hexdigest()}")
        known = cache.read(lambda content: content["digest"] if content["state"] == state else None)
        if isinstance(known, str):
            return known
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}.") from error
    if time.time() - stat.st_mtime > _SETTLED_SECONDS:
        cache.write({"state": state, "digest": digest})
    return digest


def number_of(text: str) -> int:
    """Return a text's digest as a number of 64 bits, which stands for it in large sets.

    Of ten million texts two different ones have the same with a probability of 3 in a million.
    """
    content = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


class Numbers:
    """A set of numbers of 64 bits that knows where each came first, in 16 bytes for each slot.

    Python's own sets and dictionaries take 60 to 160 bytes for each.
    """

    def __init__(self) -> None:
        self._count = 0
        self._make(1024)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._keys[self._slot(number or 1)] != 0

    def add(self, number: int, place: int = 0) -> int:
        """Return the place at which a number came first, which is `place` if it is new."""
        number = number or 1
        slot = self._slot(number)
        if self._keys[slot]:
            return self._places[slot]
        self._keys[slot], self._places[slot] = number, place
        self._count += 1
        if 3 * self._count > 2 * len(self._keys):
            self._grow()
        return place

    def _slot(self, number: int) -> int:
        """Return the slot of a number, or the free one where it belongs."""
        keys, mask = self._keys, self._mask
        slot = number & mask
        while (key := keys[slot]) and key != number:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        keys, places = self._keys, self._places
        self._make(2 * len(keys))
        for key, place in zip(keys, places, strict=True):
            if key:
                slot = self._slot(key)
                self._keys[slot], self._places[slot] = key, place

    def _make(self, size: int) -> None:
        self._keys = array("Q", bytes(8 * size))
        self._places = array("Q", bytes(8 * size))
        self._mask = size - 1
