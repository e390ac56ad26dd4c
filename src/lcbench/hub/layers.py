"""What a token costs in a layer of a model, by its configuration, and how many weights it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

# Architectures whose feed-forward network has a gate, a third matrix: of T5, its file says so.
_GATED = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "phi3"}
    | {"smollm3", "olmo2", "modernbert", "nomic_bert"}
)
# Decoders, whose tokens attend to earlier ones alone unless their file says otherwise.
_CAUSAL = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "phi3"}
    | {"smollm3", "olmo2", "gpt2", "gpt_neox", "opt"}
)
# Architectures whose attention weights exist as a whole: biased by position, or of own softmax.
_WHOLE = frozenset({"t5", "mt5", "umt5", "mpnet", "deberta", "deberta-v2"})


@dataclass(frozen=True)
class Layer:
    """What a token costs in a layer.

    Attributes:
        weights: weights that it is multiplied with: of queries, keys, values, output and the
            feed-forward network.
        attended: width of the queries of all heads together.
        inner: width of the feed-forward network, all of its branches together.
        causal: whether it attends to earlier tokens alone.
        heads: number of heads of queries.
        whole: whether attention weights of a text exist as a whole, of all heads.
    """

    weights: int
    attended: int
    inner: int
    causal: bool
    heads: int
    whole: bool


def layer_of(config: Mapping[str, Any]) -> Layer | None:
    """Return what a token costs in a layer of a transformer; None: its file does not say.

    Args:
        config: the transformer's `config.json`.
    """
    hidden = _count(config, "hidden_size", "d_model", "dim", "n_embd")
    heads = _count(config, "num_attention_heads", "num_heads", "n_heads", "n_head")
    inner = _count(config, "intermediate_size", "d_ff", "hidden_dim", "n_inner")
    if not hidden or not heads or not inner:
        return None
    kind = config.get("model_type")
    size = _count(config, "head_dim", "d_kv") or hidden // heads
    groups = _count(config, "num_key_value_heads") or heads
    gated = kind in _GATED or str(config.get("feed_forward_proj", "")).startswith("gated")
    both_ways = config.get("is_causal") is False or bool(
        config.get("use_bidirectional_attention", False)
    )
    attention = hidden * size * (2 * heads + 2 * groups)
    return Layer(
        weights=attention + (3 if gated else 2) * hidden * inner,
        attended=heads * size,
        inner=(2 if gated else 1) * inner,
        causal=kind in _CAUSAL and not both_ways,
        heads=heads,
        whole=kind in _WHOLE,
    )


def parameters_in(folder: Path) -> int | None:
    """Return the number of parameters in the safetensors files of a folder; None: no such file.

    Only headers are read. Damaged files count as none.
    """
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError):
            continue
    return total or None


def _count(config: Mapping[str, Any], *names: str) -> int | None:
    return next((int(config[one]) for one in names if isinstance(config.get(one), int)), None)
