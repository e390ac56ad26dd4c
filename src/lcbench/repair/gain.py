"""Repairs that scale what LayerNorms and feed-forward networks return: `gain=`.

The paper asks whether other modules than attention could be scaled against length collapse
(arXiv:2410.24200, future work). Both are applied by hooks, which add nothing to a model's weights,
and are proven against the module's own output in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcbench.errors import InjectionError, RequestError, did_you_mean
from lcbench.repair.change import Change
from lcbench.repair.values import number, shown
from lcbench.system.thirdparty import remove_forward_hooks
from lcbench.tempscale.policy import decimal

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor, nn

    from lcbench.repair.blocks import Block, Call
    from lcbench.repair.restoring import Restoring
    from lcbench.tempscale.policy import ModelShape

EXAMPLE = "[null,{layernorm: 1.1},{ffn: 0.9}]"

_EXAMPLES = (
    f"Use {{layernorm: 1.1}}, {{ffn: 0.9}} or {{layernorm: 1.1, ffn: 0.9}}; several: "
    f"'gain={EXAMPLE}'"
)
_KINDS = ("layernorm", "ffn")


@dataclass(frozen=True)
class Gain(Change):
    """Scales the LayerNorms and the feed-forward branches in every layer of the transformer.

    Attributes:
        layernorm: factor of what LayerNorms return, except for their bias. Norms of queries and
            keys, and those outside of layers, are unchanged.
        ffn: factor of the feed-forward network's output, before it is added to the residual stream.
    """

    layernorm: float = 1.0
    ffn: float = 1.0

    @property
    def canonical(self) -> str:
        """The name in results; the same however it was written."""
        return ",".join(f"{kind}={decimal(one)}" for kind, one in self.written().items())

    def written(self) -> dict[str, float]:
        """Return it as `gain=` has it, so that `parse` gives it back; JSON types only."""
        gains = {kind: getattr(self, kind) for kind in _KINDS}
        return {kind: one for kind, one in gains.items() if one != 1} or {"layernorm": 1.0}

    def resolve(self, shape: ModelShape) -> Gain | None:
        """Return the part for a model; None: it changes nothing."""
        return None if self.layernorm == self.ffn == 1 else self

    def apply(self, model: SentenceTransformer) -> Restoring:
        """Scale a model's modules, with proof; see `Change.apply`."""
        from lcbench.repair.blocks import run_blocks
        from lcbench.repair.restoring import Restoring
        from lcbench.tempscale.transformer import find_transformer

        transformer = find_transformer(model)
        applied = Restoring()
        try:
            norms, outputs = _targets(run_blocks(transformer), self)
            for call in norms.values():
                hook = call.module.register_forward_hook(_scale_norm(self.layernorm))
                applied.add(hook.remove)
            for call in outputs.values():
                hook = call.module.register_forward_hook(_scale_output(self.ffn))
                applied.add(hook.remove)
            error = _prove(run_blocks(transformer), self)
        except BaseException as problem:
            applied.remove()
            if not isinstance(problem, InjectionError):
                raise
            kind = type(transformer).__name__
            raise InjectionError(f"gain={self}: {kind}: {problem}") from problem
        applied.proof = {"modules": [*norms, *outputs], "largest_error": error}
        return applied

    def fold(self, model: SentenceTransformer) -> None:
        """Multiply the weights of a model instead, in place.

        Raises:
            RequestError: its modules have no weights that could be multiplied.
        """
        from torch import no_grad

        from lcbench.repair.blocks import run_blocks
        from lcbench.tempscale.transformer import find_transformer

        norms, outputs = _targets(run_blocks(find_transformer(model)), self)
        with no_grad():
            for call in norms.values():
                _multiply(call, self.layernorm)
            for call in outputs.values():
                _multiply(call, self.ffn)
                if (bias := getattr(call.module, "bias", None)) is not None:
                    bias.mul_(self.ffn)

    def __str__(self) -> str:
        return shown(self.written())


