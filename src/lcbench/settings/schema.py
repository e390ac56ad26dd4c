"""Settings as typed values; which of them are part of a result's identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lcbench.encode.options import EngineSettings, StoreSettings
from lcbench.hub.models import ModelSettings
from lcbench.system.slurm import JobOptions
from lcbench.tasks.docs.selection import DocsSizes
from lcbench.tasks.docs.source import DocsSource
from lcbench.tasks.mteb_tasks import MtebSource
from lcbench.tasks.registry import SPLITS_RULE, TaskChoice
from lcbench.tasks.source import Source
from lcbench.tasks.suites import Suite
from lcbench.tempscale.policy import Policy

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
        "show",
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


@dataclass(frozen=True)
class ProtocolSettings:
    """What a config of the group `protocol` says; see `grid.Protocol`.

    Attributes:
        name: `auto`: that of the prompts, `model` or `paper`.
        prompts: `auto`: by model; see `of`.
        dtype: of weights and activations.
        subsets: that tasks are restricted to; None: all.
        splits: the rule for splits. There is one; it is part of the keys of results.
    """

    name: str
    prompts: str
    dtype: str
    subsets: tuple[str, ...] | None
    splits: str = SPLITS_RULE

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
class LaunchSettings:
    """Where a sweep runs, and how its cells are divided among array elements.

    Attributes:
        name: `local`: here; `slurm`: as an array of jobs.
        elements: of the array, at most; None: as many as `hours` makes.
        hours: that an element takes, by the estimate; None: whatever comes of `elements`.
        tflops: what the device of an element sustains, in 10¹² operations a second; None: as
            measured or reckoned on the machine that plans.
        card: the GPU of an element, of which its data sheet says what `tflops` does not: one of
            `lcbench.system.cards.CARDS`.
        jobs: what Slurm is asked for.
    """

    name: str
    elements: int | None = 1
    hours: float | None = None
    tflops: float | None = None
    card: str | None = None
    jobs: JobOptions = field(default_factory=JobOptions)


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
        retries: how often a cell is tried again whose failure may pass, such as a lack of memory.
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

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where its tasks come from; another one has a field of its own, as `docs` is."""
        return sources_of(self.docs)


def sources_of(docs: DocsSizes) -> tuple[Source, ...]:
    """Return the sources of tasks of a request.

    Args:
        docs: sizes of the docs suite.
    """
    # mteb last: its names take a file to be read, the first time after an upgrade mteb itself.
    return DocsSource(docs), MtebSource()


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
    """What `python -m lcbench status` is asked for.

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
    """What `python -m lcbench report` is asked for.

    Attributes:
        report_dir: where the report goes; None: `report` in the folder of results.
        manifest: of the sweep whose cells are reported, and no others; None: all in the folder.
        models: only these, by their names on the hub; None: all.
        against: a second folder of results, to be put beside; or None.
        resamples: of the bootstrap; 0: none.
        seed: of all that is drawn.
        show: names of tables that are printed besides the first ones; `all`: all of them.
    """

    results_dir: Path
    report_dir: Path | None
    tasks: tuple[TaskChoice, ...] | None
    manifest: Path | None = None
    models: tuple[str, ...] | None = None
    against: Path | None = None
    resamples: int = 10_000
    seed: int = 0
    show: tuple[str, ...] = ()


@dataclass(frozen=True)
class TasksSettings:
    """What `python -m lcbench tasks` is asked for.

    Attributes:
        groups: tasks by what named them: each suite, or all that was asked for.
        left_out: what of a benchmark cannot be run here, and why, in one line each.
        subsets: that the protocol is restricted to; None: all.
        sources: of tasks, as a run has them by default.
        mirror: a folder of datasets, or None.
        benchmarks: whether mteb's benchmarks are listed in the place of tasks.
        format: `table` or `csv`.
        suites: those that name the columns, the one that was asked for first.
    """

    groups: Mapping[str, tuple[TaskChoice, ...]]
    left_out: tuple[str, ...]
    subsets: tuple[str, ...] | None
    sources: tuple[Source, ...]
    mirror: Path | None
    benchmarks: bool
    format: str
    suites: tuple[Suite, ...]


@dataclass(frozen=True)
class ExportSettings:
    """What `python -m lcbench export` is asked for."""

    model: ModelSettings
    policy: Policy
    out: Path
    offline: bool
    mirror: Path | None = None
    hub: str | None = None
