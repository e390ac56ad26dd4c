"""Reads a user's own texts among the tasks of a request, and finds datasets of the hub."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcbench.errors import RequestError
from lcbench.hub import cache
from lcbench.hub.datafiles import check_card
from lcbench.system.plugins import plugins
from lcbench.system.words import reason_of
from lcbench.tasks.corpus.classes import OwnClass, read_class
from lcbench.tasks.corpus.layout import tasks_of, with_unique_names
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.corpus.spec import HUB, OwnTexts, is_class, is_path, read_spec


@dataclass(frozen=True)
class HubAccess:
    """Where datasets of the hub are looked for.

    Attributes:
        mirror: folder that is searched first, or None.
        offline: whether the network may not be used.
    """

    mirror: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class Own:
    """The texts of a user's own in a request.

    Attributes:
        tasks: value of `tasks`, with names in the place of paths, mappings and classes.
        texts: tasks of files and of datasets of the hub.
        classes: task classes.
    """

    tasks: Any
    texts: tuple[OwnTask, ...] = ()
    classes: tuple[OwnClass, ...] = ()


def may_be_own(tasks: Any) -> bool:
    """Return whether any of the tasks of a request is more than a name of mteb's or of a suite."""
    entries = tasks if isinstance(tasks, list) else [tasks]
    added = plugins("tasks")
    return any(
        isinstance(one, Mapping)
        or (isinstance(one, str) and (is_path(one) or is_class(one) or one in added))
        for one in entries
    )


def read_own(tasks: Any, known: Collection[str], access: HubAccess) -> Own:
    """Return the texts of a user's own among the tasks of a request.

    Args:
        tasks: value of `tasks`: a name, a path, a mapping, or a list of these.
        known: names of suites, benchmarks and tasks of mteb, some of which have a `/`.
        access: where datasets of the hub are looked for.

    Raises:
        RequestError: there is no such file, or it has no known layout.
    """
    entries = [tasks] if isinstance(tasks, str | Mapping) else tasks
    if not isinstance(entries, list):
        return Own(tasks)
    made: list[Any] = []
    added = plugins("tasks")
    for entry in entries:
        if isinstance(entry, Mapping):
            made.append(_tasks(read_spec(entry), access))
        elif isinstance(entry, str) and entry not in known and is_class(entry):
            made.append(read_class(entry, str(Path.cwd())))
        elif isinstance(entry, str) and entry not in known and entry in added:
            made.append(read_class(added[entry].target, package=added[entry].package))
        elif isinstance(entry, str) and entry not in known and is_path(entry):
            made.append(_tasks(read_spec(entry), access))
        else:
            made.append(entry)
    texts = with_unique_names([task for one in made if isinstance(one, tuple) for task in one])
    names = {task.digest: task.name for task in texts}
    named: list[Any] = []
    for one in made:
        if isinstance(one, tuple):
            named += [names[task.digest] for task in one]
        else:
            named.append(one.name if isinstance(one, OwnClass) else one)
    classes = dict.fromkeys(one for one in made if isinstance(one, OwnClass))
    return Own(named, texts, tuple(classes))


def _tasks(texts: OwnTexts, access: HubAccess) -> tuple[OwnTask, ...]:
    folder = _hub_folder(texts, access) if texts.is_of_hub else None
    return tasks_of(texts, folder)


def _hub_folder(texts: OwnTexts, access: HubAccess) -> Path:
    """Return the folder of a dataset of the hub: in the mirror, in the hub's cache, or fetched.

    Raises:
        RequestError: it is not here and cannot be fetched, with the command that gets it.
    """
    name = texts.path.removeprefix(HUB)
    found = _find(name, texts.revision, access.mirror)
    why = None
    if found is None:
        why = cache.why_not_fetched(offline=access.offline)
        if why is None:
            found, why = _fetch(name, texts.revision)
    if found is None:
        at = "" if texts.revision is None else f" --revision {texts.revision}"
        raise RequestError(
            f"tasks={texts.path} is neither in {_places(access.mirror)} nor can it be fetched: "
            f"{why}. On a machine with a network:\n"
            f"  hf download --repo-type dataset {name}{at} --local-dir my-mirror/{name}\n"
            "and name that folder here: mirror=my-mirror"
        )
    check_card(found, cache.files_in(found))
    return found


def _find(name: str, revision: str | None, mirror: Path | None) -> Path | None:
    def lacking(folder: Path, sizes: Mapping[str, int] | None) -> Sequence[str]:
        return () if sizes is None else cache.not_whole(folder, _data(sizes))

    plain = None if mirror is None or revision is not None else mirror / name
    if plain is not None and plain.is_dir():
        return plain
    for place in cache.caches(mirror):
        found = cache.find(place, "dataset", name, revision, lacking)
        if found.is_whole:
            return found.folder
    return None


def _data(sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the files of a dataset that are read: data and its card, no programs."""
    return {path: size for path, size in sizes.items() if not path.endswith(".py")}


def _fetch(name: str, revision: str | None) -> tuple[Path | None, str | None]:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, ignore_patterns=["*.py"]
            )
        ), None
    except Exception as error:
        return None, reason_of(error).rstrip(".")


def _places(mirror: Path | None) -> str:
    own = f"the hub's cache ({cache.caches(None)[0]})"
    return own if mirror is None else f"mirror={mirror} or {own}"
