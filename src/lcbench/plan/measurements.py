"""Freezes measurements of collapse into a manifest, as `freeze` does with the cells of a sweep.

A line's folder and task are those of the measurement's file, so that claims, status and submission
treat it like a cell.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.measures.collapse import COLLAPSE_VERSION, Options
from lcbench.plan import elements, manifest
from lcbench.plan.manifest import Line, Manifest
from lcbench.settings.frozen import freeze
from lcbench.system import versions

if TYPE_CHECKING:
    from lcbench.results.cell import Cell
    from lcbench.settings.schema import LaunchSettings, Settings

# Among the frozen settings.
_KEY = "collapse"


def freeze_measurements(
    settings: Settings, options: Options, paths: Mapping[Cell, Path], launch: LaunchSettings
) -> Manifest:
    """Freeze measurements into a manifest, or return the existing one.

    Args:
        settings: the request.
        options: what is measured.
        paths: file of each measurement, in the results folder.
        launch: how to divide them; each counts as a minute.

    Raises:
        StorageError: the manifest cannot be written.
    """
    content = {"version": COLLAPSE_VERSION, **asdict(options)}
    frozen = freeze(settings) | {_KEY: content}
    lines = elements.divide(lines_of(paths, settings.results_dir), launch)
    division = (launch.elements, launch.hours)
    return manifest.freeze(
        manifest.folder_of(settings.results_dir, _KEY, frozen, lines, division),
        command=["python", "-m", "lcbench", *sys.argv[1:]],
        versions=versions.versions(),
        settings=frozen,
        lines=lines,
    )


def lines_of(paths: Mapping[Cell, Path], results_dir: Path) -> list[Line]:
    """Return manifest lines of measurements, in one element and with unknown costs."""
    return [
        elements.line_of(index, cell, path.stem, path.parent, results_dir)
        for index, (cell, path) in enumerate(paths.items())
    ]


def options_of(frozen: Manifest) -> Options:
    """Return what the measurements of a manifest consist of.

    Raises:
        RequestError: it is a plan of cells, or was made by another version.
    """
    from pydantic import TypeAdapter, ValidationError

    content = frozen.settings.get(_KEY)
    if content is None:
        raise RequestError(
            f"manifest={frozen.folder} is a sweep of scores, not of measurements: "
            "python -m lcbench manifest=PATH runs it."
        )
    try:
        version, values = content["version"], {**content}
        del values["version"]
        if version != COLLAPSE_VERSION:
            raise ValueError(f"version {version} of measurements, now {COLLAPSE_VERSION}")
        found: Options = TypeAdapter(Options).validate_python(values)
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise RequestError(
            f"manifest={frozen.folder} was made by another version of lcbench "
            f"({' '.join(str(error).split())}). Plan the measurements again."
        ) from error
    return found
