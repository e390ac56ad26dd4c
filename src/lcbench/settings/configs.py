"""The configs in conf/: their folder, their keys, and the choice of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lcbench.settings.schema import IDENTITY, MEASUREMENT, RUNTIME
from lcbench.system.resources import shipped
from lcbench.system.words import key_value


@lru_cache(maxsize=1)
def config_folder() -> Path:
    """Return the folder of the configs."""
    return shipped("conf", "conf")


def config_groups() -> frozenset[str]:
    """Return the names of config groups."""
    folders = {path.name for path in config_folder().iterdir() if path.is_dir()}
    return frozenset(folders - {"hydra"})


def known_keys() -> frozenset[str]:
    """Return every key that a command line may set."""
    return IDENTITY | MEASUREMENT | RUNTIME | config_groups()


@cache
def keys_of(config_name: str) -> frozenset[str]:
    """Return the keys of a config's command."""
    content: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{config_name}.yaml"))
    own = set(content) - {"defaults", "hydra"}
    inherited: set[str] = set()
    for one in content["defaults"]:
        if isinstance(one, dict):
            own |= {group for group in one if not group.startswith("override ")}
        elif one not in ("_self_", "hydra/command"):
            inherited |= keys_of(one)
    return frozenset(key for key in known_keys() if key.partition(".")[0] in own) | inherited


def model_keys(name: str, folders: Sequence[Path] | None = None) -> list[str]:
    """Return the overrides that choose a model by config, hub name or folder.

    Args:
        name: name of a config, hub name, or path.
        folders: folders of configs; None: those of the present command.
    """
    if folders is None:
        sources = GlobalHydra.instance().config_loader().get_sources()
        given = [Path(one.path) for one in sources if one.provider == "command-line"]
        folders = [config_folder(), *given]
    is_config = not name.startswith(("/", "~")) and any(
        (folder / "model" / f"{name}.yaml").is_file() for folder in folders
    )
    # pathlib's expanduser raises if ~NAME is not a user's home.
    is_direct = "/" in name or Path(os.path.expanduser(name)).is_dir()  # noqa: PTH111
    if is_config or not is_direct:
        return [f"model={name}"]
    return ["model=custom", key_value("model.name", name)]
