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
# Architectures with a window in some layers: one of so many layers has none, by default, and which
# of these it is.
_ONE_FULL_OF = {"modernbert": (3, 0), "gemma2": (2, 1), "gemma3": (6, 5), "gemma3_text": (6, 5)}
# Those with a window in all layers, if their file states one.
_ALL_WINDOWED = frozenset({"mistral", "phi3"})
# Keys of a `config.json` that `layer_of` reads, besides the numbers of layers and dimensions, and
# the types of their values.
STATED: Mapping[str, type] = {
    "model_type": str,
    "num_attention_heads": int,
    "num_key_value_heads": int,
    "head_dim": int,
    "intermediate_size": int,
    "feed_forward_proj": str,
    "is_causal": bool,
    "use_bidirectional_attention": bool,
    "sliding_window": int,
    "sliding_window_pattern": int,
    "local_attention": int,
    "global_attn_every_n_layers": int,
}


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
        window: tokens that one attends to in layers with a window, on both sides together; None: no
            layer has one.
        full: share of the layers without a window.
    """

    weights: int
    attended: int
    inner: int
    causal: bool
    heads: int
    whole: bool
    window: int | None = None
    full: float = 1.0

    def reach(self, tokens: float, *, windowed: bool) -> float:
        """Return how many tokens one is multiplied with, the mean of a text's and of all layers.

        Args:
            tokens: length of the text.
            windowed: whether attention of layers with a window is computed in it alone.
        """
        reached = (0.5 if self.causal else 1.0) * tokens
        if self.window is None or not windowed:
            return reached
        return self.full * reached + (1 - self.full) * min(reached, self.window)


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
    window, full = _windows(config)
    return Layer(
        weights=attention + (3 if gated else 2) * hidden * inner,
        attended=heads * size,
        inner=(2 if gated else 1) * inner,
        causal=kind in _CAUSAL and not both_ways,
        heads=heads,
        whole=kind in _WHOLE,
        window=window,
        full=full,
    )


def _windows(config: Mapping[str, Any]) -> tuple[int | None, float]:
    """Return the window of a model's layers, and the share of the layers that have none."""
    window = _count(config, "local_attention", "sliding_window")
    layers = _count(config, "num_hidden_layers", "num_layers", "n_layers", "n_layer")
    kind, types = config.get("model_type"), config.get("layer_types")
    if not window or not layers:
        return None, 1.0
    if isinstance(types, list) and types:
        full = types.count("full_attention") / len(types)
    elif kind in _ONE_FULL_OF:
        every, which = _ONE_FULL_OF[kind]
        keys = ("global_attn_every_n_layers", "sliding_window_pattern", "_sliding_window_pattern")
        stated = _count(config, *keys) or every
        full = len(range(0 if which == 0 else stated - 1, layers, stated)) / layers
    elif kind in _ALL_WINDOWED:
        full = 0.0
    elif config.get("use_sliding_window") is True:
        full = min(layers, _count(config, "max_window_layers") or 0) / layers
    else:
        full = 1.0
    return (window, full) if full < 1 else (None, 1.0)


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
