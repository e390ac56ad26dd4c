"""What is here of the hub's repositories: snapshots in folders laid out as the hub's own cache.

Reads and never fetches. A snapshot is whole if the files that are asked for have the sizes that the
repository's tree has; the hub's client keeps the tree of each commit beside its snapshot.
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

# Seconds after which a network that has not answered counts as absent.
_PROBE_SECONDS = 4.0
_COMMIT = re.compile("[0-9a-f]{40}")
# Bytes of a file; the hub itself allows 500 GB.
_LARGEST = 2**44
# So many files of a repository are named in a message.
_NAMED_FILES = 3
_OFFICIAL = "https://huggingface.co"
# The client's own switch for a token that nobody has passed to it.
_WITHHOLDS = "HF_HUB_DISABLE_IMPLICIT_TOKEN"
# What stands before the host of an address: a user, or a user and a password.
_CREDENTIALS = re.compile("://[^/?#]*@")


@dataclass(frozen=True)
class Place:
    """What a folder has of a repository.

    Attributes:
        folder: the snapshot, or None if there is none.
        lacks: the files that are asked for and not there, or not whole.
    """

    folder: Path | None
    lacks: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether everything that is asked for is there."""
        return self.folder is not None and not self.lacks


def describe(what: str, lacks: Sequence[str]) -> str:
    """Return a line that says what is missing, and which of its files, where others are here."""
    if not lacks:
        return what
    more = len(lacks) - _NAMED_FILES
    named = ", ".join(lacks[:_NAMED_FILES]) + (f" and {more} more" if more > 0 else "")
    return f"{what}: {named}"


def caches(mirror: Path | None) -> tuple[Path, ...]:
    """Return the folders laid out as the hub's cache, the mirror's first.

    A mirror may be such a folder itself (what prefetch fills, or a site's HF_HUB_CACHE) or hold one
    as `hub` (a site's HF_HOME).
    """
    from huggingface_hub import constants

    own = Path(constants.HF_HUB_CACHE)
    return (own,) if mirror is None else (*in_mirror(mirror), own)


def in_mirror(mirror: Path) -> tuple[Path, Path]:
    """Return the folders of a mirror that may be laid out as the hub's cache."""
    return mirror, mirror / "hub"


def repository_folder(cache: Path, kind: Kind, name: str) -> Path:
    """Return where a cache keeps a repository."""
    from huggingface_hub.file_download import repo_folder_name

    return cache / repo_folder_name(repo_id=name, repo_type=kind)


def commit_of(cache: Path, kind: Kind, name: str, revision: str | None) -> str | None:
    """Return the commit that a cache has for a revision; None: the main branch."""
    if revision is not None and is_commit(revision):
        return revision
    reference = repository_folder(cache, kind, name) / "refs" / (revision or "main")
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def is_commit(revision: str) -> bool:
    """Return whether a revision is a commit: no branch or tag, which may be moved."""
    return _COMMIT.fullmatch(revision) is not None


def check_commit(commit: str) -> None:
    """Refuse what is no commit: it names a folder.

    Raises:
        RequestError: it is not 40 hexadecimal digits.
    """
    if not is_commit(commit):
        raise RequestError(f"the hub names a commit that is not 40 hexadecimal digits: {commit!r}")


def check_tree(sizes: Mapping[str, object]) -> None:
    """Refuse a repository whose paths lead out of its folder, or whose sizes are none.

    Raises:
        RequestError: naming the first.
    """
    for path, size in sizes.items():
        parts = path.split("/")
        if "\0" in path or "\\" in path or not all(parts) or {".", ".."} & set(parts):
            raise RequestError(f"the hub names a file that leads out of its folder: {path!r}")
        if type(size) is not int or not 0 <= size <= _LARGEST:
            raise RequestError(f"the hub gives a file a size that is none: {path!r}, {size!r}")


