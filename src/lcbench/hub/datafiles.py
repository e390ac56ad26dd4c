"""Selects the files of a dataset's repository that a task reads, by the dataset card.

It works on file names only; the card is the only file that is opened.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from lcbench.errors import RequestError
from lcbench.system import thirdparty
from lcbench.tasks.registry import TaskEntry

# Files that `datasets` reads apart from the data: the card, its YAML file, and the splits' sizes.
CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
# The name of a single subset in mteb, and of a single configuration in `datasets`.
_DEFAULT = "default"
# Patterns are matched by backtracking: over a path of n characters, k wildcards have up to
# (n + k choose k) ways to fail. Ten million of them take about a second.
_MOST_WAYS = 10**7
# The most YAML nodes of a card with every alias expanded: cards of forty thousand configurations
# have some hundred thousand, and need no aliases.
_MOST_NODES = 10**5


@dataclass(frozen=True)
class Reads:
    """The configurations of a dataset that a task reads.

    Attributes:
        parts: candidate names for each part, of which the first in the card is read; `default` is
            also the one that the card marks as such. None: unknown.
        extras: configurations that are read if the card has them.
    """

    parts: tuple[tuple[str, ...], ...] | None
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The files of a repository that are read.

    Attributes:
        files: existing files.
        unmatched: patterns of the card that match no file.
    """

    files: tuple[str, ...]
    unmatched: tuple[str, ...]


def reads_of(entry: TaskEntry, subsets: Sequence[str] | None) -> Reads:
    """Return the configurations that a task's mteb class reads.

    Args:
        entry: the task.
        subsets: subsets that it is restricted to; None: all.
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
    """Return the files of a dataset that are read.

    If the card lacks the configurations, these are all data files.

    Args:
        paths: paths of all files of the repository.
        configs: configurations of the card, as `configs_of` returns them.
        reads: configurations to read.
    """
    paths = sorted(paths)
    cards = [path for path in CARDS if path in paths]
    data = [path for path in paths if path not in CARDS and _is_data(path)]
    names = None if reads.parts is None else _names(configs, reads.parts)
    if names is None:
        return Selection((*cards, *data), ())
    # For a folder, `datasets` takes the format of all configurations from the first one's files.
    names = [next(iter(configs)), *names, *(name for name in reads.extras if name in configs)]
    chosen: set[str] = set()
    unmatched: list[str] = []
    for name in dict.fromkeys(names):
        for pattern in _patterns(configs[name]):
            matching = _matching(pattern, data)
            chosen |= matching
            if not matching:
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
    """Return the configurations of the card in a folder by name, as in `datasets`.

    An unreadable card has none.
    """
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    try:
        data = DatasetCardData(**card_of(folder))
        configs: Mapping[str, Any] = MetadataConfigs.from_dataset_card_data(data)
    except (RequestError, ValueError, TypeError):
        return {}
    return configs


def card_of(folder: Path) -> dict[str, Any]:
    """Return the metadata of a dataset card: README.md, overridden by the separate YAML file.

    Raises:
        RequestError: it cannot be read, naming the file.
    """
    card: dict[str, Any] = {}
    for name in CARDS[:2]:
        path = folder / name
        if path.is_file():
            stat = path.stat()
            card |= _metadata(path, stat.st_size, stat.st_mtime_ns)
    return card


@lru_cache(maxsize=64)
def _metadata(path: Path, size: int, changed: int) -> dict[str, Any]:
    """Return the YAML of a file; its size and modification time identify the version.

    Raises:
        RequestError: it cannot be read.
    """
    import yaml
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.name == CARDS[0]:
            block = REGEX_YAML_BLOCK.search(text)
            text = block[2] if block else ""
        # Aliases are shared objects here; later copies may expand each of them.
        if (node := yaml.compose(text, yaml.SafeLoader)) is not None and _is_bomb(node):
            raise ValueError("its aliases expand to too many nodes")
        content = yaml.safe_load(text)
    # Any error of the YAML parser.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{path} cannot be read as the card of a dataset: {reason}") from error
    if content is not None and not isinstance(content, dict):
        raise RequestError(f"{path} cannot be read as the card of a dataset: it is not a mapping")
    return content or {}


def _is_bomb(root: Any) -> bool:
    """Return whether a YAML node is far larger when its aliases are expanded."""
    sizes: dict[int, float] = {}

    def size(node: Any) -> float:
        key = id(node)
        if key not in sizes:
            # A node within itself.
            sizes[key] = math.inf
            value = node.value if isinstance(node.value, list) else ()
            inner = (part for one in value for part in (one if isinstance(one, tuple) else (one,)))
            sizes[key] = 1 + sum(map(size, inner))
        return sizes[key]

    written_out = size(root)
    return written_out == math.inf or (written_out > _MOST_NODES and written_out > 10 * len(sizes))


def check_card(folder: Path, paths: Iterable[str]) -> None:
    """Check that a dataset card names only files of its own folder, by simple patterns.

    Otherwise `datasets` would read other files of the machine, and addresses of any protocol, even
    offline.

    Args:
        folder: folder of the dataset.
        paths: paths of all its files, relative to it.

    Raises:
        RequestError: naming the card and the pattern.
    """
    card = card_of(folder)
    configs = card.get("configs")
    longest = max(map(len, paths), default=0)
    for config in configs if isinstance(configs, list) else []:
        if not isinstance(config, dict):
            continue
        stated = [config.get("data_dir"), config.get("data_files")]
        for pattern in (one for part in stated for one in _strings(part)):
            if why := _why_refused(pattern, longest):
                raise RequestError(
                    f"The card of {folder} names {pattern[:200]!r} as data: {why}. A card may only "
                    "name files of its own folder, by simple patterns."
                )


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings in nested lists and mappings, except for names of splits."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key != "split":
                yield from _strings(one)


def _why_refused(pattern: str, longest: int) -> str | None:
    """Return why a pattern of a card is refused for paths of some length, or None."""
    parts = pattern.replace("\\", "/").split("/")
    if "://" in pattern or "::" in pattern or urlparse(pattern).scheme:
        return "it is an address"
    if pattern.startswith(("/", "\\", "~")):
        return "it is an absolute path"
    if ".." in parts:
        return "it is outside the folder"
    # Such files are not part of a dataset's digest (.git, .cache).
    if any(part.startswith(".") and part != "." for part in parts):
        return "it is a hidden file or folder"
    if _ways(pattern, longest) > _MOST_WAYS:
        return "it has too many wildcards"
    return None


def _ways(pattern: str, length: int) -> int:
    """Return the number of ways in which a pattern's wildcards can divide a path."""
    wildcards = len(re.findall(r"\*+", pattern))
    return math.comb(length + wildcards, wildcards)


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

    paths = list(paths)
    if any(_ways(pattern, len(path)) > _MOST_WAYS for path in paths):
        # Matching would take too long, so no file is left out.
        return set(paths)
    try:
        # The matching of fsspec's glob, with which `datasets` resolves patterns.
        matches = re.compile(glob_translate(str(PurePosixPath(pattern)))).match
    except ValueError:
        # Not a valid fsspec pattern, so no file is left out.
        return set(paths)
    return {path for path in paths if matches(path)}


def _is_data(path: str) -> bool:
    parts = PurePosixPath(path).parts
    # `datasets` ignores hidden files and folders, and those that begin with __.
    if any(part.startswith((".", "__")) for part in parts):
        return False
    return any(f".{suffix}" in thirdparty.data_suffixes() for suffix in parts[-1].split(".")[1:])
