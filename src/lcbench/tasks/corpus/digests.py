"""Digests of files, remembered by path, size and time, and of texts."""

from __future__ import annotations

import hashlib
import time
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