def snapshot_folder(cache: Path, kind: Kind, name: str, commit: str) -> Path:
    """Return where a cache keeps the files of a commit."""
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
        lacking: says what is not there, given the snapshot's folder, and the sizes of all files of
            the repository if they are known.
    """
    commit = commit_of(cache, kind, name, revision)
    if commit is None:
        return Place(None)
    folder = snapshot_folder(cache, kind, name, commit)
    if not folder.is_dir():
        return Place(None)
    return Place(folder, tuple(lacking(folder, tree_sizes(cache, kind, name, commit))))


def best(places: Sequence[Place]) -> Place:
    """Return the first place that is whole, else the one that lacks least."""
    there = [place for place in places if place.folder is not None]
    return min(there, key=lambda place: len(place.lacks), default=Place(None))


def tree_sizes(cache: Path, kind: Kind, name: str, commit: str) -> dict[str, int] | None:
    """Return the sizes in bytes of all files of a commit, or None if the cache does not know."""
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
    """Return the files that are not there, or not of the size that they should have."""
    return [path for path, size in sizes.items() if _size(folder / path) != size]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def refuse_credentials(key: str, address: str) -> None:
    """Refuse an address that names a user or a password: it would be shown, and written down.

    Raises:
        RequestError: it does; the message does not repeat it.
    """
    if _CREDENTIALS.search(address):
        raise RequestError(
            f"{key} names a user or a password, which no address may here: it would be shown and "
            "written down. Name the address without them; a hub that asks who you are is named by "
            "the environment variable HF_ENDPOINT, with https, and gets the token of HF_TOKEN or "
            "`hf auth login`."
        )


def guard_token() -> None:
    """Keep the user's token for the hub from an HF_ENDPOINT that would get it in the clear.

    huggingface_hub sends it to whatever address is the hub's. Here only two addresses get it: the
    hub's own, and one that the user's environment names in HF_ENDPOINT, if it begins with https.
    """
    if not os.environ.get("HF_ENDPOINT", _OFFICIAL).lower().startswith("https://"):
        _withhold_token()


def withheld_token() -> str:
    """Return a remark for where the hub refuses something: that it got no token; else nothing."""
    from huggingface_hub import constants

    if not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return ""
    return (
        f" (no token was sent to {constants.ENDPOINT}: it goes to {_OFFICIAL}, and to an https "
        "address in HF_ENDPOINT, unless HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it)"
    )


def _withhold_token() -> None:
    # Never taken back: an address that is named later may be read from a file.
    os.environ[_WITHHOLDS] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True


def use(address: str) -> None:
    """Let every library take a site's mirror of the hub for the hub, imported before or not.

    It gets the user's token only if it is the address that HF_ENDPOINT names already, or the hub's.
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
    """Keep every library off the network from here on, whether it was imported before or not."""
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
    """Undo, when this context ends, what `use` and `go_offline` have told the libraries meanwhile.

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
    """One short question to the hub, asked in the background: does it answer at all?"""

    def __init__(self) -> None:
        """Ask."""
        self._answered = threading.Event()
        self._deadline = time.monotonic() + _PROBE_SECONDS
        # In a thread, since looking up a name can hang for longer than any time-out that is passed.
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def answers(self) -> bool:
        """Whether the hub has answered, a few seconds after it was asked at the latest."""
        self._asking.join(max(0.0, self._deadline - time.monotonic()))
        return self._answered.is_set()

    def _ask(self) -> None:
        from huggingface_hub import constants

        # The hub's address is a setting of its client, always http or https.
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")  # noqa: S310
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS)  # noqa: S310
        except urllib.error.HTTPError:
            pass  # an answer all the same
        except (OSError, ValueError):
            return
        self._answered.set()


def why_not_fetched(*, offline: bool, probe: Probe | None = None) -> str | None:
    """Return why nothing can be fetched, or None if the hub answers.

    Args:
        offline: whether the request forbids it.
        probe: that was begun before; else one is made, if need be.
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
        return f"the hub ({constants.ENDPOINT}) does not answer"
    return None


def refuse(missing: Sequence[str], mirror: Path | None, why: str) -> MissingError:
    """Return the error that names everything that is missing, and where it was looked for."""
    own = f"the hub's cache ({caches(None)[0]})"
    return MissingError(missing, own if mirror is None else f"mirror={mirror} or {own}", why)
