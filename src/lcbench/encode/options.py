"""Options of encoding and storing that do not change embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Processes that score, at most, where a request does not say how many: more hardly help, and each
# takes memory.
MOST_SCORING = 8


@dataclass(frozen=True)
class EngineSettings:
    """Runtime knobs of the encoder.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` …
        batch_tokens: tokens of one forward pass, padding included; None: by device.
        scoring: processes that score cells in parallel with encoding; 0: only this one; None: by
            cores and memory.
        compile: whether torch compiles the model.
        attention: an implementation of `transformers`, or `varlen`: lcbench's own, without padding;
            None: `varlen` on a GPU where the model allows it, elsewhere the choice of
            `transformers`.
        devices: a process for each GPU (`all`), for the first so many, or for those of these
            numbers; `spread`: one process, with one copy of the model over all GPUs; None: one
            process.
        fuse_qkv: whether queries, keys and values are computed in one product.
        graphs: whether forward passes on a GPU are recorded once and then repeated (CUDA graphs).
        fp32: how float32 products with weights are computed: `ieee`, or `fp16x3`, by products in
            half precision.
    """

    device: str
    batch_tokens: int | None
    scoring: int | None
    compile: bool
    attention: str | None = None
    devices: Literal["all", "spread"] | int | tuple[int, ...] | None = None
    fuse_qkv: bool = False
    graphs: bool = False
    fp32: str = "ieee"

    @property
    def is_spread(self) -> bool:
        """Whether one copy of the model is spread over all GPUs."""
        return self.devices == "spread"

    @property
    def devices_written(self) -> str:
        """The value of `engine.devices` as it is written."""
        if isinstance(self.devices, tuple):
            return f"[{','.join(map(str, self.devices))}]"
        return str(self.devices)


@dataclass(frozen=True)
class StoreSettings:
    """Settings of the store of embeddings; see `encode.store.shelf.Store`.

    Attributes:
        folder: folder of the store; None: in memory only.
        max_bytes: size limit of the store.
        is_named: whether the request names the folder, so that it must be writable.
    """

    folder: Path | None
    max_bytes: int
    is_named: bool
