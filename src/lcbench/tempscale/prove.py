"""The proof that every attention layer of a model computes at the temperature that it was given.

It runs the model once on a tiny batch with ragged padding and checks three things that do not rest
on one another:

- count: as many layers went through the injected attention as the model's configuration has;
- value: what each of them returned equals the formula, evaluated in float64 from the same queries,
  keys and values;
- nothing else: no softmax over token × token logits and no fused attention kernel ran outside the
  injected attention, whatever the module is called that ran it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from lcbench.errors import InjectionError

# A length that no head count, expert count or batch size is likely to have, so that a tensor of
# shape [..., 23, 23] is recognised as token × token.
PROBE_TOKENS = 23
PROBE_LENGTHS = (23, 14)

# Largest relative error of a layer's output against float64, by dtype. Measured over BERT, RoBERTa
# and T5 with random and trained weights: 5e-7 in float32; half precision is bounded by its rounding
# (2^-8 for bfloat16, 2^-11 for float16) times a handful of operations.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Proof:
    """What was checked when a temperature was applied.

    Attributes:
        layers: names of the attention layers, in the order in which the model runs them.
        tau: their temperatures, in the same order.
        largest_error: of any layer's output against the formula in float64, relative to the
            largest magnitude of that output.
        seconds: what the proof took.
    """

    layers: tuple[str, ...]
    tau: tuple[float, ...]
    largest_error: float
    seconds: float


@dataclass(frozen=True)
class Call:
    """One call of the attention function during the probe: what went in, and what came out.

    Shapes: query [batch, heads, tokens, d]; key, value [batch, heads or fewer, tokens, d];
    output [batch, tokens, heads, d].
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    position_bias: Tensor | None
    softcap: float | None
    tau: float
    output: Tensor


@dataclass
class Probe:
    """What one run over the probe batch showed."""

    calls: list[Call] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    inside: int = 0


_active: list[Probe] = []


def active_probe() -> Probe | None:
    """Return the probe that is running, if any; the injected attention reports its calls to it."""
    return _active[-1] if _active else None


@contextmanager
def inside(probe: Probe | None) -> Iterator[None]:
    """Mark what runs in this context as the injected attention itself."""
    if probe is None:
        yield
        return
    probe.inside += 1
    try:
        yield
    finally:
        probe.inside -= 1


def run_probe(transformer: PreTrainedModel) -> Probe:
    """Run the model once over the probe batch and return what its attention did.

    Raises:
        InjectionError: the model cannot run on token ids and an attention mask alone.
    """
    probe = Probe()
    stack: list[str] = []
    hooks = []
    for name, module in transformer.named_modules():
        label = f"{name or 'the model'} ({type(module).__name__})"
        hooks.append(module.register_forward_pre_hook(_push(stack, label)))
        hooks.append(module.register_forward_hook(_pop(stack), always_call=True))
    was_training = transformer.training
    _active.append(probe)
    try:
        transformer.eval()
        with torch.no_grad(), _AttentionOutside(probe, stack):
            transformer(**_probe_batch(transformer))
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise InjectionError(
            f"{type(transformer).__name__} cannot be proven: it does not run on a batch of token "
            f"ids with an attention mask ({type(error).__name__}: {error})."
        ) from error
    finally:
        _active.pop()
        transformer.train(was_training)
        for hook in hooks:
            hook.remove()
    return probe


