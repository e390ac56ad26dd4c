"""The device that an estimate assumes where another than this machine's is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.system.cards import CARDS

if TYPE_CHECKING:
    from lcbench.settings.schema import LaunchSettings

# Of a card's rate, what encoding comes to: assumed, never measured. A forward pass is products and
# attention, of which only the former come near that rate, and what else is done waits for memory.
# In float32 products take most of the time; in the lower precisions they are over sooner, and
# models of 384 dimensions make less of them than those of 768.
_UTILISATION = {"float32": 0.6, "tf32": 0.3, "float16": 0.3, "bfloat16": 0.3}


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
    is_gpu = launch.jobs.gpus is not None or launch.card is not None
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
