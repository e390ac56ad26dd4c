"""Converts keyword arguments to arguments of the command line, which are checked in one place."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from lcbench.errors import RequestError
from lcbench.settings.configs import keys_of
from lcbench.system.words import quoted

# Text that needs no quotes in Hydra's grammar.
_PLAIN = re.compile(r"[A-Za-z_./][\w./:@%+-]*", flags=re.ASCII)
_NO_TEXT = frozenset({"null", "true", "false", "inf", "nan"})


def words_of(config_name: str, keywords: Mapping[str, Any]) -> list[str]:
    """Return keyword arguments as arguments `key=value` of the command line.

    A keyword is a key of the command (`results_dir`), the last part of a key if that is unambiguous
    (`window` for `model.window`), or the first part of several keys, with a dict of the other parts
    (`docs={"documents": 20}`).

    Args:
        config_name: name of the command's config.
        keywords: keywords and their values; for None the config's value is used.

    Raises:
        RequestError: a value has a type that no key takes.
    """
    words: list[str] = []
    for name, value in keywords.items():
        if value is None:
            continue
        key = _key(name, config_name)
        words += _words(key, value, keys_of(config_name))
    return words


def _key(name: str, config_name: str) -> str:
    keys = keys_of(config_name)
    if name in keys or any(key.startswith(f"{name}.") for key in keys):
        return name
    matching = [key for key in keys if key.endswith(f".{name}")]
    return matching[0] if len(matching) == 1 else name


def _words(key: str, value: Any, keys: frozenset[str]) -> list[str]:
    parts = {one for one in keys if one.startswith(f"{key}.")}
    if isinstance(value, Mapping) and parts:
        return [word for name, own in value.items() for word in _words(f"{key}.{name}", own, keys)]
    if key == "model":
        return [f"model={_model(value)}"]
    if key == "tasks":
        value = _tasks(value)
    return [f"{key}={_written(key, value)}"]


def _model(value: Any) -> str:
    if isinstance(value, str | PathLike):
        return fspath(value)
    raise RequestError(
        f"model={_shown(value)}: a model is named, by a config (minilm), a name on the hub or a "
        "folder; for one that is loaded, use lcbench.inject(model, tau)."
    )


def _tasks(value: Any) -> Any:
    """Return tasks in which a path is a path, also where it looks like a name: `Path("docs")`."""
    if isinstance(value, PathLike):
        path = fspath(value)
        return path if "/" in path else f"./{path}"
    if isinstance(value, Mapping):
        return {
            name: fspath(one) if isinstance(one, PathLike) else one for name, one in value.items()
        }
    return [_tasks(one) for one in value] if isinstance(value, list | tuple) else value


def _written(key: str, value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, PathLike):
        value = fspath(value)
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT
        return value if plain else quoted(value)
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return str(bool(value)).lower()
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, numbers.Real):
        number = float(value)
        # A single-precision 0.8 is 0.800000011920929.
        text = repr(number) if isinstance(value, float) else str(value)
        return text if math.isfinite(number) else str(number)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_written(key, own)}' for name, own in value.items())}}}"
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, list | tuple) or type(value).__module__ in ("numpy", "builtins"):
        try:
            return f"[{','.join(_written(key, one) for one in value)}]"
        except TypeError:
            pass
    raise RequestError(
        f"{key}={_shown(value)}: a {type(value).__name__} is no value of a key; a text, a number, "
        "a list or a dict of these is."
    )


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"
