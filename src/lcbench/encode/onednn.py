"""Multiplies float32 states by weights with oneDNN on CPUs.

By default torch multiplies there with MKL, which is slower on AMD's processors, lays out the
weights anew in each call, and leaves the activation to a pass of its own. oneDNN gets the weights
laid out once, and computes GELU while a block of the product is in the cache. MiniLM becomes 1.1
to 1.3 times as fast on an AMD EPYC.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

from lcbench.encode.split import restore_products
from lcbench.system.thirdparty import onednn_layout, onednn_linear

# With more bytes of weights than this no copy of them is kept: they are laid out in each call.
_LARGEST_COPY = 2**30
# What architectures call a layer and the activation that alone reads what it returns.
_ACTIVATED = (("dense", "intermediate_act_fn"), ("lin1", "activation"))
# Rows with which a product is tried, and by how much it may differ from torch's, of the largest
# number in it. Measured: 7e-7.
_TRIED_ROWS = 33
_TOLERANCE = 1e-5


class Product:
    """Multiplies states by a layer's weights, and applies GELU where that follows."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, is_copied: bool = True
    ) -> None:
        """Lay out the weights.

        Args:
            weight: [out_features, in_features] in float32 on a CPU.
            bias: [out_features], or None.
            gelu: whether GELU is applied to the product.
            is_copied: whether the weights are laid out now, in a copy.
        """
        self._weight, self._bias, self._gelu = weight, bias, gelu
        self._laid_out = onednn_layout(weight) if is_copied else weight

    def __call__(self, states: Tensor) -> Tensor:
        """Return states @ weightᵀ + bias: [..., out_features] of states [..., in_features]."""
        if states.dtype != torch.float32 or not states.numel():
            return self.plain(states)
        return onednn_linear(states, self._laid_out, self._bias, gelu=self._gelu)

    def plain(self, states: Tensor) -> Tensor:
        """Return the same by torch's own product."""
        product = nn.functional.linear(states, self._weight, self._bias)
        return nn.functional.gelu(product) if self._gelu else product


def use_onednn(model: nn.Module, left_out: set[nn.Linear] | None = None) -> list[nn.Module]:
    """Make a model's float32 layers on a CPU multiply with oneDNN; return the changed modules.

    `split.restore_products` undoes it.

    None is changed where oneDNN is missing, or a product differs from torch's.

    Args:
        model: the model.
        left_out: layers that stay as they are.
    """
    linears = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and is_used(module.weight)
        and module not in (left_out or set())
    ]
    is_copied = sum(linear.weight.nbytes for linear in linears) <= _LARGEST_COPY
    activations = _activations(model)
    changed: list[nn.Module] = []
    tried: set[tuple[Any, ...]] = set()
    for linear in linears:
        activation = activations.get(linear)
        bias: Tensor | None = linear.bias
        with torch.no_grad():
            product = Product(
                linear.weight.detach(),
                None if bias is None else bias.detach(),
                gelu=activation is not None,
                is_copied=is_copied,
            )
            kind = (linear.weight.shape, bias is None, activation is None)
            if kind not in tried and not _agrees(product, linear.in_features):
                restore_products(changed)
                return []
        tried.add(kind)
        linear.forward = product  # type: ignore[method-assign, assignment]
        changed.append(linear)
        if activation is not None:
            activation.forward = _unchanged
            changed.append(activation)
    return changed


def is_used(weight: Tensor) -> bool:
    """Return whether oneDNN multiplies by weights: in float32 on a CPU for which torch has it."""
    return (
        weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
    )


def _activations(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Return the GELU, in its exact form, that follows each layer which one follows."""
    from transformers.activations import GELUActivation

    found: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        for first, second in _ACTIVATED:
            linear, activation = getattr(module, first, None), getattr(module, second, None)
            if (
                isinstance(linear, nn.Linear)
                and type(activation) is GELUActivation
                and activation.act is nn.functional.gelu
            ):
                found[linear] = activation
    # One that several layers share would have to be both there and not.
    shared = [one for one in found.values() if sum(other is one for other in found.values()) > 1]
    return {linear: one for linear, one in found.items() if one not in shared}


def _agrees(product: Product, width: int) -> bool:
    """Return whether a product is torch's own, but for rounding."""
    states = torch.randn(_TRIED_ROWS, width, generator=torch.Generator().manual_seed(0))
    try:
        found = product(states)
    except (RuntimeError, AttributeError):
        return False
    expected = product.plain(states)
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _unchanged(states: Tensor) -> Tensor:
    return states
