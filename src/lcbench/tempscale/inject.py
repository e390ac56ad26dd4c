"""Make a loaded model compute attention at a temperature, and undo it exactly.

The mechanism is the attention interface of `transformers`: every attention function that a model
may dispatch to has a twin, registered under another name, that divides the whole logits by the τ
of the layer that calls it and then hands over to the original. A layer's τ is an attribute of that
layer, so models injected at different temperatures do not touch each other.

A = softmax((scale · QKᵀ + bias) / τ)  (arXiv:2410.24200, equation 6; T5's position bias included,
as in its authors' code). Dividing scale and bias by τ is the same and costs nothing. Masks hold 0
or minus infinity (or the most negative number), which no τ changes, and stay as they are.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lcbench.errors import InjectionError
from lcbench.tempscale.policy import Policy, parse
from lcbench.tempscale.prove import Call, Proof, active_probe, inside, prove, run_probe

_PREFIX = "tempscale_"
_LAYER = "_lcbench_layer"


@dataclass
class _Layer:
    """What an attention layer knows while a temperature is at work in it."""

    name: str
    tau: float
    calls_a_run: int
    calls: int = 0


class Injection:
    """A temperature at work in a model: `.remove()` it, or leave the context, to undo it.

    Attributes:
        policy: the policy that is applied.
        proof: what was checked when it was applied.
    """

    def __init__(self, model: nn.Module, policy: Policy) -> None:
        started = time.perf_counter()
        self.policy = policy
        self._transformer = find_transformer(model)
        self._modules: list[nn.Module] = []
        if _is_injected(self._transformer):
            raise InjectionError(
                f"{type(self._transformer).__name__} already runs at a temperature; remove that "
                "injection before making another."
            )
        self._original = self._transformer.config._attn_implementation or "eager"
        try:
            self._attach()
            self.proof: Proof = prove(self._transformer, self._modules, started)
            self._forget_calls()
        except BaseException:
            self.remove()
            raise

    def _attach(self) -> None:
        transformer = self._transformer
        if not transformer._can_set_attn_implementation():
            raise InjectionError(
                f"{type(transformer).__name__} does not use the attention interface of "
                "transformers, so its attention layers cannot be brought to a temperature; "
                "running it would report the baseline as TempScale."
            )
        transformer.set_attn_implementation(_register_twin(self._original))
        # Which modules are attention layers is found by running the model, not by their names.
        modules = [call.module for call in run_probe(transformer).calls]
        names = {id(module): name for name, module in transformer.named_modules()}
        for module in modules:
            if id(module) not in names:
                raise InjectionError(
                    f"{type(transformer).__name__}: a {type(module).__name__} that is not part of "
                    "the model computes its attention."
                )
            if not hasattr(module, _LAYER):
                self._modules.append(module)
                calls = sum(other is module for other in modules)
                setattr(module, _LAYER, _Layer(names[id(module)], self.policy.tau, calls))

    def check(self) -> None:
        """Check that all layers have run at their temperature, equally often, since the last check.

        Cheap enough (counters only) for once a batch: a layer that was replaced or bypassed after
        the injection is found before its embeddings are scored.

        Raises:
            InjectionError: naming the first layer that has not.
        """
        layers: list[_Layer] = [getattr(module, _LAYER) for module in self._modules]
        runs = max((layer.calls // layer.calls_a_run for layer in layers), default=0)
        for layer in layers:
            if runs == 0 or layer.calls != runs * layer.calls_a_run:
                raise InjectionError(
                    f"{type(self._transformer).__name__}: the attention layer {layer.name} no "
                    f"longer runs at τ = {layer.tau:g}; it was replaced or bypassed after the "
                    "injection."
                )
        self._forget_calls()

    def remove(self) -> None:
        """Restore the model's own attention. Doing it twice is harmless."""
        if self._modules or _is_injected(self._transformer):
            self._transformer.set_attn_implementation(self._original)
        for module in self._modules:
            delattr(module, _LAYER)
        self._modules = []

    def _forget_calls(self) -> None:
        for module in self._modules:
            getattr(module, _LAYER).calls = 0

    def __enter__(self) -> Injection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def inject(model: nn.Module, tau: Any) -> Injection:
    """Make `model` compute attention at the temperature `tau`, proven before this returns.

    Args:
        model: a `SentenceTransformer`, a `PreTrainedModel`, or a module that holds one.
        tau: a temperature in (0, ∞).

    Returns:
        A handle with `.remove()`, which is a context manager as well.

    Raises:
        InjectionError: the model's attention cannot be reached in every layer (the message names
            what stands in the way), or it runs at a temperature already. The model is unchanged.
        RequestError: `tau` is not a temperature.
    """
    return Injection(model, parse(tau))


