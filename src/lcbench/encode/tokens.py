"""From texts to token ids: once each, exactly as sentence-transformers makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Texts that the tokenizer sees at once: enough to keep its threads busy, little enough that the
# padded block stays small (1,024 texts × 512 tokens × 8 bytes × 3 tensors = 12 MiB).
_CHUNK_TOKENS = 512 * 1024


@dataclass(frozen=True)
class Tokens:
    """One text as the model reads it.

    Attributes:
        tensors: input_ids, attention_mask and whatever else the model takes, each [n].
        others: features that are not tensors.
    """

    tensors: dict[str, Tensor]
    others: dict[str, Any]

    @property
    def length(self) -> int:
        """Tokens that the model reads: after truncation, special tokens included."""
        return int(self.tensors["input_ids"].shape[0])


def tokenize(model: SentenceTransformer, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
    """Return the tokens of each text after its prompt, in the same order, without padding.

    They come from the model's own `preprocess`, so truncation, lower-casing and special tokens are
    those of `SentenceTransformer.encode`; only the padding is cut off again.
    """
    window = model.max_seq_length or 512
    size = max(1, _CHUNK_TOKENS // window)
    # Texts of like length together, so that little is padded.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    tokens: list[Tokens | None] = [None] * len(texts)
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        features = model.preprocess([texts[i] for i in chunk], prompt=prompt or None)
        mask = features["attention_mask"].bool()
        shaped = {
            name: value
            for name, value in features.items()
            if isinstance(value, Tensor) and value.shape[:2] == mask.shape
        }
        others = {name: value for name, value in features.items() if name not in shaped}
        for row, i in enumerate(chunk):
            # A boolean index cuts padding off at either side, and copies, so that the block of
            # the whole chunk is not kept alive by its rows.
            read = {name: value[row][mask[row]] for name, value in shaped.items()}
            tokens[i] = Tokens(read, others)
    return [one for one in tokens if one is not None]


def pad(model: SentenceTransformer, batch: Sequence[Tokens], device: str) -> dict[str, Any]:
    """Return a batch's features on `device`, padded to its longest text as the tokenizer pads."""
    tokenizer: Any = model.tokenizer
    left = tokenizer.padding_side == "left"
    values = {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": tokenizer.pad_token_type_id,
    }
    features: dict[str, Any] = dict(batch[0].others)
    for name in batch[0].tensors:
        features[name] = torch.nn.utils.rnn.pad_sequence(
            [one.tensors[name] for one in batch],
            batch_first=True,
            padding_value=values.get(name, 0),
            padding_side="left" if left else "right",
        ).to(device)
    return features
