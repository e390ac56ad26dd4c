"""Proves that every attention layer of a model computes at its temperature.

It runs the model on a tiny batch with ragged padding, and without padding where the model is to run
like that, and checks three things that do not rest on one another:

- count: as many layers went through the injected attention as the model's configuration has;
- value: what each of them returned equals the formula, evaluated in float64 from the same queries,
  keys and values (or from the same logits, where a model computes its own softmax);
- nothing else: no softmax over token × token logits and no fused attention kernel ran outside the
  injected attention, whatever the module is called that ran it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lcbench.errors import InjectionError, RequestError
from lcbench.system.thirdparty import TorchDispatchMode
from lcbench.system.transient import is_of_device
from lcbench.tempscale.unpadded import boundaries, first_position, is_causal

# A length that no head count, expert count or batch size is likely to have, so that a tensor of
# shape [..., 23, 23] is recognised as token × token.
PROBE_TOKENS = 23
PROBE_LENGTHS = (23, 14)

# Largest relative error of a layer's output against float64, by dtype. Measured in float32: 5.4e-7
# (MiniLM), less for the random weights of fourteen other architectures; half precision is
# bounded by its rounding (2^-8 for bfloat16, 2^-11 for float16) times a handful of operations.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}

# Large logits are rounded by more: an error of eps · |logit| / τ in the exponent is one of as much
# in a weight. So an error may also be this times eps · max |logit| / τ. Measured on a CPU, over
# BERT, RoBERTa, MPNet, DeBERTa and T5 (two layers, random weights) and MiniLM, on eager and sdpa,
# at τ of 0.999 and 0.1, with logits as they are (up to 74) and scaled to ±50: at most 0.54 in
# float32, 0.19 in bfloat16, 0.22 in float16. A GPU's attention in float32 takes each product as
# three of TF32, about four times as coarse; that is allowed for, and twice as much. The half
# precisions are rounded alike on every device, and have twice what was measured.
_PER_LOGIT = {torch.float32: 4.0, torch.float64: 4.0, torch.bfloat16: 0.4, torch.float16: 0.4}


@dataclass(frozen=True)
class Proof:
    """Records the checks made when a temperature was applied.

    Attributes:
        layers: names of the attention layers, in the order in which the model runs them.
        tau: temperatures verified in each layer (several if they differ by role, length or head).
        largest_error: largest error of any layer's output compared with the formula in float64,
            relative to the largest magnitude of that output.
        seconds: time of the check.
    """

    layers: tuple[str, ...]
    tau: tuple[tuple[float, ...], ...]
    largest_error: float
    seconds: float


@dataclass(frozen=True)
class Call:
    """Records one call of the injected attention during the probe.

    Attributes:
        module: the attention layer.
        tau: its temperatures: one, or several if texts or heads differ.
        got: returned output, [batch, tokens, ...].
        expected: the same by the formula, in float64.
        plain: the same without any temperature.
        largest: max |logit| / τ, over the keys that are attended to.
    """

    module: nn.Module
    tau: tuple[float, ...]
    got: Tensor
    expected: Tensor
    plain: Tensor
    largest: float

    @property
    def error(self) -> float:
        """Return max |got - expected| / max |expected| over the tokens that are not padding."""
        return self._error(self.expected)

    @property
    def is_right(self) -> bool:
        """Return whether the error is a rounding error; NaN is not.

        One that only the size of the logits explains must also be small compared with the effect of
        the temperature, which could not be detected otherwise.
        """
        if self.error <= TOLERANCE.get(self.got.dtype, 1e-5):
            return True
        if not self.is_rounding:
            return False
        return all(tau == 1 for tau in self.tau) or 2 * self.error < self._error(self.plain)

    @property
    def is_rounding(self) -> bool:
        """Return whether the size of the logits explains the error."""
        dtype = self.got.dtype
        bound = _PER_LOGIT.get(dtype, 4.0) * torch.finfo(dtype).eps * self.largest
        return self.error <= bound

    def _error(self, expected: Tensor) -> float:
        rows = self._rows
        scale = self.expected[rows].abs().max()
        return float((self.got.double()[rows] - expected[rows]).abs().max() / scale)

    @property
    def is_defined(self) -> bool:
        """Return whether the formula's values are finite."""
        return bool(torch.isfinite(self.expected[self._rows]).all())

    @property
    def _rows(self) -> Tensor:
        """Return which tokens are not padding."""
        if len(self.expected) == 1:
            return torch.ones(self.expected.shape[:2], dtype=torch.bool, device=self.got.device)
        rows = torch.zeros(self.expected.shape[:2], dtype=torch.bool, device=self.got.device)
        for row, length in enumerate(PROBE_LENGTHS):
            rows[row, :length] = True
        return rows


@dataclass
class Probe:
    """The record of a run over the probe batch.

    Attributes:
        starts: start of each text and end of the last in a batch without padding; else None.
        calls: recorded calls of the injected attention.
        outside: names of modules that computed attention outside of it.
        inside: number of its calls that are being computed.
    """

    starts: Tensor | None = None
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


