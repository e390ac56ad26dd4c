"""Finds the data of mteb's tasks, in a mirror or in the hub's cache.

A mirror has the layout of the hub's cache, which keeps revisions apart (`prefetch` fills one), or
plain folders `<organisation>/<name>`. A task whose dataset is there reads it from there, with
mteb's unmodified class.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import RequestError, StorageError
from lcbench.hub import cache as hub
from lcbench.hub.datafiles import (
    CARDS,
    Reads,
    card_of,
    check_card,
    configs_of,
    files_read,
    reads_of,
)
from lcbench.system.files import NO_LINKS, cache_folder, link_atomically
from lcbench.tasks.registry import TaskEntry, registry
from lcbench.tasks.source import Part

if TYPE_CHECKING:
    from datasets import Features
    from mteb.abstasks.abstask import AbsTask

_KEEPS_REVISIONS = (
    "A folder that `python -m lcbench prefetch` fills keeps revisions apart: mirror=<that folder>."
)
# Not part of a dataset: files of version control and the hub's client. A card may not name them.
_NO_DATA = {".git", ".cache"}
# The most folders of a dataset, counted once per link: links to folders can make them grow
# exponentially, and a reader visits all of them.
_MOST_FOLDERS = 10_000


def check_mirror(mirror: Path | None) -> None:
    """Check that a mirror is a folder.

    Raises:
        RequestError: it is not.
    """
    try:
        there = mirror is None or mirror.is_dir()
        if mirror is not None and there:
            os.listdir(mirror)  # noqa: PTH208 - fails early if it cannot be entered
    except OSError as error:
        raise RequestError(f"mirror={mirror} cannot be read: {error.strerror}.") from error
    if not there:
        raise RequestError(
            f"mirror={mirror} is not a folder. A mirror is a folder that `python -m lcbench "
            f"prefetch KEYS mirror={mirror}` fills, a folder of models and datasets as "
            "<organisation>/<name>, or the address (https://…) of a site's mirror of the hub."
        )


@dataclass(frozen=True)
class Data:
    """The origin of a task's data.

    Attributes:
        dataset: name on the hub.
        revision: commit that the task needs; for a plain folder, whose commit is unknown, a digest
            of its files.
        origin: `hub` for the hub's files of that commit, wherever they are; or `mirror` and the
            digest of its plain folder.
    """

    dataset: str
    revision: str
    origin: str


def point_at(task: AbsTask, mirror: Path | None) -> Data:
    """Point a task at its dataset in the mirror or the hub's cache, if it is there.

    Raises:
        RequestError: the mirror's copy is, or may be, another revision; or it is not a valid
            dataset (`datafiles.check_card`, `digest_of`).
    """
    # An aggregate's parts are shared objects in mteb, and may be pointed already.
    entry = registry().tasks[task.metadata.name]
    restricted = set(task.hf_subsets) != set(entry.subsets)
    snapshot = _find(entry, task.hf_subsets if restricted else None, mirror)
    if snapshot.is_whole and snapshot.folder is not None:
        check_card(snapshot.folder, hub.files_in(snapshot.folder))
        _read_from(task, snapshot.folder, entry.revision)
        return Data(entry.dataset, entry.revision, "hub")
    folder = plain_folder(entry.dataset, entry.revision, mirror)
    if folder is not None:
        _check_revision(entry, folder)
        digest = digest_of(folder)
        _read_from(task, _named_by_content(folder, digest), digest)
        return Data(entry.dataset, digest, f"mirror {digest}")
    return Data(entry.dataset, entry.revision, "hub")


def is_here(task: AbsTask) -> bool:
    """Return whether a task was pointed at a folder."""
    return Path(task.metadata.dataset["path"]).is_absolute()


def is_plain(task: AbsTask) -> bool:
    """Return whether a task was pointed at a mirror's plain folder, whose revision is a digest."""
    return is_here(task) and str(task.metadata.revision).startswith("sha256-")


def may_lack_files(task: AbsTask) -> bool:
    """Return whether a task was pointed at a snapshot with an unknown list of files.

    The hub's client stores a commit's tree when it fetches it; older clients did not, and a copied
    cache may lack it. Then files that the card does not name individually may be missing.
    """
    folder = Path(task.metadata.dataset["path"])
    if not folder.is_absolute() or folder.parent.name != "snapshots":
        return False
    entry = registry().tasks[task.metadata.name]
    cache = folder.parents[2]
    return hub.tree_sizes(cache, "dataset", entry.dataset, folder.name) is None


