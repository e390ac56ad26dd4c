"""What is printed reaches every terminal, and harms none.

A stream that cannot show a character gets a readable one in its place (τ → tau); a stream that is
closed is as good as one that nobody reads; control characters of names and errors are shown and not
obeyed.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, TextIO

from lcbench.errors import StorageError
from lcbench.system.observer import Observer
from lcbench.system.printable import escaped, printable

if TYPE_CHECKING:
    from rich.console import Console

_REPLACING = "lcbench-readable"
# Of a significant change and of one that is not, four different characters.
_READABLE = {
    "▲": "^",
    "▼": "v",
    "△": "+",
    "▽": "-",
    "τ": "tau",
    "α": "alpha",
    "β": "beta",
    "ρ": "rho",
    "σ": "sigma",
    "Σ": "Sigma",
    "Δ": "Delta",
    "δ": "delta",
    "µ": "u",
    "μ": "mu",
    "π": "pi",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "·": "|",
    "•": "*",
    "†": "#",
    "±": "+/-",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "≈": "~",
    "∞": "inf",
    "→": "->",
    "√": "sqrt",
    "✓": "yes",
    "✗": "no",
    "¹": "^1",
    "²": "^2",
    "³": "^3",
    "½": "1/2",
    "°": " deg",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
}


def prepare_streams() -> None:
    """Let standard output and error take any text, whatever their encoding and if they are closed.

    A closed descriptor would be given to the next file that is opened, a result for example, and
    whatever a library prints would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is the one that is given out.
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_REPLACING, _replace)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
            setattr(sys, name, stream)
        with suppress(AttributeError):
            stream.reconfigure(errors=_REPLACING)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Give readable characters for those that an encoding does not have (`codecs`).

    Of the spaces that fill a column as many are left out as the replacement is longer, so that the
    next column begins where it should.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    end = error.start + 1
    one = error.object[error.start]
    text = _READABLE.get(one)
    if text is None:
        is_line = "\u2500" <= one <= "\u257f"
        text = ("|" if one in "│┃║" else "-") if is_line else escaped(one)
    for _ in range(len(text) - 1):
        if error.object[end : end + 2] != "  ":
            break
        end += 1
    return text, end


def screen() -> Console:
    """Return the console of a command: as wide as the terminal, or fit for a file.

    Strings are printed as they are: brackets and colons of a name are no markup.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class Screen(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(printable(text), **how)

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield segment._replace(text=printable(segment.text))

    wide = None if sys.stdout.isatty() else 110
    stream: Any = Lossy(sys.stdout)
    return Screen(file=stream, width=wide, highlight=False, markup=False, emoji=False)


class ConsoleObserver(Observer):
    """Shows on a console what it is told, and warnings on standard error."""

    def __init__(self, console: Console) -> None:
        """Show what is told on a console."""
        self._console = console
        self.is_live = console.is_terminal

    def say(self, text: str, *, dim: bool = False) -> None:
        """Print a line. It is the terminal's to wrap, so that a path can be copied."""
        from rich.text import Text

        self._console.print(Text(printable(text), style="dim" if dim else ""), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        warn(text)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> None:
        """Print a table, its numbers aligned to the right."""
        from rich.table import Table

        table = Table(*header[:names], box=None)
        for column in header[names:]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def live(self, line: Callable[[], str]) -> AbstractContextManager[object]:
        """Return a context while which a terminal shows a line below all others, cut to fit."""
        if not self.is_live:
            return nullcontext()
        from rich.live import Live
        from rich.text import Text

        return Live(
            console=self._console,
            get_renderable=lambda: Text(line(), overflow="ellipsis", no_wrap=True),
            refresh_per_second=4,
            transient=True,
        )


class Lossy:
    """A stream that loses what cannot be written: a full disk, a pipe that nobody reads any more.

    What a run computes does not depend on whether someone sees how it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or lose what it holds."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(message: str) -> None:
    """Print a message to standard error, if there is one that can be written."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Write what a program will read to standard output, all of it or with an error.

    Raises:
        StorageError: it cannot be written. A pipe that nobody reads any more is no error.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
    except OSError as error:
        forget_output()
        raise StorageError(f"standard output cannot be written: {error.strerror}.") from error


def forget_output() -> None:
    """Flush standard output; what cannot be written any more is dropped.

    Python would end with a status of its own (120) if the end of the process found it so.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, AttributeError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


# What this process has complained of: the launcher of another takes it there.
COMPLAINTS: list[str] = []


def complain(message: str) -> None:
    """Print an error to standard error."""
    COMPLAINTS.append(message)
    say(f"lcbench: error: {message}")


def warn(message: str) -> None:
    """Print a warning to standard error."""
    say(f"lcbench: warning: {message}")
