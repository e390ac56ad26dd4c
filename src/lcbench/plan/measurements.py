"""Freezes measurements of collapse into a manifest, as sweeps freeze their cells.

A line's folder and task are those of the measurement's file, so that claims, status and submission
treat it like a cell.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lcbench.errors import RequestError
from lcbench.measures import files
from lcbench.measures.asked import Asked
from lcbench.measures.figures import Number
from lcbench.plan import elements, manifest
from lcbench.plan.manifest import Line, Manifest
from lcbench.settings.frozen import freeze
from lcbench.system import versions

if TYPE_CHECKING:
    from lcbench.results.cell import Cell
    from lcbench.settings.schema import LaunchSettings, Settings

# Among the frozen settings.
_KEY = "collapse"

Kind = Literal["embeddings", "inside", "figure"]
_CLASSES: Mapping[Kind, type[files.Made]] = {
    "embeddings": files.Measurement,
    "inside": files.InsideMeasurement,
    "figure": files.FigureMeasurement,
}


@dataclass(frozen=True)
class Unit:
    """A measurement or figure to be made: the unit of work and storage.

    Attributes:
        kind: of the measurement.
        cell: model, repair and task; of a figure, which shows all repairs, the baseline's.
        path: its file.
        number: number of a figure.
    """

    kind: Kind
    cell: Cell
    path: Path
    number: Number | None = None

    def read(self) -> files.Made | None:
        """Return the measurement in its file; None if it is missing, damaged or outdated."""
        return files.read(self.path, _CLASSES[self.kind])

    def __str__(self) -> str:
        if self.number is not None:
            model = self.cell.model.rpartition("/")[2]
            return f"Figure {self.number}, {model}, {self.cell.task}"
        return f"{self.cell}, inside" if self.kind == "inside" else str(self.cell)


def freeze_measurements(
    settings: Settings, asked: Asked, units: Sequence[Unit], launch: LaunchSettings
) -> Manifest:
    """Freeze measurements into a manifest, or return the existing one.

    Args:
        settings: the request.
        asked: what is measured.
        units: the measurements and figures.
        launch: how to divide them; each counts as a minute.

    Raises:
        StorageError: the manifest cannot be written.
    """
    frozen = freeze(settings) | {_KEY: asked.as_json()}
    lines = elements.divide(lines_of(units, settings.results_dir), launch)
    division = (launch.elements, launch.hours)
    return manifest.freeze(
        manifest.folder_of(settings.results_dir, _KEY, frozen, lines, division),
        command=["python", "-m", "lcbench", *sys.argv[1:]],
        versions=versions.versions(),
        settings=frozen,
        lines=lines,
    )


def lines_of(units: Sequence[Unit], results_dir: Path) -> list[Line]:
    """Return manifest lines of measurements, in one element and with unknown costs."""
    return [
        elements.line_of(index, unit.cell, unit.path.stem, unit.path.parent, results_dir)
        for index, unit in enumerate(units)
    ]


def asked_of(frozen: Manifest) -> Asked:
    """Return the request that a manifest of measurements was made for.

    Raises:
        RequestError: it is a plan of cells, or was made by another version.
    """
    content = frozen.settings.get(_KEY)
    if content is None:
        raise RequestError(
            f"manifest={frozen.folder} is a sweep of scores, not of measurements: "
            "python -m lcbench manifest=PATH runs it."
        )
    try:
        return Asked.of_json(content)
    # pydantic's errors are ValueErrors.
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestError(
            f"manifest={frozen.folder} was made by another version of lcbench "
            f"({' '.join(str(error).split())}). Plan the measurements again."
        ) from error
