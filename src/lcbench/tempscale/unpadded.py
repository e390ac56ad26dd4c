"""Computes attention over texts that lie one after the other, without padding between them.

It is an attention implementation of `transformers` like sdpa, under the name `IMPLEMENTATION`. A
model that runs on it takes a batch as one row of tokens, [1, tokens], with the position of each
token in its text and, as flash attention has it, where each text begins (`cu_seq_lens_q`) and how
long the longest is (`max_length_q`). No mask is made. On a GPU two kernels of torch take such a row
as it is: flash attention in half precision, memory-efficient attention in float32. On a CPU each
text is computed by itself. Padded batches are computed as with sdpa.

A temperature divides the scale or the queries before they arrive here (`attend.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lcbench.errors import InjectionError
from lcbench.system.thirdparty import attention_implementation, unpadded_attention

IMPLEMENTATION = "lcbench_varlen"
# What a model's forward pass takes of an unpadded batch, besides its tokens and their positions.
BOUNDARIES = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")

# What torch's flash kernel takes: the largest head, and what its size is a multiple of.
_FLASH_HEAD, _FLASH_MULTIPLE = 256, 8
# The same of the memory-efficient kernel, whose rows have to begin at a multiple of 16 bytes.
_EFFICIENT_MULTIPLE = 4
# Of the memory-efficient kernel: each token attends to all of its text, or to what is before it.
_NO_MASK, _CAUSAL = 0, 1


def register() -> str:
    """Make the implementation known to transformers, and return its name."""
    if IMPLEMENTATION not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(IMPLEMENTATION, attend)
    if IMPLEMENTATION not in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    return IMPLEMENTATION


def runs_unpadded(transformer: PreTrainedModel) -> bool:
    """Return whether a model is on this implementation."""
    return attention_implementation(transformer.config) == IMPLEMENTATION


def first_position(transformer: PreTrainedModel) -> int:
    """Return the position of a text's first token: 0, or behind that of padding, as in RoBERTa."""
    for module in transformer.modules():
        padding = getattr(module, "padding_idx", None)
        table = getattr(module, "position_embeddings", None)
        if isinstance(padding, int) and isinstance(table, nn.Embedding):
            return padding + 1
    return 0


