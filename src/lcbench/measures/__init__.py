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
from lcbench.system.plugins import Plugin, plugins

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
"""lcbench's own measures, in the order of tables."""


def every_measure() -> tuple[Measure, ...]:
    """Return lcbench's measures, then those that installed packages add.

    Packages add them by entry points of the group `lcbench.measures`.

    Raises:
        RequestError: one of a package cannot be imported, is no `Measure` of the entry point's
            name, or has the name of one of lcbench's.
    """
    return *MEASURES, *(_load(plugin) for plugin in plugins("measures").values())


def added_measures() -> list[list[str]]:
    """Return name and package with version of each measure that packages add, sorted."""
    return sorted([plugin.name, plugin.package] for plugin in plugins("measures").values())


def _load(plugin: Plugin) -> Measure:
    measure = plugin.load()
    own = {one.name for one in MEASURES}
    if not isinstance(measure, Measure) or measure.name != plugin.name or measure.name in own:
        raise RequestError(
            f"{plugin.name} of the package {plugin.package}: {plugin.target} is not an "
            "lcbench.measures.Measure of that name, or lcbench has one of that name."
        )
    return measure
