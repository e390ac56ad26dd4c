"""Fetches every model and dataset that a run needs from the hub into one folder.

The folder has the layout of the hub's cache and is filled by the hub's own client. The files needed
are determined where they are read: `hub.models.model_files`, `hub.datafiles`.
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import LcbenchError, MissingError, RequestError, StorageError
from lcbench.hub import cache, ledger
from lcbench.hub.datafiles import CARDS, Reads, configs_of, files_read, reads_of
from lcbench.hub.datasets import missing_in
from lcbench.hub.models import ModelSettings, check_hub_name, model_files, source_of
from lcbench.system import thirdparty, transient
from lcbench.system.files import write_atomically
from lcbench.system.observer import Observer
from lcbench.system.words import size
from lcbench.tasks.registry import registry
from lcbench.tasks.source import Part

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOCK = ".lcbench-prefetch.lock"
# The most files and folders of a repository; a faulty hub may send an endless list.
_MOST_ENTRIES = 1_000_000
# Repositories whose files are listed in parallel.
_LISTED_AT_ONCE = 8
# Seconds after which an unchanged, unfinished file is a leftover. The client gives up on a server
# that is silent for ten seconds after five tries.
_LEFTOVER_SECONDS = 600.0
# Seconds before each retry after a network error.
_RETRY_DELAYS = (2.0, 8.0)


@dataclass(frozen=True)
class Wanted:
    """A required revision of a repository.

    Attributes:
        kind: `model` or `dataset`.
        name: name on the hub.
        revision: commit, branch or tag; None: main.
        users: model config or tasks that need it, with the subsets of each; None: all.
        reads: for a dataset, what each task reads.
    """

    kind: cache.Kind
    name: str
    revision: str | None
    users: Mapping[str, tuple[str, ...] | None]
    reads: tuple[Reads, ...] = ()

    def __str__(self) -> str:
        at = f" (revision {self.revision})" if self.revision else ""
        return f"{self.kind} {self.name}{at}, for {', '.join(self.users)}"


@dataclass(frozen=True)
class Plan:
    """The required files of a repository, and those that are missing.

    Attributes:
        wanted: repository.
        commit: commit of the revision.
        snapshot: folder of that commit.
        sizes: sizes of the required files, in bytes.
        lacks: required files that are missing or incomplete.
    """

    wanted: Wanted
    commit: str
    snapshot: Path
    sizes: Mapping[str, int]
    lacks: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Total size of the required files."""
        return sum(self.sizes.values())

    @property
    def bytes_lacking(self) -> int:
        """Total size of the missing files."""
        return sum(self.sizes[path] for path in self.lacks)


def fetch_all(
    things: Sequence[Wanted], folder: Path, observer: Observer, *, offline: bool, verify: bool
) -> dict[str, str]:
    """Fetch the missing files of repositories into a folder.

    Args:
        things: required repositories.
        folder: folder with the layout of the hub's cache.
        observer: receives progress.
        offline: whether the hub must not be contacted.
        verify: whether to compare the digests of all files, including those already present.

    Returns:
        The repositories that could not be fetched, with the reasons.

    Raises:
        MissingError: something is missing, and the hub must not be contacted or does not respond.
        RequestError: the folder's disk is too small.
        StorageError: the folder cannot be written.
    """
    if not things:
        observer.say("Nothing to download: all models and datasets are local.")
        return {}
    with observer.doing(f"looking for {_counted(things)} in {folder}"):
        recorded = ledger.read(folder)
        plans = {id(one): plan_here(one, folder) for one in things}
    todo = [one for one in things if verify or not _is_done(plans[id(one)], recorded)]
    if todo and (why := cache.why_not_fetched(offline=offline)):
        here = [plan for plan in plans.values() if plan is not None]
        missing = [_missing(one, plans[id(one)], recorded, verify=verify) for one in things]
        if said := [one for one in missing if one is not None]:
            raise MissingError(said, f"mirror={folder}", why)
        _say_plan(observer, here, folder)
        return {}
    failed: dict[str, str] = {}
    if todo:
        from lcbench.hub import transfers

        with _only_one(folder):
            remove_leftovers(folder)
            api = transfers.api()
            with observer.doing(f"asking the hub for the files of {_counted(todo)}"):
                planned, failed = _ask_hub(api, todo, folder)
            plans |= {id(plan.wanted): plan for plan in planned}
            _say_plan(observer, [plan for plan in plans.values() if plan is not None], folder)
            _check_space(planned, folder)
            failed |= _fetch_planned(partial(fetch, api), planned, folder, observer)
    else:
        _say_plan(observer, [plan for plan in plans.values() if plan is not None], folder)
    if not failed:
        observer.say(
            f"Everything is in {folder}. To run without a network: mirror={folder} offline=true"
        )
    return failed


