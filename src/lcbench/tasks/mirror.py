"""Where the data of mteb's tasks lies: in a mirror, in the hub's cache, or out of reach.

A mirror is a folder laid out as the hub lays datasets out, `<organisation>/<name>`. A task whose
dataset is there reads it from there; its class is mteb's own, unmodified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.models import network_answers

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask

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


def connect(tasks: Sequence[AbsTask], mirror: Path | None, *, offline: bool) -> dict[str, str]:
    """Point tasks at the mirror, and see that every dataset is within reach before anything runs.

    Args:
        tasks: of mteb; those whose dataset is in the mirror are pointed there.
        mirror: or None.
        offline: never touch the network; otherwise it is probed once, and only if data is missing.

    Returns:
        What each task's data is, by its name: a digest of its files in the mirror, or `hub`.

    Raises:
        RequestError: naming every dataset that is neither in the mirror nor in the cache.
    """
    data: dict[str, str] = {}
    missing: list[str] = []
    for task in tasks:
        name, path = task.metadata.name, str(task.metadata.dataset["path"])
        folder = mirror / path if mirror is not None else None
        if folder is not None and folder.is_dir():
            dataset = {**task.metadata.dataset, "path": str(folder.resolve())}
            task.metadata = task.metadata.model_copy(update={"dataset": dataset})
            data[name] = f"mirror {_digest(folder.resolve())}"
        else:
            data[name] = "hub"
            if not _is_cached(path):
                missing.append(f"{path} (for {name})")
    offline = offline or _hub_is_offline()
    if missing and (offline or not network_answers()):
        why = "offline=true forbids fetching them" if offline else "the hub does not answer"
        where = f"neither in mirror={mirror} nor" if mirror is not None else "not"
        raise RequestError(
            f"Datasets that are {where} in the hub's cache, and {why}: {', '.join(missing)}. "
            "Name a folder that has them as <organisation>/<name> (mirror=PATH), or fetch them on "
            "a machine with a network: hf download --repo-type dataset <organisation>/<name>"
        )
    return data


def _hub_is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _is_cached(dataset: str) -> bool:
    """Whether the hub's cache, or that of `datasets`, has anything of a dataset."""
    from datasets import config
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}/snapshots"
    prepared = Path(config.HF_DATASETS_CACHE) / dataset.replace("/", "___")
    return any(snapshots.glob("*/*")) or prepared.is_dir()


@lru_cache(maxsize=256)
def _digest(folder: Path) -> str:
    """Return `sha256-` and 16 hexadecimal digits over a dataset's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _DATA_SUFFIXES:
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return f"sha256-{digest.hexdigest()[:16]}"
