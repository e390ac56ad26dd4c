"""Builds the grid of a request: locates models, resolves repairs, makes cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lcbench.errors import MissingError, RequestError
from lcbench.hub import cache
from lcbench.hub.datasets import check_mirror, lacking_in_folders, missing_data
from lcbench.hub.models import LocatedModel, ModelSettings, locate
from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.settings.schema import Settings
from lcbench.system.observer import Observer
from lcbench.tasks.source import Part, check_texts, searches
from lcbench.tasks.suites import Suite, resolve_all
from lcbench.tempscale.policy import ModelShape


@dataclass(frozen=True)
class Grid:
    """The grid of a request.

    Attributes:
        parts: what is scored of each task.
        suites: suites of the request, which pin the commits of datasets.
        cells_of: cells of each model, in the order in which models are run.
    """

    parts: Mapping[str, Part]
    suites: Sequence[Suite]
    cells_of: Mapping[LocatedModel, tuple[Cell, ...]]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, in the order in which a single process runs them."""
        return tuple(cell for group in self.cells_of.values() for cell in group)


def grid_of(settings: Settings, observer: Observer) -> Grid:
    """Return the grid of a request; imports nothing heavy.

    Args:
        settings: the request.
        observer: receives warnings about ineffective policies and omitted tasks of a benchmark.

    Raises:
        RequestError: the request is wrong, or needs data that is missing.
    """
    if settings.hub is not None:
        cache.use(settings.hub)
    if settings.offline:
        cache.go_offline()
    check_mirror(settings.mirror)
    if settings.left_out:
        observer.warn(f"left out: {'; '.join(settings.left_out)}.")
    protocol = settings.protocol
    parts = resolve_all(
        settings.tasks, protocol.splits, protocol.subsets, settings.sources, protocol.limit
    )
    check_texts(parts.values())
    check_repairs(settings.repairs, parts)
    # A model named twice, for example by a config and a folder, is one model.
    located = {
        (
            *(model.name, model.revision, model.window, model.pooling, model.own_code),
            *(model.dimensions, model.settings.special_tokens),
        ): model
        for model in reversed(_locate_all(settings, list(parts.values())))
    }.values()
    for model in located:
        if model.assumed_pooling is not None:
            observer.say(
                f"{model.name} does not specify its pooling (it has no modules.json): "
                f"{model.assumed_pooling} is assumed, as in sentence-transformers. Set the pooling "
                "that it was trained with: model.pooling=mean, cls, lasttoken or max."
            )
        if model.untrained:
            observer.warn(
                f"model.dimensions={model.dimensions}: nothing says that {model.name} was trained "
                "for this number. If its card does, state it: model.matryoshka=[512,256]."
            )
    return Grid(
        parts,
        settings.suites,
        {
            model: tuple(
                expand(
                    [(model.name, model.revision)],
                    repairs_of(settings, model.name, model.shape, observer.say),
                    [
                        (
                            name,
                            protocol_of(settings, part, model.settings, model, model.shape.window),
                        )
                        for name, part in parts.items()
                    ],
                )
            )
            for model in reversed(located)
        },
    )


def check_repairs(repairs: Iterable[Repair], parts: Mapping[str, Part]) -> None:
    """Check that repairs suit the tasks.

    Raises:
        RequestError: documents have several vectors, and some tasks are no searches.
    """
    several = next((one for one in repairs if one.chunks and one.chunks.kind == "max"), None)
    others = [
        name for name, part in parts.items() if several and not searches(part.source.kind(name))
    ]
    if several and others:
        raise RequestError(
            f"chunks={several.chunks}: documents have a vector for each chunk, which only "
            f"retrieval and reranking can use; not {', '.join(others)}. Name other tasks "
            "with tasks=, or take chunks=mean."
        )


