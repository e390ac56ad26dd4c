"""Converts composed configs to typed settings, and checks every value.

Every key is either part of a result's identity or a runtime key that does not change scores, as
listed in `IDENTITY`, `MEASUREMENT` and `RUNTIME`; any other key is refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from lcbench.encode.options import EngineSettings, StoreSettings
from lcbench.errors import RequestError
from lcbench.hub.models import ModelSettings
from lcbench.repair.repair import parse_all, parse_one
from lcbench.settings.models import model_settings
from lcbench.settings.own_texts import HubAccess, Own, may_be_own, read_own
from lcbench.settings.schema import (
    ExportSettings,
    LaunchSettings,
    ProtocolSettings,
    ReportSettings,
    RunSettings,
    Settings,
    StatusSettings,
    TasksSettings,
    sources_of,
)
from lcbench.settings.sources import read_docs, shipped_sources
from lcbench.settings.values import (
    auto_or_count,
    boolean_of,
    cell_minutes_of,
    container_of,
    count_of,
    device_name,
    devices_of,
    mirror_of,
    needed_path,
    number_of,
    one_of,
    path_of,
    paths_of,
    track_of,
    word_of,
)
from lcbench.system.cards import CARDS
from lcbench.system.files import cache_folder
from lcbench.system.slurm import JobOptions
from lcbench.tasks.corpus.names import is_own
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.source import Source
from lcbench.tasks.suites import Suite, choose, shipped_suites, suite_of

if TYPE_CHECKING:
    from lcbench.results.imported import ImportRequest

_DTYPES = ("float32", "float16", "bfloat16", "tf32")
_PROMPTS = ("auto", "none", "model", "registry")
_ATTENTIONS = ("sdpa", "varlen", "eager", "flex_attention", "flash_attention_2")
_FP32_PRODUCTS = ("ieee", "fp16x3")
_EVERY_SUBSET = "all"
# The most bytes of a protocol's name, which is the beginning of a folder's name.
_LONGEST_PROTOCOL = 100
# With fewer, 2.5 % are too few samples to locate a quantile.
_FEWEST_RESAMPLES = 1000
# Elements of a sweep if neither elements nor hours are given.
_ELEMENTS = {"local": 1, "slurm": 20}


def read(configs: Mapping[str, DictConfig], label: str = "run") -> Settings:
    """Return the checked settings of a run.

    Args:
        configs: composed config of each model, by the model config's name; they differ only in
            `model`.
        label: name of the run.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    values = {name: container_of(config) for name, config in configs.items()}
    first = next(iter(values.values()))
    protocol, engine = first["protocol"], first["engine"]
    name = str(protocol["name"])
    if not re.fullmatch(r"[\w.-]+", name) or len(name.encode()) > _LONGEST_PROTOCOL:
        raise RequestError(
            f"protocol.name={name} cannot name a folder: letters, digits, _, . and -, at most "
            f"{_LONGEST_PROTOCOL} bytes."
        )
    one_of("protocol.prompts", protocol["prompts"], _PROMPTS)
    one_of("protocol.dtype", protocol["dtype"], _DTYPES)
    one_of("tau_bias", first["tau_bias"], ("divided", "kept"))
    subsets = first["subsets"] if first["subsets"] is not None else protocol["subsets"]
    suites = _suites(first["suite"])
    docs = read_docs(first["docs"])
    mirror, address = mirror_of(first["mirror"])
    offline = boolean_of("offline", first["offline"])
    own = own_in(
        [suites[0].name] if first["tasks"] is None else first["tasks"],
        suites,
        HubAccess(mirror, offline),
    )
    tasks, left_out = tasks_named(own.tasks, suites, sources_of(docs, own.texts, own.classes))
    models = tuple(model_settings(name, value["model"]) for name, value in values.items())
    labels = [one.label for one in models if one.label is not None]
    if len(set(labels)) < len(labels):
        raise RequestError(
            f"model.label={labels[0]} would be that of {len(labels)} models; run them one by one, "
            "or give each a config of its own (conf/model, --config-dir)."
        )
    return Settings(
        label=_run_name(first["name"], label),
        models=models,
        repairs=parse_all(first, keeps_bias=first["tau_bias"] == "kept"),
        tasks=tasks,
        suites=suites,
        left_out=left_out,
        protocol=ProtocolSettings(
            name=str(protocol["name"]),
            prompts=protocol["prompts"],
            dtype=protocol["dtype"],
            subsets=_subsets(subsets),
            limit=_limit(first["limit"]),
        ),
        docs=docs,
        engine=EngineSettings(
            device=device_name(engine["device"]),
            batch_tokens=auto_or_count("engine.batch_tokens", engine["batch_tokens"]),
            scoring=auto_or_count("engine.scoring", engine["scoring"], least=0),
            compile=boolean_of("engine.compile", engine["compile"]),
            fuse_qkv=boolean_of("engine.fuse_qkv", engine["fuse_qkv"]),
            graphs=_graphs(engine),
            fp32=_fp32(engine, str(protocol["dtype"])),
            attention=_attention(engine["attention"]),
            devices=_devices(engine),
        ),
        store=_store(first["store"]),
        mirror=mirror,
        unverified_data=boolean_of("unverified_data", first["unverified_data"]),
        hub=address,
        offline=offline,
        retries=count_of("retries", first["retries"], least=0),
        cell_minutes=cell_minutes_of(first["cell_minutes"], engine["scoring"]),
        results_dir=needed_path("results_dir", first["results_dir"]),
        own=own.texts,
        own_classes=own.classes,
        leave_out_unsuited=boolean_of("leave_out_unsuited", first["leave_out_unsuited"]),
    )


