"""A sheet: any table of the report as values with their texts, and its five formats.

Computes nothing. Names come from models and data sets, so every format escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType

Look = Literal["plain", "up", "down", "unsure", "strong"]
"""plain; an improvement or a loss whose interval excludes zero; one whose interval does not;
a number that stands out among its neighbours (the best of a row)."""


@dataclass(frozen=True)
class Entry:
    """One place of a sheet.

    Attributes:
        text: as shown.
        value: the exact number or name behind it; None is a hole.
        look: how it is told from the others.
        more: what a reader may want to know beside it (an interval, a count), as plain text.
    """

    text: str
    value: float | str | None = None
    look: Look = "plain"
    more: str = ""


@dataclass(frozen=True)
class Section:
    """Rows under one heading; empty for none."""

    heading: str
    rows: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        name: of its files, without suffix: `table2`, `languages`.
        title: above it.
        header: the names of its columns.
        labels: how many of them, from the left, are names and no numbers.
        sections: its rows.
        notes: below it, each a sentence.
    """

    name: str
    title: str
    header: tuple[str, ...]
    labels: int
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = ()


def terminal(sheet: Sheet) -> RenderableType:
    """Return a sheet for a `rich` console of 100 columns or more."""
    raise NotImplementedError


def markdown(sheet: Sheet) -> str:
    """Return a sheet as a Markdown table under its title."""
    raise NotImplementedError


def csv(sheet: Sheet) -> str:
    """Return a sheet's exact values, one row a row; sections are a column of their own."""
    raise NotImplementedError


def latex(sheets: Sequence[Sheet]) -> str:
    """Return sheets as `tabular`s with rules of booktabs."""
    raise NotImplementedError


def as_json(sheet: Sheet) -> dict[str, Any]:
    """Return a sheet as plain values for JSON."""
    raise NotImplementedError
