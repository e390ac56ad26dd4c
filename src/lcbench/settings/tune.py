"""Convert the config of `lcbench tune` to typed settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import RequestError
from lcbench.hub.models import ModelSettings
from lcbench.repair.repair import PARTS, Repair, parse_all
from lcbench.repair.values import shown
from lcbench.settings.own_texts import HubAccess
from lcbench.settings.read import own_in, read_model, read_run, resamples_of, tasks_named
from lcbench.settings.sources import shipped_sources
from lcbench.settings.values import (
    boolean_of,
    container_of,
    count_of,
    device_name,
    mirror_of,
    needed_path,
    one_of,
    path_of,
)
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.source import Source
from lcbench.tasks.suites import shipped_suites
from lcbench.tuning.options import ACROSS, CHOOSE, METHODS, Across, SearchOptions, TuneOptions

if TYPE_CHECKING:
    from omegaconf import DictConfig


REPAIRS: tuple[Mapping[str, Any], ...] = (
    {"tau": 0.9},
    {"tau": 0.8},
    {"tau": {"layers": {3: 0.8}}},
    {"gain": {"layernorm": 1.1}},
    {"gain": {"ffn": 0.9}},
    {"correct": {"centre": {"on": "docstrings"}}},
)
"""The repairs that are compared by default: one or two of each kind that can be exported."""

OWN_KEYS = frozenset(
    {
        *("model", "method", "tasks", "out", "seed", "texts", "traced_lengths", "trials", "folds"),
        *("heads", "by_length", "device", "mirror", "unverified_data", "offline", "hydra"),
    }
)
"""The keys of the methods that make temperatures; a recommendation has those of a run."""
_OF_TEXTS = ("texts", "traced_lengths", "trials", "folds", "heads", "by_length", "device")
_NOT_PLANNED = ("manifest", "element")


@dataclass(frozen=True)
class ChooseSettings:
    """The settings of `python -m lcbench tune` for a recommendation, besides those of a run.

    Attributes:
        repairs: repairs to compare, after the baseline; None: those of the run.
        out: folder of the model to write; None: none.
        across: `texts` or `tasks`, what the gain is cross-validated over; None: by the tasks.
        test: tasks on which the recommended repair is scored, as in `tasks=`; None: none.
        resamples: number of bootstrap samples.
        seed: seed of all draws.
    """

    repairs: tuple[Repair, ...] | None
    out: Path | None
    across: Across | None
    test: Any
    resamples: int
    seed: int


def _read_choose(config: DictConfig) -> ChooseSettings:
    """Return the checked settings of a recommendation.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    for key in _OF_TEXTS:
        if value[key] not in (None, "auto"):
            instead = ": engine.device=" if key == "device" else ""
            raise RequestError(f"{key}={value[key]} is not a key of method=choose{instead}.")
    for key in _NOT_PLANNED:
        if value[key] is not None:
            raise RequestError(
                f"{key}={value[key]}: `lcbench tune` runs here. Plan or submit a sweep of the same "
                "repairs first; `lcbench tune` with the same results_dir= then reads its results."
            )
    if value["track"] is not None:
        raise RequestError(
            f"track={value['track']}: a recommendation is not tracked. Run the same repairs with "
            "track= first; `lcbench tune` with the same results_dir= then reads their results."
        )
    if value["models"] is not None:
        raise RequestError(
            f"models={shown(value['models'])}: a repair is recommended for one model: model=NAME."
        )
    if read_run(config).launch.name != "local" or value["engine"]["devices"] not in (
        None,
        "spread",
    ):
        raise RequestError(
            "`lcbench tune` runs here, in one process. A sweep of the same repairs may use others; "
            "`lcbench tune` with the same results_dir= then reads its results."
        )
    out = path_of("out", value["out"])
    if out is not None and out.suffix == ".json":
        raise RequestError(
            f"out={out}: a model is written into a folder. For temperatures in a file: "
            "method=entropy or method=search."
        )
    one_of("across", value["across"], ("auto", *ACROSS))
    resamples = resamples_of(value["resamples"])
    if resamples == 0:
        raise RequestError("resamples=0: a recommendation needs intervals.")
    is_default = all(value[key] is None for key in (*PARTS, "repairs"))
    keeps_bias = value["tau_bias"] == "kept"
    return ChooseSettings(
        repairs=parse_all({"repairs": REPAIRS}, keeps_bias=keeps_bias) if is_default else None,
        out=out,
        across=None if value["across"] == "auto" else value["across"],
        test=value["test"],
        resamples=resamples,
        seed=count_of("seed", value["seed"], least=0),
    )


@dataclass(frozen=True)
class TuneSettings:
    """The settings of `python -m lcbench tune` for temperatures.

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


def read_tune(config: DictConfig) -> ChooseSettings | TuneSettings:
    """Return the checked settings of `lcbench tune`, by its method.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    method = str(config["method"])
    one_of("method", method, (CHOOSE, *METHODS))
    return _read_choose(config) if method == CHOOSE else _read_temperatures(config)


def _read_temperatures(config: DictConfig) -> TuneSettings:
    """Return the checked settings of `lcbench tune` for temperatures.

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
