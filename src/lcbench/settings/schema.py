"""The settings as dataclasses, and the keys that belong to a result's identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lcbench.encode.options import EngineSettings, StoreSettings
from lcbench.hub.models import ModelSettings
from lcbench.repair.repair import Repair
from lcbench.system.slurm import JobOptions
from lcbench.tasks.corpus.classes import ClassSource, OwnClass
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.corpus.source import CorpusSource
from lcbench.tasks.docs.selection import DocsSizes
from lcbench.tasks.docs.source import DocsSource
from lcbench.tasks.mteb_tasks import MtebSource
from lcbench.tasks.registry import SPLITS_RULE, TaskChoice
from lcbench.tasks.source import Source
from lcbench.tasks.suites import Suite

# Keys that results depend on.
IDENTITY = frozenset(
    {
        "model.name",
        "model.source",
        "model.package",
        "model.revision",
        "model.window",
        "model.trust_remote_code",
        "model.pooling",
        "model.special_tokens",
        "model.dimensions",
        "models",
        "tau",
        "tau_bias",
        "gain",
        "attend",
        "chunks",
        "correct",
        "extend",
        "repairs",
        "tasks",
        "subsets",
        "suite.name",
        "suite.columns",
        "suite.revisions",
        "protocol.name",
        "protocol.prompts",
        "protocol.dtype",
        "protocol.subsets",
        "limit",
        "docs.documents",
        "docs.documents_per_module",
        "docs.long_documents",
        "docs.clustering_sets",
        "docs.clustering_share",
        "docs.synthetic_lengths",
        "docs.synthetic_documents",
    }
)
# Keys that a measurement of collapse depends on, besides those above; no score does.
MEASUREMENT = frozenset(
    {
        "passages",
        "compared",
        "sentences",
        "whole_texts",
        "bins",
        "queries",
        "corpus",
        "chunk_tokens",
        "measures",
        "traced_texts",
        "traced_lengths",
    }
)
# Keys that affect where and how fast results are computed, but not scores.
RUNTIME = frozenset(
    {
        "leave_out_unsuited",
        "engine.device",
        "engine.devices",
        "engine.batch_tokens",
        "engine.scoring",
        "engine.compile",
        "engine.fuse_qkv",
        "engine.graphs",
        "engine.fp32",
        "engine.attention",
        "store.on_disk",
        "store.folder",
        "store.max_gib",
        "model.shape",
        "model.matryoshka",
        "model.label",
        "name",
        "mirror",
        "unverified_data",
        "offline",
        "verify",
        "results_dir",
        "report_dir",
        "against",
        "also",
        "show",
        "resamples",
        "seed",
        "embeddings",
        "lengths",
        "fail_if",
        "figures",
        "figure_texts",
        # Of `tune`: its temperatures are identified by what they are.
        "method",
        "across",
        "test",
        "texts",
        "trials",
        "folds",
        "heads",
        "by_length",
        "device",
        "out",
        "check",
        "protocols",
        "path",
        "replace",
        "benchmarks",
        "format",
        "torch",
        "track",
        "manifest",
        "element",
        "plan",
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
    """The values of a config in the group `protocol`; see `results.cell.Protocol`.

    Attributes:
        name: name of the protocol; `auto`: `model` or `paper`, depending on the prompts.
        prompts: source of prompts; `auto`: by model, see `of`.
        dtype: dtype of weights and activations.
        subsets: subsets that tasks are restricted to; None: all.
        splits: rule for splits. There is only one; it is part of the keys of results.
        limit: number of items scored in each split and subset; None: all.
    """

    name: str
    prompts: str
    dtype: str
    subsets: tuple[str, ...] | None
    splits: str = SPLITS_RULE
    limit: int | None = None

    def of(self, model: ModelSettings, *, has_prompts: bool) -> ProtocolSettings:
        """Return the protocol of a model, with `auto` resolved.

        Args:
            model: the model; those in `conf/model` get no prompts, as in the paper, by default.
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
        name: `local`, or `slurm` for a job array.
        elements: the most array elements; None: as many as `hours` requires.
        hours: estimated time limit of an element; None: no limit.
        tflops: sustained rate of an element's device, in 10¹² operations per second; None: as
            measured or estimated on the machine that plans.
        card: GPU of an element, one of `lcbench.system.cards.CARDS`, instead of `tflops`.
        jobs: options of Slurm jobs.
    """

    name: str
    elements: int | None = 1
    hours: float | None = None
    tflops: float | None = None
    card: str | None = None
    jobs: JobOptions = field(default_factory=JobOptions)


@dataclass(frozen=True)
class Settings:
    """A checked request: which cells to run, and how.

    Attributes:
        label: name of the request: the sweep's name, or `run`.
        suites: known suites, the requested one first; they assign tasks to columns.
        left_out: tasks of a benchmark that cannot be run here, each with the reason.
        mirror: a folder that is searched for models and datasets first, if any.
        unverified_data: whether a plain folder of the mirror may hold another dataset than the one
            that it is named after.
        hub: address of a site's mirror of the hub, if `mirror` names one.
        retries: number of retries of a cell after transient failures such as lack of memory.
        cell_minutes: time limit of a cell in minutes; None: no limit.
        own: tasks of the user's own texts, by the digests of their content.
        own_classes: task classes of the user's own.
        leave_out_unsuited: whether repairs that a model cannot have are left out, not refused.
    """

    label: str
    models: tuple[ModelSettings, ...]
    repairs: tuple[Repair, ...]
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
    own: tuple[OwnTask, ...] = ()
    own_classes: tuple[OwnClass, ...] = ()
    leave_out_unsuited: bool = False

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of its tasks; a further source gets its own field, like `docs`."""
        return sources_of(self.docs, self.own, self.own_classes)