def run_probe(transformer: PreTrainedModel, *, watch: bool = True, padded: bool = True) -> Probe:
    """Run the model once over the probe batch and return its attention calls.

    Args:
        transformer: the model.
        watch: look for attention outside the injected one as well. Flex attention does not run
            while every operation is watched.
        padded: pad the batch; else its texts lie in one row, one after the other.

    Raises:
        InjectionError: the model cannot run on token ids and an attention mask alone.
        RuntimeError: of torch's, about the device or its memory: the model is not at fault.
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
        batch = (probe_batch if padded else unpadded_probe_batch)(transformer)
        probe.starts = batch.get("cu_seq_lens_q")
        watching = _AttentionOutside(probe, stack) if watch else nullcontext()
        with torch.no_grad(), watching:
            transformer(**batch)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if is_of_device(error) or isinstance(error, RequestError):
            raise
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


def check_probe(transformer: PreTrainedModel, probe: Probe, layers: Sequence[nn.Module]) -> float:
    """Check the probe of an injected model, and return the largest error of a layer.

    Args:
        transformer: the model.
        probe: probe of the model.
        layers: its attention layers, each with a temperature.

    Raises:
        InjectionError: a layer does not apply its temperature; the message names it.
    """
    names = {id(module): name for name, module in transformer.named_modules()}
    kind = type(transformer).__name__
    if probe.outside:
        raise InjectionError(
            f"{kind}: {probe.outside[0]} computes attention outside the injected function; "
            "the model is left as it was."
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
    for call in probe.calls:
        name = names.get(id(call.module), type(call.module).__name__)
        if id(call.module) not in known:
            raise InjectionError(f"{kind}: the attention layer {name} has no temperature.")
        if not call.is_defined:
            dtype = str(call.got.dtype).removeprefix("torch.")
            raise InjectionError(
                f"{kind}: what its attention layer {name} computes with is not finite in {dtype}, "
                "at any temperature: the model's own values exceed what that holds. Use bfloat16 "
                "or float32."
            )
        if not call.is_right:
            taus = ", ".join(f"{tau:g}" for tau in call.tau)
            raise InjectionError(
                f"{kind}: the attention layer {name} does not compute at τ = {taus} "
                f"(relative error {call.error:.1e}); the model is left as it was."
                f"{_too_large(call)}"
            )
    return max(call.error for call in probe.calls)


def _too_large(call: Call) -> str:
    """Return the remedy if half precision rounds away the effect of a temperature."""
    if not call.is_rounding or call.got.dtype not in (torch.float16, torch.bfloat16):
        return ""
    dtype = str(call.got.dtype).removeprefix("torch.")
    return (
        f" Its logits / τ are as large as {call.largest:.0f}, and {dtype} rounds them by more than "
        "the temperature changes: float32 (protocol=paper) does not; nor does "
        "engine.attention=sdpa, where the model has it."
    )


def reference_weights(logits: Tensor, allowed: Tensor, tau: Tensor) -> Tensor:
    """Return softmax(logits / τ) in float64 over the keys that are allowed.

    Source: arXiv:2410.24200, equation 6.

    Args:
        logits: [batch, heads, tokens, keys], whole: scaled, capped, with any bias.
        allowed: booleans that broadcast to it.
        tau: a number, or one for each text or head: broadcasts to it.
    """
    scaled = (logits.double() / tau.double()).masked_fill(~allowed, float("-inf"))
    # A row that may attend to nothing (padding) has no defined weights.
    return torch.softmax(scaled, dim=-1).nan_to_num(0.0)


def largest_logit(logits: Tensor, allowed: Tensor, tau: Tensor) -> float:
    """Return max |logit| / τ over the keys that are allowed; see `reference_weights`."""
    return float((logits.double() / tau.double()).abs().masked_fill(~allowed, 0.0).max())


def probe_mask(mask: Any, tokens: int, device: torch.device, module: nn.Module) -> Tensor:
    """Return which keys each token of the probe batch may attend to, as [batch, 1, tokens, keys].

    If a back end has another form of masks (none, lengths, blocks), the mask is derived from the
    probe batch: no attention to padding, nor to later tokens if causal.
    """
    if isinstance(mask, Tensor) and mask.dim() == 4:
        read: Tensor = mask[..., :tokens]
        return read if read.dtype == torch.bool else read > torch.finfo(read.dtype).min / 2
    allowed = torch.zeros(len(PROBE_LENGTHS), 1, tokens, tokens, dtype=torch.bool, device=device)
    for row, length in enumerate(PROBE_LENGTHS):
        allowed[row, :, :, :length] = True
    if is_causal(module, otherwise=False):
        allowed = allowed.tril()
    return allowed


def probe_batch(transformer: PreTrainedModel) -> dict[str, Tensor]:
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


def unpadded_probe_batch(transformer: PreTrainedModel) -> dict[str, Any]:
    """Return the texts of `probe_batch` as one row [1, 37], and where each begins and ends."""
    padded = probe_batch(transformer)
    read = padded["attention_mask"].bool()
    positions = read.cumsum(dim=1) - 1 + first_position(transformer)
    return {
        "input_ids": padded["input_ids"][read][None],
        "position_ids": positions[read][None],
        **boundaries(PROBE_LENGTHS, transformer.device),
    }


class _AttentionOutside(TorchDispatchMode):
    """Records attention that runs outside the injected attention."""

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
        if self._probe.inside == 0 and _is_attention(func.__name__, output):
            self._probe.outside.append(self._stack[-1] if self._stack else "the model")
        return output


def _is_attention(operation: str, output: Any) -> bool:
    # flash-attn's own operations are called `_flash_attn_forward` and the like.
    if "attention" in operation or "attn" in operation:
        return True
    if "softmax" in operation and isinstance(output, Tensor):
        # Of a padded row, or of all texts in one row.
        sizes = (PROBE_TOKENS, sum(PROBE_LENGTHS))
        return output.dim() >= 3 and output.shape[-1] == output.shape[-2] in sizes
    return False


def _push(stack: list[str], label: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        stack.append(label)

    return hook


def _pop(stack: list[str]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        stack.pop()

    return hook
