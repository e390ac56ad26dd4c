"""Computes attention over concatenated texts, without padding between them.

This is an attention implementation for `transformers`, like sdpa, with the name `IMPLEMENTATION`.
A model that uses it takes a batch as one row of tokens, [1, tokens], with the position of each
token in its text and, as in flash attention, the start of each text (`cu_seq_lens_q`) and the
length of the longest (`max_length_q`). There is no mask. On a GPU two kernels of torch support such
rows: flash attention in half precision and memory-efficient attention in float32. What they do not
support, windows in float32 and some sizes of heads, is padded for each layer, by groups of texts of
like length. On a CPU texts are computed one by one. Padded batches are computed as with sdpa.

Temperatures are applied to the scale or the queries before this function is called (`attend.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
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
# Arguments of a model's forward pass for an unpadded batch, besides tokens and positions.
BOUNDARIES = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")

# Limits of torch's flash kernel: maximum size of a head, and a divisor of the size.
_FLASH_HEAD, _FLASH_MULTIPLE = 256, 8
# Divisor of the size for the memory-efficient kernel, whose rows must be aligned to 16 bytes.
_EFFICIENT_MULTIPLE = 4
# Elements of a mask of texts that are padded together: 16 texts of 512 tokens, 16 MiB in float32.
_MASKED_AT_ONCE = 2**22
_GROUPS = "_lcbench_groups"
# Mask types of the memory-efficient kernel.
_NO_MASK, _CAUSAL = 0, 1


def register() -> str:
    """Make the implementation known to transformers, and return its name."""
    if IMPLEMENTATION not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(IMPLEMENTATION, attend)
    if IMPLEMENTATION not in ALL_MASK_ATTENTION_FUNCTIONS:
        AttentionMaskInterface.register(IMPLEMENTATION, padding_mask)
    return IMPLEMENTATION


def runs_unpadded(transformer: PreTrainedModel) -> bool:
    """Return whether a model is on this implementation."""
    return attention_implementation(transformer.config) == IMPLEMENTATION


def first_position(transformer: PreTrainedModel) -> int:
    """Return the position of a text's first token: 0, or that of padding plus 1, as in RoBERTa."""
    for module in transformer.modules():
        padding = getattr(module, "padding_idx", None)
        table = getattr(module, "position_embeddings", None)
        if isinstance(padding, int) and isinstance(table, nn.Embedding):
            return padding + 1
    return 0