def parse(value: Any) -> Gain:
    """Return the part that a value of `gain=` stands for.

    Raises:
        RequestError: it is none.
    """
    written = f"gain={shown(value)}"
    if not isinstance(value, Mapping) or not value:
        raise RequestError(f"{written} is no gain. {_EXAMPLES}.")
    gains = {}
    for kind, one in value.items():
        if kind not in _KINDS:
            near = did_you_mean(str(kind), _KINDS)
            raise RequestError(f"{written}: {kind} has no gain.{near} {_EXAMPLES}.")
        gains[kind] = number(one, written, kind)
        if gains[kind] <= 0:
            raise RequestError(f"{written}: a gain is above 0; 1 changes nothing.")
    return Gain(**gains)


def _targets(blocks: list[Block], gain: Gain) -> tuple[dict[str, Call], dict[str, Call]]:
    """Return the LayerNorms and the feed-forward outputs that a gain scales, by name.

    Raises:
        InjectionError: a layer has none.
    """
    norms: dict[str, Call] = {}
    outputs: dict[str, Call] = {}
    for block in blocks:
        if gain.layernorm != 1:
            if not block.norms:
                raise InjectionError(f"no LayerNorm is found in its layer {block.name}.")
            norms |= {call.name: call for call in block.norms}
        if gain.ffn != 1:
            if block.feed_forward is None:
                raise InjectionError(
                    f"its layer {block.name} is not an attention and a feed-forward network that "
                    "are added to a residual stream one after the other."
                )
            call, _ = block.feed_forward
            outputs[call.name] = call
    return norms, outputs


def _bias_of(module: nn.Module) -> Tensor | float:
    bias: Tensor | None = getattr(module, "bias", None)
    return 0.0 if bias is None else bias


def _scale_norm(gain: float) -> Any:
    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        # gain · (output − bias) + bias
        return output * gain + (1 - gain) * _bias_of(module)

    return hook


def _scale_output(gain: float) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output * gain

    return hook


def _prove(blocks: list[Block], gain: Gain) -> float:
    """Return the largest error of a scaled module, relative to the largest of its output.

    Raises:
        InjectionError: one does not return what it should.
    """
    from lcbench.tempscale.prove import TOLERANCE

    largest = 0.0
    for block in blocks:
        branch = block.feed_forward
        found = [(call, call.leaving) for call in block.norms if gain.layernorm != 1]
        if branch is not None and gain.ffn != 1:
            found.append(branch)
        for call, got in found:
            expected = _expected(call, block, gain)
            error = float((got.double() - expected).abs().max() / expected.abs().max())
            # Written so that NaN counts as an error.
            if not error <= TOLERANCE.get(got.dtype, 1e-5):
                raise InjectionError(
                    f"{call.name} ({type(call.module).__name__}) does not return what it returned, "
                    f"times the gain (relative error {error:.1e})."
                )
            largest = max(largest, error)
    return largest


def _expected(call: Call, block: Block, gain: Gain) -> Tensor:
    """Return what a scaled module should return, in float64."""
    if call.entering is None:
        raise InjectionError(f"{call.name} takes more than one tensor.")
    plain = _copy(call.module).double().requires_grad_(False)
    expected: Tensor = plain(call.entering.double())
    if gain.layernorm != 1 and any(call.module is norm.module for norm in block.norms):
        bias = _bias_of(plain)
        expected = gain.layernorm * (expected - bias) + bias
    branch = block.feed_forward
    if gain.ffn != 1 and branch is not None and call.module is branch[0].module:
        expected = gain.ffn * expected
    return expected


def _copy(module: nn.Module) -> nn.Module:
    """Return a copy of a module without hooks, and without what the encoder has in its place."""
    # oneDNN, and products in half precision; what they hold cannot be copied.
    replaced = [one for one in module.modules() if "forward" in one.__dict__]
    forwards = [one.__dict__.pop("forward") for one in replaced]
    try:
        plain = copy.deepcopy(module)
    finally:
        for one, forward in zip(replaced, forwards, strict=True):
            one.__dict__["forward"] = forward
    remove_forward_hooks(plain)
    return plain


def _multiply(call: Call, gain: float) -> None:
    """Multiply what a module returns, but for its bias, by a gain: in its weight."""
    from torch.nn import Parameter

    from lcbench.tempscale.fold import multiply_weight

    if call.entering is None or not isinstance(getattr(call.module, "weight", None), Parameter):
        raise RequestError(
            f"{call.name} ({type(call.module).__name__}) has no weights that a gain could be "
            "multiplied into."
        )
    multiply_weight(call.module, gain, call.entering)
