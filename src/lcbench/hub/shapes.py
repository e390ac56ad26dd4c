"""Reads from a model's files what repairs depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcbench.hub.kinds import ROUTERS
from lcbench.hub.model_files import modules, read_object
from lcbench.hub.windows import position_kind
from lcbench.tempscale.policy import ModelShape

_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
_HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head")
# Architectures whose layers compute their own softmax, as in `tempscale.softmax`.
_OWN_SOFTMAX = frozenset({"mpnet", "deberta-v2"})


def shape_in_files(
    name: str,
    revision: str,
    folder: Path,
    config: dict[str, Any],
    window: int | None,
    positions: int | None,
) -> ModelShape:
    """Return the shape of a model by its files.

    Args:
        name: name in results.
        revision: revision in results.
        folder: folder of the model.
        config: configuration of its transformer.
        window: most tokens that it reads of a text; None: no limit.
        positions: most tokens that it has positions for; None: no limit.
    """
    return ModelShape(
        layers=_first_count(config, *_LAYERS),
        window=window,
        position_bias="relative_attention_num_buckets" in config,
        dimensions=_embedding_dimensions(folder, config),
        positions=positions,
        position_kind=position_kind(config),
        heads=_first_count(config, *_HEADS),
        head_size=_head_size(config),
        name=name,
        revision=revision,
        own_softmax=config.get("model_type") in _OWN_SOFTMAX,
    )


def hidden_size(config: dict[str, Any]) -> int | None:
    """Return the dimensions of a token vector in a model's configuration."""
    return _first_count(config, "hidden_size", "d_model", "dim", "n_embd")


def _head_size(config: dict[str, Any]) -> int | None:
    stated = _first_count(config, "head_dim", "d_kv")
    hidden, heads = hidden_size(config), _first_count(config, *_HEADS)
    return hidden // heads if stated is None and hidden and heads else stated


def _embedding_dimensions(folder: Path, config: dict[str, Any]) -> int | None:
    """Return the dimensions of an embedding by a model's files; None if they do not say."""
    found = hidden_size(config)
    for module in modules(folder):
        kind = module["type"].rpartition(".")[2]
        if kind in ROUTERS:
            return None
        if kind in ("Dense", "Pooling") and module["path"]:
            own = read_object(folder / module["path"] / "config.json")
            if kind == "Dense":
                found = _first_count(own, "out_features")
            elif found is not None:
                # Several modes are concatenated.
                modes = [key for key in own if key.startswith("pooling_mode_") and own[key] is True]
                found *= max(1, len(modes))
    return found


def _first_count(config: dict[str, Any], *names: str) -> int | None:
    """Return the first of some keys' values in a configuration that is a whole number."""
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), None)
