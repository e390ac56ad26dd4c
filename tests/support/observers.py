"""Observers that keep what they are told."""

from collections.abc import Iterable, Sequence

import pytest

from lcbench.system.observer import Observer


class Recorded(Observer):
    """Keeps what it is told.

    Attributes:
        said: the lines, and those of tables.
        warnings: the warnings.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warnings: list[str] = []

    @property
    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self.said)

    def say(self, text: str, *, dim: bool = False) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> None:
        self.said += ["  ".join(row) for row in (header, *rows)]


class Unwarned(Recorded):
    """The same where nothing may go wrong: a warning fails the test."""

    def warn(self, text: str) -> None:
        pytest.fail(text)
