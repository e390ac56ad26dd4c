"""Estimates a request before anything is fetched or loaded: cells, texts, tokens, hours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lcbench.errors import MissingError
from lcbench.hub.models import LocatedModel, ModelSettings, dimensions, locate
from lcbench.plan import predict
from lcbench.plan.assumed import Assumed, assumed
from lcbench.plan.foresight import Foresight, foresee
from lcbench.plan.layout import check_repairs, expand, protocol_of, repairs_of
from lcbench.plan.machine import machine_of
from lcbench.plan.memory import memory_of
from lcbench.plan.rates import read_rates
from lcbench.results.cell import Cell
from lcbench.results.folder import Results
from lcbench.system import words
from lcbench.system.hardware import devices_of
from lcbench.system.words import several
from lcbench.tasks.sizes import rounded
from lcbench.tasks.source import Part, check_texts, remarks
from lcbench.tasks.suites import column_of, resolve_all
from lcbench.tempscale.policy import ModelShape

if TYPE_CHECKING:
    from lcbench.encode.options import EngineSettings
    from lcbench.hub.models import Dimensions
    from lcbench.settings.schema import LaunchSettings, Settings


@dataclass(frozen=True)
class Estimate:
    """The estimate of a request.

    Attributes:
        cells: number of cells.
        done: number of cells with a result in the results folder.
        models: number of models.
        repairs: number of repairs, including the baseline.
        tasks: number of tasks.
        texts: number of texts left to encode: each different text once per model and temperature.
        tokens: number of their tokens within the models' windows.
        prediction: predicted time of the unfinished cells.
        unsized: tasks of unknown size; they count in the number of cells only.
        unshaped: models of unknown shape; texts, tokens and hours of encoding exclude theirs.
        other_languages: whether there are texts in other languages than English.
        device: device that the time is for; None: this machine's.
        long: a line about each model with long synthetic documents.
        left_out: a line about each repair that a model cannot have.
        foresight: detectable changes of Avg; None: unknown.
        has_others: whether some repairs are not temperatures alone.
        memory: a line about the memory of each model of which it is known.
    """

    cells: int
    done: int
    models: int
    repairs: int
    tasks: int
    texts: int
    tokens: int
    prediction: predict.Prediction
    unsized: tuple[str, ...]
    unshaped: tuple[str, ...]
    other_languages: bool
    device: Assumed | None = None
    long: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    foresight: Foresight | None = None
    has_others: bool = False
    memory: tuple[str, ...] = ()


def describe(
    settings: Settings, processes: int | None = None, launch: LaunchSettings | None = None
) -> str:
    """Return the estimate of a request in words, with its limitations on further lines.

    Imports torch and measures this machine for half a second per model width, if no model of that
    width was run on it before.

    Args:
        settings: the request.
        processes: number of scoring processes; None: as many as a run has.
        launch: `tflops` or `card` is the device that runs the cells, `cpus` its number of cores;
            without these, or None: this machine.

    Raises:
        RequestError: the request is wrong.
    """
    return sentence(estimate(settings, processes, launch))


def sentence(one: Estimate) -> str:
    """Return an estimate in words: one line, and one for each limitation."""
    repairs = several(one.repairs, "repair" if one.has_others else "temperature")
    grid = (
        f"{several(one.cells, 'cell')} ({several(one.models, 'model')} × "
        f"{repairs} × {several(one.tasks, 'task')})"
    )
    if one.done == one.cells:
        return f"{grid}, all finished."
    left = f", {one.done:,} of them finished; left:" if one.done else ","
    if len(one.unshaped) == one.models:
        lines = [f"{grid}{left} texts, tokens and hours unknown."]
    else:
        about = "at least" if one.prediction.at_least else "about"
        where = (
            f"on this machine ({_devices(one.prediction)}): {predict.seconds_line(one.prediction)}"
        )
        if one.device is not None:
            where = (
                f"on {one.device.name}: encoding "
                f"{words.clock(one.prediction.encode_seconds)} {one.device.source}, scoring "
                f"{words.clock(one.prediction.score_seconds)} as on this machine"
            )
        lines = [
            f"{grid}{left} {rounded(one.texts)} texts, {rounded(one.tokens)} tokens, {about} "
            f"{words.duration(one.prediction.wall_seconds / 3600)} {where}."
        ]
    lines += one.memory
    lines += one.long
    lines += one.left_out
    if one.foresight is not None:
        lines.append(one.foresight.sentence())
    if one.other_languages:
        lines.append(
            "Texts in other languages are counted like English ones; they have more tokens."
        )
    if one.unsized:
        lines.append(f"Not included, because their sizes are unknown: {', '.join(one.unsized)}.")
    if one.unshaped:
        lines.append(
            "Texts, tokens and hours of encoding exclude models of unknown shape: "
            f"{', '.join(one.unshaped)}."
        )
    return "\n".join(lines)


def _devices(prediction: predict.Prediction) -> str:
    """Return what runs the cells: two cores, NVIDIA H100, 4 × NVIDIA H100."""
    machine = str(prediction.machine)
    return machine if prediction.sharing == 1 else f"{prediction.sharing} × {machine}"


def estimate(
    settings: Settings, processes: int | None = None, launch: LaunchSettings | None = None
) -> Estimate:
    """Return the estimate of a request.

    Texts and tokens of mteb's tasks are upper bounds unless a run has counted them: a text in two
    columns counts twice, and texts are truncated by their average length. Of docstrings and texts
    of one's own the distribution of lengths is known. Time for fetching is not included.

    Args:
        settings: the request.
        processes: number of scoring processes; None: as many as a run has.
        launch: `tflops` or `card` is the device that runs the cells, `cpus` its number of cores;
            without these, or None: this machine.

    Raises:
        RequestError: the request is wrong.
    """
    from lcbench.score.pool import processes as as_in_a_run

    protocol = settings.protocol
    parts = resolve_all(
        settings.tasks, protocol.splits, protocol.subsets, settings.sources, protocol.limit
    )
    check_texts(parts.values())
    check_repairs(settings.repairs, parts)
    results = Results(settings.results_dir)
    unsized: dict[str, None] = {}
    unshaped, left, long = [], [], []
    left_out: list[str] = []
    cells = done = most_repairs = 0
    for model in settings.models:
        known = dimensions(model, settings.mirror)
        for name, part in parts.items():
            sized = part if known is None else part.at(known.window)
            if sized.texts() is None:
                unsized[name] = None
        if known is not None:
            long += remarks(parts.values(), model.name, known.window)
        located = _located(settings, model)
        every = _cells(settings, parts, model, located, known, left_out)
        # A missing model has no known revision, so none of its cells counts as finished.
        waiting = [
            one for one in every if located is None or not results.files(one).result.exists()
        ]
        cells, done = cells + len(every), done + len(every) - len(waiting)
        most_repairs = max(most_repairs, len({one.repair for one in every}))
        left.append(predict.ModelCells(known, waiting))
        if known is None:
            unshaped.append(model.name)
    machine = machine_of(settings.engine, settings.protocol.dtype)
    rates = read_rates()
    device = assumed(launch, settings.protocol.dtype)
    card = None if launch is None else launch.card
    cpus = None if launch is None or device is None else launch.jobs.cpus
    if device is not None:
        models = [one.known for one in left]
        machine, rates = predict.sustaining(device, cpus, machine, rates, models)
    if processes is None:
        on_gpu = machine.kind == "cuda"
        processes = as_in_a_run(settings.engine.scoring, on_gpu=on_gpu, among=cpus)
    has_others = any(one.others for one in settings.repairs)
    prediction = predict.predict(parts, left, machine=machine, processes=processes, rates=rates)
    if device is None and machine.kind == "cuda":
        prediction = replace(prediction, sharing=_sharing(settings.engine))
    memory = []
    for model, cells_left in zip(settings.models, left, strict=True):
        if cells_left.known is not None and cells_left.cells:
            memory += _memory(
                model,
                cells_left,
                prediction,
                settings,
                card,
                of_another=device is not None,
            )
    return Estimate(
        cells=cells,
        done=done,
        models=len(settings.models),
        repairs=most_repairs,
        has_others=has_others,
        memory=tuple(memory),
        tasks=len(parts),
        texts=round(sum(one.texts for one in prediction.cells.values())),
        tokens=round(sum(one.tokens for one in prediction.cells.values())),
        prediction=prediction,
        unsized=tuple(unsized),
        unshaped=tuple(unshaped),
        other_languages=any(map(_has_other_languages, parts.values())),
        device=device,
        long=tuple(long),
        left_out=tuple(left_out) if settings.leave_out_unsuited else (),
        foresight=foresee(
            {name: _sized(part, settings) for name, part in parts.items()},
            partial(column_of, suites=settings.suites),
            tried=most_repairs - 1,
            word="repairs" if has_others else "τ",
        ),
    )


def _memory(
    model: ModelSettings,
    left: predict.ModelCells,
    prediction: predict.Prediction,
    settings: Settings,
    card: str | None,
    *,
    of_another: bool,
) -> list[str]:
    """Return a line about the memory of a model; none if it is unknown.

    Args:
        model: the model.
        left: its cells.
        prediction: predicted texts of these, and the machine.
        settings: the request.
        card: a GPU in the machine's place.
        of_another: whether the estimate is for another device than this machine's.
    """
    known = left.known
    if known is None:
        return []
    found = memory_of(
        known,
        prediction.machine,
        repairs={cell.repair for cell in left.cells},
        batch_tokens=settings.engine.batch_tokens,
        card=card,
        spread=settings.engine.is_spread,
    )
    if found is None:
        return []
    if of_another and card is None:
        # Of a device of which only the rate is stated.
        found = replace(found, available=None)
    texts = sum(prediction.cells[cell].texts for cell in left.cells)
    stored = texts * (model.dimensions or known.hidden) * 4 / 2**30
    place = "in the store" if settings.store.folder is not None else "in memory too (store=none)"
    refused = "" if found.fits else " A run refuses it."
    return [f"{model.name}: {found}; embeddings {words.gib(stored)} GiB {place}.{refused}"]


def _sized(part: Part, settings: Settings) -> Part:
    """Return a task for the window of the first model; sizes differ little between windows."""
    known = dimensions(settings.models[0], settings.mirror)
    return part if known is None else part.at(known.window)


def _sharing(engine: EngineSettings) -> int:
    """Return how many GPUs of this machine share the cells, with a process each."""
    if engine.devices is None or engine.is_spread:
        return 1
    found = len(devices_of(engine.device))
    if isinstance(engine.devices, int):
        return min(engine.devices, found)
    return len(engine.devices) if isinstance(engine.devices, tuple) else found


def _located(settings: Settings, model: ModelSettings) -> LocatedModel | None:
    try:
        return locate(model, offline=True, mirror=settings.mirror)
    except MissingError:
        return None


def _cells(
    settings: Settings,
    parts: Mapping[str, Part],
    model: ModelSettings,
    located: LocatedModel | None,
    known: Dimensions | None,
    left_out: list[str],
) -> list[Cell]:
    """Return a model's cells as in a run; without a revision if the model is missing.

    Lines about repairs that are left out, or equal the baseline, are added to `left_out`.
    """
    shape = _shape(known) if located is None else located.shape
    named = (model.name, "") if located is None else (located.name, located.revision)
    protocols = [
        (name, protocol_of(settings, part, model, located, shape.window))
        for name, part in parts.items()
    ]
    repairs = repairs_of(settings, model.name, shape, left_out.append)
    return list(expand([named], repairs, protocols))


def _shape(known: Dimensions | None) -> ModelShape:
    """Return the shape of a model that policies need; its position bias does not matter."""
    if known is None:
        return ModelShape(layers=None, window=None, position_bias=False)
    return ModelShape(layers=known.layers, window=known.window, position_bias=False)


def _has_other_languages(part: Part) -> bool:
    languages = part.source.subsets(part.name)
    kept = [languages[one] for one in part.subsets or languages]
    return any(not script.startswith("eng") for scripts in kept for script in scripts)
