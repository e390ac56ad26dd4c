"""Identifies this machine and its processes, also among containers with the same names.

Containers may share a host's name and have their own process ids, and process ids are reused.
"""

from __future__ import annotations

import hashlib
import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def machine() -> str | None:
    """Return an identifier of this machine, its boot and its process namespace.

    None if the system does not report it, or if /proc belongs to another process namespace.
    """
    if _has_foreign_proc():
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def short_name() -> str:
    """Return eight digits that identify this machine in file names."""
    identifier = machine() or socket.gethostname()
    return hashlib.sha256(identifier.encode()).hexdigest()[:8]


def start_time_of(process: int) -> str | None:
    """Return a process's start time as the system counts it, or None if unknown."""
    if _has_foreign_proc():
        return None
    fields = _stat(process)
    return None if fields is None else fields[19]


def lives(process: int, started: str | None) -> bool | None:
    """Return whether a process of this machine with that start time runs; None if unknown.

    A process that has ended but has not been waited for (a zombie) does not.
    """
    if _has_foreign_proc():
        return None
    fields = _stat(process)
    if fields is not None:
        return fields[0] not in "ZX" and (started is None or fields[19] == started)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Another user's process, where /proc shows only one's own.
        return None
    return None


def descendants(process: int) -> list[int]:
    """Return the direct and indirect child processes of a process, as far as known.

    Processes whose parent has ended are not included.
    """
    if _has_foreign_proc():
        return []
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and (fields := _stat(int(path.name))):
                children.setdefault(int(fields[1]), []).append(int(path.name))
    known = [process]
    for one in known:
        known += children.pop(one, [])
    return known[1:]


@lru_cache(maxsize=1)
def _has_foreign_proc() -> bool:
    """Return whether /proc belongs to another process namespace.

    A process namespace may have no /proc of its own (`unshare --pid` without `--mount-proc`): then
    a process id stands for another process there, or for none.
    """
    try:
        return str(Path("/proc/self").readlink()) != str(os.getpid())
    except OSError:
        # There is no /proc, so nothing is read from it.
        return False


def _stat(process: int) -> list[str] | None:
    try:
        line = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before it may contain anything, including brackets and spaces.
    fields = line.rpartition(")")[2].split()
    return fields if len(fields) >= 20 else None