def plain_folder(dataset: str, revision: str, mirror: Path | None) -> Path | None:
    """Return a mirror's plain folder of a dataset, unless it has a snapshot of the revision."""
    if mirror is None or not dataset or not (mirror / dataset).is_dir():
        return None
    snapshots = (
        hub.snapshot_folder(cache, "dataset", dataset, revision) for cache in hub.in_mirror(mirror)
    )
    return None if any(one.is_dir() for one in snapshots) else (mirror / dataset).resolve()


def missing_data(parts: Iterable[Part], mirror: Path | None) -> list[str]:
    """Return the datasets that are neither in the mirror nor in a cache, one line each.

    It does not import mteb, so that it is fast.
    """
    users: dict[tuple[str, str], list[str]] = {}
    lacks: dict[tuple[str, str], list[str]] = {}
    for entry, subsets in (one for part in parts for one in part.source.datasets(part)):
        snapshot = _find(entry, subsets, mirror)
        if snapshot.is_whole or plain_folder(entry.dataset, entry.revision, mirror) is not None:
            continue
        key = entry.dataset, entry.revision
        names = users.setdefault(key, [])
        names += [entry.name] if entry.name not in names else []
        lacks.setdefault(key, []).extend(snapshot.lacks)
    return [
        hub.describe(f"{key[0]} (for {', '.join(names)})", list(dict.fromkeys(lacks[key])))
        for key, names in users.items()
    ]


def lacking_in_folders(parts: Iterable[Part], mirror: Path | None) -> list[str]:
    """Return the parts of tasks' data that a mirror's plain folders lack, one line per task.

    Missing parts of such a folder are not searched elsewhere.

    Raises:
        RequestError: a folder cannot be read, or is not a valid dataset.
    """
    lines: dict[str, None] = {}
    for entry, subsets in (one for part in parts for one in part.source.datasets(part)):
        folder = plain_folder(entry.dataset, entry.revision, mirror)
        if folder is None or _find(entry, subsets, mirror).is_whole:
            continue
        digest_of(folder)
        if missing := missing_in(entry, subsets, folder):
            lines[
                f"{entry.dataset} (for {entry.name}): {', '.join(missing)}; "
                f"its folder has {', '.join(_stated_configs(folder))}"
            ] = None
    return list(lines)


def missing_in(entry: TaskEntry, subsets: Sequence[str] | None, folder: Path) -> list[str]:
    """Return the subsets, or the configuration, that are read but missing from a dataset card.

    Raises:
        RequestError: the card cannot be read.
    """
    return _missing(entry, subsets or tuple(entry.subsets), _stated_configs(folder))


def lacking(reads: Sequence[Reads], folder: Path, sizes: Mapping[str, int] | None) -> list[str]:
    """Return the files that tasks read but a dataset's snapshot lacks.

    Args:
        reads: what each task reads.
        folder: folder of the snapshot.
        sizes: sizes of all files of the repository, if known; without them, missing files that
            match a pattern of the card may go unnoticed.
    """
    paths = hub.files_in(folder) if sizes is None else list(sizes)
    selection = files_read(paths, configs_of(folder), reads)
    if sizes is not None:
        return hub.not_whole(folder, {path: sizes[path] for path in selection.files})
    if not set(selection.files) - set(CARDS):
        return ["its data"]
    return list(selection.unmatched)


def _find(entry: TaskEntry, subsets: Sequence[str] | None, mirror: Path | None) -> hub.Place:
    """Find a dataset's snapshot; a mirror's plain folder takes precedence over the hub's cache."""
    there = plain_folder(entry.dataset, entry.revision, mirror)
    places = []
    for cache in hub.caches(mirror) if there is None or mirror is None else hub.in_mirror(mirror):
        look = partial(lacking, [reads_of(entry, subsets)])
        snapshot = hub.find(cache, "dataset", entry.dataset, entry.revision, look)
        if snapshot.is_whole:
            return snapshot
        places.append(snapshot)
    return hub.best(places)


def missing_subsets(task: AbsTask) -> list[str]:
    """Return the subsets of a task, or the configuration it names, that its folder lacks."""
    entry = registry().tasks[task.metadata.name]
    return _missing(entry, task.hf_subsets, _configs(Path(task.metadata.dataset["path"])))


def _missing(entry: TaskEntry, subsets: Sequence[str], configs: Sequence[str]) -> list[str]:
    """Return what a task reads but a dataset with some configurations lacks."""
    if configs and entry.config is not None and entry.config not in configs:
        return [entry.config]
    # A default configuration is assumed to have all languages until it is read; and only the task
    # knows the names in its own loading code.
    if not entry.divided or entry.loading == "own" or not configs or "default" in configs:
        return []
    return [
        subset
        for subset in subsets
        # Retrieval tasks keep a subset in several configurations: <subset>-corpus …
        if not any(name == subset or name.startswith(f"{subset}-") for name in configs)
    ]


