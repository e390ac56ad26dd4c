"""Output to the terminal, in any encoding and without control characters.

A character that a stream cannot show is replaced by a readable one (τ → tau), closed streams are
ignored, and control characters in names and errors are escaped.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TextIO

from lcbench.errors import StorageError
from lcbench.system.observer import Observer
from lcbench.system.printable import escaped, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_REPLACING = "lcbench-readable"
# Significant and insignificant changes get four different characters.
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
    """Make standard output and error accept any text, in any encoding, even if closed.

    Otherwise the next file that is opened, a result for example, could get a closed descriptor, and
    libraries would print into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Opening a file takes the lowest free descriptor.
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
    """Replace characters that an encoding lacks by readable ones (for `codecs`).

    A longer replacement takes the place of spaces that pad a column, so that the next column stays
    aligned.
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
    """Return a command's console: as wide as the terminal, or 110 columns for a file.

    Strings are printed literally: brackets and colons are not markup.
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
    """Prints progress on a console, and warnings on standard error."""

    def __init__(self, console: Console) -> None:
        """Print on a console."""
        self._console = console
        self.is_live = console.is_terminal

    def say(self, text: str, *, dim: bool = False) -> None:
        """Print a line; the terminal wraps it, so that paths can be copied."""
        from rich.text import Text

        self._console.print(Text(printable(text), style="dim" if dim else ""), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        warn(text)

    def announce(self, what: str) -> None:
        """Print a line to standard error about a step that takes long."""
        announce(what)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], names: int) -> None:
        """Print a table with right-aligned numbers."""
        from rich.table import Table

        table = Table(*header[:names], box=None)
        for column in header[names:]:
            table.add_column(column, justify="right")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def live(self, line: Callable[[], str]) -> AbstractContextManager[object]:
        """Return a context in which a terminal shows an updated last line, cut to its width."""
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
    """A stream that drops what cannot be written, on a full disk or to a closed pipe.

    A run does not depend on whether its output can be shown.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or drop its content."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def say(message: str) -> None:
    """Print a message to standard error, if it can be written."""
    with suppress(OSError):
        print(printable(message), file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Write machine-readable text to standard output, completely or with an error.

    Raises:
        StorageError: it cannot be written. A closed pipe is not an error.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_output()
    except OSError as error:
        forget_output()
        raise StorageError(f"standard output cannot be written: {error.strerror}.") from error


def plain_table() -> Table:
    """Return a table without rows or columns, with a line below the header only."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="")


def emit_csv(kind: type[Any], rows: Iterable[Any]) -> None:
    """Write dataclasses of one kind as CSV to standard output, with a header.

    Raises:
        StorageError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    emit(text.getvalue())


def forget_output() -> None:
    """Flush standard output and error, and drop what cannot be written.

    Otherwise Python would exit with its own status, 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, AttributeError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


# Errors of this process: a Hydra launcher passes them to the parent process.
COMPLAINTS: list[str] = []


def complain(message: str) -> None:
    """Print an error to standard error."""
    COMPLAINTS.append(message)
    say(f"lcbench: error: {message}")


def warn(message: str) -> None:
    """Print a warning to standard error."""
    say(f"lcbench: warning: {message}")


def announce(what: str) -> None:
    """Print a line to standard error about a step that takes long, in a log for example."""
    say(f"lcbench: {what}")