def _locate_all(settings: Settings, parts: Sequence[Part]) -> list[LocatedModel]:
    """Locate all models; if any is missing, report all missing models and data at once."""
    mirror = settings.mirror
    located: list[LocatedModel] = []
    wrong: list[str] = []
    missing: list[str] = []
    for model in settings.models:
        try:
            located.append(locate(model, mirror=mirror, offline=True))
        except MissingError as error:
            missing += error.missing
        except RequestError as error:
            wrong.append(str(error))
    if wrong:
        raise RequestError("\n".join([*wrong, *missing]))
    if not missing:
        return located
    # The hub is queried while data is looked for.
    probe = None if settings.offline else cache.Probe()
    missing += missing_data(parts, mirror)
    lacking = lacking_in_folders(parts, mirror)
    if why := cache.why_not_fetched(offline=settings.offline, probe=probe):
        raise cache.refuse([*missing, *lacking], mirror, why)
    return [locate(model, mirror=mirror, offline=False) for model in settings.models]


def repairs_of(
    settings: Settings, name: str, shape: ModelShape, say: Callable[[str], None]
) -> list[Repair]:
    """Return the distinct repairs of a request for a model.

    Args:
        settings: the request.
        name: name of the model.
        shape: its shape.
        say: receives a line about each repair that is left out or equals the baseline.

    Raises:
        RequestError: the model cannot have one of them, and such repairs are not left out.
    """
    resolved: dict[Repair, Repair] = {}
    for repair in settings.repairs:
        try:
            resolved[repair] = repair.resolve(shape)
        except RequestError as error:
            if not settings.leave_out_unsuited:
                raise
            say(f"{name}: {repair} is left out: {error}")
    left_out = "left out, since it is" if settings.leave_out_unsuited else "it is"
    without_effect = {
        (asked.policy, asked.window(shape.window))
        for asked, found in resolved.items()
        if found.policy.is_baseline and not asked.policy.is_baseline
    }
    for policy, window in sorted(without_effect, key=str):
        say(
            f"{name}: {Repair(policy)} is 1 for every text that this model reads (window "
            f"{window}): {left_out} the same as the baseline."
        )
    for asked, found in resolved.items():
        if idle := asked.others.keys() - found.others.keys():
            say(
                f"{name}: {asked} is the same as {found}, since {' and '.join(sorted(idle))} "
                "changes nothing in this model."
            )
    # By name: two files of the same temperatures are one repair.
    return list({found.canonical: found for found in resolved.values()}.values())


def protocol_of(
    settings: Settings,
    part: Part,
    model: ModelSettings,
    located: LocatedModel | None,
    window: int | None,
) -> Protocol:
    """Return the protocol under which a request scores a task with a model.

    Args:
        settings: the request.
        part: the task, and what is scored of it.
        model: settings of the model.
        located: its files; None: missing, so its prompts and pooling are unknown.
        window: window of the model in tokens, which some texts depend on; None: no limit.
    """
    protocol = settings.protocol.of(model, has_prompts=located is not None and located.has_prompts)
    return Protocol(
        name=protocol.name,
        prompts=protocol.prompts,
        dtype=protocol.dtype,
        splits=part.asked_splits,
        subsets=part.asked_subsets,
        window=None if located is None else located.window,
        texts=part.source.at(window).digest(part.name),
        pooling=None if located is None else located.pooling,
        own_code=located is not None and located.own_code,
        dimensions=None if located is None else located.dimensions,
        special_tokens=None if model.special_tokens is None else " ".join(model.special_tokens),
        limit=part.limit,
    )


def expand(
    models: Sequence[tuple[str, str]],
    repairs: Iterable[Repair],
    tasks: Sequence[tuple[str, Protocol]],
) -> Iterator[Cell]:
    """Yield the cells of a grid in the order in which they are run.

    Models are outermost, because loading one is expensive; then repairs, because a model has one at
    a time; then tasks.

    Args:
        models: name and revision of each model.
        repairs: distinct repairs, including the baseline.
        tasks: name of each task, and its protocol.
    """
    repairs = list(repairs)
    for name, revision in models:
        for repair in repairs:
            for task, protocol in tasks:
                yield Cell(name, revision, repair, task, protocol)
