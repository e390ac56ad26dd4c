"""How long a device takes: seconds of work, rates of matrix products and of copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Measured for so long, after one call that does not count.
_SECONDS = 0.3
_QUICK_SECONDS = 0.05


def wait_for(device: str) -> None:
    """Return when the device has done what it was given."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Return the seconds that work takes until the device is done with it."""
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


def best_seconds(work: Callable[[], object], device: str, *, quick: bool) -> float:
    """Return the least seconds of many calls, so that another process's moments do not count."""
    seconds_of(work, device)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < (_QUICK_SECONDS if quick else _SECONDS):
        best = min(best, seconds_of(work, device))
    return best


def product_rate(
    device: str, dtype: str, sizes: tuple[int, int, int], *, quick: bool = False
) -> float:
    """Return the operations a second of a matrix product.

    Args:
        device: that multiplies.
        dtype: of the matrices; `tf32`: float32, multiplied in TF32 where the device can.
        sizes: rows, inner and columns of [rows, inner] × [inner, columns].
        quick: measure for a moment only.
    """
    import torch

    rows, inner, columns = sizes
    kind = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    left = torch.randn(rows, inner, device=device, dtype=kind)
    right = torch.randn(inner, columns, device=device, dtype=kind)
    # Into a matrix that is there: the allocator has no part in it.
    product = torch.empty(rows, columns, device=device, dtype=kind)
    with fp32_precision("high" if dtype == "tf32" else "highest"):
        seconds = best_seconds(lambda: torch.mm(left, right, out=product), device, quick=quick)
    return 2 * rows * inner * columns / seconds


@contextmanager
def fp32_precision(name: str) -> Iterator[None]:
    """Set how torch multiplies float32: `highest` is IEEE, `high` TF32 where there is such."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def cudnn_attention(enabled: bool) -> Iterator[None]:
    """Let torch choose cuDNN's attention, as it does unless told otherwise, or not."""
    import torch

    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(enabled)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def copy_rates(device: str, *, quick: bool) -> dict[str, float]:
    """Return bytes a second of copies: on the device, and from page-locked memory to it."""
    import torch

    size = 2**22 if quick else 2**29
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.empty(size, dtype=torch.uint8, pin_memory=device.startswith("cuda"))

    def rate(origin: Any) -> float:
        return size / best_seconds(lambda: target.copy_(origin), device, quick=quick)

    # A copy on the device reads and writes each byte.
    return {"on the device": 2 * rate(source), "from the host": rate(host)}