def _counted(things: Sequence[Wanted]) -> str:
    return "1 model or dataset" if len(things) == 1 else f"{len(things)} models and datasets"


def wanted_by(models: Iterable[ModelSettings], parts: Iterable[Part]) -> list[Wanted]:
    """Return the repositories that a run needs, each revision once: models, then datasets.

    Raises:
        RequestError: a model's name is invalid.
    """
    users: dict[tuple[str, str | None], dict[str, tuple[str, ...] | None]] = {}
    for model in models:
        if source_of(model) == "hub":
            check_hub_name(model.name)
            users.setdefault((model.name, model.revision), {})[model.config] = None
    return [*(Wanted("model", *key, by) for key, by in users.items()), *data_of(parts)]


def data_of(parts: Iterable[Part]) -> list[Wanted]:
    """Return the datasets that tasks read, each revision once."""
    users: dict[tuple[str, str], dict[str, tuple[str, ...] | None]] = {}
    reads: dict[tuple[str, str], list[Reads]] = {}
    for entry, subsets in (one for part in parts for one in part.source.datasets(part)):
        key = entry.dataset, entry.revision
        users.setdefault(key, {})[entry.name] = subsets
        reads.setdefault(key, []).append(reads_of(entry, subsets))
    return [Wanted("dataset", *key, by, tuple(reads[key])) for key, by in users.items()]


def fetch_data(parts: Iterable[Part], observer: Observer) -> dict[str, str]:
    """Fetch the data of tasks into the hub's own cache, as prefetch does, before a run.

    `datasets` would also fetch, but cell by cell and unverified, and it cannot read all of it from
    the hub (LongEmbed's splits have different columns).

    Returns:
        The datasets that could not be fetched, with the reasons.

    Raises:
        RequestError: the disk is too small.
    """
    from huggingface_hub import constants

    from lcbench.hub import transfers

    folder, api = Path(constants.HF_HUB_CACHE), transfers.api()
    folder.mkdir(parents=True, exist_ok=True)
    plans, failed = _ask_hub(api, data_of(parts), folder)
    _say_plan(observer, plans, folder)
    _check_space(plans, folder)
    return failed | _fetch_planned(partial(_fetch_verified, api), plans, folder, observer)


def plan_here(wanted: Wanted, folder: Path) -> Plan | None:
    """Return the required files of a repository without contacting the hub; None if unknown."""
    commit = cache.commit_of(folder, wanted.kind, wanted.name, wanted.revision)
    if commit is None:
        return None
    try:
        cache.check_commit(commit)
        sizes = cache.tree_sizes(folder, wanted.kind, wanted.name, commit)
        if sizes is None:
            return None
        cache.check_tree(sizes)
        return _plan(wanted, folder, commit, sizes)
    except RequestError:
        # Reported for this repository alone when the hub is contacted.
        return None


