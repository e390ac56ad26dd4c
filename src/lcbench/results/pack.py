"""Packs results in the layout of mteb's results repository, with digests, and checks a pack.

The repository is embeddings-benchmark/results; mteb reads a pack as `mteb.ResultCache(pack)`:

    <pack>/results/<org>__<model>/<revision>/<Task>.json                        the baseline
    <pack>/results/<org>__<model>/<revision>/experiments/<repair>/<Task>.json   a repair
    <pack>/SHA256SUMS                                 digests, as `sha256sum -c SHA256SUMS` reads
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from lcbench.errors import RequestError, StorageError
from lcbench.results.files import META, CellFiles

SUMS = "SHA256SUMS"
_RESULTS = "results"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def placed(folder: Path, cells: Iterable[CellFiles]) -> dict[str, Path]:
    """Return the files of a pack: the path in it of each file of a results folder.

    Args:
        folder: the results folder.
        cells: the cells to pack.

    Raises:
        RequestError: two cells, under different protocols, have the same path.
    """
    files: dict[str, Path] = {}
    for cell in cells:
        for path in (cell.result, cell.meta):
            protocol, *parts = path.relative_to(folder).parts
            inside = "/".join(parts)
            known = files.setdefault(inside, path)
            if known != path and path.name != META:
                other = known.relative_to(folder).parts[0]
                raise RequestError(
                    f"{cell.task} of {cell.folder.name} was scored under {other} and {protocol}, "
                    f"and a pack has one result of each: protocols=[{other}] or "
                    f"protocols=[{protocol}]."
                )
    return files


def write_pack(files: Mapping[str, Path], out: Path) -> None:
    """Copy files into a new folder, and write their digests.

    Args:
        files: result of `placed`.
        out: the folder.

    Raises:
        RequestError: it exists.
        StorageError: it cannot be written.
    """
    if out.exists():
        raise RequestError(f"out={out} already exists; choose another folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "pack"
            lines = []
            for inside, path in sorted(files.items()):
                content = path.read_bytes()
                target = folder / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                lines.append(f"{hashlib.sha256(content).hexdigest()}  {inside}\n")
            (folder / SUMS).write_text("".join(lines), encoding="utf-8")
            shutil.move(folder, out)
    except OSError as error:
        raise StorageError(f"out={out} could not be written: {error}") from error


def check_pack(folder: Path) -> tuple[int, list[str]]:
    """Compare the files of a pack with its digests.

    Returns:
        How many files are listed, and a line for each that is missing, changed or not listed.

    Raises:
        RequestError: it is not a pack, or its list of digests cannot be read.
    """
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RequestError(f"check={folder} is not a pack: {SUMS} cannot be read.") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        parts = match[2].split("/") if match else []
        if match is None or {"", ".", ".."} & set(parts):
            raise RequestError(
                f"{folder / SUMS}, line {number}: not a digest and a path in the folder."
            )
        listed[match[2]] = match[1]
    if not listed:
        raise RequestError(f"check={folder}: {SUMS} lists no files.")
    wrong = []
    for inside, digest in listed.items():
        try:
            # A link would lead out of the folder.
            path = folder / inside
            is_file = path.is_file() and path.resolve() == folder.resolve() / inside
            content = path.read_bytes() if is_file else None
        except OSError as error:
            wrong.append(f"{inside} cannot be read: {error.strerror}")
            continue
        if content is None:
            wrong.append(f"{inside} is missing")
        elif hashlib.sha256(content).hexdigest() != digest:
            wrong.append(f"{inside} was changed")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wrong += [f"{one} is not listed in {SUMS}" for one in sorted(there - {*listed, SUMS})]
    return len(listed), wrong
