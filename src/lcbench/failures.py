"""Which failures may pass if the same is tried again, and which mean that a disk is full."""

from __future__ import annotations

import errno
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
# What is said in words of memory, and of processes and threads: there may be more the next time.
_SCARCE = ("out of memory", "can't allocate memory", "can't start new thread")
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
    # torch.OutOfMemoryError; other devices, and torch's allocator on a CPU, say it in words.
    text = str(error).lower()
    return kind.__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(words in text for words in _SCARCE)
    )
