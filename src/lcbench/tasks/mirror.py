"""Where the data of mteb's tasks lies: in a mirror, in the hub's cache, or out of reach.

A mirror is a folder laid out as the hub lays datasets out, `<organisation>/<name>`. A task whose
dataset is there reads it from there; its class is mteb's own, unmodified.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.models import network_answers
from lcbench.tasks.registry import TaskEntry, registry

if TYPE_CHECKING:
    from datasets import Features
    from mteb.abstasks.abstask import AbsTask

_KEEPS_REVISIONS = (
    "A folder that `python -m lcbench.prefetch` fills keeps revisions apart: mirror=<that folder>."
)
_DATA_SUFFIXES = {".parquet", ".arrow", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".gz", ".zip"}


def check_mirror(mirror: Path | None) -> None:
    """Check that a mirror is a folder.

    Raises:
        RequestError: it is not.
    """
    if mirror is not None and not mirror.is_dir():
        raise RequestError(
            f"mirror={mirror} is not a folder. It holds datasets as the hub lays them out: "
            "<mirror>/<organisation>/<name>."
        )


@dataclass(frozen=True)
class Data:
    """Where a task's data comes from.

    Attributes:
        dataset: its name on the hub.
        revision: the one that the task asks for.
        origin: `hub`, `hub snapshot` (in the hub's cache, read from there), or `mirror` and a
            digest of its files there.
    """

    dataset: str
    revision: str
    origin: str


def point_at(task: AbsTask, mirror: Path | None) -> Data:
    """Point a task at its dataset in the mirror or the hub's cache, if it is there.

    Raises:
        RequestError: the mirror's copy is that of another revision, or may be.
    """
    # As mteb has it: an aggregate's parts are one object a process, and may be pointed already.
    entry = registry().tasks[task.metadata.name]
    dataset, revision = entry.dataset, entry.revision
    folder = mirror / dataset if mirror is not None else None
    if folder is not None and folder.is_dir():
        _check_revision(entry, folder)
        _read_from(task, folder)
        return Data(dataset, revision, f"mirror {digest_of(folder.resolve())}")
    snapshot = _snapshot(dataset, revision)
    if snapshot is not None:
        _read_from(task, snapshot)
        return Data(dataset, revision, "hub snapshot")
    return Data(dataset, revision, "hub")


def check_reach(data: Mapping[str, Data], mirror: Path | None, *, offline: bool) -> None:
    """See that every dataset is within reach, before anything runs.

    Args:
        data: by task.
        mirror: that was asked for, or None.
        offline: never touch the network; otherwise it is probed once, and only if data is missing.

    Raises:
        RequestError: naming every dataset that is neither in the mirror nor in a cache.
    """
    missing = [
        f"{one.dataset} (for {task})"
        for task, one in data.items()
        if one.origin == "hub" and not _is_prepared(one.dataset)
    ]
    offline = offline or _hub_is_offline()
    if missing and (offline or not network_answers()):
        why = "offline=true forbids fetching them" if offline else "the hub does not answer"
        where = f"neither in mirror={mirror} nor" if mirror is not None else "not"
        raise RequestError(
            f"Datasets that are {where} in the hub's cache, and {why}: {', '.join(missing)}. "
            "Name a folder that has them as <organisation>/<name> (mirror=PATH); on a machine "
            "with a network, this fetches one into such a folder: hf download --repo-type dataset "
            "<organisation>/<name> --local-dir PATH/<organisation>/<name>"
        )


def missing_subsets(task: AbsTask) -> list[str]:
    """Return the subsets of a task that the folder it was pointed at does not have.

    Or the one configuration of the dataset that it reads, where the task names one.
    """
    config = task.metadata.dataset.get("name")
    return _missing(
        None if config is None else str(config),
        task.hf_subsets if task.metadata.is_multilingual else [],
        _configs(Path(task.metadata.dataset["path"])),
    )


def _missing(config: str | None, subsets: Sequence[str], configs: Sequence[str]) -> list[str]:
    """Return what a dataset of some configurations lacks of what a task reads."""
    if configs and config is not None and config not in configs:
        return [config]
    # A default configuration has all languages, or so it must be assumed until it is read.
    if not configs or "default" in configs:
        return []
    return [
        subset
        for subset in subsets
        # Retrieval tasks keep a subset in several configurations: <subset>-corpus …
        if not any(name == subset or name.startswith(f"{subset}-") for name in configs)
    ]


def find(entry: TaskEntry, subsets: Sequence[str], mirror: Path | None) -> str | None:
    """Return where a task's data lies, as near as can be told without opening it.

    Imports neither mteb nor datasets, so that a listing need not wait for them.

    Args:
        entry: the task.
        subsets: those that are asked for.
        mirror: that was asked for, or None.

    Returns:
        `mirror`, `in part` (in the mirror, which lacks some subsets), `hub cache`, `prepared` (in
        the cache of datasets); None: not here, or in the mirror at another revision.
    """
    from huggingface_hub import constants

    folder = mirror / entry.dataset if mirror is not None else None
    if folder is not None and folder.is_dir():
        try:
            _check_revision(entry, folder)
        except RequestError:
            return None
        wanted = list(subsets) if entry.divided else []
        missing = _missing(entry.config, wanted, _stated_configs(folder))
        if missing and len(missing) >= len(wanted):
            return None
        return "in part" if missing else "mirror"
    if _snapshot(entry.dataset, entry.revision) is not None:
        return "hub cache"
    # As datasets.config has it.
    prepared = os.environ.get("HF_DATASETS_CACHE", str(Path(constants.HF_HOME, "datasets")))
    return "prepared" if Path(prepared, entry.dataset.replace("/", "___")).is_dir() else None


def _stated_configs(folder: Path) -> list[str]:
    """Return the configurations that a dataset's card states; none if it states none."""
    from huggingface_hub import metadata_load

    card = folder / "README.md"
    stated = metadata_load(card) if card.is_file() else None
    return [str(one["config_name"]) for one in (stated or {}).get("configs", [])]


def _check_revision(entry: TaskEntry, folder: Path) -> None:
    """Refuse to read another revision's data: a folder of a mirror has one, and rarely says which.

    Raises:
        RequestError: the folder is known to be of another revision than the task reads; or its
            revision is unknown, and mteb has an older task that reads the same dataset.
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
    # The first version of a task is what a dataset without a revision is taken for.
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
    """Return the commit that `hf download --local-dir` has noted in a folder, if it filled it."""
    notes = folder / ".cache" / "huggingface" / "download"
    found = set()
    for note in notes.rglob("*.metadata"):
        # The first line of such a note is the commit that the file came from.
        found.add(note.read_text(encoding="utf-8").partition("\n")[0].strip())
    return found.pop() if len(found) == 1 else None


def _read_from(task: AbsTask, folder: Path) -> None:
    dataset = {**task.metadata.dataset, "path": str(folder.resolve())}
    if columns := _uneven_columns(folder, dataset.get("name")):
        dataset["features"] = columns
    task.metadata = task.metadata.model_copy(update={"dataset": dataset})
    if task.fast_loading and set(task.hf_subsets) != set(task.metadata.hf_subsets):
        # Read at once, a few of many languages would be picked from the files of all; each has a
        # configuration of its own where the dataset says so.
        task.fast_loading = not set(task.hf_subsets) <= set(_configs(folder))


def _uneven_columns(folder: Path, config: object) -> Features | None:
    """Return the columns of all splits of a configuration together, if the splits' own differ.

    LongEmbed's do (corpus, queries and qrels are splits), and `datasets` refuses to read the
    second of them unless it is told of all columns; what a split lacks is null then.
    """
    if not isinstance(config, str) or config not in _configs(folder):
        return None
    from datasets import Dataset, Features, load_dataset, load_dataset_builder

    files = load_dataset_builder(str(folder.resolve()), config).config.data_files
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
    """Return the configurations of a dataset in a folder; none if it is no folder."""
    if not folder.is_dir():
        return ()
    import datasets

    return tuple(datasets.get_dataset_config_names(str(folder)))


def _hub_is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _snapshot(dataset: str, revision: str) -> Path | None:
    """Return the files of a dataset's revision in the hub's cache, if they are there."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}"
    folder = repository / "snapshots" / revision
    data = (path for path in folder.rglob("*") if path.suffix in _DATA_SUFFIXES - {".json"})
    return folder if next(data, None) is not None else None


def _is_prepared(dataset: str) -> bool:
    """Whether the cache of `datasets`, which it reads without a network, has a dataset."""
    from datasets import config

    return (Path(config.HF_DATASETS_CACHE) / dataset.replace("/", "___")).is_dir()


@lru_cache(maxsize=256)
def digest_of(folder: Path) -> str:
    """Return `sha256-` and 16 hexadecimal digits over a dataset's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _DATA_SUFFIXES:
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return f"sha256-{digest.hexdigest()[:16]}"
