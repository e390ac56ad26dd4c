"""Attention at a temperature: the functions that replace those of layers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lcbench.errors import InjectionError
from lcbench.system.thirdparty import attention_implementation
from lcbench.tempscale.layer_change import Attention, change_of
from lcbench.tempscale.observe import Observer, observe_attention
from lcbench.tempscale.policy import Role, Temperature
from lcbench.tempscale.prove import (
    Call,
    active_probe,
    inside,
    largest_logit,
    probe_mask,
    reference_weights,
)
from lcbench.tempscale.unpadded import attended_keys, text_of_token

# The eager attention function is no entry of the interface: each modelling file hands in its own.
# A model on it gets this name while it is injected, which the interface does know.
EAGER = "tempscale_eager"

LAYER_ATTRIBUTE = "_lcbench_layer"

PRODUCTS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {}
"""Implementations whose logits are not scale · QKᵀ: what a layer has instead of QKᵀ.

A function of the layer and its queries and keys, [batch, heads, tokens, size] each.
"""


class ActiveInjection(Protocol):
    """Defines what an attention layer needs of its injection (`inject.Injection`).

    Attributes:
        keeps_bias: whether a position bias is left undivided.
        observer: receives the attention of each layer; None: not observed.
    """

    keeps_bias: bool
    observer: Observer | None

    def temperature(self, layer: Layer) -> float | Tensor:
        """Return the temperature of a layer in this run, which divides its queries or logits."""

    def exact_temperatures(self, layer: Layer) -> tuple[tuple[float, ...], ...]:
        """Return it as it was requested, by text and head where these differ."""

    def count(self, layer: str) -> None:
        """Note that a layer has computed its attention."""


@dataclass
class Layer:
    """Holds the state of an attention layer under injection.

    Attributes:
        name: name of the module.
        injection: that it belongs to.
        taus: its temperatures by the role of the text.
        index: number of its first run in a forward pass, from 0.
        calls_a_run: how often it runs in a forward pass.
        tensors: the same temperatures as tensors, where they are inputs of compiled code or heads
            differ.
    """

    name: str
    injection: ActiveInjection
    taus: dict[Role, Temperature]
    index: int
    calls_a_run: int
    tensors: dict[Role, Tensor] = field(default_factory=dict)


def register_eager() -> str:
    if EAGER not in ALL_ATTENTION_FUNCTIONS:

        def eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
            return _attend(_eager_function(module), module, *args, **kwargs)

        eager._lcbench_wrapper = True  # type: ignore[attr-defined]
        ALL_ATTENTION_FUNCTIONS.register(EAGER, eager)
        ALL_MASK_ATTENTION_FUNCTIONS.register(EAGER, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    return EAGER


def _eager_function(module: nn.Module) -> Attention:
    """Return the eager attention function in the module of a layer's class."""
    for kind in type(module).__mro__:
        found = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if found is not None:
            return found  # type: ignore[no-any-return]
    raise InjectionError(
        f"{type(module).__name__}: its eager attention function was not found in its module."
    )


