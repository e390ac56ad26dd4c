"""Runs one batch of texts through a model, with padding between them or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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
        unscaled: takes embeddings out before they are scaled and cut; None: the model's own.

    Returns:
        Embeddings [texts, dimensions], those of `unscaled` in float64, and the number of tokens of
        the batch, including padding.
    """
    device = model.device
    pin = device.type == "cuda"
    features = (
        pack(batch, packed_from, pin=pin)
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
    found = output["sentence_embedding"]
    # Cut where the model's configuration says so (Matryoshka), as by `SentenceTransformer.encode`.
    return found[:, : model.truncate_dim].float().cpu(), tokens


def can_pack(batch: Sequence[Tokens]) -> bool:
    """Return whether texts consist of their token ids and the prompt alone."""
    return all(one.ids_only for one in batch)


def pack(batch: Sequence[Tokens], first_position: int, *, pin: bool = False) -> dict[str, Any]:
    """Return a batch's features without padding: the tokens of all texts in one row [1, tokens].

    Args:
        batch: the tokens of each text, which `can_pack` takes.
        first_position: position of the first token of each text.
        pin: put the tensors into page-locked memory, which a CUDA device reads by itself.
    """
    starts = np.cumsum([0, *(one.length for one in batch)])
    lengths = np.diff(starts)
    row = torch.empty(2, int(starts[-1]), dtype=torch.int64, pin_memory=pin)
    ids, positions = row.numpy()
    np.concatenate([one.ids for one in batch], out=ids)
    positions[:] = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths) + first_position
    bounds = torch.empty(len(starts), dtype=torch.int32, pin_memory=pin)
    bounds.numpy()[:] = starts
    longest = int(lengths.max())
    where = dict(zip(BOUNDARIES, (bounds, bounds, longest, longest), strict=True))
    return {"input_ids": row[:1], "position_ids": row[1:], **where, **batch[0].others}
