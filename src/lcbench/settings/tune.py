"""Convert the config of `lcbench tune` to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.hub.models import ModelSettings
from lcbench.settings.own_texts import HubAccess
from lcbench.settings.read import own_in, read_model, tasks_named
from lcbench.settings.sources import shipped_sources
from lcbench.settings.values import (
    boolean_of,
    container_of,
    count_of,
    device_name,
    mirror_of,
    needed_path,
    one_of,
)
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.source import Source
from lcbench.tasks.suites import shipped_suites
from lcbench.tuning.options import METHODS, SearchOptions, TuneOptions

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class TuneSettings:
    """The settings of `python -m lcbench tune`.

    Attributes:
        model: the model.
        options: how temperatures are made.
        tasks: tasks whose documents are read; none: docstrings.
        sources: sources of the tasks.
        out: the file to write.
        device: device of the model.
        mirror: a folder that is searched for models and data first.
        hub: address of a site's mirror of the hub.
        offline: whether the network must not be used.
        unverified_data: whether a plain folder of the mirror may hold other data.
    """

    model: ModelSettings
    options: TuneOptions
    tasks: tuple[TaskChoice, ...]
    sources: tuple[Source, ...]
    out: Path
    device: str
    mirror: Path | None
    hub: str | None
    offline: bool
    unverified_data: bool


def read_tune(config: DictConfig) -> TuneSettings:
    """Return the checked settings of `lcbench tune`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    mirror, address = mirror_of(value["mirror"])
    offline = boolean_of("offline", value["offline"])
    tasks: tuple[TaskChoice, ...] = ()
    sources = shipped_sources()
    if value["tasks"] is not None:
        own = own_in(value["tasks"], shipped_suites(), HubAccess(mirror, offline))
        sources = shipped_sources(own.texts, own.classes)
        tasks, _ = tasks_named(own.tasks, shipped_suites(), sources)
    return TuneSettings(
        model=read_model(value["model"]),
        options=_options(value),
        tasks=tasks,
        sources=sources,
        out=needed_path("out", value["out"]),
        device=device_name(value["device"], "device"),
        mirror=mirror,
        hub=address,
        offline=offline,
        unverified_data=boolean_of("unverified_data", value["unverified_data"]),
    )


def _options(value: Mapping[str, Any]) -> TuneOptions:
    method = value["method"]
    one_of("method", method, tuple(METHODS))
    of_search = asdict(SearchOptions())
    for key in of_search:
        if value[key] is None:
            continue
        if method != "search":
            raise RequestError(f"{key}={value[key]} is a key of method=search.")
        of_search[key] = value[key]
    lengths, by_length = _lengths(value["traced_lengths"]), of_search["by_length"]
    if method == "search" and lengths is not None and by_length is False:
        raise RequestError(
            f"traced_lengths={value['traced_lengths']}: with by_length=false temperatures do not "
            "depend on length. Omit one of them."
        )
    return TuneOptions(
        method=method,
        texts=None if value["texts"] is None else count_of("texts", value["texts"]),
        lengths=lengths,
        search=SearchOptions(
            trials=count_of("trials", of_search["trials"], least=4),
            folds=count_of("folds", of_search["folds"], least=2),
            heads=boolean_of("heads", of_search["heads"]),
            by_length=boolean_of("by_length", by_length),
        ),
        seed=count_of("seed", value["seed"], least=0),
    )


def _lengths(value: Any) -> tuple[int, ...] | None:
    if value in (None, "auto"):
        return None
    listed = value if isinstance(value, list) else [value]
    lengths = tuple(count_of("traced_lengths", one) for one in listed)
    if len(lengths) < 2 or list(lengths) != sorted(set(lengths)):
        raise RequestError(
            f"traced_lengths={value} is not a list of at least two rising numbers of tokens, such "
            "as 'traced_lengths=[64,128,256]'."
        )
    return lengths
