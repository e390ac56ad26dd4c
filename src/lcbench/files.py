"""Files that are written whole or not at all, and the folder for what can be made again."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from lcbench.errors import StorageError


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in the place of `path`.

    A reader sees the old file or the new one, never a part, also after SIGKILL or a power cut: the
    temporary file is fsynced before the rename and the folder after it. The price is one fsync a
    file (some milliseconds), and after SIGKILL a leftover `.<name>.*.tmp`, which nothing reads.
    The temporary name never ends in the suffix of `path`, so that no glob for results finds it.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files for their owner alone; results are to be read like any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}. "
            "Make room or mend the permissions, then run the same command again: "
            "what is finished is kept."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Where lcbench keeps what it can make again: $LCBENCH_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("LCBENCH_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lcbench"


def remove_leftovers(folder: Path, older_than: float) -> None:
    """Remove temporary files of `write_atomically` in `folder` last touched before `older_than`.

    Args:
        folder: searched without its subfolders.
        older_than: seconds since the epoch.
    """
    for leftover in folder.glob(".*.tmp"):
        try:
            if leftover.stat().st_mtime < older_than:
                leftover.unlink()
        except OSError:
            # Another process removed it first, or owns it: nothing reads it either way.
            continue


def _umask() -> int:
    """Return the process's umask; there is no way to read it without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
