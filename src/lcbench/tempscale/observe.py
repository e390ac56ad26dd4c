"""Shows the attention of an injected model to whoever measures it.

While an injection has an `observer`, each attention layer hands it an `Observation` after it has
run: its logits as its softmax has them, at its temperature, and what it attended to and returned.
Logits are computed again from queries and keys, for the heads and rows that are asked for, so that
the model may run on a back end that never has them whole.
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
    """What an attention layer computed for one text.

    Attributes:
        module: the layer.
        tau: its temperature.
        heads: the number of its heads.
        tokens: the number of tokens.
        logits: a function of a slice of heads and a slice of tokens, which returns what softmax is
            taken of, at the temperature: [heads, tokens, keys], at least float32, and minus
            infinity where a token does not attend to a key.
        values: what is attended to, [key-value heads, keys, size].
        output: what the layer's attention returned, [tokens, heads, size].
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
        value: as the keys.
        output: [1, tokens, heads, size].
        tau: a number, or a tensor that holds one.
        scaling: of the logits, without the temperature.
        mask: [1, 1 or heads, tokens, keys], booleans or added to the logits; None: none.
        causal: whether a token attends to nothing behind it, where there is no mask.
        position_bias: added to the logits, as it is after the temperature.
        softcap: what logits are capped at before the temperature divides them.

    Raises:
        InjectionError: there are several texts, or masks of another form.
    """
    if len(query) != 1 or not (mask is None or (isinstance(mask, Tensor) and mask.dim() == 4)):
        raise InjectionError(
            f"{type(module).__name__}: attention is observed for one text at a time, with the mask "
            "of eager or sdpa attention: load the model with attn_implementation='sdpa'."
        )
    temperature = float(tau)
    heads, tokens = query.shape[1:3]
    groups = heads // key.shape[1]
    wide = torch.promote_types(query.dtype, torch.float32)
    allowed = None
    if mask is not None:
        read = mask[0, :, :, : key.shape[2]]
        allowed = read if read.dtype == torch.bool else read > torch.finfo(read.dtype).min / 2
    places = torch.arange(tokens, device=query.device)

    def logits(of_heads: slice, rows: slice) -> Tensor:
        numbers = range(heads)[of_heads]
        keys = key[0, [head // groups for head in numbers]].to(wide)
        found = query[0, of_heads, rows].to(wide) @ keys.transpose(-1, -2)
        if softcap is None:
            found *= scaling / temperature
        else:
            found = torch.tanh(found * (scaling / softcap)) * (softcap / temperature)
        if position_bias is not None:
            bias = position_bias[0]
            found += (bias if len(bias) == 1 else bias[of_heads])[:, rows].to(wide)
        if allowed is not None:
            part = allowed if len(allowed) == 1 else allowed[of_heads]
            return found.masked_fill_(~part[:, rows], -torch.inf)
        if causal:
            return found.masked_fill_(places > places[rows, None], -torch.inf)
        return found

    return Observation(module, temperature, heads, tokens, logits, value[0], output[0])


def observe_softmax(
    module: nn.Module, tau: float | Tensor, scaled: Tensor, values: Tensor, output: Tensor
) -> Observation:
    """Return the observation of a layer that computes its own softmax for one text.

    Args:
        module: the layer.
        tau: a number, or a tensor that holds one.
        scaled: logits at the temperature, [1, heads, tokens, keys]; the most negative numbers where
            a token does not attend to a key.
        values: what the layer multiplies its weights with, [1, heads, keys, size] or without the 1.
        output: the product, [1, heads, tokens, size] or without the 1.

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
        module, float(tau), heads, tokens, logits, by_head[0], by_head[1].transpose(0, 1)
    )