def boundaries(lengths: Sequence[int], device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return a model's arguments for the boundaries of the texts in an unpadded batch."""
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
        key: same as the query, with the same or a smaller number of heads.
        value: same shape as the keys.
        attention_mask: mask of a padded batch.
        scaling: scale of the logits; None: derived from the size of the heads.
        is_causal: whether tokens do not attend to later tokens; None: the layer's setting.
        sliding_window: number of tokens that a token attends to on each side, including itself.
        cu_seq_lens_q: start of each text and end of the last: [texts + 1], int32.
        max_length_q: number of tokens of the longest text.
        kwargs: further arguments of the model.

    Raises:
        InjectionError: the layer changes its logits in an unsupported way.
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
        # All texts of the batch have the same length.
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
        # Texts that are no longer than the window need none.
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
        query: [tokens, heads, size], all texts concatenated.
        key: same as the query, with the same or a smaller number of heads.
        value: same shape as the keys.
        starts: start of each text and end of the last: [texts + 1], int32.
        longest: number of tokens of the longest text.
        scale: scale of the logits.
        causal: whether tokens do not attend to later tokens.
        window: number of tokens that a token attends to on each side, including itself; None: all.
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
    # The memory-efficient kernel supports windows to the left only.
    elif window is None and size % _EFFICIENT_MULTIPLE == 0:
        keys, values = (_for_each_head(one, query.shape[1]) for one in (key, value))
        return unpadded_attention(
            *("efficient", query[None], keys[None], values[None], None, starts, starts),
            *(longest, longest, 0.0, _CAUSAL if causal else _NO_MASK),
            scale=scale,
        )[0]
    return _padded(query, key, value, starts, scale, causal, window)  # type: ignore[no-any-return]


def attended_keys(
    starts: Tensor, tokens: int, module: nn.Module, sliding_window: int | None
) -> Tensor:
    """Return a mask of the tokens that each token may attend to: [1, 1, tokens, tokens]."""
    text = text_of_token(starts, tokens)
    allowed = text[:, None] == text
    return (allowed & _near(tokens, is_causal(module), sliding_window, starts.device))[None, None]


def text_of_token(starts: Tensor, tokens: int) -> Tensor:
    """Return the number of the text that each token of an unpadded batch belongs to: [tokens]."""
    # Without `output_size`, the CPU would have to wait for the GPU.
    texts = torch.arange(len(starts) - 1, device=starts.device)
    return texts.repeat_interleave(starts.diff(), output_size=tokens)


def padding_mask(attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """Return the mask of a padded batch for sdpa; there is none without padding."""
    if attention_mask is None:
        return None
    # Also if nothing is padded, since sdpa does not know the window.
    skips = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(attention_mask=attention_mask, **{**kwargs, **skips})


def _is_on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def is_causal(module: nn.Module, otherwise: bool = True) -> bool:
    """Return whether a layer's tokens attend to no later tokens, unless a mask says otherwise.

    Args:
        module: the layer.
        otherwise: what holds of a layer that does not say so.
    """
    # transformers passes the configuration's word on, over the layer's own.
    stated = getattr(getattr(module, "config", None), "is_causal", None)
    return bool(getattr(module, "is_causal", otherwise) if stated is None else stated)


def _near(tokens: int, causal: bool, window: int | None, device: torch.device) -> Tensor:
    """Return a mask of the keys that causality and the window allow: [tokens, tokens]."""
    places = torch.arange(tokens, device=device)
    behind = places[:, None] - places
    near = behind.abs() < (tokens if window is None else window)
    return near & (behind >= 0) if causal else near


def _for_each_head(keys: Tensor, heads: int) -> Tensor:
    """Repeat keys or values that several query heads share: [tokens, heads, size]."""
    groups = heads // keys.shape[1]
    return keys if groups == 1 else keys.repeat_interleave(groups, dim=1)


# It depends on the numbers of texts and tokens; each would be compiled separately.
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
    """Compute the attention of each text in turn."""
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


# It depends on the lengths of the texts.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    scale: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Compute attention with temporary padding, if no kernel supports the row.

    Texts of like length are padded together, so that padding at most doubles the tokens.
    """
    tokens, heads, _ = query.shape
    key, value = (_for_each_head(one, heads) for one in (key, value))
    # Padding is written to one more row, so that the GPU need not wait for where it is.
    output = query.new_empty(tokens + 1, *query.shape[1:])
    for places in _groups(starts, tokens):
        rows = places.clamp(max=tokens - 1)
        queries, keys, values = (one[rows].transpose(1, 2) for one in (query, key, value))
        near = _near(places.shape[1], causal, window, query.device)
        mask = (places < tokens)[:, None, None] & near
        found = nn.functional.scaled_dot_product_attention(
            *(queries, keys, values), attn_mask=mask, scale=scale
        )
        output[places] = found.transpose(1, 2)
    return output[:tokens]


def _groups(starts: Tensor, tokens: int) -> list[Tensor]:
    """Return the tokens of texts of like length, [texts, longest] each; `tokens` for padding.

    They are kept with the starts, which all layers share: only the first waits for a GPU.
    """
    known: list[Tensor] | None = getattr(starts, _GROUPS, None)
    if known is not None:
        return known
    texts = sorted((end - start, start) for start, end in pairwise(starts.tolist()) if end > start)
    made = []
    # No text is twice as long as another of its group.
    for _, alike in groupby(texts, lambda text: (text[0] - 1).bit_length()):
        group = list(alike)
        count = max(1, _MASKED_AT_ONCE // group[-1][0] ** 2)
        for first in range(0, len(group), count):
            part = group[first : first + count]
            sizes, begins = torch.tensor(part, device=starts.device).T
            columns = torch.arange(part[-1][0], device=starts.device)
            is_token = columns < sizes[:, None]
            made.append(torch.where(is_token, begins[:, None] + columns, tokens))
    setattr(starts, _GROUPS, made)
    return made
