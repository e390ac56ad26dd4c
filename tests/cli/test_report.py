"""`cli.report`: which of a report's tables are printed, and what is shown while it is made."""

import io
import threading

import pytest
from command_server import NEVER
from rich.console import Console

from lcbench.cli import console, report
from lcbench.cli.report import _bars, _split
from lcbench.errors import RequestError
from lcbench.reporting.table import Table
from lcbench.system import observer

NAMES = ("table1", "table1-2", "choice", "scores", "matrix", "by-length", "lengths")
TABLES = [Table(name, name, ("x",), 0, ()) for name in NAMES]


@pytest.mark.parametrize(
    ("asked", "printed"),
    [
        ((), ("table1", "table1-2", "choice")),
        (("lengths",), ("table1", "table1-2", "choice", "lengths")),
        (("all",), NAMES),
    ],
)
def test_the_main_tables_are_printed_and_those_that_are_asked_for(
    asked: tuple[str, ...], printed: tuple[str, ...]
) -> None:
    shown, others = _split(TABLES, asked)
    assert tuple(table.name for table in shown) == printed
    assert {table.name for table in others} == set(NAMES) - set(printed)


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"show=lenghts: .*Did you mean.*lengths.*It has: tab"):
        _split(TABLES, ["lenghts"])


def test_a_terminal_shows_a_bar_per_step() -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=80, force_terminal=True, color_system=None)
    with _bars(terminal, "reading results") as step:
        assert "reading results" in shown_until(screen, "reading results")
        step("drawing samples", 3, 40)
        terminal.print("a line")
        step("drawing samples", 20, 40)
        step("scores by length", 1, 2)
    text = screen.getvalue()
    assert "a line" in text
    assert "drawing samples" in text
    assert "20/40" in text
    assert "1/2" in text
    # All of it is cleared, and the cursor is shown again.
    assert text.rstrip("\r\n").endswith("\x1b[2K")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def shown_until(screen: io.StringIO, text: str) -> str:
    """Return what is on a screen, as soon as a text is."""
    waiting = threading.Event()
    for _ in range(600):
        if text in screen.getvalue():
            break
        waiting.wait(0.1)
    return screen.getvalue()


def test_a_log_has_one_line_for_each_step_that_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announced = threading.Event()

    def announce(what: str) -> None:
        console.announce(what)
        announced.set()

    monkeypatch.setattr(report, "announce", announce)
    screen = io.StringIO()
    monkeypatch.setattr(observer, "SLOW_SECONDS", NEVER)
    with _bars(Console(file=screen), "reading results") as step:
        monkeypatch.setattr(observer, "SLOW_SECONDS", 0.001)
        step("drawing samples", 0, 40)
        assert announced.wait(60)
        step("drawing samples", 40, 40)
    assert (screen.getvalue(), capsys.readouterr().err) == ("", "lcbench: drawing samples …\n")