def read_run(config: DictConfig) -> RunSettings:
    """Return the settings of a run apart from the request.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    element = value["element"]
    manifest = path_of("manifest", value["manifest"])
    if element is not None and manifest is None:
        raise RequestError(f"element={element} needs its sweep: manifest=PATH.")
    return RunSettings(
        manifest=manifest,
        element=None if element is None else count_of("element", element, least=0),
        launch=_launch(value["launch"]),
        track=track_of(value["track"]),
        results_dir=needed_path("results_dir", value["results_dir"]),
    )


def read_status(config: DictConfig) -> StatusSettings:
    """Return the checked settings of `lcbench status`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    return StatusSettings(
        results_dir=needed_path("results_dir", value["results_dir"]),
        manifest=path_of("manifest", value["manifest"]),
        failed=boolean_of("failed", value["failed"]),
        watch=boolean_of("watch", value["watch"]),
    )


def read_report(config: DictConfig) -> ReportSettings:
    """Return the checked settings of `lcbench report`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value, models = container_of(config), model_names(config)
    also = paths_of("also", value["also"])
    if also and value["manifest"] is not None:
        raise RequestError(
            f"manifest={value['manifest']} is one sweep in one folder; omit also= or manifest=."
        )
    return ReportSettings(
        results_dir=needed_path("results_dir", value["results_dir"]),
        report_dir=path_of("report_dir", value["report_dir"]),
        tasks=None if value["tasks"] is None else choices_of(value["tasks"]),
        manifest=path_of("manifest", value["manifest"]),
        models=None if models is None else tuple(name_in_results(name) for name in models),
        against=path_of("against", value["against"]),
        also=also,
        resamples=resamples_of(value["resamples"]),
        seed=count_of("seed", value["seed"], least=0),
        show=_names_of_tables(value["show"]),
    )


def _names_of_tables(value: Any) -> tuple[str, ...]:
    """Return the tables to print; whether a report has them is known when it is made."""
    names = [value] if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"show={value} is not a list of names of tables; all: all of them.")
    return tuple(names)


def resamples_of(value: Any) -> int:
    """Return the number of bootstrap samples: 0, or enough for a 95 % interval.

    Raises:
        RequestError: any other value.
    """
    count = count_of("resamples", value, least=0)
    if 0 < count < _FEWEST_RESAMPLES:
        raise RequestError(
            f"resamples={count} is too few for an interval; use at least {_FEWEST_RESAMPLES}, or "
            "0 for no intervals."
        )
    return count


def read_tasks(config: DictConfig) -> TasksSettings:
    """Return the checked settings of `lcbench tasks`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    one_of("format", value["format"], ("table", "csv"))
    suite, names = value.get("suite"), value["tasks"]
    left_out: tuple[str, ...] = ()
    sources = shipped_sources()
    if names is not None:
        own = shipped_suites() if suite is None else (suite_of(suite), *shipped_suites())
        mirror = mirror_of(value["mirror"])[0]
        found = own_in(names, own, HubAccess(mirror))
        sources = shipped_sources(found.texts, found.classes)
        tasks, left_out = tasks_named(found.tasks, own, sources)
        listed = found.tasks if isinstance(found.tasks, list) else [found.tasks]
        groups = {", ".join(map(str, listed)): tasks}
    else:
        suites = shipped_suites() if suite is None else (suite_of(suite),)
        groups = {one.name: tuple(map(TaskChoice, one.tasks)) for one in suites}
    own_subsets = value["subsets"]
    return TasksSettings(
        groups=groups,
        left_out=left_out,
        subsets=_subsets(value["protocol"]["subsets"] if own_subsets is None else own_subsets),
        sources=sources,
        mirror=mirror_of(value["mirror"])[0],
        benchmarks=boolean_of("benchmarks", value["benchmarks"]),
        format=value["format"],
        suites=shipped_suites() if suite is None else _suites(suite),
    )


