"""Options of encoding and storing that do not change embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# Processes that score, at most, where a request does not say how many: more hardly help, and each
# takes memory.
MOST_SCORING = 8


@dataclass(frozen=True)
class EngineSettings:
    """Runtime knobs of the encoder.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` …
        batch_tokens: tokens of one forward pass, padding included; None: by device.
        scoring: processes that score cells beside the encoding; 0: none but this one; None: by
            cores and memory.
        compile: whether torch compiles the model.
        attention: an implementation of `transformers`; None: its own choice.
    """

    device: str
    batch_tokens: int | None
    scoring: int | None
    compile: bool
    attention: str | None = None


@dataclass(frozen=True)
class StoreSettings:
    """Where embeddings are kept; see `encode.store.Store`.

    Attributes:
        folder: None: in memory only.
        max_bytes: of all that is kept.
        is_named: whether the request names the folder, and so expects it to be writable.
    """

    folder: Path | None
    max_bytes: int
    is_named: bool
