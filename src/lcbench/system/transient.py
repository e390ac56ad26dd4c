"""Which failures may pass if the same is tried again, and which mean that a disk is full.

And those of a GPU: some say that others use its memory at present, some that this process can
compute nothing more on it.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from lcbench.errors import StorageError

Found = TypeVar("Found")

# What a network or a shared file system says that is away for a moment.
_PASSING = (
    errno.ESTALE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
)
# What a file system on another machine says when that was restarted, and how long to wait for it.
_AWAY = (errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT)
_MOMENTS = (0.2, 1.0, 5.0)
# What is said in words of memory: torch has an exception of its own for its CUDA allocator alone.
# CUDA's libraries cannot make a handle either where there is no memory left for its workspace, and
# a GPU may be another process's alone for a while.
_NO_MEMORY = (
    "out of memory",
    "defaultcpuallocator",
    "can't allocate memory",
    "_status_alloc_failed",
    "_status_not_initialized",
    "busy or unavailable",
)
# The same of processes and threads: there may be more the next time.
_NO_THREADS = ("can't start new thread",)
# How a failed call of CUDA, or of AMD's HIP, begins: from torch 2.8 on it is an AcceleratorError.
_OF_DEVICES = ("cuda error:", "cuda driver error:", "hip error:")
# A library's refusal of a call, which leaves the device as it was …
_OF_LIBRARIES = re.compile("cu[a-z]+_status_|hipblas_status_")
# … but for this one: the kernel itself has broken off.
_BROKEN_OFF = "_status_execution_failed"
# Calls that CUDA refuses, and goes on after. After all else (an illegal access, an uncorrectable
# memory error, a lost GPU) every later call fails as well, whatever it asks for.
_REFUSED = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device",
    "invalid resource handle",
    "no kernel image",
    "stream is capturing",
)
# Distributions all of whose exceptions are about the network.
_OF_NETWORKS = frozenset({"requests", "urllib3", "httpx", "httpcore", "aiohttp"})
# What a server answers that is busy, or not well: RFC 9110, RFC 6585.
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


def may_pass(error: BaseException) -> bool:
    """Whether an exception, or one that it came of, is about memory, processes or the network.

    Bad data, a wrong request, or a fault in the code fail again in the same way.
    """
    return any(map(_is_transient, _causes(error)))


def is_full(error: BaseException) -> bool:
    """Whether an exception, or one that it came of, says that a disk is full or not writable."""
    return any(
        isinstance(one, StorageError)
        or (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        for one in _causes(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception itself says that there is no memory left, on whichever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _says(error, _NO_MEMORY)


def is_of_device(error: BaseException) -> bool:
    """Whether an exception, or one that it came of, is about a device or its memory.

    What was computed there is not at fault: nothing is to be concluded from it.
    """
    return any(is_out_of_memory(one) or _is_loss(one) for one in _causes(error))


def loss_of(error: BaseException) -> BaseException | None:
    """Return what says, of an exception and those that it came of, that a device is lost.

    This process can compute nothing more on it then; another may.
    """
    return next(filter(_is_loss, _causes(error)), None)


def patiently(do: Callable[[], Found]) -> Found:
    """Return what something gives, tried again where a shared file system is away for a moment.

    Raises:
        OSError: whatever it raises else, or at last.
    """
    for seconds in _MOMENTS:
        try:
            return do()
        except OSError as error:
            if error.errno not in _AWAY:
                raise
            time.sleep(seconds)
    return do()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it came of."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_transient(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in _BUSY
    # A process more than the limit allows is a BlockingIOError.
    if isinstance(error, MemoryError | ConnectionError | TimeoutError | BlockingIOError):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    kind = type(error)
    if kind.__module__.partition(".")[0] in _OF_NETWORKS:
        return True
    return is_out_of_memory(error) or (
        isinstance(error, RuntimeError) and _says(error, _NO_THREADS)
    )


def _is_loss(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    text = str(error).lower()
    of_device = type(error).__name__ == "AcceleratorError" or text.startswith(_OF_DEVICES)
    if not of_device or _says(error, _REFUSED):
        return False
    return _BROKEN_OFF in text or not _OF_LIBRARIES.search(text)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(one in text for one in words)