def plan_with(api: HfApi, wanted: Wanted, folder: Path) -> Plan:
    """Return the required files of a repository as listed by the hub; fetches a dataset card.

    Raises:
        any error of the hub's client.
        RequestError: a model without safetensors, or file names outside the folder.
    """
    from huggingface_hub.hf_api import RepoFile

    commit = cache.commit_of(folder, wanted.kind, wanted.name, wanted.revision)
    if commit is None:
        commit = str(
            api.repo_info(wanted.name, repo_type=wanted.kind, revision=wanted.revision).sha
        )
    # Names from the hub become paths below.
    cache.check_commit(commit)
    tree = api.list_repo_tree(
        wanted.name, repo_type=wanted.kind, revision=commit, recursive=True, expand=False
    )
    entries = list(islice(tree, _MOST_ENTRIES + 1))
    if len(entries) > _MOST_ENTRIES:
        raise RequestError(f"it has more than {_MOST_ENTRIES:,} files and folders")
    sizes = {one.path: one.size for one in entries if isinstance(one, RepoFile)}
    cache.check_tree(sizes)
    if wanted.kind == "model" and not any(path.endswith(".safetensors") for path in sizes):
        raise RequestError("it has no safetensors weights, and pickles are not read")
    if wanted.kind == "dataset":
        snapshot = cache.snapshot_folder(folder, wanted.kind, wanted.name, commit)
        for path in CARDS:
            if path in sizes:
                _remove_damaged(snapshot, {path: sizes[path]})
                api.hf_hub_download(
                    wanted.name, path, repo_type="dataset", revision=commit, cache_dir=folder
                )
    return _plan(wanted, folder, commit, sizes)


def _plan(wanted: Wanted, folder: Path, commit: str, sizes: Mapping[str, int]) -> Plan:
    snapshot = cache.snapshot_folder(folder, wanted.kind, wanted.name, commit)
    if wanted.kind == "model":
        paths: Sequence[str] = model_files(sizes)
    else:
        _refuse_lacking(wanted, snapshot)
        paths = files_read(sizes, configs_of(snapshot), wanted.reads).files
    needed = {path: sizes[path] for path in paths}
    return Plan(wanted, commit, snapshot, needed, tuple(cache.not_whole(snapshot, needed)))


def _refuse_lacking(wanted: Wanted, snapshot: Path) -> None:
    """Refuse a dataset whose card lacks configurations that a task reads.

    Raises:
        RequestError: naming them.
    """
    for task, subsets in wanted.users.items():
        if missing := missing_in(registry().tasks[task], subsets, snapshot):
            raise RequestError(
                f"{wanted.name} has no {', '.join(missing)}, which {task} reads; request "
                "existing subsets: subsets=[…]"
            )


def _is_done(plan: Plan | None, recorded: ledger.Manifest) -> bool:
    return (
        plan is not None
        and not plan.lacks
        and ledger.has(_entry_of(plan, recorded), plan.sizes, plan.wanted.users)
    )


def _entry_of(plan: Plan, recorded: ledger.Manifest) -> ledger.Entry | None:
    return recorded.get((plan.wanted.kind, plan.wanted.name, plan.commit))


def _missing(
    wanted: Wanted, plan: Plan | None, recorded: ledger.Manifest, *, verify: bool
) -> str | None:
    """Return a line about missing or damaged files of a repository, or None."""
    if plan is None:
        return str(wanted)
    if plan.lacks:
        return cache.describe(str(wanted), plan.lacks)
    if verify:
        entry = _entry_of(plan, recorded)
        wrong = (
            list(plan.sizes) if entry is None else ledger.damaged(entry, plan.snapshot, plan.sizes)
        )
        if wrong:
            return cache.describe(f"{wanted}, damaged or never verified", wrong)
    return None


