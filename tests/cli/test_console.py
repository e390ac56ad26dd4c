"""Every terminal shows what is printed, and obeys none of it."""

import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lcbench.cli import console
from lcbench.errors import StorageError
from lcbench.system import observer as observers
from lcbench.system.printable import printable


def shown(monkeypatch: pytest.MonkeyPatch, encoding: str, *things: object) -> str:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    console.prepare_streams()
    for one in things:
        console.screen().print(one)
    sys.stdout.flush()
    return raw.getvalue().decode(encoding)


def table() -> Table:
    found = Table(box=box.SIMPLE_HEAD)
    for name in ("τ", "gain"):
        found.add_column(name)
    found.add_row(Text("0.8"), "▲ 3.10")
    found.add_row("τ", "▽ 0.10")
    return found


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_table_is_readable_and_aligned_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    lines = shown(monkeypatch, encoding, table()).splitlines()
    assert [line.rstrip() for line in lines] == [
        "+--------------+",
        "| tau | gain   |",
        "|-----+--------|",
        "| 0.8 | ^ 3.10 |",
        "| tau | - 0.10 |",
        "+--------------+",
    ]


def test_what_an_encoding_has_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, "latin-1", "büchlein × τ …") == "büchlein × tau ...\n"
    assert shown(monkeypatch, "ascii", "büchlein × τ …") == "b\\xfcchlein x tau ...\n"
    assert shown(monkeypatch, "utf-8", "büchlein × τ …") == "büchlein × τ …\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("[bold]m", "[bold]m"),
        ("old [/archive]", "old [/archive]"),
        ("[red]x[/red]", "[red]x[/red]"),
        (":warning:", ":warning:"),
        ("\x1b[2Jx\x07", "\\x1b[2Jx\\x07"),
        ("a\u2028b\u0085c\u202ed", "a\\u2028b\\x85c\\u202ed"),
        ("not utf-8: \udcff", "not utf-8: \\udcff"),
    ],
)
@pytest.mark.parametrize("kind", [str, Text])
def test_a_name_is_shown_and_not_obeyed(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, expected: str
) -> None:
    # rich drops bells from a text by itself.
    expected = expected.replace("\\x07", "") if kind is Text else expected
    assert shown(monkeypatch, "utf-8", kind(name)) == f"{expected}\n"
    inside = Table.grid()
    inside.add_row(kind(name))
    lines = shown(monkeypatch, "utf-8", inside).strip()
    # rich counts what it does not know in a text as no characters, and cuts the cell to that.
    assert lines == expected if kind is str else lines == printable(lines)


def test_messages_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("lcbench: error: \x1b]0;title\x07\nsecond\tline")
    assert capsys.readouterr().err == "lcbench: error: \\x1b]0;title\\x07\nsecond\tline\n"


def test_what_a_program_reads_is_whole_or_an_error() -> None:
    code = "from lcbench.cli.console import emit; emit('1,2\\n')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert f"{StorageError.__name__}: standard output cannot be written: No space" in done.stderr


@pytest.mark.parametrize("closed", [1, 2])
def test_a_closed_stream_is_given_to_no_file(tmp_path: Path, closed: int) -> None:
    code = (
        "import os, sys\n"
        "from types import SimpleNamespace\n"
        "from lcbench.cli import app\n"
        "def job(config):\n"
        "    with open('result', 'w') as file:\n"
        "        file.write('whole')\n"
        "        file.flush()\n"
        "        os.write(1, b'what a library says')\n"
        "        os.write(2, b'what a library says')\n"
        "    print('τ')\n"
        "    return 0\n"
        "app.import_module = lambda name: SimpleNamespace(job=job)\n"
        "sys.exit(app.run(['status']))\n"
    )
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {closed}>&-', sys.executable, code],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert Path(tmp_path, "result").read_text(encoding="utf-8") == "whole"


def test_a_pipe_that_nobody_reads_any_more_is_no_failure(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from lcbench.cli import app\n"
        "from lcbench.cli.console import screen\n"
        "def job(config):\n"
        "    for _ in range(5000):\n"
        "        screen().print('a line of a table')\n"
        "    return 0\n"
        "app.import_module = lambda name: SimpleNamespace(job=job)\n"
        "sys.exit(app.run(['status']))\n"
    )
    command = '"$0" -c "$1" | head -1; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("columns", ["0", "1", "20", "40"])