def boundaries(lengths: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the arguments that tell a model where each text of an unpadded batch begins."""
    starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device)
    longest = max(lengths)
    return dict(zip(BOUNDARIES, (starts, starts, longest, longest), strict=True))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute a layer's attention: its output [batch, tokens, heads, size], and no weights.

    Args:
        module: the layer.
        query: [batch, heads, tokens, size]; without padding the batch is 1.
        key: the same, with as many heads or a part of them.
        value: as the keys.
        attention_mask: of a padded batch.
        scaling: of the logits; None: by the size of the heads.
        is_causal: whether tokens attend to nothing behind them; None: as the layer says.
        sliding_window: how many tokens a token attends to on each side, itself included.
        cu_seq_lens_q: where each text begins and the last one ends: [texts + 1], int32.
        max_length_q: tokens of the longest text.
        kwargs: what else the model passes on.

    Raises:
        InjectionError: the layer changes its logits in a way that this does not know.
    """
    for name in ("position_bias", "softcap", "s_aux"):
        if kwargs.get(name) is not None:
            raise InjectionError(
                f"{type(module).__name__} has a {name}, which attention without padding has not."
            )
    if attention_mask is not None:
        return sdpa_attention_forward(
            *(module, query, key, value, attention_mask), scaling=scaling, is_causal=is_causal
        )
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    batch, heads, tokens, size = query.shape
    if cu_seq_lens_q is None or max_length_q is None:
        # A batch whose texts are all as long: one after the other.
        cu_seq_lens_q = tokens * torch.arange(batch + 1, dtype=torch.int32, device=query.device)
        max_length_q = tokens
    # [tokens, heads, size]
    rows = (one.transpose(1, 2).reshape(-1, one.shape[1], size) for one in (query, key, value))
    output = attend_by_text(
        *rows,
        starts=cu_seq_lens_q,
        longest=max_length_q,
        scale=size**-0.5 if scaling is None else scaling,
        causal=causal,
        # No token of a text as short as that is out of reach.
        window=None if sliding_window is None or max_length_q <= sliding_window else sliding_window,
    )
    return output.reshape(batch, tokens, heads, size), None


def attend_by_text(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    starts: Tensor,
    longest: int,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Return softmax(scale · QKᵀ) V of each text by itself: [tokens, heads, size].

    Args:
        query: [tokens, heads, size] of all texts, one after the other.
        key: the same, with as many heads or a part of them.
        value: as the keys.
        starts: where each text begins and the last one ends: [texts + 1], int32.
        longest: tokens of the longest text.
        scale: of the logits.
        causal: whether tokens attend to nothing behind them.
        window: how many tokens a token attends to on each side, itself included; None: to all.
    """
    size = query.shape[-1]
    if not _is_on_gpu(query):
        alone: Tensor = _one_by_one(query, key, value, starts, scale, causal, window)
        return alone
    if query.dtype in (torch.float16, torch.bfloat16):
        if size <= _FLASH_HEAD and size % _FLASH_MULTIPLE == 0:
            reach = None if window is None else window - 1
            return unpadded_attention(
                *("flash", query, key, value, starts, starts, longest, longest, 0.0, causal, False),
                scale=scale,
                window_size_left=reach,
                window_size_right=0 if causal and reach is not None else reach,
            )
    # Its windows reach back only.
    elif window is None and size % _EFFICIENT_MULTIPLE == 0:
        keys, values = (_for_each_head(one, query.shape[1]) for one in (key, value))
        return unpadded_attention(
            *("efficient", query[None], keys[None], values[None], None, starts, starts),
            *(longest, longest, 0.0, _CAUSAL if causal else _NO_MASK),
            scale=scale,
        )[0]
    return _padded(query, key, value, starts, longest, scale, causal, window)


def attended_keys(
    starts: Tensor, tokens: int, module: nn.Module, sliding_window: int | None
) -> Tensor:
    """Return which tokens of an unpadded batch each may attend to: [1, 1, tokens, tokens]."""
    text = text_of_token(starts, tokens)
    allowed = text[:, None] == text
    return (allowed & _near(tokens, _is_causal(module), sliding_window, starts.device))[None, None]


def text_of_token(starts: Tensor, tokens: int) -> Tensor:
    """Return the number of the text that each token of an unpadded batch belongs to: [tokens]."""
    # Without being told how many there are, the CPU would have to wait for a GPU.
    texts = torch.arange(len(starts) - 1, device=starts.device)
    return texts.repeat_interleave(starts.diff(), output_size=tokens)


def _mask(attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """Return the mask of a padded batch as sdpa has it; there is none without padding."""
    if attention_mask is None:
        return None
    # Also where nothing is padded, as the window would not be known.
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(attention_mask=attention_mask, **{**kwargs, **skips})


def _is_on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _is_causal(module: nn.Module) -> bool:
    return bool(getattr(module, "is_causal", True))


def _near(tokens: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Return which keys causality and the window let each query attend to: [tokens, tokens]."""
    places = torch.arange(tokens, device=device)
    behind = places[:, None] - places
    near = behind.abs() < (tokens if window is None else window)
    return near & (behind >= 0) if causal else near


def _for_each_head(keys: Tensor, heads: int) -> Tensor:
    """Repeat keys or values that several heads of queries share: [tokens, heads, size]."""
    groups = heads // keys.shape[1]
    return keys if groups == 1 else keys.repeat_interleave(groups, dim=1)


# It goes by the numbers of texts and tokens, for each of which there would be code.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Compute the attention of each text in its turn."""
    heads = query.shape[1]
    key, value = (_for_each_head(one, heads) for one in (key, value))
    queries, keys, values = (one.transpose(0, 1)[None] for one in (query, key, value))
    output = torch.empty_like(query)
    for start, end in pairwise(starts.tolist()):
        cut = slice(start, end)
        mask = (
            _near(end - start, causal, window, query.device)
            if window is not None and window < end - start
            else None
        )
        output[cut] = nn.functional.scaled_dot_product_attention(
            *(queries[:, :, cut], keys[:, :, cut], values[:, :, cut]),
            attn_mask=mask,
            is_causal=causal and mask is None,
            scale=scale,
        )[0].transpose(0, 1)
    return output


def _padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Compute attention of texts that are padded for it alone, where no kernel takes the row."""
    tokens, heads, _ = query.shape
    key, value = (_for_each_head(one, heads) for one in (key, value))
    columns = torch.arange(longest, device=query.device)
    # [texts, longest]; what is behind a text's end is not read.
    places = (starts[:-1, None] + columns).clamp(max=tokens - 1)
    queries, keys, values = (one[places].transpose(1, 2) for one in (query, key, value))
    read = columns < starts.diff()[:, None]
    near = _near(longest, causal, window, query.device)
    output = nn.functional.scaled_dot_product_attention(
        *(queries, keys, values), attn_mask=read[:, None, None] & near, scale=scale
    )
    text = text_of_token(starts, tokens)
    within = torch.arange(tokens, device=query.device) - starts[text]
    return output.transpose(1, 2)[text, within]