def _ask_hub(api: HfApi, todo: Sequence[Wanted], folder: Path) -> tuple[list[Plan], dict[str, str]]:
    """List all repositories in parallel; return plans, and reasons for those that failed."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()

    def ask(wanted: Wanted) -> Plan | str:
        try:
            return plan_here(wanted, folder) or plan_with(api, wanted, folder)
        # An error in one repository must not stop the others.
        except Exception as error:
            return _reason(error)

    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        answers = list(zip(todo, pool.map(ask, todo), strict=True))
    failed = {str(one): answer for one, answer in answers if isinstance(answer, str)}
    return [plan for _, plan in answers if isinstance(plan, Plan)], failed


def _fetch_planned(
    fetch_one: Callable[[Plan, Path], None],
    plans: Sequence[Plan],
    folder: Path,
    observer: Observer,
) -> dict[str, str]:
    """Fetch repositories in turn; return those that failed, with the reasons."""
    failed: dict[str, str] = {}
    gone: str | None = None
    for number, plan in enumerate(plans, start=1):
        if gone is not None:
            failed[str(plan.wanted)] = gone
            continue
        began = time.monotonic()
        try:
            with observer.live(partial(_progress, plan)):
                _fetch_with_retries(fetch_one, plan, folder, observer)
        except StorageError:
            raise
        # An error in one repository must not stop the others.
        except Exception as error:
            failed[str(plan.wanted)] = _reason(error)
            gone = cache.why_not_fetched(offline=False)
            outcome = "FAILED"
        else:
            outcome = f"{size(plan.bytes_lacking)} fetched, {size(plan.bytes)} verified"
        observer.say(
            f"{number:>{len(str(len(plans)))}}/{len(plans)}  {plan.wanted.name}  {outcome}  "
            f"{time.monotonic() - began:.1f} s"
        )
    return failed


def _progress(plan: Plan) -> str:
    """Return how much of a repository has arrived, by the files on disk."""
    arrived = 0
    repository = plan.snapshot.parents[1]
    for path in (*map(plan.snapshot.joinpath, plan.lacks), *_unfinished(repository)):
        # A file is renamed when it is complete.
        with suppress(OSError):
            arrived += path.stat().st_size
    return f"fetching {plan.wanted.name}: {size(arrived)} of {size(plan.bytes_lacking)}"


def _unfinished(repository: Path) -> Iterator[Path]:
    """Return the files of a repository that the hub's client has begun to write."""
    with suppress(OSError):
        yield from (repository / "blobs").glob("*.incomplete")


def _fetch_with_retries(
    fetch_one: Callable[[Plan, Path], None], plan: Plan, folder: Path, observer: Observer
) -> None:
    """Fetch a repository, and retry after network errors; received data is kept."""
    for seconds in _RETRY_DELAYS:
        try:
            return fetch_one(plan, folder)
        except Exception as error:
            if not transient.is_transient(error) or isinstance(error, MemoryError):
                raise
            observer.say(f"{plan.wanted.name}: {_reason(error)}; retrying in {seconds:g} s")
            time.sleep(seconds)
    return fetch_one(plan, folder)


def fetch(api: HfApi, plan: Plan, folder: Path) -> None:
    """Fetch the missing files of a plan, verify all files, and record them.

    Raises:
        OSError: a file was damaged twice, and is removed. Or any error of the hub's client.
        StorageError: the manifest cannot be written.
    """
    _fetch_verified(api, plan, folder)
    ledger.record(folder, _entry(plan, api.endpoint))


def _fetch_verified(api: HfApi, plan: Plan, folder: Path) -> None:
    """Fetch the missing files of a plan; a damaged file is removed and fetched once more."""
    wanted = plan.wanted
    _remove_damaged(plan.snapshot, plan.sizes)
    for _ in range(2):
        api.snapshot_download(
            wanted.name,
            repo_type=wanted.kind,
            revision=plan.commit,
            cache_dir=folder,
            allow_patterns=[glob.escape(path) for path in plan.sizes],
        )
        check = api.verify_repo_checksums(
            wanted.name, repo_type=wanted.kind, revision=plan.commit, cache_dir=folder
        )
        wrong = [one["path"] for one in check.mismatches if one["path"] in plan.sizes]
        wrong += [path for path in check.missing_paths if path in plan.sizes]
        if not wrong:
            break
        for path in wrong:
            _remove(plan.snapshot, path)
    else:
        raise OSError(f"wrong digest after two tries: {', '.join(wrong)}")
    if wanted.revision != plan.commit:
        _refer(folder, plan)


def _entry(plan: Plan, endpoint: str) -> ledger.Entry:
    wanted = plan.wanted
    return ledger.Entry(
        kind=wanted.kind,
        name=wanted.name,
        revision=plan.commit,
        asked=wanted.revision,
        users=wanted.users,
        files={
            path: ledger.File(size, ledger.sha256(plan.snapshot / path))
            for path, size in plan.sizes.items()
        },
        hub=endpoint,
        fetched=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: version(name) for name in ("lcbench", "mteb", "huggingface_hub")},
    )


