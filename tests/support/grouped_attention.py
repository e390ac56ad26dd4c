"""Attention at SelfExtend's distances, pair by pair, for a model with rotary positions."""

import sys
from typing import Any

import pytest
import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lcbench.repair.selfextend import Groups
from lcbench.system.thirdparty import attention_implementation


@torch.no_grad()
def by_the_table(
    model: Any, text: torch.Tensor, group: int, neighbors: int, monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """Return states where every pair of tokens is rotated by the model's own rotary function.

    For each distance of the table it rotates the key alone, by minus the distance.
    """
    source = sys.modules[type(model).__module__]
    rotate = source.apply_rotary_pos_emb
    groups = Groups(group, neighbors, torch.ones(1), "halves", only_whole=False)
    places = torch.arange(text.shape[1])
    table = groups.distances(places, places)
    nested = "rope_type" not in model.config.rope_parameters
    pairs = type(model).__name__.startswith("Cohere")

    def wave(positions: torch.Tensor, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        frequencies = getattr(model.rotary_emb, f"{kind}_inv_freq" if nested else "inv_freq")
        angles = positions[None, :, None].double() * frequencies.double()
        whole = angles.repeat_interleave(2, -1) if pairs else torch.cat((angles, angles), -1)
        return whole.cos(), whole.sin()

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **kw: Any):
        heads = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(heads, 1) for one in (key, value))
        if kw.get("sliding_window") is not None and nested:
            turned = rotate(query, key, *wave(places, "sliding_attention"))
            products = turned[0] @ turned[1].transpose(-1, -2)
        else:
            products = torch.empty(*query.shape[:3], query.shape[2], dtype=query.dtype)
            for i in range(len(places)):
                turned = rotate(query, key, *wave(-table[i], "full_attention"))[1]
                products[:, :, i] = torch.einsum("bhd,bhnd->bhn", query[:, :, i], turned)
        apart = places[:, None] - places
        allowed = torch.ones_like(apart, dtype=torch.bool)
        if kw.get("sliding_window") is not None:
            allowed = apart.abs() < kw["sliding_window"]
        if getattr(module, "is_causal", False):
            allowed &= apart >= 0
        logits = (products * scaling).masked_fill(~allowed, float("-inf"))
        return (torch.softmax(logits, -1) @ value).transpose(1, 2), None

    # A name of its own: what is put in the place of sdpa would hide later wrappers of it.
    ALL_ATTENTION_FUNCTIONS.register("by_the_table", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("by_the_table", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    name = attention_implementation(model.config)
    with monkeypatch.context() as patched:
        patched.setattr(source, "apply_rotary_pos_emb", lambda q, k, *a, **kw: (q, k))
        for kind in {type(one) for one in model.modules()}:
            if hasattr(kind, "rotary_fn"):
                patched.setattr(kind, "rotary_fn", staticmethod(lambda q, k, *a, **kw: (q, k)))
        model.set_attn_implementation("by_the_table")
        inputs = {"input_ids": text, "attention_mask": torch.ones_like(text)}
        found: torch.Tensor = model(**inputs).last_hidden_state[0]
    model.set_attn_implementation(name)
    return found
