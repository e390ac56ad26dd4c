"""Converts the configs of `lcbench card` and `lcbench pack` to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.repair.repair import parse
from lcbench.settings.read import choices_of, model_names, name_in_results, resamples_of
from lcbench.settings.values import container_of, count_of, needed_path, path_of
from lcbench.tempscale.policy import parse as parse_policy

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.tasks.registry import TaskChoice


@dataclass(frozen=True)
class SharedResults:
    """The results that are shared.

    Attributes:
        results_dir: results folder.
        models: names of models on the hub; None: all.
        repairs: names of repairs, canonical or as in tables; None: all.
        tasks: tasks; None: all.
    """

    results_dir: Path
    models: tuple[str, ...] | None
    repairs: tuple[str, ...] | None
    tasks: tuple[TaskChoice, ...] | None


@dataclass(frozen=True)
class CardSettings:
    """The settings of `lcbench card`.

    Attributes:
        results: results of the card.
        out: card to write or to update; None: it is printed.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the bootstrap.
    """

    results: SharedResults
    out: Path | None
    resamples: int
    seed: int


@dataclass(frozen=True)
class PackSettings:
    """The settings of `lcbench pack`.

    Attributes:
        results: results to pack.
        protocols: names of the protocols' folders; None: all.
        folder: folder to write, or to check.
        checks: whether it is checked, not written.
    """

    results: SharedResults
    protocols: tuple[str, ...] | None
    folder: Path
    checks: bool


def read_card(config: DictConfig) -> CardSettings:
    """Return the checked settings of `lcbench card`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    results = _results(config, value)
    for key, names in (("models", results.models), ("repairs", results.repairs)):
        if names is not None and len(names) > 1:
            raise RequestError(f"{key}={value[key]}: a card is of one model under one repair.")
    return CardSettings(
        results=results,
        out=path_of("out", value["out"]),
        resamples=resamples_of(value["resamples"]),
        seed=count_of("seed", value["seed"], least=0),
    )


def read_pack(config: DictConfig) -> PackSettings:
    """Return the checked settings of `lcbench pack`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    checks = value["check"] is not None
    key = "check" if checks else "out"
    if checks and value["out"] is not None:
        raise RequestError("out= writes a pack and check= checks one: omit one of them.")
    protocols = value["protocols"]
    listed = [protocols] if isinstance(protocols, str) else protocols
    if listed is not None and not all(isinstance(one, str) for one in listed):
        raise RequestError(f"protocols={protocols} is not a list of names of folders.")
    return PackSettings(
        results=_results(config, value),
        protocols=None if listed is None else tuple(listed),
        folder=needed_path(key, value[key]),
        checks=checks,
    )


def _results(config: DictConfig, value: Mapping[str, Any]) -> SharedResults:
    models, tasks = model_names(config), value["tasks"]
    return SharedResults(
        results_dir=needed_path("results_dir", value["results_dir"]),
        models=None if models is None else tuple(name_in_results(name) for name in models),
        repairs=_repairs(value["repairs"]),
        tasks=None if tasks is None else choices_of(tasks),
    )


def _repairs(value: Any) -> tuple[str, ...] | None:
    """Return the names of repairs: numbers and combinations in canonical form, others as given."""
    if value is None:
        return None
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise RequestError("repairs=[] is empty: 'repairs=[0.9,{tau: 0.8, correct: centre}]'.")
    names = []
    for one in listed:
        if isinstance(one, Mapping):
            names.append(parse(one).canonical)
        elif isinstance(one, str):
            names.append(one)
        else:
            names.append(parse_policy(one).canonical)
    return tuple(dict.fromkeys(names))
