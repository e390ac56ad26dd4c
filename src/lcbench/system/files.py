"""Files that are written whole or not at all, and the folder for what can be made again."""

import errno
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lcbench.errors import StorageError
from lcbench.system.process import lives, short_name, start_of

# File systems take names of 255 bytes. Of a longer one than this the beginning is kept, so that
# what is put behind it fits as well.
_LONGEST_NAME = 200
# In a temporary name, which says besides whose it is.
_LONGEST_IN_TEMPORARY = 120
_DIGITS = 16
# What file systems say that have no links (exFAT, some shares).
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# What file systems say that cannot fsync a folder (vboxsf, old CIFS); SQLite passes over it too.
_NO_FSYNC = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES)


# What a file is to hold: bytes, text (UTF-8), or what writes it to the path that it is given.
Content = bytes | str | Callable[[Path], object]


def write_atomically(path: Path, content: Content) -> None:
    """Write a temporary file next to `path`, then rename it to `path`.

    A reader sees the old file or the new one, never a part, also after SIGKILL or a power cut: the
    temporary file is fsynced before the rename and the folder after it. The price is one fsync a
    file (some milliseconds), and after SIGKILL a leftover `.<name>@<machine>~<pid>~<start>.*.tmp`,
    which nothing reads and `remove_leftovers` removes, on the same machine.
    The temporary name never ends in the suffix of `path`, so that no glob for results finds it.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    descriptor = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = _temporary(path)
        # Made as any other file is, with the mode that the umask leaves.
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        temporary = name
        # Not opened by its name again: where a folder is shared, another user could have put a link
        # in its place, to a file of this user.
        opened = Path(f"/proc/self/fd/{descriptor}")
        target = opened if opened.exists() else temporary
        if isinstance(content, str):
            target.write_text(content, encoding="utf-8")
        elif isinstance(content, bytes):
            target.write_bytes(content)
        else:
            content(target)
        os.fsync(descriptor)
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            # pyarrow's errors carry the number, and a text of their own.
            f"{path} could not be written: {os.strerror(error.errno) if error.errno else error}. "
            "Make room or mend the permissions, then run the same command again: "
            "what is finished is kept."
        ) from error
    finally:
        with suppress(OSError):
            if descriptor >= 0:
                os.close(descriptor)
        # What cannot be removed is a leftover, and harms nobody.
        with suppress(OSError):
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def link_atomically(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to the folder `target`, in the place of whatever file is there.

    A reader sees the old link or the new one. What writers of links that were killed have left
    beside it is removed.

    Raises:
        OSError: it cannot be made: no permission, or a file system that has no such links.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(link.parent)
    temporary = _temporary(link)
    temporary.symlink_to(target, target_is_directory=True)
    try:
        temporary.replace(link)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def without_links(path: str, flags: int) -> int:
    """Open a file, unless its name is a symbolic link: an `opener` of `open`.

    A file whose name others can foresee, in a folder that they can write, may be a link of theirs
    to a file of the user's.

    Raises:
        OSError: it is a link (ELOOP), or cannot be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def try_writing(folder: Path) -> None:
    """Make a folder, and a file in it that is removed again.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=_prefix("write"), suffix=".tmp", dir=folder)
    try:
        os.write(descriptor, b"lcbench")
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def fitting(name: str, most: int = _LONGEST_NAME) -> str:
    """Return a name that a file system takes: a long one as its beginning, `~` and a digest.

    Args:
        name: of a file or a folder.
        most: bytes of it in UTF-8 that are not too long.
    """
    content = name.encode("utf-8", errors="surrogatepass")
    if len(content) <= most:
        return name
    beginning = content[: most - _DIGITS - 1].decode("utf-8", errors="ignore")
    return f"{beginning}~{hashlib.sha256(content).hexdigest()[:_DIGITS]}"


def cache_folder() -> Path:
    """Where lcbench keeps what it can make again: $LCBENCH_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("LCBENCH_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lcbench"


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left in `folder` (not in its subfolders).

    A temporary file of this machine whose process is gone is a leftover; one of another machine is
    left alone, since whether its process lives cannot be seen from here. So is all of a folder that
    cannot be listed: leftovers harm nobody.
    """
    paths: list[Path] = []
    with suppress(OSError):
        paths += folder.glob(".*.tmp")
    for path in paths:
        writer = path.name.removesuffix(".tmp").rpartition("@")[2].partition(".")[0]
        whose, _, process = writer.partition("~")
        number, _, started = process.partition("~")
        if whose != short_name() or not number.isdigit():
            continue
        if lives(int(number), started or None) is False:
            # Another process may have removed it first; in a sticky folder another user's stays.
            with suppress(OSError):
                path.unlink()


def _temporary(path: Path) -> Path:
    """Return a name beside a file under which nothing is, for what is to take its place."""
    return path.parent / f"{_prefix(path.name)}{secrets.token_hex(4)}.tmp"


def _prefix(name: str) -> str:
    """Return how the name of a temporary file of this process begins."""
    process = os.getpid()
    name = fitting(name, _LONGEST_IN_TEMPORARY)
    return f".{name}@{short_name()}~{process}~{start_of(process) or ''}."


def _fsync_folder(folder: Path) -> None:
    """Let a rename in a folder survive a power cut, where the file system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
