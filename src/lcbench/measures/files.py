"""Read and write measurements of collapse, one JSON file each, next to a results folder's cells.

    <results_dir>/<protocol key>/collapse/<org>__<model>/<revision>/<repair>/<Task>-<digest>.json

`<repair>` is `baseline`, or as in the paths of results; the digest is that of the options and of
the texts' dataset. A figure of the paper, which is of all repairs of a request, is in `figures`
instead: `<Task>-figure-<number>-<digest>.json`. A file is written last and whole, so its presence
means done.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lcbench.measures.collapse import Collapse, Options
from lcbench.measures.figures import FigureOptions, Number, PaperFigure
from lcbench.measures.inside import Inside, InsideOptions
from lcbench.repair.repair import experiment_folder
from lcbench.results.cell import Cell
from lcbench.results.labels import Labels
from lcbench.results.rows import folder_name
from lcbench.system.files import write_atomically

Kind = TypeVar("Kind", bound="Identified")

FOLDER = "collapse"
BASELINE_FOLDER = "baseline"
FIGURES_FOLDER = "figures"


@dataclass(frozen=True, kw_only=True)
class Identified:
    """What a measurement is of, and how it was made.

    Attributes:
        model: name, `<organisation>/<model>`.
        revision: the commit, or a digest of the model's files.
        policy: the repair in canonical form; `1` for the baseline, empty for a matrix.
        task: whose texts were measured.
        protocol: key of the protocol.
        data: revision of the texts' dataset, or a digest of the texts.
        window: most tokens read of a text.
        record: everything else that is known of how it was made, as JSON has it.
        label: what tables call the model; None: its name.
    """

    model: str
    revision: str
    policy: str
    task: str
    protocol: str
    data: str
    window: int | None
    record: Mapping[str, Any]
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement(Identified):
    """What was measured of a model's embeddings under a repair on the texts of a task.

    Attributes:
        options: of the measurement.
        texts: digest of texts and options: measurements of the same texts have the same.
        collapse: the measurement.
    """

    options: Options
    texts: str
    collapse: Collapse


@dataclass(frozen=True, kw_only=True)
class InsideMeasurement(Identified):
    """What was measured inside a model under a repair on the texts of a task.

    Attributes:
        options: of the measurement.
        inside: the measurement.
    """

    options: InsideOptions
    inside: Inside


@dataclass(frozen=True, kw_only=True)
class FigureMeasurement(Identified):
    """A figure of the paper that was made of a model and the texts of a task.

    Attributes:
        options: of the figure.
        repairs: those that it shows, in canonical form, the baseline first; `policy` is the
            baseline's.
        figure: the figure.
    """

    options: FigureOptions
    repairs: tuple[str, ...]
    figure: PaperFigure


Made = Measurement | InsideMeasurement | FigureMeasurement
"""A measurement or figure of any kind."""


class Digested(Protocol):
    """Options that identify a measurement together with its texts."""

    def digest(self, documents: Sequence[str]) -> str:
        """Return hexadecimal digits over texts and options."""


def path_of(results_dir: Path, cell: Cell, data: str, options: Digested) -> Path:
    """Return where the measurement of a cell's model and repair on its task's texts is kept.

    Args:
        results_dir: results folder.
        cell: the cell.
        data: revision of the texts' dataset, or a digest of the texts.
        options: options of the measurement.
    """
    parts = BASELINE_FOLDER if cell.repair.is_baseline else experiment_folder(cell.repair.parts)
    folder = _folder_of(results_dir, cell) / parts
    return folder / f"{cell.task}-{options.digest([data])[:8]}.json"


def figure_path_of(
    results_dir: Path,
    cell: Cell,
    data: str,
    number: Number,
    repairs: Sequence[str],
    options: FigureOptions,
) -> Path:
    """Return where a figure of a cell's model on its task's texts is kept.

    Args:
        results_dir: results folder.
        cell: the cell; its repair is ignored.
        data: revision of the texts' dataset, or a digest of the texts.
        number: number of the figure.
        repairs: repairs that it shows, in canonical form.
        options: options of the figure.
    """
    digest = options.digest([data, number, *repairs])[:8]
    folder = _folder_of(results_dir, cell) / FIGURES_FOLDER
    return folder / f"{cell.task}-figure-{number}-{digest}.json"


def _folder_of(results_dir: Path, cell: Cell) -> Path:
    return results_dir / cell.protocol.key / FOLDER / folder_name(cell.model) / cell.revision


def of_same_texts(paths: Iterable[Path]) -> list[Path]:
    """Return the files of other models and repairs on the same texts, with equal options.

    Args:
        paths: files of measurements, which need not exist.
    """
    paths = list(paths)
    found = {
        other: None
        for path in paths
        for other in sorted(path.parents[3].glob(f"*/*/*/{glob.escape(path.name)}"))
    }
    return [path for path in found if path not in paths]


def everything(results_dir: Path) -> list[Path]:
    """Return the files of all measurements in a results folder, those written last first."""
    found = results_dir.glob(f"*/{FOLDER}/*/*/*/*.json")
    return sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path))


def write(path: Path, measurement: Made) -> None:
    """Write a measurement.

    Raises:
        StorageError: it cannot be written.
    """
    content = as_json(measurement)
    # Labels are those of the results folder (`results.labels`).
    del content["label"]
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def as_json(measurement: Made) -> dict[str, Any]:
    """Return a measurement as plain values for JSON."""
    content: dict[str, Any] = _adapter(type(measurement).__name__).dump_python(
        measurement, mode="json"
    )
    return content


def read(path: Path, kind: type[Kind]) -> Kind | None:
    """Return the measurement of a kind in a file.

    Returns:
        None if the file is missing, damaged, or of another kind or version.
    """
    try:
        found: Kind = _adapter(kind.__name__).validate_json(path.read_bytes())
    # pydantic's errors are ValueErrors.
    except (OSError, ValueError):
        return None
    return found


def labelled(measurement: Kind, labels: Labels) -> Kind:
    """Return a measurement with the label of its model, if that has one."""
    label = labels.get((measurement.model, measurement.revision))
    return replace(measurement, label=label)


@lru_cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    kinds = (Measurement, InsideMeasurement, FigureMeasurement)
    return TypeAdapter({kind.__name__: kind for kind in kinds}[name])