def find(entry: TaskEntry, subsets: Sequence[str], mirror: Path | None) -> str | None:
    """Return the location of a task's data, without opening it.

    It imports neither mteb nor datasets, so that a listing is fast.

    Args:
        entry: the task.
        subsets: requested subsets.
        mirror: requested mirror, or None.

    Returns:
        `mirror`, `in part` (in the mirror, which lacks some subsets), `hub cache`; None: missing,
        or in the mirror at another revision.
    """
    chosen = None if set(subsets) == set(entry.subsets) else subsets
    snapshot = _find(entry, chosen, mirror)
    if snapshot.is_whole and snapshot.folder is not None:
        in_mirror = mirror is not None and snapshot.folder.absolute().is_relative_to(
            mirror.absolute()
        )
        return "mirror" if in_mirror else "hub cache"
    folder = plain_folder(entry.dataset, entry.revision, mirror)
    if folder is not None:
        try:
            _check_revision(entry, folder)
        except RequestError:
            return None
        missing = missing_in(entry, subsets, folder)
        if missing and (not entry.divided or len(missing) >= len(subsets)):
            return None
        return "in part" if missing else "mirror"
    return None


def _stated_configs(folder: Path) -> list[str]:
    """Return the configurations that a dataset card states, if any.

    Raises:
        RequestError: the card cannot be read.
    """
    configs = card_of(folder).get("configs")
    if configs is None:
        return []
    if not isinstance(configs, list) or not all(isinstance(one, dict) for one in configs):
        raise RequestError(
            f"{folder / CARDS[0]} cannot be read as the card of a dataset: its configs are not a "
            "list of configurations"
        )
    return [str(one.get("config_name", "default")) for one in configs]


def _check_revision(entry: TaskEntry, folder: Path) -> None:
    """Refuse a mirror's plain folder that has, or may have, another revision's data.

    Raises:
        RequestError: the folder has another revision than the task reads; or its revision is
            unknown, and mteb has an older task that reads the same dataset.
    """
    known = _downloaded_revision(folder)
    if known is not None and known != entry.revision:
        raise RequestError(
            f"{folder} is revision {known} of {entry.dataset}; {entry.name} reads "
            f"{entry.revision}. {_KEEPS_REVISIONS}"
        )
    others = {
        one.name: one.revision
        for one in registry().reading(entry.dataset)
        if one.revision != entry.revision
    }
    # A dataset of unknown revision is taken for that of a task's first version.
    first = any(
        name == entry.superseded_by or name.startswith(f"{entry.name}.v") for name in others
    )
    if known is None and others and not first:
        listed = ", ".join(f"{name} reads {revision}" for name, revision in others.items())
        raise RequestError(
            f"{folder} does not say which revision of {entry.dataset} it is: {entry.name} reads "
            f"{entry.revision}, {listed}. {_KEEPS_REVISIONS}"
        )


def _downloaded_revision(folder: Path) -> str | None:
    """Return the commit recorded by `hf download --local-dir` in a folder, if any."""
    notes = folder / ".cache" / "huggingface" / "download"
    commits = set()
    for note in notes.rglob("*.metadata"):
        # The first line of such a record is the file's commit.
        commits.add(note.read_text(encoding="utf-8").partition("\n")[0].strip())
    return commits.pop() if len(commits) == 1 else None


def _named_by_content(folder: Path, digest: str) -> Path:
    """Return a link to a folder, with a name that identifies its content.

    `datasets` caches a folder's data by the folder's name, and would use it even after files have
    changed, and for another folder of the same name.

    Raises:
        StorageError: the link's folder cannot be written, or does not support symbolic links.
    """
    target = folder.resolve()
    # Another folder with the same content gets another link, as either may be removed.
    where = hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    name = f"{folder.name}-{digest.removeprefix('sha256-')}-{where}"
    link = cache_folder() / "mirror" / where / name
    if link.is_symlink() and link.readlink() == target:
        return link
    try:
        link_atomically(link, target)
    except OSError as error:
        reason = f"{error.strerror}"
        if error.errno in NO_LINKS:
            reason += " (its file system, like exFAT and some shares, seems to lack symbolic links)"
        raise StorageError(
            f"{link}, a symbolic link to {target}, could not be made: {reason}. lcbench reads a "
            "mirror's plain folder through such a link in its cache. Move the cache to a writable "
            "file system that supports symbolic links with the environment variable "
            "LCBENCH_CACHE=PATH."
        ) from error
    return link


