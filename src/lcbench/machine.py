"""This machine and its processes, told apart from others that call themselves the same.

Containers may share a host's name and have process numbers of their own; numbers are used again.
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
    """Return what tells this machine, this boot of it, and these process numbers from others.

    None where the system does not say, or says it of other process numbers than this process has.
    """
    if _has_others_proc():
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def short_name() -> str:
    """Return eight digits that stand for this machine in the name of a file."""
    told = machine() or socket.gethostname()
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def start_of(process: int) -> str | None:
    """Return when a process was started, in the system's own terms; None: it is not known."""
    if _has_others_proc():
        return None
    fields = _stat(process)
    return None if fields is None else fields[19]


def lives(process: int, started: str | None) -> bool | None:
    """Whether a process of this machine that began then lives; None: the system does not say.

    One that has ended and that nobody has asked about yet (a zombie) does not.
    """
    if _has_others_proc():
        return None
    fields = _stat(process)
    if fields is not None:
        return fields[0] not in "ZX" and (started is None or fields[19] == started)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Another user's, and /proc shows only one's own.
        return None
    return None


def descendants(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have, if that is known.

    One whose parent has ended is not among them.
    """
    if _has_others_proc():
        return []
    children: dict[int, list[int]] = {}
    with suppress(OSError):
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and (fields := _stat(int(path.name))):
                children.setdefault(int(fields[1]), []).append(int(path.name))
    found = [process]
    for one in found:
        found += children.pop(one, [])
    return found[1:]


@lru_cache(maxsize=1)
def _has_others_proc() -> bool:
    """Whether /proc has other process numbers than this process is called by.

    So it is in a namespace of process numbers that has no /proc of its own (`unshare --pid` without
    `--mount-proc`): a live process's number means another one there, or none.
    """
    try:
        return str(Path("/proc/self").readlink()) != str(os.getpid())
    except OSError:
        # There is no /proc: nobody's numbers are read from it.
        return False


def _stat(process: int) -> list[str] | None:
    try:
        line = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before it may contain anything, brackets and spaces too.
    fields = line.rpartition(")")[2].split()
    return fields if len(fields) >= 20 else None
