"""The configs of conf/: their keys, the suites and models that ship with lcbench."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from lcbench.errors import RequestError
from lcbench.settings.schema import IDENTITY, RUNTIME
from lcbench.system.console import key_value
from lcbench.system.resources import shipped
from lcbench.tasks.suites import Suite


@lru_cache(maxsize=1)
def config_folder() -> Path:
    """Return the folder of the configs."""
    return shipped("conf", "conf")


def known_keys() -> frozenset[str]:
    """Return every key that a command line may set."""
    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}
    return IDENTITY | RUNTIME | groups


@cache
def keys_of(config_name: str) -> frozenset[str]:
    """Return the keys that the command of a config takes."""
    content: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{config_name}.yaml"))
    own = set(content) - {"defaults", "hydra"}
    inherited: set[str] = set()
    for one in content["defaults"]:
        if isinstance(one, dict):
            own |= {group for group in one if not group.startswith("override ")}
        elif one != "_self_":
            inherited |= keys_of(one)
    return frozenset(key for key in known_keys() if key.partition(".")[0] in own) | inherited


@lru_cache(maxsize=1)
def shipped_suites() -> tuple[Suite, ...]:
    """Return the suites of `conf/suite`."""
    paths = sorted((config_folder() / "suite").glob("*.yaml"))
    return tuple(suite_of(OmegaConf.to_container(OmegaConf.load(path))) for path in paths)


@lru_cache(maxsize=1)
def shipped_models() -> Mapping[str, str]:
    """Return the names of the models of `conf/model`, by their configs' names, without `custom`."""
    names = {}
    for path in sorted((config_folder() / "model").glob("*.yaml")):
        config = OmegaConf.load(path)
        if not OmegaConf.is_missing(config, "name"):
            names[path.stem] = str(OmegaConf.select(config, "name"))
    return names


def suite_of(value: Any) -> Suite:
    columns, revisions = value["columns"], value.get("revisions") or {}
    if not isinstance(columns, Mapping) or not all(
        isinstance(tasks, list) and all(isinstance(task, str) for task in tasks)
        for tasks in columns.values()
    ):
        raise RequestError(
            f"suite.columns={columns} is not a list of tasks for each column: "
            "{STS: [STS12, STS13]}."
        )
    if not isinstance(revisions, Mapping):
        raise RequestError(f"suite.revisions={revisions} does not give tasks their commits.")
    return Suite(name=str(value["name"]), columns=columns, revisions=revisions)


def model_keys(name: str, folders: Sequence[Path] | None = None) -> list[str]:
    """Return the overrides that choose a model: a config, else a name on the hub or a folder.

    Args:
        name: of any of these.
        folders: of configs; None: those of the present command.
    """
    if folders is None:
        sources = GlobalHydra.instance().config_loader().get_sources()
        given = [Path(one.path) for one in sources if one.provider == "command-line"]
        folders = [config_folder(), *given]
    is_config = not name.startswith(("/", "~")) and any(
        (folder / "model" / f"{name}.yaml").is_file() for folder in folders
    )
    # pathlib's expanduser raises where ~ is no user's.
    is_direct = "/" in name or Path(os.path.expanduser(name)).is_dir()  # noqa: PTH111
    if is_config or not is_direct:
        return [f"model={name}"]
    return ["model=custom", key_value("model.name", name)]
