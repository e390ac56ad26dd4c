"""How many tokens a batch has, by the model's width and the CPU's cache or the GPU's memory."""

from __future__ import annotations

import math
from pathlib import Path

# Tokens of a batch on a GPU, for a model of BERT's width and narrower ones; of wider ones fewer, so
# that what is in flight stays as large. bge-base on an H100, in bfloat16 without padding, reads
# 1.30 M tokens/s in batches of 16,384 tokens, 1.90 M of 32,768, 1.97 M of 65,536 and no more of
# larger ones. A block of 4,096 texts of a hundred tokens is still several batches, of which one is
# copied while another is computed.
_GPU_TOKENS = 65536
_GPU_WIDTH = 768
# Of the memory that a GPU has besides the weights, what all batches at once may take.
_GPU_SHARE = 0.7
# Longest text that the size of a batch depends on; a longer one is a batch of its own.
_LONGEST = 16384
# Length of the texts that the size of a batch suits, for a model without a window of its own (T5).
WITHOUT_LIMIT = 512
# Where the size of the cache is not known.
_CACHE_BYTES = 16 * 2**20
_LEAST_CPU_TOKENS = 512
_MOST_CPU_TOKENS = 4096


def tokens_of_batch(
    kind: str, hidden: int, window: int | None, lanes: int, *, room: float | None = None
) -> int:
    """Return the tokens of a batch, padding included: a power of two.

    Args:
        kind: kind of device: `cpu`, `cuda` …
        hidden: width of the model's layers.
        window: most tokens that are read of a text; None: no limit.
        lanes: batches at once on the device.
        room: tokens that a GPU's memory has room for besides the weights; None: unknown, and
            enough.
    """
    if kind != "cuda":
        # The widest thing in flight is the feed-forward part, four times as wide as the model; it,
        # its activation and what they are made of should stay in the cache that the cores share.
        # MiniLM on two cores that share 32 MiB reads 5,560 tokens/s at 512 tokens a batch, 5,670 at
        # 1,024, 5,550 at 2,048 and 5,040 at 4,096 (texts of 512 tokens).
        fits = _cache_bytes() // (lanes * 6 * hidden * 4)
        return _power(min(max(fits, _LEAST_CPU_TOKENS), _MOST_CPU_TOKENS))
    planned = _GPU_TOKENS * _GPU_WIDTH // max(_GPU_WIDTH, hidden)
    if room is not None:
        planned = min(planned, int(_GPU_SHARE * max(0.0, room) / lanes))
    return _power(max(planned, longest_of(window)))


def longest_of(window: int | None) -> int:
    """Return the length of the longest texts that the size of a batch depends on, in tokens.

    Args:
        window: most tokens that are read of a text; None: no limit.
    """
    return min(window or WITHOUT_LIMIT, _LONGEST)


def _power(count: int) -> int:
    """Return the largest power of two that is not larger."""
    return 1 << int(math.log2(count))


def _cache_bytes() -> int:
    """Return the size of the largest cache of the first core; a common size if unknown."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * 1024)
    return max(sizes, default=_CACHE_BYTES)
