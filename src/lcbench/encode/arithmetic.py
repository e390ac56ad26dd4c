"""Sets the arithmetic of float32 products (IEEE 754 or TF32) and the attention kernels.

An NVIDIA GPU can round the factors of a float32 product to TF32, which keeps 10 of their 23 bits:
several times as fast, and embeddings differ by a thousandth. Torch does that only on request, but
the environment may request it (as in NVIDIA's containers), and a result would not show it. So it is
always set here, and recorded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lcbench.errors import RequestError

# A protocol's dtype: weights and activations in float32, whose products are taken in TF32.
TF32 = "tf32"
# Compute capability of Ampere, the first that has it: 8.0.
_FIRST_WITH_TF32 = 8
# By these, torch or CUDA's libraries take TF32 whatever the program has set …
_OVERRIDES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
# … but for these values. NVIDIA_TF32_OVERRIDE=0 forbids it, whatever the program has set.
_OFF = ("", "0")


def weights_dtype(dtype: str) -> str:
    """Return torch's name of the type of weights and activations under a protocol's dtype."""
    return "float32" if dtype == TF32 else dtype


def pin(dtype: str, device: str) -> None:
    """Set this process's arithmetic of float32 products, and its attention kernels.

    Half precision has products in float32 as well (rotary positions): in IEEE's.

    Args:
        dtype: dtype of the protocol.
        device: `cpu`, `cuda`, `cuda:1` …

    Raises:
        RequestError: the device has no TF32, or the environment says otherwise.
    """
    import torch

    on_gpu = device.startswith("cuda")
    if dtype == TF32:
        _refuse_without_tf32(device)
    if on_gpu:
        _refuse_overrides(dtype)
    torch.set_float32_matmul_precision("high" if dtype == TF32 else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == TF32
    if on_gpu:
        # It is preferred on Hopper, and builds a plan for each shape anew in each thread, tens of
        # milliseconds that are kept in memory for ever: nearly every batch here has another shape.
        torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """Compute float32 products by a protocol's dtype in this context."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == TF32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def facts(device: str) -> dict[str, Any]:
    """Return this process's arithmetic for a provenance file, as reported by torch.

    Args:
        device: that it uses; what only a GPU has is None on another.
    """
    import torch

    ieee = torch.get_float32_matmul_precision() == "highest"
    cuda = torch.backends.cuda
    enabled = {
        "flash": cuda.flash_sdp_enabled(),
        "mem_efficient": cuda.mem_efficient_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
    }
    kernels = [name for name, is_enabled in enabled.items() if is_enabled]
    return {
        "float32_products": "ieee" if ieee else TF32,
        "attention_kernels": kernels if device.startswith("cuda") else None,
    }


def _refuse_without_tf32(device: str) -> None:
    """Refuse a device without TF32.

    Raises:
        RequestError: naming it.
    """
    import torch

    remedy = "protocol=paper computes in float32."
    if not device.startswith("cuda"):
        raise RequestError(
            f"protocol.dtype={TF32}: only NVIDIA GPUs multiply in TF32, but this run uses "
            f"{device}. {remedy}"
        )
    if torch.cuda.get_device_capability(device)[0] < _FIRST_WITH_TF32:
        raise RequestError(
            f"protocol.dtype={TF32}: {torch.cuda.get_device_name(device)} is older than Ampere, "
            f"and has no TF32. {remedy}"
        )


def _refuse_overrides(dtype: str) -> None:
    """Refuse an environment that overrides what is set here.

    Raises:
        RequestError: naming the variable and the remedy.
    """
    if dtype == TF32:
        if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
            raise RequestError(
                f"NVIDIA_TF32_OVERRIDE=0 is set, which forbids protocol.dtype={TF32}: "
                "unset NVIDIA_TF32_OVERRIDE"
            )
        return
    for name in _OVERRIDES:
        value = os.environ.get(name, "")
        if value not in _OFF:
            raise RequestError(
                f"{name}={value} is set, so float32 products would be computed in TF32 regardless "
                f"of the protocol, and results would differ from those in float32. unset {name}, "
                f"or request TF32: protocol.dtype={TF32}"
            )