def read_model(value: Mapping[str, Any]) -> ModelSettings:
    """Return the settings of the model of a composed config."""
    from hydra.core.hydra_config import HydraConfig

    return model_settings(str(HydraConfig.get().runtime.choices["model"]), value)


def read_export(config: DictConfig) -> ExportSettings:
    """Return the checked settings of `lcbench export`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    value = container_of(config)
    one_of("tau_bias", value["tau_bias"], ("divided", "kept"))
    mirror, address = mirror_of(value["mirror"])
    return ExportSettings(
        model=read_model(value["model"]),
        repair=parse_one(value, keeps_bias=value["tau_bias"] == "kept"),
        out=needed_path("out", value["out"]),
        mirror=mirror,
        hub=address,
        offline=boolean_of("offline", value["offline"]),
    )


def read_import(config: DictConfig) -> ImportRequest:
    """Return the checked settings of `lcbench import`.

    Raises:
        RequestError: an unknown key or an invalid value; the message names it.
    """
    from lcbench.results.imported import ImportRequest

    value = container_of(config)
    models, tasks = model_names(config), value["tasks"]
    chosen = None if tasks is None else choices_of(tasks)
    return ImportRequest(
        path=needed_path("path", value["path"]),
        results_dir=needed_path("results_dir", value["results_dir"]),
        models=None if models is None else tuple(name_in_results(name) for name in models),
        tasks=None if chosen is None else tuple(choice.name for choice in chosen),
        replace=boolean_of("replace", value["replace"]),
    )


def name_in_results(name: str) -> str:
    """Return a model's name in results.

    Args:
        name: name of a config, hub name, path, or the name in results itself.
    """
    from hydra import compose
    from hydra.errors import MissingConfigException

    from lcbench.settings.configs import model_keys

    try:
        model = compose("config", overrides=model_keys(name)).model
    except MissingConfigException as error:
        if error.missing_cfg_file != f"model/{name}":
            raise
        return name
    if OmegaConf.is_missing(model, "name"):
        return name
    folder = Path(os.path.expanduser(str(model.name)))  # noqa: PTH111
    is_folder = model.source == "folder" or (model.source == "auto" and folder.is_dir())
    return f"local/{folder.resolve().name}" if is_folder else str(model.name)


def read_verify(config: DictConfig) -> bool:
    """Return whether `lcbench prefetch` verifies files that are already there.

    Raises:
        RequestError: the value is neither true nor false.
    """
    return boolean_of("verify", config["verify"])


def model_names(config: DictConfig) -> tuple[str, ...] | None:
    """Return a sweep's `models`, or None if the config has none.

    Raises:
        RequestError: not a list of names.
    """
    names = config.get("models")
    if names is None:
        return None
    if isinstance(names, str):
        return (names,)
    names = OmegaConf.to_container(names) if OmegaConf.is_config(names) else names
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise RequestError(f"models={names} is not a list of names of configs in conf/model.")
    return tuple(dict.fromkeys(names))


def _suites(suite: Any) -> tuple[Suite, ...]:
    """Return the suite of a request, followed by all other shipped suites."""
    # A suite in the user's own config directory is not among the shipped ones.
    own = suite_of(suite)
    return own, *(one for one in shipped_suites() if one.name != own.name)


def choices_of(tasks: Any) -> tuple[TaskChoice, ...]:
    """Return the tasks that names stand for, outside a request.

    Tasks of a user's own texts may also be named as in results, without the texts.
    """
    names = own_in(tasks, shipped_suites(), HubAccess(offline=True)).tasks
    if not isinstance(names, list):
        names = [names]
    named = [TaskChoice(one) for one in names if isinstance(one, str) and is_own(one)]
    others = [one for one in names if not (isinstance(one, str) and is_own(one))]
    if not others and named:
        return tuple(named)
    return *named, *tasks_named(others, shipped_suites(), shipped_sources())[0]


def own_in(tasks: Any, suites: Sequence[Suite], access: HubAccess) -> Own:
    """Return the texts of the user's own among tasks; mteb's names are read only if needed."""
    if not may_be_own(tasks):
        return Own(tasks)
    known = registry()
    suites_names = {one.name for one in suites}
    return read_own(tasks, {*suites_names, *known.benchmarks, *known.aliases, *known.tasks}, access)


def tasks_named(
    tasks: Any, suites: Sequence[Suite], sources: Sequence[Source]
) -> tuple[tuple[TaskChoice, ...], tuple[str, ...]]:
    names = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"tasks={tasks} is not a list of names of tasks.")
    if not names:
        raise RequestError("tasks=[] is empty; omit it for the suite's tasks.")
    choices, left_out = choose(names, suites, sources)
    return tuple(choices), tuple(left_out)


def _subsets(value: Any) -> tuple[str, ...] | None:
    """Return the distinct requested subsets, sorted; None for all."""
    names = [value] if isinstance(value, str) else value
    if names is None or names == [_EVERY_SUBSET]:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise RequestError(
            f"subsets={value} is not a list of names of subsets or languages: subsets=[en], or "
            f"subsets={_EVERY_SUBSET}."
        )
    if not names:
        raise RequestError(f"subsets=[] is empty; for all subsets: subsets={_EVERY_SUBSET}.")
    return tuple(sorted(set(names)))


def _run_name(value: Any, otherwise: str) -> str:
    """Return what a run is called, which begins the name of a folder."""
    if value is None:
        return otherwise
    if not re.fullmatch(r"\w[\w.-]*", str(value)) or len(str(value).encode()) > _LONGEST_PROTOCOL:
        raise RequestError(
            f"name={value} cannot name a folder: letters, digits, _, . and -, at most "
            f"{_LONGEST_PROTOCOL} bytes."
        )
    return str(value)


def _limit(value: Any) -> int | None:
    """Return the number of items to score; None for all.

    Raises:
        RequestError: it is not a whole number of at least 2, which a correlation needs.
    """
    if value is None:
        return None
    try:
        return count_of("limit", value, least=2)
    except RequestError as error:
        raise RequestError(
            f"{error} A score needs two items, and small samples give wide intervals: limit=100 is "
            "a quick look; limit=null, the default, scores all items."
        ) from None


def _fp32(engine: Mapping[str, Any], dtype: str) -> str:
    value = str(engine["fp32"])
    one_of("engine.fp32", value, _FP32_PRODUCTS)
    if value == "fp16x3" and dtype != "float32":
        raise RequestError(
            f"engine.fp32=fp16x3 is for protocol.dtype=float32; with protocol.dtype={dtype} there "
            "are no float32 products with weights: omit engine.fp32"
        )
    if value == "fp16x3" and engine["compile"] is True:
        raise RequestError(
            "engine.fp32=fp16x3 and engine.compile=true: compiled code multiplies in float32. Omit "
            "one of them"
        )
    return value


def _graphs(engine: Mapping[str, Any]) -> bool:
    if not boolean_of("engine.graphs", engine["graphs"]):
        return False
    for key, excluded, reason in (
        ("compile", engine["compile"] is True, "compiled code is not recorded"),
        ("fp32", engine["fp32"] == "fp16x3", "a batch beyond half precision is computed anew"),
        (
            "attention",
            engine["attention"] not in ("auto", "varlen"),
            "only batches of engine.attention=varlen are recorded",
        ),
    ):
        if excluded:
            value = str(engine[key]).lower()
            raise RequestError(
                f"engine.graphs=true and engine.{key}={value}: {reason}. Omit one of them"
            )
    return True


def _devices(engine: Mapping[str, Any]) -> Literal["all", "spread"] | int | tuple[int, ...] | None:
    value = devices_of(engine["devices"])
    if value == "spread":
        # What they make of a model is on one device.
        alone = (
            *(("compile", True), ("fuse_qkv", True), ("graphs", True)),
            *(("fp32", "fp16x3"), ("attention", "varlen")),
        )
        for key, other in alone:
            if engine[key] == other:
                raise RequestError(
                    f"engine.devices=spread and engine.{key}={str(other).lower()}: a model over "
                    f"several GPUs runs as it is, and with padding. Omit engine.{key}."
                )
    return value


def _attention(value: Any) -> str | None:
    one_of("engine.attention", value, ("auto", *_ATTENTIONS))
    return None if value == "auto" else str(value)


def _store(value: Mapping[str, Any]) -> StoreSettings:
    size = number_of("store.max_gib", value["max_gib"], least=0.0)
    if not 0 < size * 2**30 < math.inf:
        raise RequestError(
            f"store.max_gib={value['max_gib']} is not a number above 0. To keep nothing on disk: "
            "store=none"
        )
    named = path_of("store.folder", value["folder"])
    if not boolean_of("store.on_disk", value["on_disk"]):
        if named is not None:
            raise RequestError(
                f"store.folder={named}: store=none keeps nothing on disk; use "
                f"store=disk store.folder={named}"
            )
        return StoreSettings(folder=None, max_bytes=int(size * 2**30), is_named=False)
    return StoreSettings(
        folder=cache_folder() / "store" if named is None else named,
        max_bytes=int(size * 2**30),
        is_named=named is not None,
    )


def _launch(value: Mapping[str, Any]) -> LaunchSettings:
    one_of("launch.name", value["name"], ("local", "slurm"))
    checked: dict[str, Any] = {"name": value["name"]}
    checked["elements"] = auto_or_count("launch.elements", value.get("elements"))
    for key in ("hours", "tflops"):
        number = value.get(key)
        if number is not None:
            number = number_of(f"launch.{key}", number, least=0.0)
            if not 0 < number < math.inf:
                raise RequestError(f"launch.{key}={number} is not a number above 0.")
        checked[key] = number
    card = word_of("launch.card", value.get("card"))
    if card is not None:
        card = card.lower()
        one_of("launch.card", card, sorted(CARDS))
    checked["card"] = card
    if checked["elements"] is None and checked["hours"] is None:
        checked["elements"] = _ELEMENTS[value["name"]]
    jobs: dict[str, Any] = {
        key: word_of(f"launch.{key}", value.get(key))
        for key in ("partition", "account", "qos", "gpus", "memory", "time")
    }
    for key in ("max_running", "cpus"):
        jobs[key] = auto_or_count(f"launch.{key}", value.get(key))
    if value["name"] == "slurm":
        options = value["options"]
        if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
            raise RequestError(f"launch.options={options} is not a list of words for sbatch.")
        jobs |= {
            "signal_seconds": count_of("launch.signal_seconds", value["signal_seconds"]),
            "requeue": boolean_of("launch.requeue", value["requeue"]),
            "report": boolean_of("launch.report", value["report"]),
            "options": tuple(options),
            "preamble": str(value["preamble"] or ""),
        }
    return LaunchSettings(**checked, jobs=JobOptions(**jobs))
