"""Freezes a request into a manifest: its grid, divided into array elements by estimated cost."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from lcbench.system.words import clock, duration, key_value, several

if TYPE_CHECKING:
    from lcbench.plan.manifest import Manifest
    from lcbench.settings.schema import LaunchSettings, Settings
    from lcbench.system.observer import Observer


def freeze_sweep(settings: Settings, launch: LaunchSettings, observer: Observer) -> Manifest:
    """Freeze a request into a manifest, or return the existing one.

    Args:
        settings: the request.
        launch: how to divide its cells.
        observer: receives warnings about ineffective policies, omitted tasks of a benchmark, and
            elements that exceed the time limit.

    Raises:
        RequestError: the request is wrong, or needs data that is missing.
        StorageError: the manifest cannot be written.
    """
    from lcbench.hub.models import dimensions_of
    from lcbench.plan import elements as division
    from lcbench.plan import predict
    from lcbench.plan.assumed import assumed
    from lcbench.plan.layout import grid_of
    from lcbench.plan.machine import machine_of
    from lcbench.plan.rates import read_rates
    from lcbench.results.folder import Results
    from lcbench.score.pool import processes

    results = Results(settings.results_dir)
    grid = grid_of(settings, observer)
    results.check_writable()
    machine = machine_of(settings.engine, settings.protocol.dtype)
    rates = read_rates()
    cells = [
        predict.ModelCells(dimensions_of(model), group) for model, group in grid.cells_of.items()
    ]
    device = assumed(launch, settings.protocol.dtype)
    if device is not None:
        known = [one.known for one in cells]
        machine, rates = predict.sustaining(device, launch.jobs.cpus, machine, rates, known)
    prediction = predict.predict(
        grid.parts,
        cells,
        machine=machine,
        processes=processes(
            settings.engine.scoring,
            on_gpu=machine.kind == "cuda",
            among=None if device is None else launch.jobs.cpus,
        ),
        rates=rates,
    )
    lines = division.with_seconds(
        division.lines_of(grid.cells, results),
        [prediction.cells.get(cell) for cell in grid.cells],
        prediction,
    )
    frozen = division.freeze(settings, results.folder, division.divide(lines, launch), launch)
    if launch.hours is not None:
        longest = max(map(division.element_seconds, division.by_element(frozen.lines)))
        if longest > 3600 * launch.hours:
            observer.warn(
                f"launch.hours={launch.hours:g}: the longest element is estimated at "
                f"{duration(longest / 3600)}: "
                + (
                    f"launch.elements={launch.elements} allows no more elements."
                    if launch.elements is not None
                    else "a single cell takes that long."
                )
            )
    return frozen


def describe(frozen: Manifest) -> str:
    """Return a sweep's cells, elements and hours in words, and the commands to run it."""
    from lcbench.plan.elements import by_element, element_seconds

    elements = by_element(frozen.lines)
    seconds = sorted(map(element_seconds, elements))
    sweep = shlex.quote(key_value("manifest", frozen.folder))
    unknown = sum(line.seconds is None for line in frozen.lines)
    what = "measurements" if frozen.measures else "cells"
    lasting = f"{clock(seconds[0])} to {clock(seconds[-1])} each"
    if len(seconds) == 1:
        lasting = clock(seconds[0])
    lines = [
        f"{frozen.folder.name}: {len(frozen.lines):,} {what} in "
        f"{several(len(elements), 'element')}, estimated {lasting}, "
        f"{clock(sum(seconds))} in all",
        f"planned in {frozen.folder}",
        f"run it here:       {frozen.command_line} {sweep}",
        f"one element of it: {frozen.command_line} {sweep} element=0",
        f"as a Slurm array:  {frozen.command_line} launch=slurm {sweep}",
        f"status:            python -m lcbench status {sweep}",
    ]
    if unknown:
        lines.insert(1, f"the costs of {unknown:,} {what} are unknown; each counts as a minute")
    return "\n".join(lines)