def find_transformer(model: nn.Module) -> PreTrainedModel:
    """Return the one transformer that `model` is or holds.

    Raises:
        InjectionError: it holds none, or several.
    """
    if isinstance(model, PreTrainedModel):
        return model
    found: list[PreTrainedModel] = []
    _collect_outermost(model, found)
    if len(found) != 1:
        raise InjectionError(
            f"{type(model).__name__} holds {len(found)} transformers of the transformers library; "
            "a temperature needs exactly one."
        )
    return found[0]


def _collect_outermost(module: nn.Module, found: list[PreTrainedModel]) -> None:
    for child in module.children():
        if isinstance(child, PreTrainedModel):
            found.append(child)
        else:
            _collect_outermost(child, found)


def _is_injected(transformer: PreTrainedModel) -> bool:
    return str(transformer.config._attn_implementation or "").startswith(_PREFIX)


def _register_twin(original: str) -> str:
    """Register the twin of an attention function, once a process, and return its name."""
    name = _PREFIX + original
    if name not in ALL_ATTENTION_FUNCTIONS:
        ALL_ATTENTION_FUNCTIONS.register(name, _make_twin(original))
        # The twin takes masks of the same form as the original.
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[original])
    return name


def _make_twin(original: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def twin(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        position_bias: Tensor | None = None,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if kwargs.get("s_aux") is not None:
            raise InjectionError(
                f"{type(module).__name__} adds attention sinks to its logits, which this "
                "temperature does not divide."
            )
        layer: _Layer | None = getattr(module, _LAYER, None)
        probe = active_probe()
        if layer is None and probe is None:
            raise InjectionError(
                f"A {type(module).__name__} that came into the model after the injection has no "
                "temperature."
            )
        tau = 1.0 if layer is None else layer.tau
        if scaling is None:
            scaling = query.shape[-1] ** -0.5
        optional: dict[str, Any] = {}
        if position_bias is not None:
            optional["position_bias"] = position_bias / tau
        if softcap is not None:
            # (cap · tanh(x / cap)) / τ = cap' · tanh((x / τ) / cap') with cap' = cap / τ
            optional["softcap"] = softcap / tau
        with inside(probe):
            output, weights = _resolve(original, module)(
                module,
                query,
                key,
                value,
                attention_mask,
                scaling=scaling / tau,
                **optional,
                **kwargs,
            )
        if layer is not None:
            layer.calls += 1
        if probe is not None:
            probe.calls.append(
                Call(
                    module=module,
                    query=query,
                    key=key,
                    value=value,
                    mask=attention_mask,
                    scaling=scaling,
                    position_bias=position_bias,
                    softcap=softcap,
                    tau=tau,
                    output=output,
                )
            )
        return output, weights

    return twin


def _resolve(original: str, module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the attention function that `module` would have called without the injection.

    The eager one is no entry of the interface: each modelling file has its own, which its layers
    hand in as the default.
    """
    if original != "eager":
        function: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS[original]
        return function
    for kind in type(module).__mro__:
        found = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if found is not None:
            return found  # type: ignore[no-any-return]
    raise InjectionError(
        f"{type(module).__name__}: its eager attention function was not found beside it."
    )