def sources_of(
    docs: DocsSizes, own: Sequence[OwnTask] = (), own_classes: Sequence[OwnClass] = ()
) -> tuple[Source, ...]:
    """Return the sources of tasks of a request.

    Args:
        docs: sizes of the docs suite.
        own: tasks of the user's own texts.
        own_classes: task classes of the user's own.
    """
    mine = (*map(CorpusSource.of, own), *map(ClassSource.of, own_classes))
    # mteb last: its names need a file, or mteb itself the first time after an upgrade.
    return *mine, DocsSource(docs), MtebSource()


@dataclass(frozen=True)
class RunSettings:
    """The settings of `python -m lcbench` apart from the request.

    Attributes:
        manifest: frozen sweep that replaces the request; None: the request is run.
        element: array element to run; None: all of them.
        launch: where to run.
        track: experiment tracker that gets the scores, or None.
        results_dir: results folder, unless the frozen sweep is in another one.
    """

    manifest: Path | None
    element: int | None
    launch: LaunchSettings
    track: str | None
    results_dir: Path


@dataclass(frozen=True)
class StatusSettings:
    """The settings of `python -m lcbench status`.

    Attributes:
        results_dir: results folder.
        manifest: manifest of the sweep; None: the last one planned or run in `results_dir`.
        failed: whether to print only the elements to resubmit.
        watch: whether to update the status continuously.
    """

    results_dir: Path
    manifest: Path | None
    failed: bool
    watch: bool


@dataclass(frozen=True)
class ReportSettings:
    """The settings of `python -m lcbench report`.

    Attributes:
        report_dir: folder of the report; None: `report` in the results folder.
        manifest: manifest of the sweep to report; None: all cells in the folder.
        models: models to report, by their names on the hub; None: all.
        against: a second results folder to compare with, or None.
        also: further results folders, whose cells are reported together with those of the first.
        resamples: number of bootstrap samples; 0: no intervals.
        seed: seed of the bootstrap.
        show: names of further tables to print; `all`: all of them.
    """

    results_dir: Path
    report_dir: Path | None
    tasks: tuple[TaskChoice, ...] | None
    manifest: Path | None = None
    models: tuple[str, ...] | None = None
    against: Path | None = None
    also: tuple[Path, ...] = ()
    resamples: int = 10_000
    seed: int = 0
    show: tuple[str, ...] = ()


@dataclass(frozen=True)
class TasksSettings:
    """The settings of `python -m lcbench tasks`.

    Attributes:
        groups: tasks by suite, or all requested tasks.
        left_out: tasks of a benchmark that cannot be run here, each with the reason.
        subsets: subsets that tasks are restricted to; None: all.
        sources: default sources of tasks.
        mirror: a folder of datasets, or None.
        benchmarks: whether to list mteb's benchmarks instead of tasks.
        format: `table` or `csv`.
        suites: known suites, the requested one first; they assign tasks to columns.
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
    """The settings of `python -m lcbench export`."""

    model: ModelSettings
    repair: Repair
    out: Path
    offline: bool
    mirror: Path | None = None
    hub: str | None = None
