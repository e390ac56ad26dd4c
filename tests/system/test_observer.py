"""Work that nobody's screen shows is told in Python's log."""

import logging

import pytest

from lcbench.system.observer import Observer


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
