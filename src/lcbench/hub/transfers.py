"""Limits on responses of a hub: none longer than announced, none too slow.

The hub's client gives up on a server that is silent for ten seconds, but would read a byte per
second for years, and an endless body until the disk is full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx2

from lcbench.system import thirdparty

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# A network that stays below this many bytes per second for this many seconds counts as failed.
_SLOWEST = 1024.0
_WINDOW_SECONDS = 30.0
# A small file may be longer when compressed.
_SLACK_BYTES = 65_536


def api() -> HfApi:
    """Return a client of the hub with these limits, which apply to all clients from now on.

    It raises, in addition to the client's own errors:
        TimeoutError: less than 1 KiB per second was received for half a minute.
        OSError: a body is longer than announced in the response to HEAD.
    """
    from huggingface_hub import HfApi

    _set_limits()
    return HfApi()


@lru_cache(maxsize=1)
def _set_limits() -> None:
    from huggingface_hub import set_client_factory

    def client() -> httpx2.Client:
        limited = thirdparty.hub_client()
        limits = _Limits()
        limited.event_hooks["response"].append(limits.apply)
        return limited

    set_client_factory(client)


class _Limits:
    """The sizes announced in responses to HEAD, by a file's address."""

    def __init__(self) -> None:
        self._bytes: dict[str, int] = {}

    def apply(self, response: httpx2.Response) -> None:
        """Make a body raise when it exceeds the limits while being read."""
        address = response.request.url
        elsewhere = response.headers.get("Location")
        announced = self._bytes.get(str(address))
        if response.request.method == "HEAD":
            # The hub has a separate header for the size of a file on another host.
            length = response.headers.get("X-Linked-Size") or (
                None if elsewhere else response.headers.get("Content-Length")
            )
            announced = int(length) if length and length.isdecimal() else None
        if announced is not None:
            self._bytes[str(address)] = announced
            if elsewhere:
                self._bytes[str(address.join(elsewhere))] = announced
        if isinstance(response.stream, httpx2.SyncByteStream):
            response.stream = _Limited(response.stream, str(address.host), announced)


class _Limited(httpx2.SyncByteStream):
    """A body that raises beyond its limits."""

    def __init__(self, body: httpx2.SyncByteStream, host: str, announced: int | None) -> None:
        self._body = body
        self._host = host
        self._announced = announced

    def __iter__(self) -> Iterator[bytes]:
        body = iter(self._body)
        came, came_lately, waited = 0, 0, 0.0
        while True:
            began = time.monotonic()
            part = next(body, None)
            # Time that the reader spends, on a slow disk, does not count.
            waited += time.monotonic() - began
            if part is None:
                return
            came += len(part)
            came_lately += len(part)
            if self._announced is not None and came > self._announced + _SLACK_BYTES:
                raise OSError(
                    f"damaged: {self._host} sends more than the {self._announced} bytes that it "
                    "announced"
                )
            if waited >= _WINDOW_SECONDS:
                if came_lately < _SLOWEST * waited:
                    raise TimeoutError(
                        f"{self._host} has sent {came_lately} bytes in {waited:.0f} seconds; the "
                        "network, a proxy, or the hub that HF_ENDPOINT names is at fault"
                    )
                came_lately, waited = 0, 0.0
            yield part

    def close(self) -> None:
        self._body.close()
