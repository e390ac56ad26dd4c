"""What can be asked of a model and a task's texts: measurements, and figures of the paper."""

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
    """What is asked of each model, repair and task.

    Attributes:
        embeddings: whether embeddings crowd together; None: not asked.
        inside: what happens inside the model; None: not asked.
        figures: numbers of the paper's figures, of each model and task that they can be made of.
        figure_options: how figures are made.
    """

    embeddings: Options | None
    inside: InsideOptions | None = None
    figures: tuple[Number, ...] = ()
    figure_options: FigureOptions = field(default_factory=FigureOptions)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON types, with the versions of what is measured."""
        return {"versions": _VERSIONS, **asdict(self)}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Asked:
        """Return what `as_json` has written.

        Raises:
            ValueError: it was written by another version.
        """
        from pydantic import TypeAdapter

        values = {**content}
        if (versions := values.pop("versions", None)) != _VERSIONS:
            raise ValueError(f"versions {versions} of measurements, now {_VERSIONS}")
        found: Asked = TypeAdapter(cls).validate_python(values)
        return found
