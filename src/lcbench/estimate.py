"""`python -m lcbench.estimate`: how many cells, texts, tokens and hours a request comes to.

An estimate, made before anything is fetched or loaded: from what mteb states of its tasks, the
shape of the models, and what was measured on this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench import cost
from lcbench.cards import Assumed, assumed
from lcbench.command import run_command, screen, warn
from lcbench.errors import RequestError
from lcbench.grid import Cell, Protocol, expand
from lcbench.models import LocatedModel, ModelSettings, dimensions, locate
from lcbench.results import Results
from lcbench.tasks.registry import registry
from lcbench.tasks.sizes import rounded, texts_of
from lcbench.tasks.suites import DOCS_TASKS, SYNTHETIC_TASKS, Part, docs_digest, resolve_all
from lcbench.tempscale.policy import ModelShape

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.models import Dimensions
    from lcbench.settings import LaunchSettings, Settings


@dataclass(frozen=True)
class Estimate:
    """What a request comes to.

    Attributes:
        cells: all of them.
        done: how many of them have a result in the folder of results.
        models: how many.
        policies: how many temperatures or policies, the baseline among them.
        tasks: how many.
        texts: that are left to be encoded: each different text once for each model and
            temperature.
        tokens: of them, as far as the models read them.
        prediction: of the time that the cells take which are left.
        unsized: tasks whose sizes are not known; they are in none of the numbers but the cells.
        unshaped: models whose shape is not known; texts and tokens are without theirs, and the time
            without that of encoding them.
        other_languages: whether there are texts in other languages than English.
        device: that the time is for; None: that of this machine.
        long: a line about each model whose synthetic documents are long.
    """

    cells: int
    done: int
    models: int
    policies: int
    tasks: int
    texts: int
    tokens: int
    prediction: cost.Prediction
    unsized: tuple[str, ...]
    unshaped: tuple[str, ...]
    other_languages: bool
    device: Assumed | None = None
    long: tuple[str, ...] = ()


def main() -> None:
    """Run the command line and end the process with its exit status."""
    # What is estimated is what `python -m lcbench` would run: its keys are those of that config.
    sys.exit(run_command("config", _job))


def _job(config: DictConfig) -> int:
    from lcbench.__main__ import compose_settings
    from lcbench.settings import read_run

    launch = read_run(config).launch
    settings = compose_settings(config)
    for task in settings.left_out:
        warn(f"left out: {task}.")
    screen().print(describe(settings, launch=launch), soft_wrap=True, markup=False)
    return 0


def describe(
    settings: Settings, processes: int | None = None, launch: LaunchSettings | None = None
) -> str:
    """Return what a request comes to, in a line, and in further lines what that leaves out.

    Imports torch and measures this machine for half a second a width of models where no model was
    run on it before.

    Args:
        settings: the request.
        processes: that score beside encoding; None: as many as a run has.
        launch: with `tflops` or `card`: the device that the cells are run on, and with `cpus` the
            cores beside it; without, or None: this machine.

    Raises:
        RequestError: the request is wrong.
    """
    return sentence(estimate(settings, processes, launch))


def sentence(one: Estimate) -> str:
    """Return an estimate in words: one line, and one for each thing that it leaves out."""
    grid = (
        f"{_several(one.cells, 'cell')} ({_several(one.models, 'model')} × "
        f"{_several(one.policies, 'temperature')} × {_several(one.tasks, 'task')})"
    )
    if one.done == one.cells:
        return f"{grid}, all finished."
    left = f", of which {one.done:,} are finished; left:" if one.done else ","
    if len(one.unshaped) == one.models:
        lines = [f"{grid}{left} texts, tokens and hours unknown."]
    else:
        about = "at least" if one.prediction.at_least else "about"
        where = f"on this machine ({one.prediction.machine}): {cost.seconds_line(one.prediction)}"
        if one.device is not None:
            where = (
                f"on {one.device.name}: encoding "
                f"{cost.clock(one.prediction.encode_seconds)} {one.device.source}, scoring "
                f"{cost.clock(one.prediction.score_seconds)} as on this machine"
            )
        lines = [
            f"{grid}{left} {rounded(one.texts)} texts, {rounded(one.tokens)} tokens, {about} "
            f"{cost.duration(one.prediction.wall_seconds / 3600)} {where}."
        ]
    lines += one.long
    if one.other_languages:
        lines.append("Texts in other languages are reckoned as English; they have more tokens.")
    if one.unsized:
        lines.append(f"Not counted, since their sizes are not known: {', '.join(one.unsized)}.")
    if one.unshaped:
        lines.append(
            "Texts, tokens and hours of encoding are without those of models whose shape is not "
            f"known: {', '.join(one.unshaped)}."
        )
    return "\n".join(lines)


def estimate(
    settings: Settings, processes: int | None = None, launch: LaunchSettings | None = None
) -> Estimate:
    """Return what a request comes to.

    Texts and tokens are upper bounds where they were never counted in a run: a text that stands in
    two columns counts twice, and texts are cut at the window by their average length alone. What is
    fetched takes its time besides.

    Args:
        settings: the request.
        processes: that score beside encoding; None: as many as a run has.
        launch: with `tflops` or `card`: the device that the cells are run on, and with `cpus` the
            cores beside it; without, or None: this machine.

    Raises:
        RequestError: the request is wrong.
    """
    from lcbench.workers import processes as as_in_a_run

    parts = resolve_all(settings.tasks, settings.protocol.splits, settings.protocol.subsets)
    results = Results(settings.results_dir)
    unsized: dict[str, None] = {}
    unshaped, left, long = [], [], []
    cells = done = most_policies = 0
    for model in settings.models:
        known = dimensions(model, settings.mirror)
        docs = settings.docs if known is None else settings.docs.at(known.window)
        unsized |= {name: None for name, part in parts.items() if texts_of(part, docs) is None}
        if known is not None and SYNTHETIC_TASKS & parts.keys():
            long.append(settings.docs.synthetic.describe_long(model.name, known.window))
        located = _located(settings, model)
        every = _cells(settings, parts, model, located, known)
        # Of a model that is not here nothing is known to be finished: its revision is not known.
        waiting = [
            one for one in every if located is None or not results.files(one).result.exists()
        ]
        cells, done = cells + len(every), done + len(every) - len(waiting)
        most_policies = max(most_policies, len({one.policy for one in every}))
        left.append(cost.ModelCells(known, waiting))
        if known is None:
            unshaped.append(model.name)
    machine = cost.machine_of(settings.engine, settings.protocol.dtype)
    rates = cost.read_rates()
    device = assumed(launch, settings.protocol.dtype)
    cpus = None if launch is None or device is None else launch.cpus
    if device is not None:
        models = [one.known for one in left]
        machine, rates = cost.sustaining(device, cpus, machine, rates, models)
    if processes is None:
        on_gpu = machine.kind == "cuda"
        processes = as_in_a_run(settings.engine.scoring, beside_gpu=on_gpu, among=cpus)
    prediction = cost.predict(
        settings, parts, left, machine=machine, processes=processes, rates=rates
    )
    return Estimate(
        cells=cells,
        done=done,
        models=len(settings.models),
        policies=most_policies,
        tasks=len(parts),
        texts=round(sum(one.texts for one in prediction.cells.values())),
        tokens=round(sum(one.tokens for one in prediction.cells.values())),
        prediction=prediction,
        unsized=tuple(unsized),
        unshaped=tuple(unshaped),
        other_languages=any(map(_has_other_languages, parts.values())),
        device=device,
        long=tuple(line for line in long if line is not None),
    )


def _located(settings: Settings, model: ModelSettings) -> LocatedModel | None:
    try:
        return locate(model, offline=True, mirror=settings.mirror)
    except RequestError:
        return None


def _cells(
    settings: Settings,
    parts: Mapping[str, Part],
    model: ModelSettings,
    located: LocatedModel | None,
    known: Dimensions | None,
) -> list[Cell]:
    """Return a model's cells, as a run would have them; without a revision if it is not here."""
    shape = _shape(known) if located is None else located.shape
    named = (model.name, "") if located is None else (located.name, located.revision)
    # Whether a model that is not here has prompts is not known.
    protocol = settings.protocol.of(model, has_prompts=located is not None and located.has_prompts)
    protocols = {
        name: Protocol(
            name=protocol.name,
            prompts=protocol.prompts,
            dtype=protocol.dtype,
            splits=part.asked_splits,
            subsets=part.asked_subsets,
            window=None if located is None else located.window,
            docs=docs_digest(name, settings.docs, shape.window),
            pooling=None if located is None else located.pooling,
        )
        for name, part in parts.items()
    }
    policies = dict.fromkeys(policy.resolve(shape) for policy in settings.policies)
    return list(expand([named], policies, list(protocols.items())))


def _several(number: float, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shape(known: Dimensions | None) -> ModelShape:
    """Return what policies have to know of a model; whether it has a position bias is no matter."""
    if known is None:
        return ModelShape(layers=None, window=None, position_bias=False)
    return ModelShape(layers=known.layers, window=known.window, position_bias=False)


def _has_other_languages(part: Part) -> bool:
    if part.name in DOCS_TASKS:
        return False
    languages = registry().tasks[part.name].subsets
    kept = [languages[one] for one in part.subsets or languages]
    return any(not script.startswith("eng") for scripts in kept for script in scripts)


if __name__ == "__main__":
    main()
