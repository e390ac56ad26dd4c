"""The files of a model: their list, JSON contents and digest.

Imports neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lcbench.errors import RequestError

# Folders that are not part of a model: exports for other runtimes, files of a training.
_OTHER_FOLDERS = re.compile(r"onnx|openvino|runs|eval|wandb|__pycache__|checkpoint-\d+|\..*")
# Model cards, and the state of a training.
_OTHER_FILES = re.compile(
    r"\..*|.*\.md|LICENSE.*|optimizer\.(pt|bin)|scheduler\.pt|rng_state.*\.pth|trainer_state\.json|"
    r"training_args\.bin",
    re.IGNORECASE,
)
# Larger JSON files are vocabularies, which the tokenizer's own code reads.
_CONFIGURATION_BYTES = 2**20
_CONFIGURATION = re.compile(
    r"((sentence_.+|tokenizer|router|adapter)_)?config\.json|config_sentence_transformers\.json"
)
ADAPTER = "adapter_config.json"
# Files in which a model names its own code or that of another repository.
CODE_NAMED_IN = ("config.json", "tokenizer_config.json")


def read_json(path: Path) -> Any:
    """Return the content of one of a model's JSON files.

    Raises:
        RequestError: it cannot be read or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        remedy = ""
        if "BOM" in str(error):
            remedy = " Save it as UTF-8 without a byte-order mark."
        raise RequestError(f"{path} is not JSON: {error}.{remedy}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file with an object; empty if there is no file.

    Raises:
        RequestError: it is not an object; the message names it.
    """
    if not path.is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise RequestError(f"{path} must be a JSON object, not {json.dumps(content)[:60]}.")
    return content


def has_prompts(folder: Path) -> bool:
    """Return whether a model's files contain non-empty prompts.

    Raises:
        RequestError: its configuration is not a JSON object.
    """
    prompts = read_object(folder / "config_sentence_transformers.json").get("prompts")
    return isinstance(prompts, dict) and any(prompts.values())


def modules(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a model's `modules.json`; none if there is no such file.

    Raises:
        RequestError: it is not a list of modules.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return []
    content = read_json(path)
    if not isinstance(content, list) or not all(
        isinstance(one, dict)
        and isinstance(one.get("path"), str)
        and isinstance(one.get("type"), str)
        for one in content
    ):
        raise RequestError(f"{path} is not a list of modules, each with its type and its path.")
    if not content:
        raise RequestError(f"{path} lists no modules.")
    return content


def check_json(folder: Path) -> None:
    """Check that every configuration of a model is JSON.

    Raises:
        RequestError: one is not; the message names it.
    """
    for path in files(folder):
        if path.suffix == ".json" and path.stat().st_size <= _CONFIGURATION_BYTES:
            content = read_json(path)
            if _CONFIGURATION.fullmatch(path.name) and not isinstance(content, dict):
                read_object(path)


def files(folder: Path) -> list[Path]:
    """Return all files of a model's folder in order, including linked folders.

    Raises:
        RequestError: one cannot be read: a dangling link, a pipe, missing permissions.
    """
    named = {Path(one["path"]).parts[0] for one in modules(folder) if Path(one["path"]).parts}
    return sorted(_walk(folder, named, frozenset()))


def _walk(folder: Path, named: set[str], above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        here = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise RequestError(f"{folder} cannot be read: {error.strerror}.") from error
    identity = (here.st_dev, here.st_ino)
    if identity in above:
        return  # a link to an enclosing folder
    for entry in entries:
        path = folder / entry.name
        is_module = not above and entry.name in named
        if _OTHER_FILES.fullmatch(entry.name) and not is_module:
            continue
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            if _OTHER_FOLDERS.fullmatch(entry.name):
                continue
            why = "is a dangling link" if entry.is_symlink() else str(error.strerror)
            raise RequestError(f"{path}: {why}; the model is not complete.") from error
        if stat.S_ISDIR(mode):
            if is_module or not _OTHER_FOLDERS.fullmatch(entry.name):
                yield from _walk(path, named, above | {identity})
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise RequestError(f"{path} is not a regular file, so it cannot be part of a model.")


def digest(folder: Path) -> str:
    """Return `sha256-` and 16 hexadecimal digits over the names and contents of a model's files.

    It includes references outside the folder: an adapter's base model, by its files or by the
    commit in the hub's cache; and other repositories of its code (`auto_map`), by their commits.

    Raises:
        RequestError: a file cannot be read.
    """
    return f"sha256-{_digest(folder, frozenset())[:16]}"


def _digest(folder: Path, above: frozenset[Path]) -> str:
    whole = hashlib.sha256()
    paths = files(folder)
    for path in paths:
        whole.update(os.fsencode(path.relative_to(folder).as_posix()))
        try:
            with path.open("rb") as content:
                whole.update(hashlib.file_digest(content, "sha256").digest())
        except OSError as error:
            raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    for path in paths:
        if path.name == ADAPTER and (base := base_model(path)):
            whole.update(f"base {_base_identity(base, above | {folder.resolve()})}".encode())
        if path.name in CODE_NAMED_IN:
            for name in code_of(path)[1]:
                whole.update(f"code {name} {_cached_commit(name)}".encode())
    return whole.hexdigest()


def code_of(config: Path) -> tuple[bool, list[str]]:
    """Return whether a configuration names its own code, and other repositories with its code.

    In transformers `auto_map` names a class as `file.Class` for the model's own repository, or as
    `organisation/name--file.Class` for another one.
    """
    classes = read_object(config).get("auto_map")
    if not isinstance(classes, dict):
        return False, []
    named = [
        name
        for value in classes.values()
        for name in (value if isinstance(value, list) else [value])
        if isinstance(name, str)
    ]
    return bool(named), sorted({one.partition("--")[0] for one in named if "--" in one})


def base_model(adapter: Path) -> str | None:
    """Return the base model that an adapter's configuration names."""
    base = read_object(adapter).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


def _base_identity(base: str, above: frozenset[Path]) -> str:
    folder = Path(base)
    if folder.is_dir():
        return base if folder.resolve() in above else _digest(folder, above)
    return f"{base} {_cached_commit(base)}"


def _cached_commit(name: str) -> str | None:
    """Return the commit of a model's main branch in the hub's cache, if any."""
    from huggingface_hub import constants

    from lcbench.hub import cache

    try:
        return cache.commit_of(Path(constants.HF_HUB_CACHE), "model", name, None)
    except (OSError, ValueError):  # not a hub name
        return None


def stamp(folder: Path) -> str:
    """Return a digest over the names, sizes and times of a model's files.

    It reveals replaced files without reading them.
    """
    whole = hashlib.sha256()
    for path in files(folder):
        known = path.stat()
        one = f" {known.st_size} {known.st_mtime_ns} {known.st_ino}\n"
        whole.update(os.fsencode(path.relative_to(folder).as_posix()) + one.encode())
    return whole.hexdigest()


def transformer_folder(folder: Path) -> Path:
    """Return the folder of the transformer: the first module, or the first one of a router."""
    entries = modules(folder)
    if not entries:
        return folder
    first = folder / str(entries[0]["path"])
    types = read_object(first / "router_config.json").get("types")
    if isinstance(types, dict):
        for name, kind in types.items():
            if str(kind).rpartition(".")[2] == "Transformer":
                return first / str(name)
    return first
