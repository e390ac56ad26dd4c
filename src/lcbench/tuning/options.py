"""Options of `lcbench tune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

CHOOSE = "choose"
"""The method of `lcbench tune` that recommends a repair."""

Across = Literal["texts", "tasks"]
"""What a recommendation is cross-validated over: the same tasks on other texts, or other tasks."""

ACROSS: tuple[Across, ...] = ("texts", "tasks")

METHODS = {"entropy": 100, "search": 300}
"""Methods of `lcbench tune` that make temperatures, each with its default number of texts."""


@dataclass(frozen=True)
class SearchOptions:
    """How temperatures are searched.

    Attributes:
        trials: number of different temperatures tried in each fold, and for all pairs.
        folds: number of folds.
        heads: whether each head has a temperature of its own, instead of groups of layers.
        by_length: whether temperatures may depend on length.
    """

    trials: int = 18
    folds: int = 3
    heads: bool = False
    by_length: bool = True


@dataclass(frozen=True)
class TuneOptions:
    """How temperatures are made.

    Attributes:
        method: one of `METHODS`.
        texts: number of texts; None: that of the method.
        lengths: in tokens, special ones included, ascending; None: by the window and the texts.
        search: options of `search`.
        seed: of all that is drawn.
    """

    method: str = "entropy"
    texts: int | None = None
    lengths: tuple[int, ...] | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    seed: int = 0

    @property
    def count(self) -> int:
        """The number of texts."""
        return self.texts or METHODS[self.method]
