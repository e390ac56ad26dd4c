"""Passes the attention of an injected model to an observer, for measurements.

If an injection has an `observer`, each attention layer passes it an `Observation` after it has run:
the logits of its softmax at its temperature, its values and its output. Logits are computed again
from queries and keys, for the requested heads and rows only, so that the model may run on a back
end that does not materialise them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lcbench.errors import InjectionError


@dataclass(frozen=True)
class Observation:
    """The attention of a layer for one text.

    Attributes:
        module: the layer.
        tau: temperature of the layer; the mean over its heads where these differ.
        heads: number of heads.
        tokens: number of tokens.
        logits: function that takes a slice of heads and a slice of tokens, and returns the input of
            the softmax at the temperature: [heads, tokens, keys], at least float32, and minus
            infinity where a token does not attend to a key.
        values: values, [key-value heads, keys, size].
        output: output of the attention, [tokens, heads, size].
    """

    module: nn.Module
    tau: float
    heads: int
    tokens: int
    logits: Callable[[slice, slice], Tensor]
    values: Tensor
    output: Tensor


Observer = Callable[[Observation], None]


def observe_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    *,
    tau: float | Tensor,
    scaling: float,
    mask: Any,
    causal: bool,
    position_bias: Tensor | None,
    softcap: float | None,
) -> Observation:
    """Return the observation of a layer that called an attention function for one text.

    Args:
        module: the layer.
        query: [1, heads, tokens, size], not yet divided by a temperature.
        key: [1, key-value heads, tokens, size].
        value: same shape as the keys.
        output: [1, tokens, heads, size].
        tau: a number, or a tensor of one for all or for each head: [1, heads or 1, 1, 1].
        scaling: scale of the logits, without the temperature.
        mask: [1, 1 or heads, tokens, keys], boolean or additive; None: no mask.
        causal: whether tokens do not attend to later tokens, if there is no mask.
        position_bias: bias that is added to the logits after the temperature.
        softcap: cap of the logits, applied before the temperature.

    Raises:
        InjectionError: there are several texts, or a mask of another form.
    """
    if len(query) != 1 or not (mask is None or (isinstance(mask, Tensor) and mask.dim() == 4)):
        raise InjectionError(
            f"{type(module).__name__}: attention is observed for one text at a time, with the mask "
            "of eager or sdpa attention: load the model with attn_implementation='sdpa'."
        )
    heads, tokens = query.shape[1:3]
    groups = heads // key.shape[1]
    wide = torch.promote_types(query.dtype, torch.float32)
    of_head = tau.flatten() if isinstance(tau, Tensor) and tau.numel() > 1 else None
    allowed = None
    if mask is not None:
        read = mask[0, :, :, : key.shape[2]]
        allowed = read if read.dtype == torch.bool else read > torch.finfo(read.dtype).min / 2
    places = torch.arange(tokens, device=query.device)

    def logits(of_heads: slice, rows: slice) -> Tensor:
        numbers = range(heads)[of_heads]
        keys = key[0, [head // groups for head in numbers]].to(wide)
        found = query[0, of_heads, rows].to(wide) @ keys.transpose(-1, -2)
        own = float(tau) if of_head is None else of_head[of_heads, None, None]
        if softcap is None:
            found *= scaling / own
        else:
            found = torch.tanh(found * (scaling / softcap)) * (softcap / own)
        if position_bias is not None:
            bias = position_bias[0]
            found += (bias if len(bias) == 1 else bias[of_heads])[:, rows].to(wide)
        if allowed is not None:
            part = allowed if len(allowed) == 1 else allowed[of_heads]
            return found.masked_fill_(~part[:, rows], -torch.inf)
        if causal:
            return found.masked_fill_(places > places[rows, None], -torch.inf)
        return found

    return Observation(module, _mean(tau), heads, tokens, logits, value[0], output[0])


def observe_softmax(
    module: nn.Module, tau: float | Tensor, scaled: Tensor, values: Tensor, output: Tensor
) -> Observation:
    """Return the observation of a layer that computes its own softmax for one text.

    Args:
        module: the layer.
        tau: a number, or a tensor of one for all or for each head: [1, heads or 1, 1, 1].
        scaled: logits at the temperature, [1, heads, tokens, keys]; the most negative numbers where
            a token does not attend to a key.
        values: values, [1, heads, keys, size] or without the first dimension.
        output: attention weights times values, [1, heads, tokens, size] or without the first
            dimension.

    Raises:
        InjectionError: there are several texts.
    """
    heads, tokens = scaled.shape[1:3]
    if len(scaled) != 1:
        raise InjectionError(
            f"{type(module).__name__}: attention is observed for one text at a time."
        )
    wide = torch.promote_types(scaled.dtype, torch.float32)
    lowest = torch.finfo(scaled.dtype).min

    def logits(of_heads: slice, rows: slice) -> Tensor:
        part = scaled[0, of_heads, rows]
        return part.to(wide).masked_fill(part < lowest / 2, -torch.inf)

    by_head = (values.reshape(heads, tokens, -1), output.reshape(heads, tokens, -1))
    return Observation(
        module, _mean(tau), heads, tokens, logits, by_head[0], by_head[1].transpose(0, 1)
    )


def _mean(tau: float | Tensor) -> float:
    return float(tau.mean()) if isinstance(tau, Tensor) else tau
