"""Chooses the size of batches in tokens, by the CPU's cache or the memory of a GPU.

On a GPU it is measured, with a trial batch through the model.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lcbench.system.transient import is_out_of_memory
from lcbench.tempscale.transformer import find_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Tokens of a batch on a GPU, for a model of BERT's width and narrower ones; of wider ones fewer, so
# that what is in flight stays as large. bge-base on an H100, in bfloat16 without padding, reads
# 1.30 M tokens/s in batches of 16,384 tokens, 1.90 M of 32,768, 1.97 M of 65,536 and no more of
# larger ones. A block of 4,096 texts of a hundred tokens is still several batches, of which one is
# copied while another is computed.
_GPU_TOKENS = 65536
_GPU_WIDTH = 768
# Of a GPU's whole memory, weights apart, what all batches at once may take; and the tokens that
# show how much that is.
_GPU_SHARE = 0.7
_GPU_TRIAL_TOKENS = 16384
# Where the size of the cache is not known.
_CACHE_BYTES = 16 * 2**20
_LEAST_CPU_TOKENS = 512
_MOST_CPU_TOKENS = 4096


def batch_budget(model: SentenceTransformer, lanes: int, window: int | None) -> int:
    """Return the size of the batches that a device computes fastest, in tokens with padding.

    Args:
        model: on the device.
        lanes: batches at once there.
        window: most tokens that are read of a text; None: no limit.
    """
    if model.device.type == "cuda":
        return _gpu_budget(model, lanes, window)
    config = find_transformer(model).config
    hidden = int(getattr(config, "hidden_size", 768))
    # The widest thing in flight is the feed-forward part, four times as wide as the model; it, its
    # activation and what they are made of should stay in the cache that the cores share. MiniLM on
    # two cores that share 32 MiB reads 5,560 tokens/s at 512 tokens a batch, 5,670 at 1,024, 5,550
    # at 2,048 and 5,040 at 4,096 (texts of 512 tokens).
    fits = _cache_bytes() // (lanes * 6 * hidden * 4)
    return 1 << int(np.log2(np.clip(fits, _LEAST_CPU_TOKENS, _MOST_CPU_TOKENS)))


def _cache_bytes() -> int:
    """Return the size of the largest cache of the first core; a common size if unknown."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) * 1024)
    return max(sizes, default=_CACHE_BYTES)


def _gpu_budget(model: SentenceTransformer, lanes: int, window: int | None) -> int:
    """Return the size of batches by the model's width and the GPU's memory, in tokens.

    What counts is the whole of its memory, not what others have left of it at present: the same
    texts make the same batches, and so the same bits, next to a neighbour and alone. Where a batch
    does not fit next to other processes' data, `Forward.run` halves it.
    """
    config = find_transformer(model).config
    hidden = int(getattr(config, "hidden_size", _GPU_WIDTH))
    planned = _GPU_TOKENS * _GPU_WIDTH // max(_GPU_WIDTH, hidden)
    # What other models have left counts as taken until it is given back.
    gc.collect()
    torch.cuda.empty_cache()
    window = min(window or 512, _GPU_TRIAL_TOKENS)
    if (took := _bytes_a_token(model, window)) is not None:
        device = model.device
        whole = torch.cuda.mem_get_info(device)[1] - torch.cuda.memory_allocated(device)
        planned = min(planned, int(_GPU_SHARE * max(0, whole) / lanes / took))
    return 1 << int(np.log2(max(planned, window)))


def _bytes_a_token(model: SentenceTransformer, window: int) -> float | None:
    """Return the measured memory per token of a batch of long texts, in bytes.

    None: not even two such texts fit at present.
    """
    device = model.device
    rows = max(2, _GPU_TRIAL_TOKENS // window)
    while True:
        try:
            ids = torch.ones(rows, window, dtype=torch.long, device=device)
            mask = torch.ones_like(ids)
            # Without padding there would be no mask, which is [texts, 1, window, window] and more.
            mask[-1, window // 2 :] = 0
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            with torch.inference_mode():
                find_transformer(model)(input_ids=ids, attention_mask=mask)
            took = max(1, torch.cuda.max_memory_allocated(device) - before) / ids.numel()
            torch.cuda.empty_cache()
            return took
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the handler, which holds what the trial had in memory.
        torch.cuda.empty_cache()
        if rows == 2:
            return None
        rows = max(2, rows // 2)
