"""What GPUs can do by their makers' data sheets, for estimates of a machine that is not at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from lcbench.settings import LaunchSettings

# Of a card's rate, what encoding comes to: assumed, never measured. A forward pass is products and
# attention, of which only the former come near that rate, and what else is done waits for memory.
# In float32 products take most of the time; in the lower precisions they are over sooner, and
# models of 384 dimensions make less of them than those of 768.
_UTILISATION = {"float32": 0.6, "tf32": 0.3, "float16": 0.3, "bfloat16": 0.3}

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


@dataclass(frozen=True)
class Assumed:
    """A device that is not at hand.

    Attributes:
        tflops: what it sustains while it encodes, in 10¹² operations a second.
        is_gpu: whether it is a GPU.
        name: of it, as an estimate has it.
        source: where its rate comes from, in words.
    """

    tflops: float
    is_gpu: bool
    name: str
    source: str


def assumed(launch: LaunchSettings | None, dtype: str) -> Assumed | None:
    """Return the device that a request is estimated for; None: that of this machine.

    Args:
        launch: `tflops`, a rate that somebody knows, comes before `card`, a data sheet's.
        dtype: of the protocol.

    Raises:
        RequestError: the card does not have the dtype.
    """
    if launch is None or (launch.tflops is None and launch.card is None):
        return None
    is_gpu = launch.gpus is not None or launch.card is not None
    if launch.tflops is not None:
        name = f"a device of {launch.tflops:g} TFLOP/s"
        return Assumed(launch.tflops, is_gpu, name, "as launch.tflops says")
    card = str(launch.card)
    peak = CARDS[card].get(dtype)
    if peak is None:
        raise RequestError(
            f"launch.card={card}: its units do not compute in {dtype} (protocol.dtype). What it "
            f"has: {', '.join(CARDS[card])}. If you know what it sustains: launch.tflops"
        )
    used = _UTILISATION[dtype]
    share = f"{100 * used:g} % of the {peak:g} TFLOP/s"
    source = f"(estimated: at {share} that its data sheet gives for {dtype})"
    return Assumed(peak * used, is_gpu, f"one GPU ({card})", source)
