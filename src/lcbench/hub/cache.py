"""Finds snapshots of repositories in the hub's cache, and in mirrors of the same layout.

It never fetches. A snapshot is complete if the requested files have the sizes listed in the
repository's tree; the hub's client stores the tree of each commit next to its snapshot.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lcbench.errors import MissingError, RequestError

Kind = Literal["model", "dataset"]

# Seconds after which a network that has not responded counts as absent.
_PROBE_SECONDS = 4.0
_COMMIT = re.compile("[0-9a-f]{40}")
# The most bytes of a file; the hub allows 500 GB.
_LARGEST = 2**44
# The most files of a repository that a message names.
_NAMED_FILES = 3
_OFFICIAL = "https://huggingface.co"
# The client's switch for implicit tokens.
_WITHHOLDS = "HF_HUB_DISABLE_IMPLICIT_TOKEN"
# User and password before the host of an address.
_CREDENTIALS = re.compile("://[^/?#]*@")


@dataclass(frozen=True)
class Place:
    """A repository's snapshot in a folder.

    Attributes:
        folder: folder of the snapshot; None if there is none.
        lacks: requested files that are missing or incomplete.
    """

    folder: Path | None
    lacks: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all requested files are there."""
        return self.folder is not None and not self.lacks


def describe(what: str, lacks: Sequence[str]) -> str:
    """Return a line that names what is missing, with its files if others are present."""
    if not lacks:
        return what
    more = len(lacks) - _NAMED_FILES
    named = ", ".join(lacks[:_NAMED_FILES]) + (f" and {more} more" if more > 0 else "")
    return f"{what}: {named}"


def caches(mirror: Path | None) -> tuple[Path, ...]:
    """Return the folders with the layout of the hub's cache, the mirror's first.

    A mirror may be such a folder itself (what prefetch fills, or a site's HF_HUB_CACHE) or hold one
    as `hub` (a site's HF_HOME).
    """
    from huggingface_hub import constants

    own = Path(constants.HF_HUB_CACHE)
    return (own,) if mirror is None else (*in_mirror(mirror), own)


def in_mirror(mirror: Path) -> tuple[Path, Path]:
    """Return the folders of a mirror that may have the layout of the hub's cache."""
    return mirror, mirror / "hub"


def repository_folder(cache: Path, kind: Kind, name: str) -> Path:
    """Return the folder of a repository in a cache."""
    from huggingface_hub.file_download import repo_folder_name

    return cache / repo_folder_name(repo_id=name, repo_type=kind)


def commit_of(cache: Path, kind: Kind, name: str, revision: str | None) -> str | None:
    """Return a cache's commit of a revision; the revision None is the main branch."""
    if revision is not None and is_commit(revision):
        return revision
    reference = repository_folder(cache, kind, name) / "refs" / (revision or "main")
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def is_commit(revision: str) -> bool:
    """Return whether a revision is a commit, not a branch or tag, which may move."""
    return _COMMIT.fullmatch(revision) is not None


def check_commit(commit: str) -> None:
    """Refuse a revision that is not a commit, since it names a folder.

    Raises:
        RequestError: it is not 40 hexadecimal digits.
    """
    if not is_commit(commit):
        raise RequestError(f"the hub names a commit that is not 40 hexadecimal digits: {commit!r}")


def check_tree(sizes: Mapping[str, object]) -> None:
    """Refuse a repository with paths outside its folder or invalid sizes.

    Raises:
        RequestError: naming the first.
    """
    for path, size in sizes.items():
        parts = path.split("/")
        if "\0" in path or "\\" in path or not all(parts) or {".", ".."} & set(parts):
            raise RequestError(f"the hub lists a file outside the repository's folder: {path!r}")
        if type(size) is not int or not 0 <= size <= _LARGEST:
            raise RequestError(f"the hub lists a file with an invalid size: {path!r}, {size!r}")


def snapshot_folder(cache: Path, kind: Kind, name: str, commit: str) -> Path:
    """Return the folder of a commit's files in a cache."""
    return repository_folder(cache, kind, name) / "snapshots" / commit


def find(
    cache: Path,
    kind: Kind,
    name: str,
    revision: str | None,
    lacking: Callable[[Path, Mapping[str, int] | None], Sequence[str]],
) -> Place:
    """Find a revision of a repository in a cache.

    Args:
        cache: the folder.
        kind: of repository.
        name: of the repository.
        revision: a commit, branch or tag; None: the main branch.
        lacking: returns the missing files, given the snapshot's folder, and the sizes of all files
            of the repository if known.
    """
    commit = commit_of(cache, kind, name, revision)
    if commit is None:
        return Place(None)
    folder = snapshot_folder(cache, kind, name, commit)
    if not folder.is_dir():
        return Place(None)
    return Place(folder, tuple(lacking(folder, tree_sizes(cache, kind, name, commit))))


def best(places: Sequence[Place]) -> Place:
    """Return the first complete place, or else the one that lacks fewest files."""
    there = [place for place in places if place.folder is not None]
    return min(there, key=lambda place: len(place.lacks), default=Place(None))


