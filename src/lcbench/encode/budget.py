"""Chooses the size of batches in tokens, by the CPU's cache or the memory of a GPU.

On a GPU it is measured, with a trial batch through the model.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import torch

from lcbench.encode.batch_size import longest_of, tokens_of_batch
from lcbench.system.transient import is_out_of_memory
from lcbench.tempscale.transformer import find_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Tokens that show how much memory a token takes.
_GPU_TRIAL_TOKENS = 16384


def batch_budget(model: SentenceTransformer, lanes: int, window: int | None) -> int:
    """Return the size of the batches that a device computes fastest, in tokens with padding.

    Args:
        model: on the device.
        lanes: batches at once there.
        window: most tokens that are read of a text; None: no limit.
    """
    config = find_transformer(model).config
    hidden, kind = int(getattr(config, "hidden_size", 768)), model.device.type
    room = None if kind != "cuda" else _gpu_room(model, window)
    return tokens_of_batch(kind, hidden, window, lanes, room=room)


def _gpu_room(model: SentenceTransformer, window: int | None) -> float | None:
    """Return how many tokens a GPU's memory has room for besides the weights; None: unknown.

    What counts is the whole of its memory, not what others have left of it at present: the same
    texts make the same batches, and so the same bits, next to a neighbour and alone. Where a batch
    does not fit next to other processes' data, `Forward.run` halves it.
    """
    # What other models have left counts as taken until it is given back.
    gc.collect()
    torch.cuda.empty_cache()
    took = _bytes_a_token(model, longest_of(window))
    if took is None:
        return None
    device = model.device
    return (torch.cuda.mem_get_info(device)[1] - torch.cuda.memory_allocated(device)) / took


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