def test_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    console.prepare_streams()
    console.screen().print(table())
    console.screen().print("checking …")


def test_the_password_of_an_address_is_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "http://me:ge@heim@hub.example/a: no answer by https://hub.example/a@b, nor by me@b"
    told = "http://***@hub.example/a: no answer by https://hub.example/a@b, nor by me@b"
    assert printable(text) == told
    assert shown(monkeypatch, "utf-8", text) == f"{told}\n"
    console.say(text)
    assert capsys.readouterr().err == f"{told}\n"


def observed(*, terminal: bool, width: int = 40) -> tuple[console.ConsoleObserver, io.StringIO]:
    """Return an observer of a terminal, or of a file, and what is written there."""
    screen = io.StringIO()
    colours: Any = "standard" if terminal else None
    shown = Console(file=screen, width=width, force_terminal=terminal, color_system=colours)
    return console.ConsoleObserver(shown), screen


def test_a_line_is_whole_and_its_names_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    observer, screen = observed(terminal=False, width=20)
    path = f"log: /a/{'long/' * 10}[bold]path\x1b[2J"
    observer.say(path)
    observer.warn("[red]m[/red] will be tried again")
    assert screen.getvalue() == path.replace("\x1b", "\\x1b") + "\n"
    assert capsys.readouterr().err == "lcbench: warning: [red]m[/red] will be tried again\n"
    observer, screen = observed(terminal=True)
    observer.say("of less importance", dim=True)
    assert screen.getvalue() == "\x1b[2mof less importance\x1b[0m\n"


def test_a_terminal_shows_what_is_being_done_and_for_how_long() -> None:
    observer, screen = observed(terminal=True)
    with observer.doing("looking for models and tasks"):
        observer.say("a line above it")
    text = screen.getvalue()
    assert "looking for models and tasks … 0:00" in text
    assert "a line above it" in text
    # The line is cleared when the work is done, and the cursor shown again.
    assert text.rstrip("\r\n").endswith(("\x1b[2K", "\x1b[?25h"))
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_a_file_gets_a_line_on_standard_error_for_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announced = threading.Event()
    announce = console.announce

    def heard(what: str) -> None:
        announce(what)
        announced.set()

    monkeypatch.setattr(console, "announce", heard)
    observer, screen = observed(terminal=False)
    # In tests nothing is slow, unless they say so.
    with observer.doing("a quick step"):
        pass
    monkeypatch.setattr(observers, "SLOW_SECONDS", 0.001)
    with observer.doing("estimating"):
        assert announced.wait(60)
    assert (screen.getvalue(), capsys.readouterr().err) == ("", "lcbench: estimating …\n")


def test_numbers_of_a_table_are_aligned_to_the_right() -> None:
    observer, screen = observed(terminal=False)
    rows = [("model a/b", "1 byte"), ("dataset c/d", "10.5 GB")]
    observer.table(("repository", "size"), rows, names=1)
    assert [line.rstrip() for line in screen.getvalue().splitlines()] == [
        " repository      size",
        " model a/b     1 byte",
        " dataset c/d  10.5 GB",
    ]


def test_a_line_that_keeps_up_is_for_a_terminal_alone() -> None:
    observer, screen = observed(terminal=False)
    assert not observer.is_live
    with observer.live(lambda: "2/7"):
        pass
    assert screen.getvalue() == ""
    observer, screen = observed(terminal=True)
    assert observer.is_live
    with observer.live(lambda: "2/7 · " + "model, " * 20):
        observer.say("a line above")
    first, *_ = screen.getvalue().partition("a line above")
    assert "\x1b[?25l" in first
    text = screen.getvalue()
    assert "a line above" in text
    (kept,) = {line for line in re.split(r"[\r\n]|\x1b\[\w*\w", text) if line.startswith("2/7")}
    assert len(kept) == 40
    assert kept.endswith("…")
    # It is gone when the work is done.
    assert text.endswith("\x1b[1A\x1b[2K")
