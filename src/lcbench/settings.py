"""What Hydra composes becomes typed, checked values: here and nowhere else.

Every key is either part of a result's identity or a runtime knob that changes no score; `IDENTITY`
and `RUNTIME` say which, and a key that is in neither is refused.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lcbench import hub
from lcbench.cards import CARDS
from lcbench.errors import RequestError, did_you_mean
from lcbench.files import cache_folder
from lcbench.models import Dimensions, ModelSettings
from lcbench.tasks.registry import TaskChoice
from lcbench.tasks.selection import SHORTEST, DocsSizes, SyntheticSizes
from lcbench.tasks.suites import Suite, choose
from lcbench.tempscale.policy import Policy, parse, parse_all

# Keys that a result depends on.
IDENTITY = frozenset(
    {
        "model.name",
        "model.source",
        "model.package",
        "model.revision",
        "model.window",
        "model.trust_remote_code",
        "model.pooling",
        "models",
        "tau",
        "tau_bias",
        "tasks",
        "subsets",
        "suite.name",
        "suite.columns",
        "suite.revisions",
        "protocol.name",
        "protocol.prompts",
        "protocol.dtype",
        "protocol.splits",
        "protocol.subsets",
        "docs.documents",
        "docs.documents_per_module",
        "docs.long_documents",
        "docs.clustering_sets",
        "docs.clustering_share",
        "docs.synthetic_lengths",
        "docs.synthetic_documents",
    }
)
# Keys that change where, how fast and with what a result is made, and no score.
RUNTIME = frozenset(
    {
        "engine.device",
        "engine.batch_tokens",
        "engine.scoring",
        "engine.compile",
        "engine.attention",
        "store.on_disk",
        "store.folder",
        "store.max_gib",
        "model.shape",
        "mirror",
        "unverified_data",
        "offline",
        "verify",
        "results_dir",
        "report_dir",
        "against",
        "resamples",
        "seed",
        "out",
        "path",
        "replace",
        "benchmarks",
        "format",
        "manifest",
        "element",
        "retries",
        "cell_minutes",
        "failed",
        "watch",
        "launch.name",
        "launch.elements",
        "launch.hours",
        "launch.tflops",
        "launch.card",
        "launch.max_running",
        "launch.partition",
        "launch.account",
        "launch.qos",
        "launch.gpus",
        "launch.cpus",
        "launch.memory",
        "launch.time",
        "launch.signal_seconds",
        "launch.requeue",
        "launch.report",
        "launch.options",
        "launch.preamble",
    }
)
_SOURCES = ("package", "hub", "folder", "auto")
_COMMIT = re.compile("[0-9a-f]{40}")
_DTYPES = ("float32", "float16", "bfloat16", "tf32")
_PROMPTS = ("auto", "none", "model", "registry")
_POOLINGS = ("mean", "cls", "lasttoken", "max")
_ATTENTIONS = ("sdpa", "eager", "flex_attention", "flash_attention_2")
_EVERY_SUBSET = "all"
# Bytes of a protocol's name, which begins that of a folder.
_LONGEST_PROTOCOL = 100
# 2.5 % of fewer are too few to say where they end.
_FEWEST_RESAMPLES = 1000
# A cell of the docs suite takes seconds; below that a limit is a slip.
_LEAST_CELL_MINUTES = 0.1
# Of a sweep for which neither elements nor hours are asked.
_ELEMENTS = {"local": 1, "slurm": 20}


@dataclass(frozen=True)
class ProtocolSettings:
    """What a config of the group `protocol` says; see `grid.Protocol`.

    Attributes:
        name: `auto`: that of the prompts, `model` or `paper`.
        prompts: `auto`: by model; see `of`.
        dtype: of weights and activations.
        splits: the rule for splits.
        subsets: that tasks are restricted to; None: all.
    """

    name: str
    prompts: str
    dtype: str
    splits: str
    subsets: tuple[str, ...] | None

    def of(self, model: ModelSettings, *, has_prompts: bool) -> ProtocolSettings:
        """Return the protocol that a model is scored under, without `auto`.

        Args:
            model: those of `conf/model` get no prompts, as in the paper, unless that is asked for.
            has_prompts: whether the model's own files have prompts; a custom model gets them.
        """
        prompts = self.prompts
        if prompts == "auto":
            prompts = "model" if has_prompts and model.is_custom else "none"
        name = self.name
        if name == "auto":
            name = "model" if prompts == "model" else "paper"
        return replace(self, name=name, prompts=prompts)


@dataclass(frozen=True)
class EngineSettings:
    """Runtime knobs of the encoder.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` …
        batch_tokens: tokens of one forward pass, padding included; None: by device.
        scoring: processes that score cells beside the encoding; 0: none but this one; None: by
            cores and memory.
        compile: whether torch compiles the model.
        attention: an implementation of `transformers`; None: its own choice.
    """

    device: str
    batch_tokens: int | None
    scoring: int | None
    compile: bool
    attention: str | None = None


@dataclass(frozen=True)
class StoreSettings:
    """Where embeddings are kept; see `encode.store.Store`.

    Attributes:
        folder: None: in memory only.
        max_bytes: of all that is kept.
        is_named: whether the request names the folder, and so expects it to be writable.
    """

    folder: Path | None
    max_bytes: int
    is_named: bool


@dataclass(frozen=True)
class LaunchSettings:
    """Where a sweep runs, and how its cells are divided among array elements.

    Attributes:
        name: `local`: here; `slurm`: as an array of jobs.
        elements: of the array, at most; None: as many as `hours` makes.
        hours: that an element takes, by the estimate; None: whatever comes of `elements`.
        tflops: what the device of an element sustains, in 10¹² operations a second; None: as
            measured or reckoned on the machine that plans.
        card: the GPU of an element, of which its data sheet says what `tflops` does not: one of
            `lcbench.cards.CARDS`.
        max_running: elements that run at the same time, at most; None: not limited.
        partition: of Slurm; it and the following are left to the site where they are None.
        account: that is charged.
        qos: quality of service.
        gpus: of an element: a number, or a kind and a number (`a100:1`).
        cpus: of an element.
        memory: of an element, as Slurm writes it (`32G`).
        time: of an element, as Slurm writes it (`4:00:00`).
        signal_seconds: before its time ends, an element is told to finish what it is doing.
        requeue: whether an element that was told to stop goes back into the queue.
        report: whether a job that waits for the array writes the report.
        options: further options of sbatch, each a word.
        preamble: lines of shell that a job runs first: modules, conda.
    """

    name: str
    elements: int | None = 1
    hours: float | None = None
    tflops: float | None = None
    card: str | None = None
    max_running: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    signal_seconds: int = 120
    requeue: bool = True
    report: bool = True
    options: tuple[str, ...] = ()
    preamble: str = ""


@dataclass(frozen=True)
class Settings:
    """A request, checked: which cells, and how to run them.

    Attributes:
        label: what it is called: the sweep's name, or `run`.
        suites: that the request knows, its own first: they give tasks their columns.
        left_out: what of a benchmark cannot be run here, and why, in one line each.
        mirror: the folder in which models and datasets are looked for first, if there is one.
        unverified_data: whether a plain folder of the mirror may hold another dataset than the one
            that it is named after.
        hub: the address of a site's mirror of the hub, where `mirror` names one.
        retries: how often a cell that failed for want of memory, say, is tried again.
        cell_minutes: after which a cell is ended and has failed; None: it may take any time.
    """

    label: str
    models: tuple[ModelSettings, ...]
    policies: tuple[Policy, ...]
    tasks: tuple[TaskChoice, ...]
    suites: tuple[Suite, ...]
    left_out: tuple[str, ...]
    protocol: ProtocolSettings
    docs: DocsSizes
    engine: EngineSettings
    store: StoreSettings
    mirror: Path | None
    unverified_data: bool
    hub: str | None
    offline: bool
    retries: int
    cell_minutes: float | None
    results_dir: Path


@dataclass(frozen=True)
class RunSettings:
    """What `python -m lcbench` is asked for beside the request itself.

    Attributes:
        manifest: the frozen sweep that takes the request's place; None: the request is run.
        element: the one of its elements that is run; None: all of it.
        launch: where.
        results_dir: where results are, unless the frozen sweep is elsewhere.
    """

    manifest: Path | None
    element: int | None
    launch: LaunchSettings
    results_dir: Path


@dataclass(frozen=True)
class StatusSettings:
    """What `python -m lcbench.status` is asked for.

    Attributes:
        results_dir: where results are.
        manifest: of the sweep; None: the last that was planned or run in `results_dir`.
        failed: whether only the elements to resubmit are printed.
        watch: whether it is shown again and again.
    """

    results_dir: Path
    manifest: Path | None
    failed: bool
    watch: bool


@dataclass(frozen=True)
class ReportSettings:
    """What `python -m lcbench.report` is asked for.

    Attributes:
        report_dir: where the report goes; None: `report` in the folder of results.
        manifest: of the sweep whose cells are reported, and no others; None: all in the folder.
        models: only these, by their names on the hub; None: all.
        against: a second folder of results, to be put beside; or None.
        resamples: of the bootstrap; 0: none.
        seed: of all that is drawn.
    """

    results_dir: Path
    report_dir: Path | None
    tasks: tuple[TaskChoice, ...] | None
    manifest: Path | None = None
    models: tuple[str, ...] | None = None
    against: Path | None = None
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class TasksSettings:
    """What `python -m lcbench.tasks` is asked for.

    Attributes:
        groups: tasks by what named them: each suite, or all that was asked for.
        left_out: what of a benchmark cannot be run here, and why, in one line each.
        splits: the protocol's rule.
        subsets: that the protocol is restricted to; None: all.
        docs: sizes of the docs suite, those of a run by default.
        mirror: a folder of datasets, or None.
        benchmarks: whether mteb's benchmarks are listed in the place of tasks.
        format: `table` or `csv`.
        suites: those that name the columns, the one that was asked for first.
    """

    groups: Mapping[str, tuple[TaskChoice, ...]]
    left_out: tuple[str, ...]
    splits: str
    subsets: tuple[str, ...] | None
    docs: DocsSizes
    mirror: Path | None
    benchmarks: bool
    format: str
    suites: tuple[Suite, ...]


@dataclass(frozen=True)
class ExportSettings:
    """What `python -m lcbench.export` is asked for."""

    model: ModelSettings
    policy: Policy
    out: Path
    offline: bool
    mirror: Path | None = None
    hub: str | None = None


@dataclass(frozen=True)
class ImportSettings:
    """What `python -m lcbench.import_results` is asked for.

    Attributes:
        path: the folder of results.
        results_dir: where they are kept.
        models: only these, by their names on the hub; None: all.
        tasks: only these; None: all.
        replace: whether what was imported before gives way to a file with another content.
    """

    path: Path
    results_dir: Path
    models: tuple[str, ...] | None
    tasks: tuple[str, ...] | None
    replace: bool


@lru_cache(maxsize=1)
def config_folder() -> Path:
    """Return the folder of the configs: in the wheel beside this file, else in the checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


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
    return tuple(_suite(OmegaConf.to_container(OmegaConf.load(path))) for path in paths)


@lru_cache(maxsize=1)
def shipped_models() -> Mapping[str, str]:
    """Return the names of the models of `conf/model`, by their configs' names, without `custom`."""
    names = {}
    for path in sorted((config_folder() / "model").glob("*.yaml")):
        config = OmegaConf.load(path)
        if not OmegaConf.is_missing(config, "name"):
            names[path.stem] = str(OmegaConf.select(config, "name"))
    return names


def read(configs: Mapping[str, DictConfig], label: str = "run") -> Settings:
    """Return the checked settings of a run.

    Args:
        configs: the composed config of each model, by the model config's name; they differ in
            `model` alone.
        label: what the run is called.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    values = {name: _container(config) for name, config in configs.items()}
    first = next(iter(values.values()))
    protocol, engine = first["protocol"], first["engine"]
    name = str(protocol["name"])
    if not re.fullmatch(r"[\w.-]+", name) or len(name.encode()) > _LONGEST_PROTOCOL:
        raise RequestError(
            f"protocol.name={name} cannot name a folder: letters, digits, _, . and -, at most "
            f"{_LONGEST_PROTOCOL} bytes."
        )
    _one_of("protocol.prompts", protocol["prompts"], _PROMPTS)
    _one_of("protocol.dtype", protocol["dtype"], _DTYPES)
    _one_of("protocol.splits", protocol["splits"], ("test",))
    _one_of("tau_bias", first["tau_bias"], ("divided", "kept"))
    subsets = first["subsets"] if first["subsets"] is not None else protocol["subsets"]
    suites = _suites(first["suite"])
    tasks, left_out = _chosen(
        [suites[0].name] if first["tasks"] is None else first["tasks"], suites
    )
    mirror, address = _mirror(first["mirror"])
    return Settings(
        label=label,
        models=tuple(_model(name, value["model"]) for name, value in values.items()),
        policies=parse_all(first["tau"], keeps_bias=first["tau_bias"] == "kept"),
        tasks=tasks,
        suites=suites,
        left_out=left_out,
        protocol=ProtocolSettings(
            name=str(protocol["name"]),
            prompts=protocol["prompts"],
            dtype=protocol["dtype"],
            splits=protocol["splits"],
            subsets=_subsets(subsets),
        ),
        docs=_docs(first["docs"]),
        engine=EngineSettings(
            device=_device(engine["device"]),
            batch_tokens=_auto_or_count("engine.batch_tokens", engine["batch_tokens"]),
            scoring=_auto_or_count("engine.scoring", engine["scoring"], least=0),
            compile=_boolean("engine.compile", engine["compile"]),
            attention=_attention(engine["attention"]),
        ),
        store=_store(first["store"]),
        mirror=mirror,
        unverified_data=_boolean("unverified_data", first["unverified_data"]),
        hub=address,
        offline=_boolean("offline", first["offline"]),
        retries=_count("retries", first["retries"], least=0),
        cell_minutes=_cell_minutes(first["cell_minutes"], engine["scoring"]),
        results_dir=_needed_path("results_dir", first["results_dir"]),
    )


def freeze(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON types, with every path absolute but that of the results.

    What they were composed from may change afterwards.
    """
    content = asdict(replace(settings, policies=()))
    del content["results_dir"]
    content["policies"] = [[one.written(), one.keeps_bias] for one in settings.policies]
    for model in content["models"]:
        if model["source"] != "package" and (path := Path(model["name"]).expanduser()).is_dir():
            model["name"] = str(path.absolute())
    for holder, key in ((content, "mirror"), (content["store"], "folder")):
        if holder[key] is not None:
            holder[key] = str(holder[key].absolute())
    # Tuples become lists: what is written is what is read.
    frozen: dict[str, Any] = json.loads(json.dumps(content))
    return frozen


def thaw(content: Mapping[str, Any], results_dir: Path) -> Settings:
    """Return the settings that `freeze` made JSON of.

    Args:
        content: what it returned.
        results_dir: where the results are now.

    Raises:
        RequestError: they are not such settings.
    """
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(Settings)
    del hints["policies"], hints["results_dir"]
    try:
        values = {
            name: TypeAdapter(hint).validate_python(content[name]) for name, hint in hints.items()
        }
        policies = tuple(parse(value, keeps_bias=bias) for value, bias in content["policies"])
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise RequestError(
            "The settings that were frozen are not those of this version of lcbench: "
            f"{' '.join(str(error).split())}"
        ) from error
    if values["store"].folder is not None and not values["store"].is_named:
        # Each machine has a cache of its own.
        values["store"] = replace(values["store"], folder=cache_folder() / "store")
    return Settings(**values, policies=policies, results_dir=results_dir)


def read_run(config: DictConfig) -> RunSettings:
    """Return what a run is asked for beside the request itself.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    value = _container(config)
    element = value["element"]
    manifest = _path("manifest", value["manifest"])
    if element is not None and manifest is None:
        raise RequestError(f"element={element} of what? Name its sweep: manifest=PATH.")
    return RunSettings(
        manifest=manifest,
        element=None if element is None else _count("element", element, least=0),
        launch=_launch(value["launch"]),
        results_dir=_needed_path("results_dir", value["results_dir"]),
    )


def read_status(config: DictConfig) -> StatusSettings:
    """Return the checked settings of a status.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    value = _container(config)
    return StatusSettings(
        results_dir=_needed_path("results_dir", value["results_dir"]),
        manifest=_path("manifest", value["manifest"]),
        failed=_boolean("failed", value["failed"]),
        watch=_boolean("watch", value["watch"]),
    )


def read_report(config: DictConfig) -> ReportSettings:
    """Return the checked settings of a report.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    value, models = _container(config), model_names(config)
    return ReportSettings(
        results_dir=_needed_path("results_dir", value["results_dir"]),
        report_dir=_path("report_dir", value["report_dir"]),
        tasks=None if value["tasks"] is None else _chosen(value["tasks"], shipped_suites())[0],
        manifest=_path("manifest", value["manifest"]),
        models=None if models is None else tuple(_name_in_results(name) for name in models),
        against=_path("against", value["against"]),
        resamples=_resamples(value["resamples"]),
        seed=_count("seed", value["seed"], least=0),
    )


def _resamples(value: Any) -> int:
    """Return the samples of a bootstrap: none, or enough for the ends of a 95 % interval."""
    count = _count("resamples", value, least=0)
    if 0 < count < _FEWEST_RESAMPLES:
        raise RequestError(
            f"resamples={count} is too few for an interval; at least {_FEWEST_RESAMPLES}, or 0 "
            "for none."
        )
    return count


def read_tasks(config: DictConfig) -> TasksSettings:
    """Return the checked settings of a listing of tasks.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    value = _container(config)
    _one_of("format", value["format"], ("table", "csv"))
    _one_of("protocol.splits", value["protocol"]["splits"], ("test",))
    suite, names = value.get("suite"), value["tasks"]
    left_out: tuple[str, ...] = ()
    if names is not None:
        own = shipped_suites() if suite is None else (_suite(suite), *shipped_suites())
        title = names if isinstance(names, str) else ", ".join(map(str, names))
        tasks, left_out = _chosen(names, own)
        groups = {title: tasks}
    else:
        suites = shipped_suites() if suite is None else (_suite(suite),)
        groups = {one.name: tuple(map(TaskChoice, one.tasks)) for one in suites}
    own_subsets = value["subsets"]
    return TasksSettings(
        groups=groups,
        left_out=left_out,
        splits=value["protocol"]["splits"],
        subsets=_subsets(value["protocol"]["subsets"] if own_subsets is None else own_subsets),
        docs=_shipped_docs(),
        mirror=_mirror(value["mirror"])[0],
        benchmarks=_boolean("benchmarks", value["benchmarks"]),
        format=value["format"],
        suites=shipped_suites() if suite is None else _suites(suite),
    )


def read_export(config: DictConfig) -> ExportSettings:
    """Return the checked settings of an export.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    from hydra.core.hydra_config import HydraConfig

    value = _container(config)
    _one_of("tau_bias", value["tau_bias"], ("divided", "kept"))
    mirror, address = _mirror(value["mirror"])
    return ExportSettings(
        model=_model(str(HydraConfig.get().runtime.choices["model"]), value["model"]),
        policy=parse(value["tau"], keeps_bias=value["tau_bias"] == "kept"),
        out=_needed_path("out", value["out"]),
        mirror=mirror,
        hub=address,
        offline=_boolean("offline", value["offline"]),
    )


def read_import(config: DictConfig) -> ImportSettings:
    """Return the checked settings of an import.

    Raises:
        RequestError: a key that does not exist, or a value that cannot be; the message names it.
    """
    value = _container(config)
    models, tasks = model_names(config), value["tasks"]
    chosen = None if tasks is None else _chosen(tasks, shipped_suites())[0]
    return ImportSettings(
        path=_needed_path("path", value["path"]),
        results_dir=_needed_path("results_dir", value["results_dir"]),
        models=None if models is None else tuple(_name_in_results(name) for name in models),
        tasks=None if chosen is None else tuple(choice.name for choice in chosen),
        replace=_boolean("replace", value["replace"]),
    )


def _name_in_results(name: str) -> str:
    """Return what results call a model that a run may be asked for by this name.

    Args:
        name: of a config, of the hub or of a folder, or a model's name in results.
    """
    from hydra import compose
    from hydra.errors import MissingConfigException

    from lcbench.command import model_keys

    try:
        found = compose("config", overrides=model_keys(name)).model
    except MissingConfigException as error:
        if error.missing_cfg_file != f"model/{name}":
            raise
        return name
    if OmegaConf.is_missing(found, "name"):
        return name
    folder = Path(os.path.expanduser(str(found.name)))  # noqa: PTH111
    is_folder = found.source == "folder" or (found.source == "auto" and folder.is_dir())
    return f"local/{folder.resolve().name}" if is_folder else str(found.name)


def read_verify(config: DictConfig) -> bool:
    """Return whether `python -m lcbench.prefetch` compares the digests of what is there already.

    Raises:
        RequestError: neither true nor false.
    """
    return _boolean("verify", config["verify"])


def model_names(config: DictConfig) -> tuple[str, ...] | None:
    """Return a sweep's `models`, or None where the config has none.

    Raises:
        RequestError: not a list of names.
    """
    names = config.get("models")
    if names is None:
        return None
    if isinstance(names, str):
        return (names,)
    names = OmegaConf.to_container(names)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise RequestError(f"models={names} is not a list of names of configs in conf/model.")
    return tuple(dict.fromkeys(names))


def _container(config: DictConfig) -> dict[str, Any]:
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
        if key not in IDENTITY | RUNTIME:
            raise RequestError(f"{key} is not a key.{did_you_mean(key, known_keys())}")
    return composed


def _leaves(value: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted keys of a config; a suite's columns, or a model's shape, are one value."""
    keys: list[str] = []
    for name, item in value.items():
        key = f"{prefix}{name}"
        if isinstance(item, Mapping) and key not in IDENTITY | RUNTIME:
            keys += _leaves(item, f"{key}.")
        else:
            keys.append(key)
    return keys


def _model(config: str, value: Mapping[str, Any]) -> ModelSettings:
    _one_of("model.source", value["source"], _SOURCES)
    window, revision = value["window"], value["revision"]
    trusted = _boolean("model.trust_remote_code", value["trust_remote_code"])
    if revision is not None and value["source"] in ("package", "folder"):
        raise RequestError(
            f"model.revision={revision}: model={config} is read from a {value['source']}; that has "
            "no revisions, and is known by a digest of its files."
        )
    if trusted and value["source"] in ("hub", "auto") and not _COMMIT.fullmatch(str(revision)):
        raise RequestError(
            "model.trust_remote_code=true runs code of the model's repository; say which: "
            "model.revision=<the 40 digits of a commit>."
        )
    return ModelSettings(
        config=config,
        name=str(value["name"]),
        source=value["source"],
        package=value["package"],
        revision=revision,
        window=None if window is None else _count("model.window", window),
        trust_remote_code=trusted,
        shape=_shape(value.get("shape")),
        pooling=_pooling(value.get("pooling")),
        is_custom=config not in shipped_models(),
    )


def _pooling(value: Any) -> str | None:
    if value in (None, "auto"):
        return None
    _one_of("model.pooling", value, ("auto", *_POOLINGS))
    return str(value)


def _shape(value: Any) -> Dimensions | None:
    if value is None:
        return None
    wanted = ("layers", "hidden", "window")
    if not isinstance(value, Mapping) or set(value) != set(wanted):
        raise RequestError(f"model.shape={value} has to say: {', '.join(wanted)}.")
    window = value["window"]
    return Dimensions(
        layers=_count("model.shape.layers", value["layers"]),
        hidden=_count("model.shape.hidden", value["hidden"]),
        window=None if window is None else _count("model.shape.window", window),
    )


def _suite(value: Any) -> Suite:
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


def _suites(suite: Any) -> tuple[Suite, ...]:
    """Return the suite of a request and then all others that are shipped."""
    # One of a config directory of the user's own is not among those that are shipped.
    own = _suite(suite)
    return own, *(one for one in shipped_suites() if one.name != own.name)


def _chosen(tasks: Any, suites: Sequence[Suite]) -> tuple[tuple[TaskChoice, ...], tuple[str, ...]]:
    names = [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestError(f"tasks={tasks} is not a list of names of tasks.")
    if not names:
        raise RequestError("tasks=[] asks for no task at all; leave it out for the suite's tasks.")
    choices, left_out = choose(names, suites)
    return tuple(choices), tuple(left_out)


def _subsets(value: Any) -> tuple[str, ...] | None:
    """Return the subsets that were asked for, sorted, each once; None: all."""
    names = [value] if isinstance(value, str) else value
    if names is None or names == [_EVERY_SUBSET]:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise RequestError(
            f"subsets={value} is not a list of names of subsets or languages: subsets=[en], or "
            f"subsets={_EVERY_SUBSET}."
        )
    if not names:
        raise RequestError(f"subsets=[] asks for nothing at all; all of them: {_EVERY_SUBSET}.")
    return tuple(sorted(set(names)))


def _docs(value: Mapping[str, Any]) -> DocsSizes:
    share = _number("docs.clustering_share", value["clustering_share"], least=0.0)
    if not 0 < share <= 1:
        raise RequestError(f"docs.clustering_share={share} is not a share in (0, 1].")
    counts = {
        name: _count(f"docs.{name}", value[name])
        for name in ("documents", "documents_per_module", "long_documents", "clustering_sets")
    }
    synthetic = SyntheticSizes(
        lengths=_lengths(value["synthetic_lengths"]),
        documents=_count("docs.synthetic_documents", value["synthetic_documents"]),
    )
    return DocsSizes(**counts, clustering_share=share, synthetic=synthetic)


def _lengths(value: Any) -> tuple[int, ...] | None:
    """Return the lengths of synthetic documents, ascending; None for those of the window."""
    if value == "auto":
        return None
    key = "docs.synthetic_lengths"
    lengths = [value] if isinstance(value, int) else value
    if not isinstance(lengths, list) or not lengths:
        raise RequestError(f"{key}={value} is neither auto nor a list of lengths in tokens.")
    for length in lengths:
        if _count(key, length) < SHORTEST:
            raise RequestError(
                f"{key}={value}: a fact needs a document of at least {SHORTEST} tokens."
            )
    return tuple(sorted(set(lengths)))


def _shipped_docs() -> DocsSizes:
    """Return the sizes of the docs suite that a run has by default."""
    content: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "config.yaml"))
    return _docs(content["docs"])


def _attention(value: Any) -> str | None:
    _one_of("engine.attention", value, ("auto", *_ATTENTIONS))
    return None if value == "auto" else str(value)


def _store(value: Mapping[str, Any]) -> StoreSettings:
    size = _number("store.max_gib", value["max_gib"], least=0.0)
    if not 0 < size * 2**30 < math.inf:
        raise RequestError(
            f"store.max_gib={value['max_gib']} is not a number above 0. To keep nothing on disk: "
            "store=none"
        )
    named = _path("store.folder", value["folder"])
    if not _boolean("store.on_disk", value["on_disk"]):
        if named is not None:
            raise RequestError(
                f"store.folder={named}: this store keeps nothing on disk. With a folder: "
                f"store=disk store.folder={named}"
            )
        return StoreSettings(folder=None, max_bytes=int(size * 2**30), is_named=False)
    return StoreSettings(
        folder=cache_folder() / "store" if named is None else named,
        max_bytes=int(size * 2**30),
        is_named=named is not None,
    )


def _launch(value: Mapping[str, Any]) -> LaunchSettings:
    _one_of("launch.name", value["name"], ("local", "slurm"))
    told: dict[str, Any] = {"name": value["name"]}
    for key in ("elements", "max_running", "cpus"):
        told[key] = _auto_or_count(f"launch.{key}", value.get(key))
    for key in ("hours", "tflops"):
        number = value.get(key)
        if number is not None:
            number = _number(f"launch.{key}", number, least=0.0)
            if not 0 < number < math.inf:
                raise RequestError(f"launch.{key}={number} is not a number above 0.")
        told[key] = number
    card = _word("launch.card", value.get("card"))
    if card is not None:
        card = card.lower()
        _one_of("launch.card", card, sorted(CARDS))
    told["card"] = card
    if told["elements"] is None and told["hours"] is None:
        told["elements"] = _ELEMENTS[value["name"]]
    for key in ("partition", "account", "qos", "gpus", "memory", "time"):
        told[key] = _word(f"launch.{key}", value.get(key))
    if value["name"] == "local":
        return LaunchSettings(**told)
    options = value["options"]
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise RequestError(f"launch.options={options} is not a list of words for sbatch.")
    return LaunchSettings(
        **told,
        signal_seconds=_count("launch.signal_seconds", value["signal_seconds"]),
        requeue=_boolean("launch.requeue", value["requeue"]),
        report=_boolean("launch.report", value["report"]),
        options=tuple(options),
        preamble=str(value["preamble"] or ""),
    )


def _word(key: str, value: Any) -> str | None:
    """Return what Slurm is given as it is: a word or a number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise RequestError(f"{key}={value} is neither a word nor a number.")
    return str(value)


def _device(value: Any) -> str:
    device = str(value)
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise RequestError(f"engine.device={value} is not a device: auto, cpu, cuda, cuda:1 …")
    return device


def _one_of(key: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = did_you_mean(str(value), allowed)
        raise RequestError(f"{key}={value} is not one of: {', '.join(allowed)}.{near}")


def _auto_or_count(key: str, value: Any, least: int = 1) -> int | None:
    return None if value in (None, "auto") else _count(key, value, least)


def _count(key: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= sys.maxsize:
        raise RequestError(f"{key}={value} is not a whole number of at least {least}.")
    return value


def _number(key: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise RequestError(f"{key}={value} is not a number of at least {least:g}.")
    return float(value)


def _cell_minutes(value: Any, scoring: Any) -> float | None:
    if value is None:
        return None
    minutes = _number("cell_minutes", value, least=_LEAST_CELL_MINUTES)
    if scoring == 0:
        raise RequestError(cell_minutes_without_processes(minutes))
    return minutes


def cell_minutes_without_processes(minutes: float) -> str:
    """Return why a limit on the time of a cell does not go with scoring in the run's process."""
    return (
        f"cell_minutes={minutes:g} needs processes that score cells, which can be ended: "
        "engine.scoring=1 or more, not engine.scoring=0."
    )


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"{key}={value} is neither true nor false.")
    return value


def _path(key: str, value: Any) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value == "":
        raise RequestError(f"{key}={value} is not a path.")
    # pathlib's raises on a name after ~ that is no user's, which is a folder's then.
    path = Path(os.path.expanduser(str(value)))  # noqa: PTH111
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            raise RequestError(
                f"{key}={value}: {place} is a symbolic link to {os.readlink(place)}, which does "  # noqa: PTH115
                "not exist. Make that, or name another path."
            )
    return path


def _mirror(value: Any) -> tuple[Path | None, str | None]:
    """Return the folder that `mirror` names, or the address.

    Raises:
        RequestError: it is neither, or an address with a user or password.
    """
    if isinstance(value, str) and re.match("https?://", value):
        hub.refuse_credentials("mirror", value)
        return None, value.rstrip("/")
    return _path("mirror", value), None


def _needed_path(key: str, value: Any) -> Path:
    path = _path(key, value)
    if path is None:
        raise RequestError(f"{key} needs a path: {key}=PATH.")
    return path
