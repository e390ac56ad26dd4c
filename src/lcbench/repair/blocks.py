"""Finds the LayerNorms and the feed-forward outputs in the layers of a transformer.

The feed-forward output is found from the computation: a layer adds two branches to the residual
stream, the attention and then the feed-forward network. A layer that computes something else is
refused. A LayerNorm or RMSNorm is a module of a class with such a name that returns states of the
stream's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from lcbench.errors import InjectionError
from lcbench.tempscale.prove import probe_batch
from lcbench.tempscale.transformer import blocks_of

SUMS = {
    torch.add,
    Tensor.add,
    Tensor.add_,
    Tensor.__add__,
    Tensor.__radd__,
    Tensor.__iadd__,
}
"""The functions that add tensors."""

# Norms of queries and keys scale logits, as a temperature does.
_QUERY_AND_KEY = ("q_norm", "k_norm", "query_norm", "key_norm", "q_layernorm", "k_layernorm")


@dataclass(frozen=True)
class Call:
    """A module that returned states of the stream's shape.

    Attributes:
        name: name of the module in the transformer.
        module: the module.
        entering: copy of its argument, if that is one tensor.
        leaving: copy of what it returned, after its hooks.
        returned: the tensor that it returned.
    """

    name: str
    module: nn.Module
    entering: Tensor | None
    leaving: Tensor
    returned: Tensor


@dataclass
class Block:
    """What a layer of the transformer computed for the probe batch.

    Attributes:
        name: name of the layer.
        shape: shape of the residual stream.
        calls: modules in the order in which they returned.
        sums: terms of the sums along the stream, as copies, with their addresses.
    """

    name: str
    shape: torch.Size
    calls: list[Call] = field(default_factory=list)
    sums: list[tuple[tuple[int, Tensor], tuple[int, Tensor]]] = field(default_factory=list)

    @property
    def norms(self) -> list[Call]:
        """The LayerNorms of the layer, without those of queries and keys."""
        return [
            call
            for call in self.calls
            if type(call.module).__name__.endswith(("LayerNorm", "RMSNorm"))
            and isinstance(getattr(call.module, "weight", None), nn.Parameter)
            and call.name.rpartition(".")[2] not in _QUERY_AND_KEY
        ]

    @property
    def feed_forward(self) -> tuple[Call, Tensor] | None:
        """The module whose output is the feed-forward branch, and what is added of it."""
        if len(self.sums) != 2:
            return None
        found = []
        for address, added in self.sums[-1]:
            # The innermost module returns first; dropout and the like pass its output on.
            for at, call in enumerate(self.calls):
                if call.returned.data_ptr() == address:
                    found.append((at, call, added))
                    break
        # The stream is computed before what is added to it.
        return max(found, key=lambda one: one[0])[1:] if found else None


class _Watch(TorchFunctionMode):
    """Records what happens in each layer while a model runs."""

    def __init__(self, transformer: PreTrainedModel) -> None:
        super().__init__()
        self._transformer = transformer
        self._block: Block | None = None
        self._hooks: list[Any] = []
        self.blocks: list[Block] = []

    def __enter__(self) -> _Watch:
        names = blocks_of(self._transformer)
        for name, module in self._transformer.named_modules():
            if name in names:
                self._hooks += [
                    module.register_forward_pre_hook(self._enter(name), with_kwargs=True),
                    module.register_forward_hook(self._leave),
                ]
            else:
                self._hooks.append(module.register_forward_hook(self._note(name)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        block = self._block
        if block is not None and func in SUMS and all(_is_of(block, one) for one in args[:2]):
            # Copies, since a sum may be written over one of its terms.
            first, second = ((one.data_ptr(), one.clone()) for one in args[:2])
            block.sums.append((first, second))
        return func(*args, **(kwargs or {}))

    def _enter(self, name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs.get("hidden_states")
            if isinstance(states, Tensor):
                self._block = Block(name, states.shape)

        return hook

    def _leave(self, *_: Any) -> None:
        if self._block is not None:
            self.blocks.append(self._block)
        self._block = None

    def _note(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._block is not None and _is_of(self._block, output):
                single = len(args) == 1 and isinstance(args[0], Tensor)
                entering = args[0].clone() if single else None
                # The tensor itself is kept as well, so that no other gets its address.
                call = Call(name, module, entering, output.clone(), output)
                self._block.calls.append(call)

        return hook


def _is_of(block: Block, tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.shape == block.shape


def run_blocks(transformer: PreTrainedModel) -> list[Block]:
    """Run a model over the probe batch, and return what each of its layers computed, in order.

    Raises:
        InjectionError: its layers are not found.
    """
    was_training = transformer.training
    transformer.eval()
    try:
        with torch.no_grad(), _Watch(transformer) as watch:
            transformer(**probe_batch(transformer))
    finally:
        transformer.train(was_training)
    expected = getattr(transformer.config, "num_hidden_layers", None)
    if len(watch.blocks) != expected:
        raise InjectionError(
            f"{type(transformer).__name__}: {len(watch.blocks)} layers were found where its "
            f"configuration has {expected}."
        )
    return watch.blocks
