"""What is said while work goes on: lines, warnings, tables, and a line that keeps up with it.

Work tells an `Observer`, and does not know where that shows it: the command line has a terminal
(`cli.console`), a notebook has Python's log or an observer of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from lcbench.system.log import LOGGER


class Observer:
    """Is told how work goes on, and writes it into Python's log, warnings as such.

    Attributes:
        is_live: whether somebody watches meanwhile. Only then is `live` shown, and anything else
            that is gone again when the work is done.
    """

    is_live = False

    def say(self, text: str, *, dim: bool = False) -> None:
        """Take a line.

        Args:
            text: names in it are text, whatever they look like.
            dim: whether it matters less than others.
        """
        LOGGER.info("%s", text)

    def warn(self, text: str) -> None:
        """Take a warning: what goes wrong without ending the work."""
        LOGGER.warning("%s", text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> None:
        """Take a table.

        Args:
            header: the names of its columns.
            rows: a text for each column.
            names: how many columns, from the left, are names; the others are numbers.
        """
        for row in (header, *rows):
            self.say("  ".join(row))

    def live(self, line: Callable[[], str]) -> AbstractContextManager[object]:
        """Return a context while which a line is shown, and kept up to date, if `is_live`.

        Args:
            line: returns it as it is now; called from another thread.
        """
        return nullcontext()
