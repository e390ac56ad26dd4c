"""The device that an estimate assumes instead of this machine's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.system.cards import CARDS

if TYPE_CHECKING:
    from lcbench.settings.schema import LaunchSettings

# The share of a card's rate that encoding reaches: assumed, never measured. Of a forward pass only
# matrix products come near that rate; the rest is limited by memory bandwidth. In float32 products
# dominate; in lower precisions they take less of the time, and so do they in small models.
_UTILISATION = {"float32": 0.6, "tf32": 0.3, "float16": 0.3, "bfloat16": 0.3}


@dataclass(frozen=True)
class Assumed:
    """A device other than this machine's.

    Attributes:
        tflops: rate sustained while encoding, in 10¹² operations per second.
        is_gpu: whether it is a GPU.
        name: name in an estimate.
        source: origin of its rate, in words.
    """

    tflops: float
    is_gpu: bool
    name: str
    source: str


def assumed(launch: LaunchSettings | None, dtype: str) -> Assumed | None:
    """Return the device that a request is estimated for; None for this machine's.

    Args:
        launch: `tflops`, a known rate, takes precedence over `card`, a data sheet's rate.
        dtype: dtype of the protocol.

    Raises:
        RequestError: the card does not have the dtype.
    """
    if launch is None or (launch.tflops is None and launch.card is None):
        return None
    is_gpu = launch.jobs.gpus is not None or launch.card is not None
    if launch.tflops is not None:
        name = f"a device of {launch.tflops:g} TFLOP/s"
        return Assumed(launch.tflops, is_gpu, name, "from launch.tflops")
    card = str(launch.card)
    peak = CARDS[card].get(dtype)
    if peak is None:
        raise RequestError(
            f"launch.card={card}: it has no units for {dtype} (protocol.dtype), only for "
            f"{', '.join(CARDS[card])}. If you know its sustained rate, set launch.tflops"
        )
    used = _UTILISATION[dtype]
    share = f"{100 * used:g} % of the {peak:g} TFLOP/s"
    source = f"(estimated: at {share} that its data sheet gives for {dtype})"
    return Assumed(peak * used, is_gpu, f"one GPU ({card})", source)
