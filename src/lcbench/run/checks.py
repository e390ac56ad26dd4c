"""Whether the data of all tasks is here, fetched where it may be, and what its name says."""

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


def fetch_missing(
    parts: Sequence[Part],
    mirror: Path | None,
    observer: Observer,
    *,
    offline: bool,
) -> None:
    """Fetch the data that is not here, and warn of what could not be fetched.

    Args:
        parts: of the tasks.
        mirror: the folder in which datasets are looked for first, if there is one.
        observer: told how far it is, and of each dataset that failed, and why.
        offline: whether the network may not be used.

    Raises:
        RequestError: data is missing that may not, or cannot, be fetched.
    """
    missing, lacking = missing_data(parts, mirror), lacking_in_folders(parts, mirror)
    if lacking:
        raise cache.refuse([*missing, *lacking], mirror, "a plain folder is read as it is")
    if not missing:
        return
    if why := cache.why_not_fetched(offline=offline):
        # Without a network `datasets` takes whichever revision it prepared last.
        raise cache.refuse(missing, mirror, f"what `datasets` has prepared is not read, and {why}")
    from lcbench.hub.fetch import fetch_data

    wanted = [part for part in parts if missing_data([part], mirror)]
    for what, reason in fetch_data(wanted, observer).items():
        observer.warn(f"{what}: {reason}")


def find_data(tasks: Iterable[AbsTask], mirror: Path | None) -> tuple[bool, list[AbsTask]]:
    """Let tasks read their data from where it is.

    Args:
        tasks: of mteb; those that they are made of are looked at in their place.
        mirror: the folder in which datasets are looked for first, if there is one.

    Returns:
        Whether all of it is here, and the tasks whose texts are to be counted (`count_texts`).

    Raises:
        RequestError: a dataset lacks configurations that a task asks for.
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
    """See that folders hold the datasets that they are named after, as far as is known.

    Args:
        tasks: those that read a mirror's plain folder, or a snapshot that may lack files.
        observer: told of differences that are no reason to stop.
        unverified: whether any difference is none (`unverified_data`).

    Raises:
        RequestError: one has another number of texts, and nobody said that it may.
    """
    from lcbench.hub.contents import DataError, load, refuse

    differs = []
    for task in tasks:
        # What cannot be loaded fails by itself: its cells say so, and others need not.
        with suppress(DataError):
            differs += load(task)
        task.unload_data()
    wrong = [one for one in differs if not one.is_tolerable]
    if wrong and not unverified:
        raise refuse(wrong)
    for one in differs:
        observer.say(f"not quite the data that it is named after: {one}")
