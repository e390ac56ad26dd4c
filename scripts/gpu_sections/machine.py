"""Section 1: what the machine is, how fast it multiplies and copies, which kernels torch takes."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gpu_sections.check import NEEDS_CUDA, Check
from gpu_sections.timing import copy_rates, product_rate

_DISTRIBUTIONS = (
    *("torch", "transformers", "sentence-transformers", "tokenizers", "huggingface-hub"),
    *("numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "datasets", "mteb", "flash-attn"),
)
# Either makes float32 products TF32, whatever a program asks for.
TF32_VARIABLES = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
# A large square product, and bge-base's feed-forward part of a batch of 65,536 tokens.
_PRODUCTS = ((8192, 8192, 8192), (65536, 768, 3072))
_QUICK_PRODUCTS = ((256, 256, 256), (1024, 64, 256))
_DTYPES = ("bfloat16", "float16", "tf32", "float32")
# What an H100 with HBM3 multiplies in bf16 at least, operations a second; a card that is slower
# than that is throttled or shared. Other cards are only measured.
_LEAST_BF16 = {"H100 80GB HBM3": 700e12, "H200": 700e12}
# Of bge-base's attention at 512 tokens: batch, heads, tokens, size of a head.
_ATTENTION = (16, 12, 512, 64)
_QUICK_ATTENTION = (2, 4, 64, 64)


def run(check: Check) -> None:
    """Measure the machine."""
    with check.part("versions"):
        _say_versions(check)
    with check.part("card"):
        _say_card(check)
    with check.part("precision"):
        _say_precision(check)
    with check.part("attention kernels"):
        for dtype in ("float32", "bfloat16"):
            for mask in (False, True):
                where = f"attention kernels, {dtype}, {'mask' if mask else 'no mask'}"
                check.measure(where, ", ".join(kernels_of_attention(check, dtype, mask=mask)))
    with check.part("copies"):
        for where, rate in copy_rates(check.device, quick=check.quick).items():
            check.measure(f"copy {where}, GB/s", rate / 1e9)
    for sizes in _QUICK_PRODUCTS if check.quick else _PRODUCTS:
        for dtype in _DTYPES:
            name = f"product {'×'.join(map(str, sizes))}, {dtype}, TFLOP/s"
            with check.part(name):
                rate = product_rate(check.device, dtype, sizes, quick=check.quick)
                check.measure(name, rate / 1e12)
                if dtype == "bfloat16" and sizes == _PRODUCTS[0]:
                    _require_rate(check, rate)


def _say_versions(check: Check) -> None:
    check.measure("python", platform.python_version())
    for name in _DISTRIBUTIONS:
        try:
            check.measure(name, version(name))
        except PackageNotFoundError:
            check.measure(name, "not installed")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    check.measure("cores", cores)


def _say_card(check: Check) -> None:
    import torch

    if not check.cuda:
        check.measure("card", "no GPU, the CPU")
        check.measure("driver, clocks and power", NEEDS_CUDA)
        return
    properties = torch.cuda.get_device_properties(check.device)
    check.measure("card", properties.name)
    check.measure("memory, GiB", properties.total_memory / 2**30)
    check.measure("memory that is free, GiB", torch.cuda.mem_get_info(check.device)[0] / 2**30)
    check.measure("multiprocessors", properties.multi_processor_count)
    check.measure("compute capability", f"{properties.major}.{properties.minor}")
    check.measure("CUDA that torch was built with", torch.version.cuda)
    check.measure("cuDNN", torch.backends.cudnn.version())
    try:
        import pynvml
    except ImportError:
        check.measure("driver, clocks and power", "skipped: needs nvidia-ml-py")
        return
    pynvml.nvmlInit()
    check.measure("driver", pynvml.nvmlSystemGetDriverVersion())
    check.measure("clock, MHz", torch.cuda.clock_rate(check.device))
    check.measure("power, W", torch.cuda.power_draw(check.device) / 1000)


def _say_precision(check: Check) -> None:
    import torch

    check.measure("float32 products", torch.get_float32_matmul_precision())
    check.measure(
        "fp32_precision of cuBLAS",
        str(getattr(torch.backends.cuda.matmul, "fp32_precision", "not known to this torch")),
    )
    for name in TF32_VARIABLES:
        check.measure(name, os.environ.get(name, "not set"))


def _require_rate(check: Check, rate: float) -> None:
    import torch

    name = torch.cuda.get_device_name(check.device) if check.cuda else ""
    least = max((rate for card, rate in _LEAST_BF16.items() if card in name), default=0.0)
    check.require(
        rate >= least, f"bf16 at {rate / 1e12:.0f} TFLOP/s; this card does {least / 1e12:.0f}"
    )


def kernels_of_attention(check: Check, dtype: str, *, mask: bool) -> list[str]:
    """Return the operators (on a GPU: the kernels) that torch takes for one call of attention.

    Args:
        check: whose device computes.
        dtype: of queries, keys and values.
        mask: whether there is a mask, as for texts that are padded.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    shape = _QUICK_ATTENTION if check.quick else _ATTENTION
    query = torch.randn(shape, device=check.device, dtype=getattr(torch, dtype))
    allowed: Any = None
    if mask:
        allowed = torch.ones(shape[0], 1, shape[2], shape[2], dtype=torch.bool, device=check.device)
        allowed[0, :, :, shape[2] // 2 :] = False

    def attend() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=allowed)

    # Some kernels are built at their first call.
    attend()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if check.cuda else [])]
    with profile(activities=activities) as profiled:
        attend()
        if check.cuda:
            torch.cuda.synchronize(check.device)
    return sorted(_names(profiled.events(), on_device=check.cuda))


def _names(events: Iterable[Any], *, on_device: bool) -> set[str]:
    if on_device:
        return {event.name[:80] for event in events if str(event.device_type).endswith("CUDA")}
    return {event.name for event in events if "attention" in event.name}
