"""Checks a request before anything is scored: data of tasks, which it fetches, and repairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.hub import cache
from lcbench.hub.datasets import (
    is_here,
    is_plain,
    lacking_in_folders,
    may_lack_files,
    missing_data,
    missing_subsets,
    point_at,
)
from lcbench.system.observer import Observer
from lcbench.tasks.mteb_tasks import parts_of
from lcbench.tasks.source import Part

if TYPE_CHECKING:
    from mteb.abstasks.abstask import AbsTask
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import PromptType
    from sentence_transformers import SentenceTransformer

    from lcbench.encode.prompts import PromptOf
    from lcbench.repair.repair import Repair


def fetch_missing(
    parts: Sequence[Part],
    mirror: Path | None,
    observer: Observer,
    *,
    offline: bool,
) -> None:
    """Fetch missing data, and warn of what could not be fetched.

    Args:
        parts: splits and subsets of each task.
        mirror: a folder that is searched for datasets first, if any.
        observer: receives progress, and each failure with its reason.
        offline: whether the network may not be used.

    Raises:
        RequestError: missing data must not or cannot be fetched.
    """
    missing, lacking = missing_data(parts, mirror), lacking_in_folders(parts, mirror)
    if lacking:
        raise cache.refuse([*missing, *lacking], mirror, "a plain folder is read as it is")
    if not missing:
        return
    if why := cache.why_not_fetched(offline=offline):
        # Without a network `datasets` uses whichever revision it prepared last.
        raise cache.refuse(missing, mirror, f"data prepared by `datasets` is not used, and {why}")
    from lcbench.hub.fetch import fetch_data

    wanted = [part for part in parts if missing_data([part], mirror)]
    for what, reason in fetch_data(wanted, observer).items():
        observer.warn(f"{what}: {reason}")


def find_data(tasks: Iterable[AbsTask], mirror: Path | None) -> tuple[bool, list[AbsTask]]:
    """Point tasks at their data.

    Args:
        tasks: mteb's tasks; an aggregate stands for its parts.
        mirror: a folder that is searched for datasets first, if any.

    Returns:
        Whether all data is here, and the tasks whose texts have to be counted (`count_texts`).

    Raises:
        RequestError: a dataset lacks configurations that a task needs.
    """
    all_here, without, counted = True, [], []
    for task in tasks:
        for one in parts_of(task) or [task]:
            origin = point_at(one, mirror)
            all_here = all_here and is_here(one)
            counted += [one] if is_plain(one) or may_lack_files(one) else []
            if subsets := missing_subsets(one):
                listed = ", ".join(subsets)
                without.append(f"{origin.dataset} (for {one.metadata.name}): {listed}")
    if without:
        raise cache.refuse(without, mirror, "the dataset's card has no such configurations")
    return all_here, counted


def count_texts(tasks: Sequence[AbsTask], observer: Observer, *, unverified: bool) -> None:
    """Check that folders hold the datasets that they are named after, by counting texts.

    Args:
        tasks: tasks that read a mirror's plain folder, or a snapshot that may lack files.
        observer: receives differences that do not stop the run.
        unverified: whether differences are allowed (`unverified_data`).

    Raises:
        RequestError: the number of texts differs, and that is not allowed.
    """
    from lcbench.hub.contents import DataError, load, refuse

    differs = []
    for task in tasks:
        # Data that cannot be loaded makes its own cells fail, not the run.
        with suppress(DataError):
            differs += load(task)
        task.unload_data()
    wrong = [one for one in differs if not one.is_tolerable]
    if wrong and not unverified:
        raise refuse(wrong)
    for one in differs:
        observer.say(f"the data differs slightly from the dataset that it is named after: {one}")


def check_repair(
    name: str,
    loaded: SentenceTransformer,
    prompt_of: PromptOf,
    texts: Sequence[tuple[TaskMetadata, PromptType | None]],
    repair: Repair,
) -> None:
    """Check what a proof does not show: that a repair suits a loaded model and its texts.

    Args:
        name: the model's name, for messages.
        loaded: the model, its window set.
        prompt_of: returns the prompt of the texts of a task.
        texts: tasks, and which of their texts: queries, documents, or (None) those without a role.
        repair: resolved for the model.

    Raises:
        RequestError: its chunks cannot be cut or combined, or the extension would not set the
            windows of the model.
    """
    from lcbench.encode.chunks import check_chunks
    from lcbench.encode.roles import check_windows

    if repair.extension is not None:
        check_windows(loaded, f"extend={repair.extension.canonical}", name)
    check_chunks(name, loaded, [repair], prompt_of, texts)