def prove(transformer: PreTrainedModel, layers: Sequence[nn.Module], started: float) -> Proof:
    """Check on the model at hand that all its attention layers obey.

    Args:
        transformer: a model under injection.
        layers: its attention layers, each with its temperature.
        started: `time.perf_counter()` when the injection began.

    Raises:
        InjectionError: naming the layer that does not obey.
    """
    probe = run_probe(transformer)
    names = {id(module): name for name, module in transformer.named_modules()}
    kind = type(transformer).__name__
    if probe.outside:
        raise InjectionError(
            f"{kind}: {probe.outside[0]} computes attention of its own, which no temperature "
            "reaches; the model is left as it was."
        )
    expected = getattr(transformer.config, "num_hidden_layers", None)
    if expected is None:
        raise InjectionError(
            f"{kind}: its configuration does not say how many layers it has (num_hidden_layers), "
            "so it cannot be proven that all of them were reached."
        )
    if len(probe.calls) != expected:
        raise InjectionError(
            f"{kind}: {len(probe.calls)} attention layers were reached, but its configuration has "
            f"{expected}; the model is left as it was."
        )
    known = {id(layer) for layer in layers}
    largest = 0.0
    for call in probe.calls:
        name = names.get(id(call.module), type(call.module).__name__)
        if id(call.module) not in known:
            raise InjectionError(f"{kind}: the attention layer {name} has no temperature.")
        error = _relative_error(call)
        # Written so that NaN is refused as well.
        if not error <= TOLERANCE.get(call.output.dtype, 1e-5):
            raise InjectionError(
                f"{kind}: the attention layer {name} does not compute at τ = {call.tau:g} "
                f"(relative error {error:.1e}); the model is left as it was."
            )
        largest = max(largest, error)
    return Proof(
        layers=tuple(names[id(call.module)] for call in probe.calls),
        tau=tuple(call.tau for call in probe.calls),
        largest_error=largest,
        seconds=time.perf_counter() - started,
    )


def reference_attention(call: Call) -> Tensor:
    """Return softmax((scaling · QKᵀ + bias) / τ) V in float64, from the formula alone.

    Source: arXiv:2410.24200, equation 6; logits capped first where the model caps them.

    Returns:
        [batch, tokens, heads, d]
    """
    query, key, value = (part.double() for part in (call.query, call.key, call.value))
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    logits = call.scaling * (query @ key.transpose(-1, -2))
    if call.softcap is not None:
        logits = call.softcap * torch.tanh(logits / call.softcap)
    if call.position_bias is not None:
        logits = logits + call.position_bias.double()
    logits = logits / call.tau
    if call.mask is not None:
        mask = call.mask[..., : logits.shape[-1]]
        allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        logits = logits.masked_fill(~allowed, float("-inf"))
    elif getattr(call.module, "is_causal", False):
        tokens = logits.shape[-1]
        above = torch.ones(tokens, tokens, dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(above, float("-inf"))
    # A row that may attend to nothing (padding) has no defined output.
    weights = torch.softmax(logits, dim=-1).nan_to_num(0.0)
    return (weights @ value).transpose(1, 2)


def _relative_error(call: Call) -> float:
    """Return max |output - reference| / max |reference| over the tokens that are not padding."""
    reference = reference_attention(call)
    rows = torch.zeros(reference.shape[:2], dtype=torch.bool, device=reference.device)
    for row, length in enumerate(PROBE_LENGTHS):
        rows[row, :length] = True
    difference = (call.output.double() - reference)[rows].abs().max()
    return float(difference / reference[rows].abs().max())


def _probe_batch(transformer: PreTrainedModel) -> dict[str, Tensor]:
    """Return token ids [2, 23] spread over the vocabulary, and their attention mask."""
    embeddings: Any = transformer.get_input_embeddings()
    vocabulary = int(embeddings.weight.shape[0])
    count = len(PROBE_LENGTHS) * PROBE_TOKENS
    # Ids from the middle of the vocabulary are words, not padding or other special tokens.
    ids = torch.linspace(vocabulary // 4, vocabulary - 1, count).long()
    mask = torch.zeros(len(PROBE_LENGTHS), PROBE_TOKENS, dtype=torch.long)
    for row, length in enumerate(PROBE_LENGTHS):
        mask[row, :length] = 1
    device = transformer.device
    return {"input_ids": ids.view_as(mask).to(device), "attention_mask": mask.to(device)}


class _AttentionOutside(TorchDispatchMode):
    """Notes every attention that runs while the injected attention is not at work."""

    def __init__(self, probe: Probe, stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._probe = probe
        self._stack = stack

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._probe.inside == 0 and _is_attention(func.__name__, args, output):
            self._probe.outside.append(self._stack[-1] if self._stack else "the model")
        return output


def _is_attention(operation: str, args: tuple[Any, ...], output: Any) -> bool:
    if "attention" in operation:
        return True
    if "softmax" in operation and isinstance(output, Tensor):
        return output.dim() >= 3 and tuple(output.shape[-2:]) == (PROBE_TOKENS, PROBE_TOKENS)
    return False


def _push(stack: list[str], label: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        stack.append(label)

    return hook


def _pop(stack: list[str]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        stack.pop()

    return hook