def wrap(name: str) -> None:
    """Wrap an attention function of the interface, once a process, under its own name.

    The name stays, since libraries decide by it (unpadding, kernels, masks).
    """
    original = ALL_ATTENTION_FUNCTIONS[name]
    if getattr(original, "_lcbench_wrapper", False):
        return

    def wrapper(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        is_own = not hasattr(module, LAYER_ATTRIBUTE) and change_of(module) is None
        if active_probe() is None and is_own:
            return original(module, *args, **kwargs)  # type: ignore[no-any-return]
        return _attend(original, module, *args, **kwargs)

    wrapper._lcbench_wrapper = True  # type: ignore[attr-defined]
    ALL_ATTENTION_FUNCTIONS.register(name, wrapper)


def _attend(
    original: Attention,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute a layer's attention at its temperature, through the original function."""
    if kwargs.get("s_aux") is not None:
        raise InjectionError(
            f"{type(module).__name__} adds attention sinks to its logits, which this temperature "
            "does not divide."
        )
    layer: Layer | None = getattr(module, LAYER_ATTRIBUTE, None)
    tau = 1.0 if layer is None else layer.injection.temperature(layer)
    if isinstance(tau, Tensor):
        tau = tau.to(query.device)
    keeps_bias = layer is not None and layer.injection.keeps_bias
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    optional: dict[str, Any] = {}
    if position_bias is not None:
        optional["position_bias"] = position_bias if keeps_bias else divide(position_bias, tau)
    if softcap is not None:
        if (
            isinstance(tau, Tensor)
            and tau.dim()
            and attention_implementation(module.config) != EAGER
        ):
            raise InjectionError(
                f"{type(module).__name__} caps its logits, and its back end takes one cap for all "
                "texts and heads: a policy by length or head needs attn_implementation=eager here."
            )
        # (cap · tanh(x / cap)) / τ = cap' · tanh((x / τ) / cap') with cap' = cap / τ
        optional["softcap"] = softcap / tau
    # Flex attention is compiled anew for each scale, and gives up after a few.
    flex = getattr(module, "config", None) is not None and (
        attention_implementation(module.config) == "flex_attention"
    )
    on_query = flex or isinstance(tau, Tensor)
    probe = active_probe()
    change = change_of(module)
    attend = original if change is None else partial(change.attend, original)
    with inside(probe):
        output, weights = attend(
            module,
            divide(query, tau) if on_query else query,
            key,
            value,
            attention_mask,
            scaling=scaling if on_query else scaling / tau,
            **optional,
            **kwargs,
        )
    if layer is not None:
        layer.injection.count(layer.name)
        if layer.injection.observer is not None:
            observation = observe_attention(
                *(module, query, key, value, output),
                tau=tau,
                scaling=scaling,
                mask=attention_mask,
                causal=is_causal_without_mask(module, kwargs.get("is_causal")),
                position_bias=optional.get("position_bias"),
                softcap=softcap,
            )
            if change is not None:
                observation = replace(observation, logits=_no_logits)
            layer.injection.observer(observation)
    if probe is not None:
        with inside(probe):
            taus = exactly(tau, layer)
            # The true boundaries of the texts, not those passed to the layer.
            starts, tokens = probe.starts, query.shape[2]
            numbers = by_text_and_head(taus, query.device)
            if starts is not None and len(taus) > 1:
                # Without padding all texts lie in one row.
                numbers = by_token_and_head(numbers[:, :, 0, 0], text_of_token(starts, tokens))
            groups = query.shape[1] // key.shape[1]
            keys, values = (part.double().repeat_interleave(groups, 1) for part in (key, value))
            products = PRODUCTS.get(attention_implementation(module.config) or "")
            logits = scaling * (
                query.double() @ keys.transpose(-1, -2)
                if products is None
                else products(module, query.double(), keys)
            )
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            plain = logits
            if position_bias is not None:
                bias = position_bias.double()
                plain = logits + bias
                logits = logits + bias * numbers if keeps_bias else plain
            allowed = (
                probe_mask(attention_mask, tokens, query.device, module)
                if starts is None
                else attended_keys(starts, tokens, module, kwargs.get("sliding_window"))
            )
            right = reference_weights(logits, allowed, numbers)
            without = reference_weights(plain, allowed, torch.ones_like(numbers))
            if change is not None:
                right, without = (
                    change.reference(one, allowed, starts) for one in (right, without)
                )
            parts = ((right @ values).transpose(1, 2), (without @ values).transpose(1, 2))
            largest = largest_logit(logits, allowed, numbers)
        report_attention(module, taus, output, *parts, largest)
    return output, weights


def _no_logits(heads: slice, rows: slice) -> Tensor:
    """Refuse to show logits whose softmax is not a layer's attention."""
    raise InjectionError(
        "attend= changes attention weights after the softmax; these are not measured: measure "
        "the signal or the embeddings."
    )


def is_causal_without_mask(module: nn.Module, is_causal: bool | None) -> bool:
    """Return whether a token attends to nothing behind it where the model passes no mask.

    As sdpa decides it. Eager attention has a mask for that.
    """
    if attention_implementation(module.config) == EAGER:
        return False
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def divide(tensor: Tensor, tau: float | Tensor) -> Tensor:
    return (tensor / tau).to(tensor.dtype)


def exactly(tau: float | Tensor, layer: Layer | None) -> tuple[tuple[float, ...], ...]:
    """Return the probe's temperatures as requested, by text and head; tensors hold them rounded."""
    if layer is None or not isinstance(tau, Tensor):
        return ((float(tau),),)
    return layer.injection.exact_temperatures(layer)


def by_text_and_head(taus: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """Return temperatures in float64: [texts or 1, heads or 1, 1, 1]."""
    return torch.tensor(taus, dtype=torch.float64, device=device)[:, :, None, None]


def by_token_and_head(taus: Tensor, text: Tensor) -> Tensor:
    """Return the temperatures of the tokens of an unpadded batch: [1, heads or 1, tokens, 1].

    Args:
        taus: temperatures by text and head: [texts, heads or 1].
        text: number of the text that each token belongs to: [tokens].
    """
    return taus[text].T[None, :, :, None]


def report_attention(
    module: nn.Module,
    taus: tuple[tuple[float, ...], ...],
    got: Tensor,
    expected: Tensor,
    plain: Tensor,
    largest: float,
) -> None:
    probe = active_probe()
    if probe is not None:
        probe.calls.append(Call(module, sum(taus, ()), got, expected, plain, largest))
