"""Work that nobody's screen shows is told in Python's log."""

import io
import logging
import threading

import pytest

from lcbench.system.observer import Observer, Printed, observer_of


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
