"""What a terminal shows, as text."""

import io
from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType

from lcbench.cli.report import show
from lcbench.reporting.publish import Report, Step


def printed(drawn: RenderableType, width: int = 100, *, color: bool = False) -> str:
    """Return what a terminal of so many columns shows of something drawn."""
    screen = io.StringIO()
    console = Console(
        file=screen,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
    )
    console.print(drawn)
    return screen.getvalue()


def shown(
    find: Callable[[Step], Report | None], asked: Sequence[str] = (), width: int = 200
) -> str:
    """Write a report, and return what a terminal of so many columns shows of it."""
    screen = io.StringIO()
    show(find, Console(file=screen, width=width, highlight=False), asked)
    return screen.getvalue()
