"""Runs one batch of texts through a model, with padding between them or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lcbench.encode.chunks import Unscaled
from lcbench.encode.tokens import Tokenizer, Tokens
from lcbench.tempscale.unpadded import BOUNDARIES

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@torch.inference_mode()
def embed(
    model: SentenceTransformer,
    tokenizer: Tokenizer,
    batch: Sequence[Tokens],
    *,
    multiple: int = 1,
    packed_from: int | None = None,
    filled: bool = False,
    unscaled: Unscaled | None = None,
) -> tuple[torch.Tensor, int]:
    """Compute the embeddings of a batch, and return them on the CPU in float32.

    Args:
        model: the model in evaluation mode.
        tokenizer: tokenizer of the model.
        batch: the tokens of each text, all after the same prompt.
        multiple: the padded length is a multiple of this; see `Tokenizer.width`.
        packed_from: position of a text's first token in a batch without padding
            (`tempscale.unpadded`); None: the batch is padded.
        filled: whether a batch without padding is filled up to one of few sizes, see `pack`.
        unscaled: takes embeddings out before they are scaled and cut; None: the model's own.

    Returns:
        Embeddings [texts, dimensions], those of `unscaled` in float64, and the number of tokens of
        the batch, including padding.
    """
    device = model.device
    pin = device.type == "cuda"
    features = (
        pack(batch, packed_from, pin=pin, filled=filled and unscaled is None)
        if packed_from is not None and can_pack(batch)
        else tokenizer.pad(batch, pin=pin, multiple=multiple)
    )
    tokens = int(features["input_ids"].numel())
    if device.type != "cpu":
        features = {
            name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in features.items()
        }
    output = model(features, **tokenizer.task)
    if unscaled is not None:
        return unscaled(model, output, [one.length for one in batch]).cpu(), tokens
    found = output["sentence_embedding"][: len(batch)]
    # Cut where the model's configuration says so (Matryoshka), as by `SentenceTransformer.encode`.
    return found[:, : model.truncate_dim].float().cpu(), tokens


def can_pack(batch: Sequence[Tokens]) -> bool:
    """Return whether texts consist of their token ids and the prompt alone."""
    return all(one.ids_only for one in batch)


def pack(
    batch: Sequence[Tokens], first_position: int, *, pin: bool = False, filled: bool = False
) -> dict[str, Any]:
    """Return a batch's features without padding: the tokens of all texts in one row [1, tokens].

    Args:
        batch: the tokens of each text, which `can_pack` takes.
        first_position: position of the first token of each text.
        pin: put the tensors into page-locked memory, which a CUDA device reads by itself.
        filled: append filler texts, none longer than the longest, so that batches come in few
            sizes: at most an eighth more tokens, and a power of two of texts. The length of the
            longest is then given as a power of two too, as a bound.
    """
    lengths = np.array([one.length for one in batch], dtype=np.int64)
    longest, tokens = int(lengths.max()), int(lengths.sum())
    if filled:
        lengths = np.concatenate([lengths, filling(lengths)])
        longest = power_of_two(longest)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    row = torch.empty(2, int(starts[-1]), dtype=torch.int64, pin_memory=pin)
    ids, positions = row.numpy()
    np.concatenate([one.ids for one in batch], out=ids[:tokens])
    # Any tokens of the vocabulary: those that the batch begins with.
    ids[tokens:] = ids[: len(ids) - tokens]
    positions[:] = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths) + first_position
    bounds = torch.empty(len(starts), dtype=torch.int32, pin_memory=pin)
    bounds.numpy()[:] = starts
    where = dict(zip(BOUNDARIES, (bounds, bounds, longest, longest), strict=True))
    return {"input_ids": row[:1], "position_ids": row[1:], **where, **batch[0].others}


def filling(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers of tokens of the filler texts of a batch, which may be 0: [texts], int64.

    Args:
        lengths: tokens of the batch's texts: [texts].
    """
    tokens, texts = int(lengths.sum()), len(lengths)
    step = max(1, power_of_two(tokens) // 16)
    spare = -tokens % step
    count = power_of_two(texts + -(-spare // max(1, int(lengths.max())))) - texts
    return np.array([(spare + i) // count for i in range(count)], dtype=np.int64)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is no smaller than a number of at least 1."""
    return 1 << (number - 1).bit_length()
