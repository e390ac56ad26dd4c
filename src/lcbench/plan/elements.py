"""Divides the cells of a sweep into array elements of about equal cost.

Expensive steps are shared within an element: a model is loaded once for its cells, and a dataset is
read and tokenised once for all temperatures.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from lcbench.plan import manifest
from lcbench.plan.assumed import assumed
from lcbench.plan.manifest import Line, Manifest
from lcbench.plan.predict import CellCost, Prediction
from lcbench.results.cell import Cell
from lcbench.results.folder import Results
from lcbench.settings.frozen import freeze as freeze_settings
from lcbench.settings.schema import LaunchSettings, Settings
from lcbench.system import versions

# Overhead of an element (interpreter and libraries) and of each of its models (loading). Ten and
# five seconds were measured with MiniLM on two cores; a large model takes longer.
_START_SECONDS = 15.0
_MODEL_SECONDS = 10.0
# Assumed seconds of a cell of unknown cost.
_UNKNOWN_SECONDS = 60.0
# Bisection steps in the search for the smallest maximum time of an element.
_HALVINGS = 50


def lines_of(cells: Iterable[Cell], results: Results) -> list[Line]:
    """Return manifest lines of cells, in one element and with unknown costs."""
    return [
        line_of(index, cell, cell.task, results.files(cell).folder, results.folder)
        for index, cell in enumerate(cells)
    ]


def line_of(index: int, cell: Cell, name: str, folder: Path, results_dir: Path) -> Line:
    """Return the manifest line of a cell, in element 0 and with an unknown cost.

    Args:
        index: number of the line.
        cell: the cell.
        name: name of its file, without the ending.
        folder: folder of its file, in `results_dir`.
        results_dir: results folder.
    """
    return Line(
        index=index,
        element=0,
        model=cell.model,
        revision=cell.revision,
        policy=cell.repair.canonical,
        task=name,
        protocol=cell.protocol.key,
        folder=folder.relative_to(results_dir).as_posix(),
        seconds=None,
    )


def with_seconds(
    lines: Sequence[Line], costs: Sequence[CellCost | None], prediction: Prediction
) -> list[Line]:
    """Return lines with the time that each cell adds to the process that runs it."""
    return [
        replace(line, seconds=None if cost is None else round(seconds(cost, prediction), 3))
        for line, cost in zip(lines, costs, strict=True)
    ]


def seconds(cost: CellCost, prediction: Prediction) -> float:
    """Return the seconds that a cell adds to a process: encoding, and its share of scoring.

    As in `predict.work_seconds`: on a CPU scoring shares the cores with encoding, on a GPU they run
    in parallel and the larger of the two counts.
    """
    scoring = cost.load + cost.score
    if not prediction.processes:
        return cost.encode + scoring
    machine = prediction.machine
    if machine.kind == "cpu":
        return cost.encode + scoring / machine.cores
    return max(cost.encode, scoring / min(prediction.processes, machine.cores))


def divide(lines: Sequence[Line], launch: LaunchSettings) -> list[Line]:
    """Return the lines with their elements, limited by the requested number or hours.

    The cells of one model and task stay together unless they exceed an element's limit; so do the
    cells of a model, as far as balance allows.
    """
    groups = _groups(lines)
    if launch.hours is not None:
        elements = _fill(groups, launch.hours * 3600)
        if launch.elements is not None and len(elements) > launch.elements:
            elements = _balanced(groups, launch.elements)
    else:
        elements = _balanced(groups, launch.elements or 1)
    element_of = {line.index: number for number, one in enumerate(elements) for line in one}
    return [replace(line, element=element_of[line.index]) for line in lines]


def freeze(
    settings: Settings,
    results_dir: Path,
    lines: Sequence[Line],
    launch: LaunchSettings | None = None,
) -> Manifest:
    """Write the manifest of a sweep, or return the existing one.

    Args:
        settings: settings of the request.
        results_dir: results folder.
        lines: its cells, divided into elements.
        launch: how to divide them; None: a run that was not planned is not divided.

    Raises:
        StorageError: it cannot be written.
    """
    frozen = freeze_settings(settings)
    # A card divides a sweep like its rate.
    device = assumed(launch, settings.protocol.dtype)
    rate = None if device is None else device.tflops
    asked = (launch.elements, launch.hours, rate) if launch else (1, None, None)
    return manifest.freeze(
        manifest.folder_of(results_dir, settings.label, frozen, lines, asked),
        command=["python", "-m", "lcbench", *sys.argv[1:]],
        versions=versions.versions(),
        settings=frozen,
        lines=lines,
        planned=launch is not None,
    )


def by_element(lines: Iterable[Line]) -> list[list[Line]]:
    """Return the cells of each element, in the order of elements."""
    elements: dict[int, list[Line]] = {}
    for line in lines:
        elements.setdefault(line.element, []).append(line)
    return [elements[number] for number in sorted(elements)]


def element_seconds(lines: Iterable[Line]) -> float:
    """Return the estimated seconds of an element: start-up, loading of models, and cells."""
    cells = list(lines)
    models = {(line.model, line.revision) for line in cells}
    return _START_SECONDS + _MODEL_SECONDS * len(models) + sum(map(_seconds, cells))


def _seconds(line: Line) -> float:
    return _UNKNOWN_SECONDS if line.seconds is None else line.seconds


def _groups(lines: Sequence[Line]) -> list[list[Line]]:
    """Return the cells of each model and task together, in the order of models and tasks."""
    order: dict[tuple[str, ...], int] = {}
    for line in lines:
        order.setdefault((line.model, line.revision), len(order))
        order.setdefault((line.model, line.revision, line.task, line.protocol), len(order))

    def key(line: Line) -> tuple[int, int]:
        model = (line.model, line.revision)
        return order[model], order[*model, line.task, line.protocol]

    return [list(group) for _, group in groupby(sorted(lines, key=key), key=key)]


def _balanced(groups: Sequence[list[Line]], count: int) -> list[list[Line]]:
    """Return at most `count` elements, with the longest as short as possible."""
    # All in one element, plus a margin for rounding in another order of summation.
    low, high = 0.0, 1.001 * element_seconds(line for group in groups for line in group)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if len(_fill(groups, middle)) <= count:
            high = middle
        else:
            low = middle
    elements = _fill(groups, high)
    # Groups that stay together may leave elements unused: divide the longest further.
    while len(elements) < count and any(len(one) > 1 for one in elements):
        longest = max(
            (one for one in elements if len(one) > 1), key=lambda one: element_seconds(one)
        )
        index = elements.index(longest)
        elements[index : index + 1] = _halves(longest)
    return elements


def _halves(element: list[Line]) -> list[list[Line]]:
    """Return an element in two parts of most similar cost."""
    return min(
        ([element[:cut], element[cut:]] for cut in range(1, len(element))),
        key=lambda halves: max(map(element_seconds, halves)),
    )


def _fill(groups: Sequence[list[Line]], limit: float) -> list[list[Line]]:
    """Return elements of at most `limit` seconds each, unless a single cell exceeds it."""
    elements: list[list[Line]] = []
    models: set[tuple[str, str]] = set()
    taken = 0.0
    for group in groups:
        for part in _parts(group, limit):
            model = part[0].model, part[0].revision
            adds = sum(map(_seconds, part)) + (0.0 if model in models else _MODEL_SECONDS)
            if elements and taken + adds <= limit:
                elements[-1].extend(part)
                taken += adds
                models.add(model)
            else:
                elements.append(list(part))
                taken, models = element_seconds(part), {model}
    return elements


def _parts(group: list[Line], limit: float) -> Iterator[list[Line]]:
    """Yield a group as a whole, or cell by cell if it exceeds an element's limit."""
    if element_seconds(group) <= limit:
        yield group
    else:
        yield from ([line] for line in group)