def _read_from(task: AbsTask, folder: Path, revision: str) -> None:
    # mteb records the revision in its result; it has no effect on a folder.
    dataset = {**task.metadata.dataset, "path": str(folder.absolute()), "revision": revision}
    if columns := _uneven_columns(folder, dataset.get("name")):
        dataset["features"] = columns.copy()
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    if task.fast_loading and set(task.hf_subsets) != set(task.metadata.hf_subsets):
        # Reading all languages at once only to pick a few is slow; each has its own configuration
        # if the dataset says so.
        task.fast_loading = not set(task.hf_subsets) <= set(_configs(folder))


@lru_cache(maxsize=256)
def _uneven_columns(folder: Path, config: object) -> Features | None:
    """Return the union of a configuration's columns over its splits, if they differ.

    They differ in LongEmbed (corpus, queries and qrels are splits), and `datasets` refuses to read
    the second split unless it is given all columns; missing ones are null then.
    """
    if not isinstance(config, str) or config not in _configs(folder):
        return None
    try:
        return _columns_of_all(folder, config)
    # Any error of `datasets`; loading the files will report it.
    except Exception:
        return None


def _columns_of_all(folder: Path, config: str) -> Features | None:
    from datasets import Dataset, Features, load_dataset, load_dataset_builder

    files = load_dataset_builder(str(folder.absolute()), config).config.data_files
    splits = []
    for paths in files.values():
        kind = "parquet" if str(paths[0]).endswith(".parquet") else "json"
        rows = load_dataset(kind, data_files=[str(paths[0])], split="train", streaming=True)
        splits.append(Dataset.from_list(list(rows.take(1))).features)
    if all(set(columns) == set(splits[0]) for columns in splits):
        return None
    return Features({name: kind for columns in splits for name, kind in columns.items()})


@lru_cache(maxsize=256)
def _configs(folder: Path) -> tuple[str, ...]:
    """Return the configurations of a dataset in a folder; none if they cannot be read."""
    if not folder.is_dir():
        return ()
    import datasets

    try:
        return tuple(datasets.get_dataset_config_names(str(folder)))
    # Any error of `datasets`; loading the folder will report it.
    except Exception:
        return ()


def digest_of(folder: Path) -> str:
    """Return `sha256-` and 16 hexadecimal digits over all of a dataset's files, the card included.

    Files are read again only after one of them has changed.

    Raises:
        RequestError: there are no files, or some cannot be read; or the folder is not a valid
            dataset: it has circular or dangling links, pipes or devices, or its card names files
            outside it (`datafiles.check_card`).
    """
    files = _files_in(folder)
    if not files:
        raise RequestError(f"{folder} has no files, so it is not a dataset.")
    check_card(folder, files)
    return _digest(folder, tuple(files.items()))


@lru_cache(maxsize=256)
def _digest(folder: Path, files: tuple[tuple[str, tuple[int, ...]], ...]) -> str:
    digest = hashlib.sha256()
    for name, _ in files:
        try:
            with (folder / name).open("rb") as content:
                inner = hashlib.file_digest(content, "sha256").digest()
        except OSError as error:
            raise RequestError(f"{folder / name} cannot be read: {error.strerror}.") from error
        digest.update(os.fsencode(name) + b"\0" + inner)
    return f"sha256-{digest.hexdigest()[:16]}"


def _files_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return all files of a dataset by relative path, sorted, with stamps of their state.

    Raises:
        RequestError: see `digest_of`.
    """
    files: dict[str, tuple[int, ...]] = {}
    # Folders still to visit: path in the dataset, and enclosing folders.
    left: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    folders = 0
    while left:
        relative, above = left.pop()
        path = folder / relative
        folders += 1
        try:
            state = path.stat()
            if (state.st_dev, state.st_ino) in above:
                raise RequestError(f"{path} is a link to a folder that contains it.")
            if folders > _MOST_FOLDERS:
                raise RequestError(
                    f"{folder} has more than {_MOST_FOLDERS:,} folders, links to folders counted."
                )
            names = sorted(os.listdir(path))  # noqa: PTH208 - names, of whatever bytes
            for name in names:
                path = folder / relative / name
                state_of = path.stat()
                inner = f"{relative}/{name}" if relative else name
                if stat.S_ISDIR(state_of.st_mode):
                    if name not in _NO_DATA:
                        left.append((inner, (*above, (state.st_dev, state.st_ino))))
                elif stat.S_ISREG(state_of.st_mode):
                    changed = state_of.st_mtime_ns, state_of.st_ctime_ns
                    files[inner] = state_of.st_dev, state_of.st_ino, state_of.st_size, *changed
                else:
                    raise RequestError(
                        f"{path} is neither a file nor a folder, but a pipe, a socket or a "
                        "device: it is not read. A dataset's folder may only contain data."
                    )
        except FileNotFoundError as error:
            raise RequestError(f"{path} is a dangling link.") from error
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    return dict(sorted(files.items()))
