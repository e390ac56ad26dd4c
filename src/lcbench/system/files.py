"""Atomic writing of files, and lcbench's cache folder."""

import errno
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lcbench.errors import StorageError
from lcbench.system.process import lives, short_name, start_time_of

# File systems take names of 255 bytes. Longer names than this are cut, which leaves room for a
# suffix.
_LONGEST_NAME = 200
# The same within a temporary name, which also names the process that writes.
_LONGEST_TEMPORARY_PART = 120
_DIGITS = 16
# Errors of file systems without links (exFAT, some shares).
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# Errors of file systems that cannot fsync a folder (vboxsf, old CIFS); SQLite ignores them too.
_NO_FSYNC = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.EACCES)


# The content of a file: bytes, text (UTF-8), or a function that writes it to a path.
Content = bytes | str | Callable[[Path], object]


def write_atomically(path: Path, content: Content) -> None:
    """Write a temporary file next to `path`, then rename it to `path`.

    A reader sees the old file or the new one, never a part, also after SIGKILL or a power cut: the
    temporary file is fsynced before the rename and the folder after it. The price is one fsync per
    file (some milliseconds), and after SIGKILL a leftover `.<name>@<machine>~<pid>~<start>.*.tmp`,
    which nothing reads and `remove_leftovers` removes on the same machine.
    The temporary name never ends in the suffix of `path`, so that no glob for results finds it.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    descriptor = -1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = _temporary(path)
        # Created like any other file, with the mode that the umask allows.
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        temporary = name
        # Not opened by its name again: in a shared folder another user could have replaced it by a
        # link to one of this user's files.
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
            # pyarrow's errors have the number, and another text.
            f"{path} could not be written: {os.strerror(error.errno) if error.errno else error}. "
            "Free some space or fix the permissions, then run the same command again: "
            "finished cells are kept."
        ) from error
    finally:
        with suppress(OSError):
            if descriptor >= 0:
                os.close(descriptor)
        # A leftover that cannot be removed is harmless.
        with suppress(OSError):
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def link_atomically(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to the folder `target`, replacing any file of that name.

    A reader sees the old link or the new one. Leftovers of killed writers in the same folder are
    removed.

    Raises:
        OSError: no permission, or a file system without symbolic links.
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

    In a folder that others can write, a file with a predictable name may be a link that another
    user has made to one of this user's files.

    Raises:
        OSError: it is a link (ELOOP), or cannot be opened.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def check_writable(folder: Path) -> None:
    """Check that a folder can be written: make it, and create and remove a file in it.

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


def shortened_name(name: str, most: int = _LONGEST_NAME) -> str:
    """Return a name short enough for a file system: the beginning of a long one, `~` and a digest.

    Args:
        name: name of a file or a folder.
        most: the most bytes it may have in UTF-8.
    """
    content = name.encode("utf-8", errors="surrogatepass")
    if len(content) <= most:
        return name
    beginning = content[: most - _DIGITS - 1].decode("utf-8", errors="ignore")
    return f"{beginning}~{hashlib.sha256(content).hexdigest()[:_DIGITS]}"


def cache_folder() -> Path:
    """Return lcbench's cache folder: $LCBENCH_CACHE, else one in the user's cache folder."""
    if chosen := os.environ.get("LCBENCH_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lcbench"


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of killed writers from `folder` (not from its subfolders).

    A temporary file of this machine whose process has ended is a leftover. Files of other machines
    are kept, since their processes cannot be checked from here. A folder that cannot be listed is
    left as it is: leftovers are harmless.
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
    """Return an unused name next to a file, for the file that will replace it."""
    return path.parent / f"{_prefix(path.name)}{secrets.token_hex(4)}.tmp"


def _prefix(name: str) -> str:
    """Return the beginning of the names of this process's temporary files."""
    process = os.getpid()
    name = shortened_name(name, _LONGEST_TEMPORARY_PART)
    return f".{name}@{short_name()}~{process}~{start_time_of(process) or ''}."


def _fsync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the file system supports that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
