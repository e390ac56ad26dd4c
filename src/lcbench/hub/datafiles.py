"""Which files of a dataset's repository a task reads, by the configurations of the dataset's card.

Everything here is a matter of names; nothing is opened but the card.
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

# What `datasets` reads beside the data: the card, its YAML on its own, and the splits' sizes.
CARDS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
# mteb calls a task's only subset this, and `datasets` a dataset's only configuration.
_DEFAULT = "default"
# A pattern is matched by backtracking: over a path of n characters, k wildcards have up to
# (n + k choose k) ways to fail. Ten million of them take about a second.
_MOST_WAYS = 10**7
# A card's content with every alias written out, in nodes: cards of forty thousand configurations
# have some hundred thousand, and need no alias for that.
_MOST_NODES = 10**5


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
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    try:
        data = DatasetCardData(**card_of(folder))
        configs: Mapping[str, Any] = MetadataConfigs.from_dataset_card_data(data)
    except (RequestError, ValueError, TypeError):
        return {}
    return configs


def card_of(folder: Path) -> dict[str, Any]:
    """Return the metadata of a dataset's card: of README.md, and of its YAML on its own over that.

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
    """Return the YAML of a file of a certain size and time of change, both only to tell it apart.

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
        # Aliases are shared here; what is made of them afterwards may write each of them out.
        if (node := yaml.compose(text, yaml.SafeLoader)) is not None and _is_bomb(node):
            raise ValueError("its aliases stand for too much")
        found = yaml.safe_load(text)
    # Whatever YAML makes of a card that somebody wrote.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{path} cannot be read as the card of a dataset: {reason}") from error
    if found is not None and not isinstance(found, dict):
        raise RequestError(f"{path} cannot be read as the card of a dataset: it is no mapping")
    return found or {}


def _is_bomb(root: Any) -> bool:
    """Whether a YAML node, every alias in it written out, is far larger than what was written."""
    sizes: dict[int, float] = {}

    def size(node: Any) -> float:
        key = id(node)
        if key not in sizes:
            # That of a node within itself.
            sizes[key] = math.inf
            value = node.value if isinstance(node.value, list) else ()
            inner = (part for one in value for part in (one if isinstance(one, tuple) else (one,)))
            sizes[key] = 1 + sum(map(size, inner))
        return sizes[key]

    written_out = size(root)
    return written_out == math.inf or (written_out > _MOST_NODES and written_out > 10 * len(sizes))


def check_card(folder: Path, paths: Iterable[str]) -> None:
    """See that a dataset's card names files of its own folder alone, by patterns that can be tried.

    `datasets` would read whatever else it names: other files of the machine, and addresses of any
    protocol, also where no network is to be touched.

    Args:
        folder: of the dataset.
        paths: of all its files, relative to it.

    Raises:
        RequestError: naming the card and what it names.
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
                    f"The card of {folder} names {pattern[:200]!r} as data: {why}. A card may name "
                    "files of its own folder, by plain patterns."
                )


def _strings(value: Any) -> Iterator[str]:
    """Yield the texts in nested lists and mappings, but for the names of splits."""
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
    """Return why a pattern of a card is refused, tried on paths so long; None: it is not."""
    parts = pattern.replace("\\", "/").split("/")
    if "://" in pattern or "::" in pattern or urlparse(pattern).scheme:
        return "that is an address"
    if pattern.startswith(("/", "\\", "~")):
        return "that is an absolute path"
    if ".." in parts:
        return "that leads out of its folder"
    # Such files are no part of a dataset's digest (.git, .cache), and never meant.
    if any(part.startswith(".") and part != "." for part in parts):
        return "that is a hidden file or folder"
    if _ways(pattern, longest) > _MOST_WAYS:
        return "it has too many wildcards"
    return None


def _ways(pattern: str, length: int) -> int:
    """Return in how many ways the wildcards of a pattern can divide a path of some length."""
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
        # Which files are meant would take too long to say, so none is left out.
        return set(paths)
    try:
        # What fsspec's glob, by which `datasets` resolves patterns, matches names with.
        matches = re.compile(glob_translate(str(PurePosixPath(pattern)))).match
    except ValueError:
        # Not a pattern of fsspec's: which files are meant cannot be said, so none is left out.
        return set(paths)
    return {path for path in paths if matches(path)}


def _is_data(path: str) -> bool:
    parts = PurePosixPath(path).parts
    # `datasets` passes over hidden files and folders, and those that begin with __.
    if any(part.startswith((".", "__")) for part in parts):
        return False
    return any(f".{suffix}" in thirdparty.data_suffixes() for suffix in parts[-1].split(".")[1:])
