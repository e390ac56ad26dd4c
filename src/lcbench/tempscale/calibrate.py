"""Position calibration: a token's attention is spread evenly over baskets of a text's positions.

A'_ij = A_ij · share_b / Σ_(k in b) A_ik for a key j in basket b, and A ← λ A' + (1 − λ) A
(arXiv:2606.02737). Baskets are consecutive tokens of a text, counted from its first; the share of a
basket is that of its keys among all that the token may attend to. So full baskets have equal
shares, 1/B where all are full, and the last basket, which may be shorter, has less by as much: with
1/B a single token left over would get as much attention as a whole basket. With causal attention,
baskets and shares are of the keys before a token.

A' is softmax(logits) within each basket, times its share. It is computed from queries and keys for
one text at a time, in tiles of rows, so that an embedding cannot depend on the batch; texts that
have no more tokens than a basket keep what their layer returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lcbench.tempscale.attend import is_causal_without_mask
from lcbench.tempscale.layer_change import Attention
from lcbench.tempscale.prove import PROBE_LENGTHS, active_probe
from lcbench.tempscale.unpadded import attended_keys, text_of_token

Rows = Literal["all", "first", "last"]

# Texts of the proof are shorter than any useful basket.
_PROBE_BASKET = 8
# Logits of all heads that are held at once.
_TILE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Calibration:
    """Spreads the attention of a text's tokens over baskets of positions.

    Attributes:
        basket: number of tokens.
        strength: λ, in (0, 1].
        rows: tokens whose attention is spread: all, or the first or last, if that is pooled.
    """

    basket: int
    strength: float
    rows: Rows

    def attend(
        self,
        original: Attention,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute a layer's attention; see `layer_change.AttentionChange`."""
        output, weights = original(module, query, key, value, attention_mask, **kwargs)
        longest = kwargs.get("max_length_q")
        if (query.shape[2] if longest is None else longest) > self._basket:
            self._calibrate(output, module, query, key, value, attention_mask, kwargs)
        return output, weights

    # It depends on the lengths of the texts; each would be compiled separately.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _calibrate(
        self,
        output: Tensor,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        kwargs: dict[str, Any],
    ) -> None:
        """Replace a layer's output of the texts that have more than one basket."""
        basket, starts = self._basket, kwargs.get("cu_seq_lens_q")
        wide = torch.promote_types(query.dtype, torch.float32)
        groups = query.shape[1] // key.shape[1]
        for row, places in _texts(query, attention_mask, starts):
            tokens = len(places)
            if tokens <= basket:
                continue
            allowed, bias = _masks(module, attention_mask, row, places, kwargs)
            queries = query[row][:, places].to(wide)
            keys, values = (
                one[row][:, places].to(wide).repeat_interleave(groups, 0) for one in (key, value)
            )
            for rows in self._tiles(tokens, query.shape[1]):
                logits = kwargs["scaling"] * (queries[:, rows] @ keys.transpose(-1, -2))
                cap = kwargs.get("softcap")
                if cap is not None:
                    # By text, by head or both.
                    if isinstance(cap, Tensor) and cap.dim():
                        cap = cap[row if len(cap) > 1 else 0]
                    logits = torch.tanh(logits / cap) * cap
                if bias is not None:
                    logits += bias[:, rows]
                part = None if allowed is None else allowed[..., rows, :]
                even = calibrated(logits, part, basket) @ values
                # [heads, rows, size] → [rows, heads, size]
                even = even.transpose(0, 1).to(output.dtype)
                at = (row, places[rows])
                output[at] = torch.lerp(output[at], even, self.strength)

    def reference(self, weights: Tensor, allowed: Tensor, starts: Tensor | None) -> Tensor:
        """Return the weights by the formula; see `layer_change.AttentionChange`."""
        tokens, device = weights.shape[-1], weights.device
        if starts is None:
            lengths = torch.tensor(PROBE_LENGTHS, device=device)[:, None].expand(-1, tokens)
            positions = torch.arange(tokens, device=device).expand_as(lengths)
        else:
            text = text_of_token(starts, tokens)
            lengths = starts.diff()[text][None]
            positions = (torch.arange(tokens, device=device) - starts[text])[None]
        even = torch.zeros_like(weights)
        keys = allowed.double().expand_as(weights)
        for number in range(-(-tokens // self._basket)):
            of_basket = (positions // self._basket == number)[:, None, None].double()
            share = (keys * of_basket).sum(-1, keepdim=True) / keys.sum(-1, keepdim=True)
            mass = (weights * of_basket).sum(-1, keepdim=True)
            even += (weights * of_basket * share / mass).nan_to_num(0.0)
        strength = torch.full_like(weights[:1, :1, :, :1], self.strength)
        strength = strength * (lengths > self._basket)[:, None, :, None]
        if self.rows == "first":
            strength = strength * (positions == 0)[:, None, :, None]
        if self.rows == "last":
            strength = strength * (positions == lengths - 1)[:, None, :, None]
        return strength * even + (1 - strength) * weights

    @property
    def _basket(self) -> int:
        return self.basket if active_probe() is None else min(self.basket, _PROBE_BASKET)

    def _tiles(self, tokens: int, heads: int) -> Iterator[slice]:
        """Yield the rows of a text whose attention is spread, as many at once as fit."""
        if self.rows == "first":
            yield slice(0, 1)
        elif self.rows == "last":
            yield slice(tokens - 1, tokens)
        else:
            size = max(1, _TILE_BYTES // (4 * heads * tokens))
            yield from (slice(start, start + size) for start in range(0, tokens, size))


def calibrated(logits: Tensor, allowed: Tensor | None, basket: int) -> Tensor:
    """Return weights whose sums over baskets are the shares of their keys: [heads, rows, keys].

    Args:
        logits: [heads, rows, keys] of one text.
        allowed: booleans that broadcast to it: keys that a token may attend to; None: all.
        basket: number of keys.
    """
    keys = logits.shape[-1]
    number = -(-keys // basket)
    if allowed is None:
        allowed = torch.ones(1, 1, keys, dtype=torch.bool, device=logits.device)
    padding = (0, number * basket - keys)
    by_basket = nn.functional.pad(
        logits.masked_fill(~allowed, -torch.inf), padding, value=-torch.inf
    )
    within = by_basket.unflatten(-1, (number, basket)).softmax(-1)
    counts = nn.functional.pad(allowed, padding).unflatten(-1, (number, basket)).sum(-1)
    shares = counts / counts.sum(-1, keepdim=True)
    # A basket without any key for a token has no defined weights.
    weights = within.masked_fill((counts == 0)[..., None], 0.0) * shares[..., None]
    flat: Tensor = weights.flatten(-2)
    return flat[..., :keys]


def _texts(
    query: Tensor, mask: Tensor | None, starts: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """Yield the row of a batch that a text is in, and the places of its tokens in that row."""
    rows, _, tokens, _ = query.shape
    places = torch.arange(tokens, device=query.device)
    if mask is not None:
        # Every token of a text attends to itself, and no token to padding.
        read = _is_allowed(mask)[:, 0, :, :tokens].diagonal(dim1=1, dim2=2)
        yield from ((row, places[read[row if len(read) > 1 else 0]]) for row in range(rows))
    elif starts is not None:
        yield from ((0, places[start:end]) for start, end in pairwise(starts.tolist()))
    else:
        yield from ((row, places) for row in range(rows))


def _masks(
    module: nn.Module, mask: Tensor | None, row: int, places: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """Return which keys a text's tokens may attend to, and what is added to their logits.

    Either is [1 or heads, tokens, tokens], or None: all keys, nothing.
    """

    def of_text(tensor: Tensor) -> Tensor:
        return tensor[row if len(tensor) > 1 else 0][:, places][:, :, places]

    position_bias = kwargs.get("position_bias")
    bias = None if position_bias is None else of_text(position_bias)
    if mask is not None:
        part = of_text(mask)
        if mask.dtype != torch.bool:
            bias = part if bias is None else bias + part
        return _is_allowed(part), bias
    window = kwargs.get("sliding_window")
    if window is None and not is_causal_without_mask(module, kwargs.get("is_causal")):
        return None, bias
    starts = torch.tensor([0, len(places)], device=places.device)
    return attended_keys(starts, len(places), module, window)[0], bias


def _is_allowed(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
