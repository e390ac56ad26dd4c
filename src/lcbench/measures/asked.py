"""A request for measurements and figures of a model and a task's texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lcbench.measures.collapse import COLLAPSE_VERSION, Options
from lcbench.measures.figures import FIGURE_VERSION, FigureOptions, Number
from lcbench.measures.inside import INSIDE_VERSION, InsideOptions

_VERSIONS = [COLLAPSE_VERSION, INSIDE_VERSION, FIGURE_VERSION]


@dataclass(frozen=True)
class Asked:
    """What is measured of each model, repair and task.

    Attributes:
        embeddings: options of measurements of embeddings; None: none are made.
        inside: options of measurements inside the model; None: none are made.
        figures: numbers of figures of the paper, made of each model and task that they suit.
        figure_options: options of these figures.
    """

    embeddings: Options | None
    inside: InsideOptions | None = None
    figures: tuple[Number, ...] = ()
    figure_options: FigureOptions = field(default_factory=FigureOptions)

    def as_json(self) -> dict[str, Any]:
        """Return the request as JSON types, with the versions of the measurements."""
        return {"versions": _VERSIONS, **asdict(self)}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Asked:
        """Return the request that `as_json` has written.

        Raises:
            ValueError: it is of other versions.
        """
        from pydantic import TypeAdapter

        values = {**content}
        if (versions := values.pop("versions", None)) != _VERSIONS:
            raise ValueError(f"versions {versions} of measurements, now {_VERSIONS}")
        found: Asked = TypeAdapter(cls).validate_python(values)
        return found
