"""Rates and memory of GPUs from their data sheets, to estimate runs on another machine."""

from __future__ import annotations

from collections.abc import Mapping

# 10¹² operations a second by dtype, without structured sparsity (where a data sheet has only the
# rate with it, half of that); without an entry: the card's units have no such type.
CARDS: Mapping[str, Mapping[str, float]] = {
    # "NVIDIA H100 Tensor Core GPU" data sheet, column H100 SXM; tensor rates there with sparsity.
    "h100": {"float32": 67.0, "tf32": 494.5, "float16": 989.5, "bfloat16": 989.5},
    # The first edition of the same, column H100 PCIe.
    "h100_pcie": {"float32": 51.0, "tf32": 378.0, "float16": 756.5, "bfloat16": 756.5},
    # "NVIDIA H200 Tensor Core GPU" data sheet, column H200 SXM; tensor rates there with sparsity.
    "h200": {"float32": 67.0, "tf32": 494.5, "float16": 989.5, "bfloat16": 989.5},
    # "NVIDIA A100 Tensor Core GPU" data sheet: the same for 40 and 80 GB, PCIe and SXM.
    "a100": {"float32": 19.5, "tf32": 156.0, "float16": 312.0, "bfloat16": 312.0},
    # "NVIDIA A40" data sheet.
    "a40": {"float32": 37.4, "tf32": 74.8, "float16": 149.7, "bfloat16": 149.7},
    # "NVIDIA A10 Tensor Core GPU" data sheet.
    "a10": {"float32": 31.2, "tf32": 62.5, "float16": 125.0, "bfloat16": 125.0},
    # "NVIDIA L40S" data sheet.
    "l40s": {"float32": 91.6, "tf32": 183.0, "float16": 362.0, "bfloat16": 362.0},
    # "NVIDIA L4 Tensor Core GPU" data sheet; tensor rates there with sparsity.
    "l4": {"float32": 30.3, "tf32": 60.0, "float16": 121.0, "bfloat16": 121.0},
    # "NVIDIA V100 Tensor Core GPU" data sheet, column V100 SXM2. Volta has float16 alone.
    "v100": {"float32": 15.7, "float16": 125.0},
    # "NVIDIA T4" data sheet. Turing has float16 alone.
    "t4": {"float32": 8.1, "float16": 65.0},
}

# Memory in GB of the same data sheets; of a card with two sizes, the smaller.
MEMORY: Mapping[str, float] = {
    "h100": 80.0,
    "h100_pcie": 80.0,
    "h200": 141.0,
    "a100": 40.0,
    "a40": 48.0,
    "a10": 24.0,
    "l40s": 48.0,
    "l4": 24.0,
    "v100": 16.0,
    "t4": 16.0,
}
