"""Measures of the embedding space, and of how texts of different lengths are distributed in it.

Each is a function of arrays. `MEASURES` lists those that reduce a set of embeddings to one number;
a new one is a function in the module of its family and an entry here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.measures import geometry
from lcbench.system.plugins import plugins

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Measure:
    """A measure that reduces a set of embeddings to one number.

    Attributes:
        name: name in files and on the command line.
        title: title in tables.
        compute: function of embeddings, shape (texts, dimensions).
        more_texts_than_dimensions: whether it requires more texts than dimensions.
    """

    name: str
    title: str
    compute: Callable[[ArrayLike], float]
    more_texts_than_dimensions: bool = False


MEASURES: tuple[Measure, ...] = (
    Measure("mean_cosine", "Mean cosine", geometry.mean_cosine),
    Measure("mean_distance", "Mean cosine distance", geometry.mean_distance),
    Measure("centroid_distance", "Distance to the centroid", geometry.centroid_distance),
    Measure("uniformity", "Uniformity", geometry.uniformity),
    Measure("effective_rank", "Effective rank", geometry.effective_rank),
    Measure("participation_ratio", "Participation ratio", geometry.participation_ratio),
    Measure("first_component_share", "First component", geometry.first_component_share),
    Measure("mean_share", "Common direction", geometry.mean_share),
    Measure("isoscore", "IsoScore", geometry.isoscore, more_texts_than_dimensions=True),
)
"""All measures of lcbench's own, in the order of tables."""


def every_measure() -> tuple[Measure, ...]:
    """Return lcbench's measures, then those that installed packages add (`lcbench.measures`).

    Raises:
        RequestError: one of a package cannot be imported, or is no measure of another name.
    """
    return *MEASURES, *(measure for measure, _ in _added())


def added_measures() -> list[list[str]]:
    """Return the measures that installed packages add, with package and version, sorted."""
    return sorted([measure.name, package] for measure, package in _added())


def _added() -> list[tuple[Measure, str]]:
    own = {one.name for one in MEASURES}
    added = []
    for name, plugin in plugins("measures").items():
        measure = plugin.load()
        if not isinstance(measure, Measure) or measure.name != name or name in own:
            raise RequestError(
                f"{name} of the package {plugin.package}: {plugin.target} is not an "
                "lcbench.measures.Measure of that name, or lcbench has one of that name."
            )
        added.append((measure, plugin.package))
    return added
