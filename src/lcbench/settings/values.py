"""Checks values of a config by kind; an error names the key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lcbench.errors import RequestError, did_you_mean
from lcbench.hub.cache import refuse_credentials
from lcbench.settings.configs import known_keys
from lcbench.settings.schema import IDENTITY, MEASUREMENT, RUNTIME
from lcbench.system.trackers import TRACKERS

# A cell of the docs suite takes seconds; a lower limit is a mistake.
_LEAST_CELL_MINUTES = 0.1


def container_of(config: DictConfig) -> dict[str, Any]:
    try:
        value = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise RequestError(
            f"{error.full_key or 'A key'} has no value yet; set it on the command line: "
            f"{error.full_key or 'key'}=…"
        ) from None
    items = value.items() if isinstance(value, dict) else ()
    composed = {str(key): item for key, item in items if key != "hydra"}
    for key in _leaves(composed):
        if key not in IDENTITY | MEASUREMENT | RUNTIME:
            raise RequestError(f"{key} is not a key.{did_you_mean(key, known_keys())}")
    return composed


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a config; a suite's columns or a model's shape are one value."""
    keys: list[str] = []
    for name, item in value.items():
        key = f"{prefix}{name}"
        if isinstance(item, Mapping) and key not in IDENTITY | MEASUREMENT | RUNTIME:
            keys += _leaves(item, f"{key}.")
        else:
            keys.append(key)
    return keys


def word_of(key: str, value: Any) -> str | None:
    """Return a value that is passed to Slurm unchanged: a word or a number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RequestError(f"{key}={value} is neither a word nor a number.")
    return str(value)


def device_name(value: Any, key: str = "engine.device") -> str:
    device = str(value)
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise RequestError(f"{key}={value} is not a device: auto, cpu, cuda, cuda:1 …")
    return device


def devices_of(value: Any) -> Literal["all", "spread"] | int | tuple[int, ...] | None:
    """Return the value of `engine.devices`.

    Raises:
        RequestError: it is neither `all` or `spread`, a number of devices, nor a list of numbers of
            them.
    """
    if value is None or value in ("all", "spread"):
        return value  # type: ignore[no-any-return]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, list | tuple) and value and len(set(map(str, value))) == len(value):
        numbers = tuple(value)
        if all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers):
            return numbers
    raise RequestError(
        f"engine.devices={value} is neither all or spread, nor a number of GPUs, nor a list of "
        "different ones, counted from 0: engine.devices=[0,2]."
    )


def one_of(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = did_you_mean(str(value), allowed)
        raise RequestError(f"{key}={value} is not one of: {', '.join(allowed)}.{near}")


def track_of(value: Any) -> str | None:
    if value is None:
        return None
    one_of("track", value, TRACKERS)
    return str(value)


def auto_or_count(key: str, value: Any, least: int = 1) -> int | None:
    return None if value in (None, "auto") else count_of(key, value, least)


def count_of(key: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= sys.maxsize:
        raise RequestError(f"{key}={value} is not a whole number of at least {least}.")
    return value


def number_of(key: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise RequestError(f"{key}={value} is not a number of at least {least:g}.")
    try:
        return float(value)
    except OverflowError:
        raise RequestError(f"{key} is a number of {len(str(value))} digits.") from None


def cell_minutes_of(value: Any, scoring: Any) -> float | None:
    if value is None:
        return None
    minutes = number_of("cell_minutes", value, least=_LEAST_CELL_MINUTES)
    if scoring == 0:
        from lcbench.score.pool import without_processes

        raise without_processes(minutes)
    return minutes


def boolean_of(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{key}={value} is neither true nor false.")
    return value


def path_of(key: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value == "":
        raise RequestError(f"{key}={value} is not a path.")
    # pathlib's expanduser raises if ~NAME is not a user's home; then it is a folder's name.
    path = Path(os.path.expanduser(str(value)))  # noqa: PTH111
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise RequestError(
                f"{key}={value}: {place} is a symbolic link to {os.readlink(place)}, which does "  # noqa: PTH115
                "not exist. Create it, or choose another path."
            )
    return path


def paths_of(key: str, value: Any) -> tuple[Path, ...]:
    """Return the paths of a key whose value is a path or a list of paths; none of null.

    Raises:
        RequestError: one of them is not a path.
    """
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(needed_path(key, one) for one in listed)


def mirror_of(value: Any) -> tuple[Path | None, str | None]:
    """Return the folder or the address that `mirror` names.

    Raises:
        RequestError: it is neither, or the address contains a user or password.
    """
    if isinstance(value, str) and re.match("https?://", value):
        refuse_credentials("mirror", value)
        return None, value.rstrip("/")
    return path_of("mirror", value), None


def needed_path(key: str, value: Any) -> Path:
    path = path_of(key, value)
    if path is None:
        raise RequestError(f"{key} needs a path: {key}=PATH.")
    return path
