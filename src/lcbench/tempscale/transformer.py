"""Finds the transformer in a loaded model, and what repairs depend on of it."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lcbench.errors import InjectionError
from lcbench.tempscale.policy import ModelShape
from lcbench.tempscale.softmax import computes_own_softmax

READS = "_lcbench_reads"
"""Attribute of a transformer under a context extension: the most tokens read of a text."""


def shape_of(model: nn.Module) -> ModelShape:
    """Return the properties of a loaded model that repairs depend on."""
    transformer = find_transformer(model)
    config = transformer.config
    window = getattr(transformer, READS, None) or getattr(model, "max_seq_length", None)
    return ModelShape(
        layers=getattr(config, "num_hidden_layers", None),
        window=window if isinstance(window, int) else None,
        position_bias=hasattr(config, "relative_attention_num_buckets"),
        heads=_count(config, "num_attention_heads"),
        head_size=_head_size(config),
        own_softmax=any(map(computes_own_softmax, transformer.modules())),
    )


def _head_size(config: Any) -> int | None:
    stated = _count(config, "head_dim") or _count(config, "d_kv")
    hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    return hidden // heads if stated is None and hidden and heads else stated


def _count(config: Any, name: str) -> int | None:
    value = getattr(config, name, None)
    return value if isinstance(value, int) else None


def find_transformer(model: nn.Module) -> PreTrainedModel:
    """Return the one transformer that `model` is or holds.

    Raises:
        InjectionError: it holds none, or several.
    """
    if isinstance(model, PreTrainedModel):
        return model
    found: list[PreTrainedModel] = []
    _collect_outermost(model, found)
    if len(found) != 1:
        raise InjectionError(
            f"{type(model).__name__} holds {len(found)} transformers of the transformers library; "
            "a temperature needs exactly one."
        )
    return found[0]


def blocks_of(transformer: PreTrainedModel) -> set[str]:
    """Return the names of the layers: what lists of modules hold, outermost."""
    lists = {
        name: module
        for name, module in transformer.named_modules()
        if isinstance(module, nn.ModuleList)
    }
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return {f"{name}.{number}" for name in outer for number in range(len(lists[name]))}


def _collect_outermost(module: nn.Module, found: list[PreTrainedModel]) -> None:
    for child in module.children():
        if isinstance(child, PreTrainedModel):
            # A Router's routes may share one.
            if all(child is not other for other in found):
                found.append(child)
        else:
            _collect_outermost(child, found)
