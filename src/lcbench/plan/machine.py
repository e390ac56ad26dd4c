"""This machine for estimates: device, cores, and the rate of its matrix products."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from lcbench.encode.arithmetic import products_in, weights_dtype
from lcbench.encode.options import EngineSettings
from lcbench.system.hardware import cores, cpu_name
from lcbench.system.words import several

# The share of the matrix product's rate that encoding reaches on a CPU, by the width of a model:
# what else there is to compute takes a smaller part in wide ones. On two cores MiniLM (384) encodes
# at 113 to 138 GFLOP/s of 205, SmolLM2-135M (576) at 135 of 165, BERT base (768) at 166 of 169. It
# hardly depends on the length of texts: 119 to 137 GFLOP/s of MiniLM for Massive's 9 tokens, 13 of
# STS13, 16 of Banking77, 22 of Emotion and QMSum's 104.
_EFFICIENCY = ((384, 0.65), (768, 0.95))
# Rows of the multiplied matrices, as many as a batch has tokens, and seconds of measurement. For
# models wider than BERT they are fewer, so that a product takes as long: on two cores one of 4,096
# rows and columns would take four seconds.
_ROWS = {"cpu": 4096, "cuda": 65536}
_WIDTH, _LEAST_ROWS = 768, 256
_MEASURED_SECONDS = 0.5

# Device files without which torch finds no GPU: NVIDIA's, those of WSL, and AMD's.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True)
class Machine:
    """The machine that a run is on.

    Attributes:
        name: name of its processor or GPU.
        device: device that a run uses.
        cores: number of cores that this process may use.
        dtype: dtype of the weights.
    """

    name: str
    device: str
    cores: int
    dtype: str

    @property
    def kind(self) -> str:
        """The kind of device: `cpu`, `cuda` …"""
        return self.device.partition(":")[0]

    @property
    def is_gpu(self) -> bool:
        """Whether a run uses an NVIDIA or AMD GPU."""
        return self.kind == "cuda"

    @property
    def key(self) -> str:
        """The key of measured rates."""
        return f"{self.name}|{self.cores} cores|{self.kind}|{self.dtype}"

    def efficiency(self, hidden: int) -> float | None:
        """Return the share of the matrix product's rate that encoding reaches in a model.

        Args:
            hidden: width of the model.

        Returns:
            None: it was never measured for this kind of device.
        """
        if self.kind != "cpu":
            return None
        (narrow, least), (wide, most) = _EFFICIENCY
        place = (hidden - narrow) / (wide - narrow)
        return least + (most - least) * min(1.0, max(0.0, place))

    def __str__(self) -> str:
        """Return it in words."""
        if self.kind == "cpu":
            return several(self.cores, "core")
        return self.name


def machine_of(engine: EngineSettings, dtype: str) -> Machine:
    """Return the machine of a run; imports torch only if there may be a GPU.

    Raises:
        RequestError: torch does not find the device here.
    """
    device = engine.device
    if device == "auto" and not any(Path(one).exists() for one in _GPU_FILES):
        # Apple's GPU is used only on request.
        device = "cpu"
    if device != "cpu":
        from lcbench.system.hardware import device_of

        device = device_of(engine.device)
    name = cpu_name() or device
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    return Machine(name, device, _cores(), dtype)


def _cores() -> int:
    """Return the number of cores that torch uses in this process."""
    count = cores()
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(limit)) if limit.isdigit() and int(limit) else count


@lru_cache(maxsize=8)
def matmul_rate(device: str, dtype: str, hidden: int) -> float:
    """Return the operations per second of a matrix product as in a layer of that width.

    It is the best of half a second's measurements, so that other processes matter less.
    """
    import torch
    from torch.nn.functional import linear

    from lcbench.encode.onednn import Product, is_used

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    rows = _rows(device.partition(":")[0], hidden)
    kind = getattr(torch, weights_dtype(dtype))
    # Drawn on the CPU: a GPU's generator may be out of order after a failed CUDA graph.
    left, weight = (
        torch.randn(size, hidden).to(device=device, dtype=kind) for size in (rows, 4 * hidden)
    )
    multiply = Product(weight, None) if is_used(weight) else partial(linear, weight=weight)
    best = float("inf")
    with products_in(dtype):
        # The first is slower: threads start, kernels are chosen.
        multiply(left)
        wait()
        began = time.perf_counter()
        while time.perf_counter() - began < _MEASURED_SECONDS:
            started = time.perf_counter()
            multiply(left)
            wait()
            best = min(best, time.perf_counter() - started)
    return 2 * rows * hidden * 4 * hidden / best


def _rows(kind: str, hidden: int) -> int:
    """Return the rows of a measured product for a model's width."""
    rows = _ROWS.get(kind, _ROWS["cpu"])
    return max(_LEAST_ROWS, rows * _WIDTH**2 // max(_WIDTH, hidden) ** 2)
