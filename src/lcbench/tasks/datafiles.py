"""Which files of a dataset's repository a task reads, by the configurations of the dataset's card.

Everything here is a matter of names; nothing is opened but the card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lcbench.tasks.registry import TaskEntry

# What `datasets` reads beside the data: the card, its YAML on its own, and the splits' sizes.
CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
# mteb calls a task's only subset this, and `datasets` a dataset's only configuration.
_DEFAULT = "default"


@dataclass(frozen=True)
class Reads:
    """Which configurations of a dataset are read.

    Attributes:
        parts: of each part, one configuration is read: the first of these names that the card has;
            `default` is also the one that the card marks as such. None: it is not known which.
        extras: read where the card has them.
    """

    parts: tuple[tuple[str, ...], ...] | None
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The files of a repository that are read.

    Attributes:
        files: of those that there are.
        unmatched: patterns of the card that no file matches.
    """

    files: tuple[str, ...]
    unmatched: tuple[str, ...]


def reads_of(entry: TaskEntry, subsets: Sequence[str] | None) -> Reads:
    """Return which configurations mteb's class of a task reads.

    Args:
        entry: the task.
        subsets: that it is restricted to; None: all.
    """
    if entry.loading == "retrieval":
        # mteb.abstasks.retrieval_dataset_loaders.RetrievalDatasetLoader
        prefixes = [
            "" if subset == _DEFAULT else f"{subset}-"
            for subset in (_subsets(entry, subsets) if entry.divided else [_DEFAULT])
        ]
        parts = []
        for prefix in prefixes:
            qrels = (f"{prefix}qrels",) if prefix else (_DEFAULT, "qrels")
            parts += [(f"{prefix}corpus",), ("query", f"{prefix}queries"), qrels]
        extras = [
            f"{prefix}{name}" for prefix in prefixes for name in ("top_ranked", "instruction")
        ]
        return Reads(tuple(parts), tuple(extras))
    if entry.config is not None:
        return Reads(((entry.config,),))
    if entry.loading == "own":
        return Reads(None)
    if not entry.divided or (entry.merged and subsets is None):
        return Reads(((_DEFAULT,),))
    return Reads(tuple((subset,) for subset in _subsets(entry, subsets)))


def _subsets(entry: TaskEntry, subsets: Sequence[str] | None) -> Sequence[str]:
    return tuple(entry.subsets) if subsets is None else subsets


def select_files(paths: Iterable[str], configs: Mapping[str, Any], reads: Reads) -> Selection:
    """Return the files that are read of a dataset.

    Where the card does not have what is to be read, that is all data files.

    Args:
        paths: of all files of the repository.
        configs: of the card, as `configs_of` returns them.
        reads: which of them are read.
    """
    paths = sorted(paths)
    cards = [path for path in CARDS if path in paths]
    data = [path for path in paths if path not in CARDS and _is_data(path)]
    names = None if reads.parts is None else _names(configs, reads.parts)
    if names is None:
        return Selection((*cards, *data), ())
    # From a folder, `datasets` takes the format of all configurations from the first one's files.
    names = [next(iter(configs)), *names, *(name for name in reads.extras if name in configs)]
    chosen: set[str] = set()
    unmatched: list[str] = []
    for name in dict.fromkeys(names):
        for pattern in _patterns(configs[name]):
            found = _matching(pattern, data)
            chosen |= found
            if not found:
                unmatched.append(pattern)
    return Selection((*cards, *sorted(chosen)), tuple(dict.fromkeys(unmatched)))


def files_read(
    paths: Iterable[str], configs: Mapping[str, Any], reads: Sequence[Reads]
) -> Selection:
    """Return the files that any of several tasks reads of a dataset; see `select_files`."""
    paths = list(paths)
    each = [select_files(paths, configs, one) for one in reads]
    return Selection(
        tuple(sorted({path for one in each for path in one.files})),
        tuple(dict.fromkeys(pattern for one in each for pattern in one.unmatched)),
    )


def configs_of(folder: Path) -> Mapping[str, Any]:
    """Return the configurations of the card in a folder, by name, as `datasets` has them.

    A card that cannot be read has none.
    """
    import yaml
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    card, alone = folder / CARDS[0], folder / CARDS[1]
    try:
        data = DatasetCard.load(card).data if card.is_file() else DatasetCardData()
        if alone.is_file():
            content = yaml.safe_load(alone.read_text(encoding="utf-8"))
            data = DatasetCardData(**{**data.to_dict(), **(content or {})})
        configs: Mapping[str, Any] = MetadataConfigs.from_dataset_card_data(data)
    except (ValueError, TypeError, yaml.YAMLError):
        return {}
    return configs


def _names(configs: Mapping[str, Any], parts: Iterable[Sequence[str]]) -> list[str] | None:
    """Return the name of each part's configuration; None if the card lacks one."""
    names = []
    for alternatives in parts:
        name = next((one for one in alternatives if one in configs), None)
        if name is None and _DEFAULT in alternatives:
            name = _default(configs)
        if name is None:
            return None
        names.append(name)
    return names


def _default(configs: Mapping[str, Any]) -> str | None:
    marked = [name for name, config in configs.items() if config.get("default")]
    if not marked and len(configs) == 1:
        marked = list(configs)
    return marked[0] if marked else None


def _patterns(config: Mapping[str, Any]) -> list[str]:
    """Return the patterns of a configuration's data files, relative to the repository."""
    from datasets.data_files import sanitize_patterns

    folder = str(config.get("data_dir") or "").strip("/")
    prefix = f"{folder}/" if folder else ""
    if config.get("data_files") is None:
        return [f"{prefix}**"]
    by_split = sanitize_patterns(config["data_files"])
    return [prefix + str(one) for patterns in by_split.values() for one in patterns]


def _matching(pattern: str, paths: Iterable[str]) -> set[str]:
    from fsspec.utils import glob_translate

    try:
        # What fsspec's glob, by which `datasets` resolves patterns, matches names with.
        matches = re.compile(glob_translate(str(PurePosixPath(pattern)))).match
    except ValueError:
        # Not a pattern of fsspec's: which files are meant cannot be said, so none is left out.
        return set(paths)
    return {path for path in paths if matches(path)}


def _is_data(path: str) -> bool:
    from datasets.packaged_modules import _ALL_ALLOWED_EXTENSIONS

    parts = PurePosixPath(path).parts
    # `datasets` passes over hidden files and folders, and those that begin with __.
    if any(part.startswith((".", "__")) for part in parts):
        return False
    return any(f".{suffix}" in _ALL_ALLOWED_EXTENSIONS for suffix in parts[-1].split(".")[1:])
