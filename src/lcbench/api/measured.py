"""Finds the measurements of collapse in results folders, and chooses those of a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from lcbench.measures.files import FigureMeasurement, InsideMeasurement, Measurement
    from lcbench.plan.manifest import Manifest

    Kind = TypeVar("Kind", Measurement, InsideMeasurement, FigureMeasurement)


@dataclass(frozen=True)
class Found:
    """Measurements of a results folder.

    Attributes:
        embeddings: of embeddings.
        inside: of what happens inside models.
        figures: of the paper.
    """

    embeddings: tuple[Measurement, ...] = ()
    inside: tuple[InsideMeasurement, ...] = ()
    figures: tuple[FigureMeasurement, ...] = ()

    def __len__(self) -> int:
        return len(self.embeddings) + len(self.inside) + len(self.figures)

    def but_for(self, known: Found) -> Found:
        """Return these without those whose model, repair and task others have."""
        whole = known + self
        return Found(
            whole.embeddings[len(known.embeddings) :],
            whole.inside[len(known.inside) :],
            whole.figures[len(known.figures) :],
        )

    def __add__(self, others: Found) -> Found:
        """Return these, then others of another model, repair or task."""
        return Found(
            _newest([*self.embeddings, *others.embeddings]),
            _newest([*self.inside, *others.inside]),
            _newest([*self.figures, *others.figures]),
        )


def read_all(results_dir: Path, paths: Iterable[Path]) -> Found:
    """Return the measurements in files, with the labels of models in the results folder."""
    from lcbench.measures import files
    from lcbench.results.labels import read_labels

    labels = read_labels(results_dir)
    paths = list(paths)

    def read(kind: type[Kind]) -> tuple[Kind, ...]:
        found = (files.read(path, kind) for path in paths)
        return tuple(files.labelled(one, labels) for one in found if one is not None)

    return Found(
        read(files.Measurement), read(files.InsideMeasurement), read(files.FigureMeasurement)
    )


def comparable_in(*folders: Path) -> tuple[Found, int]:
    """Return measurements in results folders that can be compared with each other.

    They have the protocol of the newest one in the first folder and, of each kind, the options of
    the newest one; models, repairs and texts are any.

    Returns:
        The measurements, and the number of others in the folders.
    """
    from lcbench.measures import files

    of_folders = [(folder, files.everything(folder)) for folder in folders]
    read = [read_all(folder, paths) for folder, paths in of_folders]
    found = Found(
        tuple(one for found in read for one in found.embeddings),
        tuple(one for found in read for one in found.inside),
        tuple(one for found in read for one in found.figures),
    )
    if not found:
        return found, 0
    protocols = [path.parents[4].name for _, paths in of_folders for path in paths]
    known = {one.protocol for one in (*found.embeddings, *found.inside, *found.figures)}
    protocol = next(one for one in protocols if one in known)

    def alike(measurements: Sequence[Kind]) -> tuple[Kind, ...]:
        same = [one for one in measurements if one.protocol == protocol]
        return _newest([one for one in same if one.options == same[0].options])

    chosen = Found(alike(found.embeddings), alike(found.inside), alike(found.figures))
    return chosen, len(found) - len(chosen)


def finished_of(frozen: Manifest) -> Found:
    """Return the finished measurements of a manifest, then others of the same texts.

    Returns:
        The measurements; of a sweep of scores there are none.

    Raises:
        RequestError: none is finished.
    """
    if not frozen.measures:
        return Found()
    folder = frozen.results_dir
    paths = [folder / line.folder / f"{line.task}.json" for line in frozen.lines]
    found = read_all(folder, paths)
    if not found:
        raise RequestError(
            f"manifest={frozen.folder}: none of its {len(paths)} measurements is finished."
        )
    return found + others_of(folder, paths)


def others_of(results_dir: Path, paths: Iterable[Path]) -> Found:
    """Return other measurements of the same texts with equal options in a results folder."""
    from lcbench.measures import files

    return read_all(results_dir, files.of_same_texts(paths))


def _newest(found: Sequence[Kind]) -> tuple[Kind, ...]:
    """Return the first of each model, repair, task and number of a figure."""
    kept: dict[tuple[str, ...], Kind] = {}
    for one in found:
        number = one.figure.number if hasattr(one, "figure") else ""
        kept.setdefault((one.model, one.revision, one.policy, one.task, number), one)
    return tuple(kept.values())
