"""Injection into layers that compute their own softmax, by intercepting torch."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lcbench.errors import InjectionError
from lcbench.tempscale.attend import (
    LAYER_ATTRIBUTE,
    Layer,
    by_text_and_head,
    divide,
    exactly,
    report_attention,
)
from lcbench.tempscale.observe import observe_softmax
from lcbench.tempscale.prove import active_probe, inside, largest_logit, reference_weights

# Layers that compute their own softmax over the whole logits, by modelling file.
_OWN_SOFTMAX = {
    "MPNetSelfAttention": "transformers.models.mpnet.modeling_mpnet",
    "DisentangledSelfAttention": "transformers.models.deberta_v2.modeling_deberta_v2",
}


def computes_own_softmax(module: nn.Module) -> bool:
    kind = type(module)
    return _OWN_SOFTMAX.get(kind.__name__) == kind.__module__


def scale_softmax(module: nn.Module) -> list[Any]:
    """Divide the logits that a layer hands to softmax, while it runs."""
    # A thread's own: several may be in this layer at once.
    entered = threading.local()
    signature = inspect.signature(module.forward)

    def enter(layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        mode = _ScaledSoftmax(layer)
        given = signature.bind_partial(*args, **kwargs)
        mode.keep_bias(given.arguments)
        mode.__enter__()  # type: ignore[no-untyped-call]
        entered.modes = [*getattr(entered, "modes", []), mode]
        return given.args, given.kwargs

    def leave(*_: Any) -> None:
        entered.modes.pop().__exit__(None, None, None)

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave, always_call=True),
    ]


class _ScaledSoftmax(TorchFunctionMode):
    """Divides the argument of `softmax` by a layer's temperature while it is active."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module = module
        self._layer: Layer | None = getattr(module, LAYER_ATTRIBUTE, None)
        tau: float | Tensor = 1.0
        if self._layer is not None:
            tau = self._layer.injection.temperature(self._layer)
        self._tau = tau
        # Logits that an observer is to see together with what their weights are multiplied with.
        self._scaled: Tensor | None = None

    def _show(self, product: Any, weights: Tensor, values: Tensor) -> Tensor:
        """Compute the product of weights and values, and show it to the observer."""
        output: Tensor = product(weights, values)
        scaled, self._scaled = self._scaled, None
        if self._layer is None or self._layer.injection.observer is None or scaled is None:
            return output
        self._layer.injection.observer(
            observe_softmax(self._module, self._tau, scaled, values, output)
        )
        return output

    def keep_bias(self, given: dict[str, Any]) -> None:
        """Multiply a position bias that is to be kept, so that dividing the logits restores it.

        Raises:
            InjectionError: there is none, so what the policy asks for cannot be done.
        """
        if self._layer is None or not self._layer.injection.keeps_bias:
            return
        bias = given.get("position_bias")
        if bias is None:
            raise InjectionError(
                f"{self._layer.name} was given no position bias, which tau_bias=kept would keep."
            )
        given["position_bias"] = (bias * self._tau).to(bias.dtype)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._scaled is not None and func in (torch.matmul, torch.bmm):
            return self._show(func, *args)
        if func is not nn.functional.softmax:
            return func(*args, **kwargs)
        logits, *others = args
        probe = active_probe()
        lowest = torch.finfo(logits.dtype).min
        with inside(probe):
            # A padding token may attend to nothing: its logits are all the most negative number,
            # and would become infinite, and its weights undefined.
            scaled = divide(logits, self._tau).clamp(min=lowest)
            weights = func(scaled, *others, **kwargs)
        if self._layer is not None:
            self._layer.injection.count(self._layer.name)
            if self._layer.injection.observer is not None:
                self._scaled = scaled
        if probe is not None:
            taus = exactly(self._tau, self._layer)
            numbers = by_text_and_head(taus, logits.device)
            # What is masked holds the most negative number.
            allowed = logits > lowest / 2
            with inside(probe):
                expected = reference_weights(logits, allowed, numbers)
                without = reference_weights(logits, allowed, torch.ones_like(numbers))
                largest = largest_logit(logits, allowed, numbers)
            # [batch, heads, tokens, keys] → [batch, tokens, heads, keys]
            got, expected, without = (one.transpose(1, 2) for one in (weights, expected, without))
            report_attention(self._module, taus, got, expected, without, largest)
        return weights
