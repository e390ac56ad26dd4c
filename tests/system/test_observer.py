"""Work that nobody's screen shows is told in Python's log."""

import io
import logging
import threading

import pytest
from command_server import NEVER

from lcbench.system import observer as observers
from lcbench.system.observer import Observer, Printed, SlowSteps, observer_of


def test_without_a_screen_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer()
    with caplog.at_level(logging.INFO, logger="lcbench"):
        observer.say("100 % of it, %s as it is")
        observer.table(("repository", "size"), [("model a/b", "1 byte")], names=1)
        with observer.live(lambda: pytest.fail("nobody watches")):
            observer.warn("a file was set aside")
    assert not observer.is_live
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("INFO", "100 % of it, %s as it is"),
        ("INFO", "repository  size"),
        ("INFO", "model a/b  1 byte"),
        ("WARNING", "a file was set aside"),
    ]


def test_lines_are_printed_and_one_keeps_up_until_the_work_is_done() -> None:
    stream = io.StringIO()
    observer = Printed(stream, is_live=True)
    shown = threading.Event()

    def line() -> str:
        shown.set()
        return "half of it"

    with observer.live(line):
        assert shown.wait(60)
        observer.say("a line")
    text = stream.getvalue()
    assert "a line\n" in text
    # Whatever was shown for a while has been written over.
    assert text.rpartition("\n")[2].replace("\r", "").replace("half of it", "").strip() == ""


def test_what_is_being_done_is_shown_with_its_time() -> None:
    stream = io.StringIO()

    seen = threading.Event()

    class Seen(Printed):
        def _print(self, text: str, *, stays: bool = True) -> None:
            super()._print(text, stays=stays)
            if "counting … 0:0" in stream.getvalue():
                seen.set()

    with Seen(stream, is_live=True).doing("counting"):
        assert seen.wait(60)


def test_nothing_is_written_over_where_that_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    observer = observer_of(True)
    assert not observer.is_live
    with observer.doing("counting"):
        observer.say("a line")
        observer.warn("a\x1bfault")
    told = capsys.readouterr()
    assert told.out == "a line\n"
    assert told.err == "lcbench: warning: a\\x1bfault\n"
    assert type(observer_of(False)) is Observer
    assert observer_of(observer) is observer


def test_a_step_that_takes_long_is_announced_once_where_no_line_is_live(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    announced = threading.Event()

    class Heard(Printed):
        def announce(self, what: str) -> None:
            super().announce(what)
            announced.set()

    monkeypatch.setattr(observers, "SLOW_SECONDS", 0.001)
    with Heard(is_live=False).doing("estimating \x1b"):
        assert announced.wait(60)
    assert capsys.readouterr() == ("", "lcbench: estimating \\x1b …\n")


def test_of_several_steps_only_those_that_take_long_are_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    heard = threading.Event()

    def announce(line: str) -> None:
        lines.append(line)
        heard.set()

    with SlowSteps(announce) as steps:
        monkeypatch.setattr(observers, "SLOW_SECONDS", NEVER)
        steps.begin("quick")
        monkeypatch.setattr(observers, "SLOW_SECONDS", 0.001)
        steps.end("quick")
        for _ in range(3):
            steps.begin("slow")
        assert heard.wait(60)
        steps.end("slow")
    assert lines == ["slow …"]


def test_where_no_thread_can_be_started_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", refuse)
    with Observer().doing("counting"):
        pass
