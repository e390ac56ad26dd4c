"""Converts the config of a model to its settings, and checks every value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lcbench.errors import RequestError
from lcbench.hub.cache import is_commit
from lcbench.hub.layers import STATED, Layer, layer_of
from lcbench.hub.models import Dimensions, ModelSettings, shipped_models
from lcbench.hub.truncation import Trained
from lcbench.settings.values import boolean_of, count_of, one_of
from lcbench.system.resources import shipped

_SOURCES = ("package", "hub", "folder", "auto")
_POOLINGS = ("mean", "cls", "lasttoken", "max")
_SPECIAL_TOKENS = ("bos", "eos")
# Characters of what a table calls a model.
_LONGEST_LABEL = 60


def model_settings(config: str, value: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of a model.

    A model that is shipped as a config and asked for by its name on the hub has the values of that
    config, where the request has none: its revision, special tokens and trained dimensions.

    Args:
        config: name of its config.
        value: its keys.

    Raises:
        RequestError: an invalid value; the message names its key.
    """
    one_of("model.source", value["source"], _SOURCES)
    own = _shipped_config(config, value)
    if own is not None:
        value = {**value, **{key: one for key, one in own.items() if value.get(key) is None}}
    revision = value["revision"]
    trusted = boolean_of("model.trust_remote_code", value["trust_remote_code"])
    if revision is not None and value["source"] in ("package", "folder"):
        raise RequestError(
            f"model.revision={revision}: model={config} is read from a {value['source']}, which "
            "has no revisions; it is identified by a digest of its files."
        )
    if trusted and value["source"] in ("hub", "auto") and not is_commit(str(revision)):
        raise RequestError(
            "model.trust_remote_code=true runs code from the model's repository; pin it: "
            "model.revision=<the 40 digits of a commit>."
        )
    return ModelSettings(
        config=config,
        name=str(value["name"]),
        source=value["source"],
        package=value["package"],
        revision=revision,
        window=_count("model.window", value["window"]),
        trust_remote_code=trusted,
        shape=_shape(value.get("shape")),
        pooling=_pooling(value.get("pooling")),
        special_tokens=_special_tokens(value.get("special_tokens")),
        dimensions=_count("model.dimensions", value.get("dimensions")),
        trained=_trained(value.get("matryoshka")),
        is_custom=own is None and config not in shipped_models(),
        label=_text("model.label", value.get("label")),
    )


def _shipped_config(config: str, value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the config of a shipped model that is asked for by its name on the hub, or None."""
    name, source = str(value["name"]), value["source"]
    # A config of the user's own says what it means; in a list of models a name is its own config.
    if config not in ("custom", name) or source not in ("hub", "auto"):
        return None
    if source == "auto" and Path(os.path.expanduser(name)).is_dir():  # noqa: PTH111
        return None
    for one, named in shipped_models().items():
        if named == name:
            path = shipped("conf", "conf") / "model" / f"{one}.yaml"
            found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
            return found if found["source"] == "hub" else None
    return None


def _pooling(value: Any) -> str | None:
    if value in (None, "auto"):
        return None
    one_of("model.pooling", value, ("auto", *_POOLINGS))
    return str(value)


def _special_tokens(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(one in _SPECIAL_TOKENS for one in value):
        raise RequestError(
            f"model.special_tokens={value} is not a list of bos and eos, such as [eos]."
        )
    return tuple(name for name in _SPECIAL_TOKENS if name in value)


def _trained(value: Any) -> Trained | None:
    if value is None:
        return None
    if isinstance(value, Mapping) and set(value) == {"least"}:
        return Trained(least=count_of("model.matryoshka.least", value["least"]))
    if not isinstance(value, list):
        raise RequestError(
            f"model.matryoshka={value} is neither a list of numbers of dimensions ([512,256]) nor "
            "the least of a range ({least: 32})."
        )
    return Trained(tuple(count_of("model.matryoshka", one) for one in value))


def _count(key: str, value: Any) -> int | None:
    return None if value is None else count_of(key, value)


def _shape(value: Any) -> Dimensions | None:
    if value is None:
        return None
    wanted = ("layers", "hidden", "window")
    if not isinstance(value, Mapping) or not set(wanted) <= set(value):
        raise RequestError(f"model.shape={value} needs all of: {', '.join(wanted)}.")
    if others := sorted(set(value) - {*wanted, "parameters", *STATED}):
        raise RequestError(
            f"model.shape: {', '.join(others)}: besides {', '.join(wanted)} it has parameters and "
            f"these keys of a model's config.json: {', '.join(STATED)}."
        )
    layers, hidden = (count_of(f"model.shape.{key}", value[key]) for key in ("layers", "hidden"))
    return Dimensions(
        layers=layers,
        hidden=hidden,
        window=_count("model.shape.window", value["window"]),
        layer=_layer(layers, hidden, {key: value[key] for key in STATED if key in value}),
        parameters=_count("model.shape.parameters", value.get("parameters")),
    )


def _layer(layers: int, hidden: int, stated: Mapping[str, Any]) -> Layer | None:
    """Return what a token costs in a layer by keys of a `config.json`; None without such keys."""
    if not stated:
        return None
    config: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": hidden}
    for key, value in stated.items():
        if STATED[key] is int:
            config[key] = count_of(f"model.shape.{key}", value)
        elif STATED[key] is bool:
            config[key] = boolean_of(f"model.shape.{key}", value)
        else:
            config[key] = str(value)
    layer = layer_of(config)
    if layer is None:
        raise RequestError(
            f"model.shape: {', '.join(stated)} also needs num_attention_heads and "
            "intermediate_size of the model's config.json."
        )
    return layer


def _text(key: str, value: Any) -> str | None:
    if value is None:
        return None
    text = str(value).strip()
    if not text or not text.isprintable() or len(text) > _LONGEST_LABEL:
        raise RequestError(f"{key}={value} is not a text of 1 to {_LONGEST_LABEL} characters.")
    return text
