"""Classifies exceptions: transient failures, full disks, and failures of a GPU.

Of a GPU's failures some mean that its memory is in use, others that this process can compute
nothing more on it.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from lcbench.errors import StorageError

Found = TypeVar("Found")

# Errors of a network or a shared file system that is unreachable for a moment.
_TRANSIENT_ERRNOS = (
    errno.ESTALE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
)
# Errors of a network file system whose server was restarted, and the delays between tries.
_UNREACHABLE_ERRNOS = (errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT)
_BACKOFF_SECONDS = (0.2, 1.0, 5.0)
# Messages about memory: torch has its own exception for its CUDA allocator only. CUDA's libraries
# cannot create a handle without memory for its workspace, and a GPU may be in exclusive use by
# another process for a while.
_OUT_OF_MEMORY = (
    "out of memory",
    "defaultcpuallocator",
    "can't allocate memory",
    "_status_alloc_failed",
    "_status_not_initialized",
    "busy or unavailable",
)
# The same for processes and threads: there may be more the next time.
_NO_THREADS = ("can't start new thread",)
# Beginnings of messages of CUDA and AMD's HIP; from torch 2.8 on an AcceleratorError.
_DEVICE_ERRORS = ("cuda error:", "cuda driver error:", "hip error:")
# A library has refused a call, which leaves the device intact …
_LIBRARY_ERRORS = re.compile("cu[a-z]+_status_|hipblas_status_")
# … except for this one: the kernel itself has failed.
_KERNEL_FAILED = "_status_execution_failed"
# Calls that CUDA refuses without further damage. After anything else (an illegal access, an
# uncorrectable memory error, a lost GPU) every later call fails as well.
_REFUSED_CALLS = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device",
    "invalid resource handle",
    "no kernel image",
    # What a stream does not take while it is captured; the words vary.
    "captur",
)
# Packages whose exceptions are all about the network.
_NETWORK_LIBRARIES = frozenset({"requests", "urllib3", "httpx", "httpcore", "aiohttp"})
# Statuses of a server that is busy or failing: RFC 9110, RFC 6585.
_RETRY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


def is_transient(error: BaseException) -> bool:
    """Return whether an exception or one of its causes may not recur: memory, processes, network.

    Bad data, a wrong request or a bug would fail again in the same way.
    """
    return any(map(_is_transient_itself, _causes(error)))


def is_full(error: BaseException) -> bool:
    """Return whether an exception or one of its causes means a full or read-only disk."""
    return any(
        isinstance(one, StorageError)
        or (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        for one in _causes(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception itself means that a device is out of memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and _mentions(error, _OUT_OF_MEMORY)


def is_of_device(error: BaseException) -> bool:
    """Return whether an exception or one of its causes is about a device or its memory.

    Then nothing can be concluded about the computation itself.
    """
    return any(is_out_of_memory(one) or _is_loss(one) for one in _causes(error))


def device_loss_in(error: BaseException) -> BaseException | None:
    """Return the exception, among one and its causes, that means a lost device; else None.

    This process can compute nothing more on the device then; another process may.
    """
    return next(filter(_is_loss, _causes(error)), None)


def with_retries(do: Callable[[], Found]) -> Found:
    """Call a function, and retry while a shared file system is unreachable.

    Raises:
        OSError: the function's last error, or any other.
    """
    for seconds in _BACKOFF_SECONDS:
        try:
            return do()
        except OSError as error:
            if error.errno not in _UNREACHABLE_ERRNOS:
                raise
            time.sleep(seconds)
    return do()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_transient_itself(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return status in _RETRY_STATUSES
    # Exceeding the limit of processes is a BlockingIOError.
    if isinstance(error, MemoryError | ConnectionError | TimeoutError | BlockingIOError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    kind = type(error)
    if kind.__module__.partition(".")[0] in _NETWORK_LIBRARIES:
        return True
    return is_out_of_memory(error) or (
        isinstance(error, RuntimeError) and _mentions(error, _NO_THREADS)
    )


def _is_loss(error: BaseException) -> bool:
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    text = str(error).lower()
    of_device = type(error).__name__ == "AcceleratorError" or text.startswith(_DEVICE_ERRORS)
    # Further lines may be of a stack.
    told = text.partition("\n")[0]
    if not of_device or any(one in told for one in _REFUSED_CALLS):
        return False
    return _KERNEL_FAILED in text or not _LIBRARY_ERRORS.search(text)


def _mentions(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(one in text for one in words)