def tree_sizes(cache: Path, kind: Kind, name: str, commit: str) -> dict[str, int] | None:
    """Return the sizes in bytes of all files of a commit, or None if unknown."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(name, repo_type=kind, revision=commit, cache_dir=cache)
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path: file.size for file in tree}


def files_in(folder: Path) -> list[str]:
    """Return the paths of all files below a folder, relative to it."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def not_whole(folder: Path, sizes: Mapping[str, int]) -> list[str]:
    """Return the files that are missing or have a wrong size."""
    return [path for path, size in sizes.items() if _size(folder / path) != size]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def refuse_credentials(key: str, address: str) -> None:
    """Refuse an address with a user or password, which would be shown and stored.

    Raises:
        RequestError: the address has one; the message does not repeat it.
    """
    if _CREDENTIALS.search(address):
        raise RequestError(
            f"{key} contains a user or a password, which would be shown and stored. Give the "
            "address without them. For a hub that requires authentication, set the environment "
            "variable HF_ENDPOINT to its https address; it then gets the token of HF_TOKEN or "
            "`hf auth login`."
        )


def guard_token() -> None:
    """Do not send the user's hub token to an HF_ENDPOINT without https.

    huggingface_hub sends it to any configured address. lcbench sends it to two only: the official
    hub, and an https address in the user's HF_ENDPOINT.
    """
    if not os.environ.get("HF_ENDPOINT", _OFFICIAL).lower().startswith("https://"):
        _withhold_token()


def withheld_token() -> str:
    """Return a remark for refused requests that no token was sent; empty if one was."""
    from huggingface_hub import constants

    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return ""
    return (
        f" (no token was sent to {constants.ENDPOINT}: it goes to {_OFFICIAL}, and to an https "
        "address in HF_ENDPOINT, unless HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it)"
    )


def _withhold_token() -> None:
    # Never undone: an address given later may come from a file.
    os.environ[_WITHHOLDS] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True


def use(address: str) -> None:
    """Make every library use a site's mirror as the hub, even if already imported.

    It gets the user's token only if it is the address in HF_ENDPOINT, or the official hub's.
    """
    if address not in (_OFFICIAL, os.environ.get("HF_ENDPOINT", "").rstrip("/")):
        _withhold_token()
    os.environ["HF_ENDPOINT"] = address
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants, hf_api

        constants.ENDPOINT = hf_api.api.endpoint = address
        constants.HUGGINGFACE_CO_URL_TEMPLATE = address + "/{repo_id}/resolve/{revision}/{filename}"
    if "datasets" in sys.modules:
        from datasets import config

        config.HF_ENDPOINT = address
        config.HUB_DATASETS_URL = address + "/datasets/{repo_id}/resolve/{revision}/{path}"


def go_offline() -> None:
    """Keep every library off the network from now on, even if already imported."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    _tell_offline(True)


def _tell_offline(is_offline: bool) -> None:
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = is_offline
    if "datasets" in sys.modules:
        from datasets import config

        config.HF_HUB_OFFLINE = is_offline


@contextmanager
def kept() -> Iterator[None]:
    """Undo `use` and `go_offline` at the end of this context.

    What a program does next with the hub is its own business. A token that was withheld stays so.
    """
    from huggingface_hub import constants

    names = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    environment = {name: os.environ.get(name) for name in names}
    address, is_offline = constants.ENDPOINT, constants.HF_HUB_OFFLINE
    try:
        yield
    finally:
        if address != constants.ENDPOINT:
            use(address)
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _tell_offline(is_offline)


class Probe:
    """A short background request that finds out whether the hub responds."""

    def __init__(self) -> None:
        """Start the request."""
        self._answered = threading.Event()
        self._deadline = time.monotonic() + _PROBE_SECONDS
        # In a thread, since a name lookup can exceed any timeout.
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def answers(self) -> bool:
        """Return whether the hub has responded, within a few seconds of the request."""
        self._asking.join(max(0.0, self._deadline - time.monotonic()))
        return self._answered.is_set()

    def _ask(self) -> None:
        from huggingface_hub import constants

        # The hub's address is a setting of the client, always http or https.
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS)  # noqa: S310
        except urllib.error.HTTPError:
            pass  # still a response
        except (OSError, ValueError):
            return
        self._answered.set()


def why_not_fetched(*, offline: bool, probe: Probe | None = None) -> str | None:
    """Return why nothing can be fetched, or None if the hub responds.

    Args:
        offline: whether the request forbids it.
        probe: a probe started earlier; None: one is started if needed.
    """
    from huggingface_hub import constants

    if offline:
        return "offline=true forbids fetching it"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids fetching it"
    try:
        refuse_credentials("HF_ENDPOINT", constants.ENDPOINT)
    except RequestError as error:
        return str(error).rstrip(".")
    if not (probe or Probe()).answers():
        return f"the hub ({constants.ENDPOINT}) does not respond"
    return None


def refuse(missing: Sequence[str], mirror: Path | None, why: str) -> MissingError:
    """Return the error that names everything missing, and the places searched."""
    own = f"the hub's cache ({caches(None)[0]})"
    return MissingError(missing, own if mirror is None else f"mirror={mirror} or {own}", why)
