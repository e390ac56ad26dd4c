"""What tables by length have in common: a model and a task, rows under headings, notes of units."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from lcbench.reporting.table import Entry, Section
from lcbench.reporting.tables.items_by_length import Items, Place
from lcbench.uncertainty.sums import RESAMPLES


@dataclass(frozen=True, kw_only=True)
class OfLengths:
    """What is found of the lengths of one model and task.

    Attributes:
        group: of the table.
        column: of the task.
        task: its name.
        label: of the model.
        unit: what lengths are counted in.
        why: why there is nothing; empty where there is.
        resamples: of the bootstrap; 0: no intervals.
        has_draws: whether training draws count.
    """

    group: str
    column: str
    task: str
    label: str
    unit: str = "characters"
    why: str = ""
    resamples: int = RESAMPLES
    has_draws: bool = False

    @classmethod
    def nothing(cls, place: Place, items: Items, resamples: int, why: str = "") -> Self:
        """Return that nothing is found (yet) of the lengths of a task and model."""
        return cls(
            group=place.group,
            column=place.column,
            task=place.task,
            label=place.label,
            unit=items.unit,
            why=why,
            resamples=resamples,
            has_draws=bool(items.right),
        )


Found = TypeVar("Found", bound=OfLengths)


def sections_of(
    found: Sequence[Found],
    heading: Callable[[Found], str],
    rows: Callable[[Found], Iterable[tuple[Entry, ...]]],
    groups: Sequence[OfLengths],
) -> tuple[Section, ...]:
    """Return the rows of all that is shown, those of one heading together.

    Args:
        found: what is shown.
        heading: of each; with its table's group in front, if there are several.
        rows: of each.
        groups: all that was found, shown or not.
    """
    several = len({one.group for one in groups}) > 1
    of: dict[str, list[tuple[Entry, ...]]] = {}
    for one in found:
        name = f"{one.group}: {heading(one)}" if several else heading(one)
        of.setdefault(name, []).extend(rows(one))
    return tuple(Section(name, tuple(own)) for name, own in of.items())


def notes_of_units(shown: Sequence[OfLengths], what: str, so: str = "") -> Iterator[str]:
    """Say what lengths are counted in.

    Args:
        shown: in a table.
        what: the texts that are counted.
        so: what follows of it for older results.
    """
    if any(one.unit == "characters" for one in shown):
        yield f"Lengths are those of whole {what} in characters, before truncation."
    if older := dict.fromkeys(one.task for one in shown if one.unit == "tokens"):
        yield (
            f"Of {', '.join(older)} lengths are in tokens as the model reads them, since the "
            f"results are of a version that kept no other{so}."
        )