def _refer(folder: Path, plan: Plan) -> None:
    """Record a branch's commit, as in the hub's cache."""
    repository = cache.repository_folder(folder, plan.wanted.kind, plan.wanted.name)
    reference = repository / "refs" / (plan.wanted.revision or "main")
    write_atomically(reference, plan.commit)


def _remove_damaged(snapshot: Path, sizes: Mapping[str, int]) -> None:
    """Remove incomplete files; the hub's client takes existing files for complete."""
    for path in cache.not_whole(snapshot, sizes):
        _remove(snapshot, path)


def _remove(snapshot: Path, path: str) -> None:
    """Remove a file of a snapshot, and the blob that it links to (<repository>/blobs).

    Raises:
        RequestError: it is outside the snapshot.
        StorageError: it cannot be removed.
    """
    pointer = snapshot / path
    if not pointer.parent.resolve().is_relative_to(snapshot.resolve()):
        raise RequestError(f"a file outside its folder is not removed: {path!r}")
    try:
        _unlink(snapshot, pointer)
    except OSError as error:
        raise StorageError(f"{pointer} cannot be removed: {error.strerror}.") from error


def _unlink(snapshot: Path, pointer: Path) -> None:
    blob = pointer.resolve()
    if blob.parent == snapshot.resolve().parents[1] / "blobs":
        blob.unlink(missing_ok=True)
    pointer.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files of killed downloads, if permitted.

    Remaining ones only take space: the hub's client never takes them for complete.
    """
    paths: list[Path] = []
    with suppress(OSError):
        paths += chain.from_iterable(map(_unfinished, folder.glob("*--*")))
    for path in paths:
        # Another process may have removed or finished it.
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                path.unlink()


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep a second prefetch out of the folder.

    Raises:
        RequestError: another one is running.
        StorageError: the folder cannot be written.
    """
    from filelock import Timeout

    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(thirdparty.hub_lock(folder / _LOCK, timeout=1.0))
        except Timeout as error:
            raise RequestError(
                f"mirror={folder}: another prefetch is writing to it; wait until it ends."
            ) from error
        except OSError as error:
            raise StorageError(f"mirror={folder} cannot be written: {error.strerror}.") from error
        yield


def _check_space(plans: Sequence[Plan], folder: Path) -> None:
    lacking, free = sum(plan.bytes_lacking for plan in plans), shutil.disk_usage(folder).free
    if lacking > free:
        raise RequestError(
            f"{folder}: {size(lacking)} must be fetched, but its disk has only {size(free)} "
            "free. Choose a folder on another disk: mirror=PATH."
        )


def _say_plan(observer: Observer, plans: Sequence[Plan], folder: Path) -> None:
    observer.table(
        ("repository", "revision", "files", "size", "present"),
        [
            (
                f"{plan.wanted.kind} {plan.wanted.name}",
                plan.commit[:8],
                str(len(plan.sizes)),
                size(plan.bytes),
                size(plan.bytes - plan.bytes_lacking),
            )
            for plan in plans
        ],
        names=2,
    )
    total, lacking = sum(p.bytes for p in plans), sum(p.bytes_lacking for p in plans)
    existing = next(one for one in (folder, *folder.resolve().parents) if one.is_dir())
    observer.say(
        f"{size(total)} in all, {size(lacking)} to fetch; "
        f"{size(shutil.disk_usage(existing).free)} free on the disk of {folder}."
    )


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        login = "accept its terms on the hub, then log in with `hf auth login`"
        return f"it is gated: {login}{cache.withheld_token()}"
    if isinstance(error, RepositoryNotFoundError):
        login = "it is private: log in with `hf auth login`"
        return f"there is no such repository, or {login}{cache.withheld_token()}"
    if isinstance(error, RevisionNotFoundError):
        return "there is no such revision"
    if isinstance(error, LcbenchError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
