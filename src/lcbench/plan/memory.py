"""How much memory a model takes, before it is loaded: weights, and what is in flight."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.encode.batch_size import WITHOUT_LIMIT, tokens_of_batch
from lcbench.errors import RequestError
from lcbench.system.cards import MEMORY
from lcbench.system.hardware import memory_gib
from lcbench.system.words import gib

if TYPE_CHECKING:
    from lcbench.hub.models import Dimensions
    from lcbench.plan.machine import Machine
    from lcbench.repair.repair import Repair

_GIB = 2**30
# The interpreter with torch, transformers and mteb; on a GPU its context and kernels.
_LIBRARIES = 0.7
_ITEM_BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
# On a CPU, oneDNN keeps copies of float32 weights in its own layout, if they are no larger.
_LARGEST_COPY = 2**30
# Tensors of a token that exist at once: as wide as the model (the stream, the normalised one, what
# is added), as the queries (queries, keys, values, their output) and as the feed-forward network.
_WIDE, _ATTENDED, _INNER = 4, 4, 2
# Of attention that is computed as a whole, the copies of [heads, tokens, tokens].
_WHOLE_COPIES = 3


@dataclass(frozen=True)
class Memory:
    """The memory that a model takes on its device, in GiB.

    Attributes:
        weights: of the model, with the copies that the engine keeps.
        batches: what is in flight of all batches that are computed at once.
        least: of the weights alone and one text, below which it cannot run.
        available: what the device has; None: unknown.
        tokens: length of the longest texts that this is for.
    """

    weights: float
    batches: float
    least: float
    available: float | None
    tokens: int

    @property
    def needed(self) -> float:
        """All of it, with the libraries."""
        return self.weights + self.batches + _LIBRARIES

    @property
    def fits(self) -> bool:
        """Whether the device has the least that it takes, as far as that is known.

        What is needed beyond that is an estimate, and batches get smaller where memory runs out.
        """
        return self.available is None or self.least <= self.available

    def __str__(self) -> str:
        """Return it in words."""
        of = "" if self.available is None else f" of {gib(self.available)}"
        return (
            f"about {self.needed:,.1f}{of} GiB of memory: weights {self.weights:,.1f}, batches of "
            f"texts of {self.tokens:,} tokens {self.batches:,.1f}, libraries {_LIBRARIES}"
        )


def memory_of(
    known: Dimensions,
    machine: Machine,
    *,
    repairs: Iterable[Repair] = (),
    batch_tokens: int | None = None,
    card: str | None = None,
    spread: bool = False,
) -> Memory | None:
    """Return the memory that a model takes; None: its files do not say.

    Texts are taken to be as long as its window, of at most 512 tokens where it has no limit.

    Args:
        known: the model's dimensions.
        machine: the machine that it runs on.
        repairs: that it runs under; some read more tokens of a text.
        batch_tokens: tokens of a batch; None: as the engine chooses.
        card: a GPU of `system.cards` in the machine's place.
        spread: whether the model is spread over all GPUs of the machine.
    """
    layer = known.layer
    if layer is None or known.parameters is None:
        return None
    is_cpu = machine.kind == "cpu"
    size = _ITEM_BYTES[machine.dtype]
    windows = [known.window, *(one.encoding.window(known.window) for one in repairs)]
    tokens = max((one for one in windows if one is not None), default=WITHOUT_LIMIT)
    plain = weights = known.parameters * size
    in_layers = known.layers * layer.weights * size
    if is_cpu and size == 4 and in_layers <= _LARGEST_COPY:
        weights += in_layers
    widths = _WIDE * known.hidden + _ATTENDED * layer.attended + _INNER * layer.inner
    one_text = float(tokens * widths * size)
    if layer.whole:
        one_text += _WHOLE_COPIES * layer.heads * tokens**2 * size
    lanes = machine.cores if is_cpu else 2
    available = _available(machine, card, spread=spread)
    room = None if available is None else (available * _GIB - plain) * tokens / one_text
    planned = batch_tokens or tokens_of_batch(machine.kind, known.hidden, tokens, lanes, room=room)
    return Memory(
        weights=weights / _GIB,
        batches=lanes * one_text * max(1, planned / tokens) / _GIB,
        least=(plain + one_text) / _GIB,
        available=available,
        tokens=tokens,
    )


def check_memory(name: str, memory: Memory | None, dtype: str) -> None:
    """Check that a model can fit into the memory of its device.

    Args:
        name: the model's name.
        memory: what it takes; None: unknown.
        dtype: dtype of the protocol.

    Raises:
        RequestError: its weights and one text do not.
    """
    if memory is None or memory.available is None or memory.fits:
        return
    remedies = ["a device with more memory"]
    if _ITEM_BYTES[dtype] > 2:
        remedies.insert(0, "protocol.dtype=bfloat16")
    if memory.weights < memory.available:
        remedies.insert(0, "a smaller model.window")
    raise RequestError(
        f"{name} takes {memory}. Its weights and one text of {memory.tokens:,} tokens alone take "
        f"{gib(memory.least)} GiB. Take {' or '.join(remedies)}."
    )


def _available(machine: Machine, card: str | None, *, spread: bool) -> float | None:
    if card is not None:
        # Of several there is more, but nobody has said how many.
        return None if spread else MEMORY[card]
    if machine.kind == "cpu":
        return memory_gib()
    if machine.kind == "cuda":
        import torch

        if torch.cuda.is_available():
            devices = range(torch.cuda.device_count()) if spread else [machine.device]
            whole = sum(torch.cuda.get_device_properties(one).total_memory for one in devices)
            return whole / _GIB
    return None
