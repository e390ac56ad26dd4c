"""The record of files that prefetch has put into a folder, with digests and purposes.

It is for people and for `verify=true`. A run does not read it, but compares sizes with the trees
that the hub's client stores in the same folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcbench.errors import RequestError
from lcbench.system.files import write_atomically

NAME = "lcbench-manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class File:
    """A fetched and verified file: size in bytes, and SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One revision of one repository.

    Attributes:
        kind: `model` or `dataset`.
        name: name on the hub.
        revision: commit.
        asked: requested revision: commit, branch or tag, or None for main.
        users: tasks or model configs that it was fetched for, with the subsets of each; None: all,
            or it has none.
        files: files by path.
        hub: address that it was fetched from.
        fetched: time, in UTC (ISO 8601).
        versions: versions of the libraries that chose and fetched the files.
    """

    kind: str
    name: str
    revision: str
    asked: str | None
    users: Mapping[str, Sequence[str] | None]
    files: Mapping[str, File]
    hub: str
    fetched: str
    versions: Mapping[str, str]


Manifest = dict[tuple[str, str, str], Entry]


def read(folder: Path) -> Manifest:
    """Return the entries of a folder's manifest by kind, name and revision; none without one.

    Raises:
        RequestError: it cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(one) for one in content["repositories"]]
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Remove it: prefetch then "
            "verifies all files and writes it again."
        ) from error
    return {(one.kind, one.name, one.revision): one for one in entries}


def record(folder: Path, entry: Entry) -> None:
    """Write a repository's entry, merged with an earlier entry of the same revision.

    Raises:
        StorageError: the folder cannot be written.
    """
    entries = read(folder)
    key = entry.kind, entry.name, entry.revision
    before = entries.get(key)
    value = asdict(entry)
    if before is not None:
        value["files"] = {**asdict(before)["files"], **value["files"]}
        value["users"] = _merged(before.users, entry.users)
    entries[key] = _entry(value)
    content = {
        "format": _FORMAT,
        "repositories": [asdict(entries[one]) for one in sorted(entries)],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / NAME, text)


def has(entry: Entry | None, paths: Mapping[str, int], users: Mapping[str, Any]) -> bool:
    """Return whether an entry has these files and these users."""
    if entry is None or set(paths) - set(entry.files):
        return False
    return _merged(entry.users, users) == _merged(entry.users, {})


def sha256(path: Path) -> str:
    """Return a file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def damaged(entry: Entry, snapshot: Path, paths: Mapping[str, int]) -> list[str]:
    """Return the files of a snapshot whose digest is wrong or not recorded."""
    return [
        path
        for path in paths
        if path not in entry.files or sha256(snapshot / path) != entry.files[path].sha256
    ]


def _merged(
    one: Mapping[str, Sequence[str] | None], other: Mapping[str, Sequence[str] | None]
) -> dict[str, list[str] | None]:
    merged: dict[str, list[str] | None] = {}
    for name in sorted({*one, *other}):
        subsets = [users[name] for users in (one, other) if name in users]
        known = [subset for subset in subsets if subset is not None]
        merged[name] = sorted({s for k in known for s in k}) if len(known) == len(subsets) else None
    return merged


def _entry(content: Mapping[str, Any]) -> Entry:
    files = {path: File(**file) for path, file in content["files"].items()}
    return Entry(**{**content, "files": files})
