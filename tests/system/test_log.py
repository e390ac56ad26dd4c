"""The log: the cell in every line, no line interleaved, and what other processes say among them."""

import logging
import os
import re
import threading
import warnings
from multiprocessing import Pipe
from pathlib import Path

from lcbench.system.log import LOGGER, Relay, about, logged

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Z]+ +\[[^\]]+\] .*")


def test_every_line_says_which_cell(tmp_path: Path) -> None:
    with logged(tmp_path / "logs") as path:
        LOGGER.info("begins")
        with about("m, τ = 0.8, STS12"):
            LOGGER.warning("two\nlines")
            try:
                raise ValueError(3)
            except ValueError:
                LOGGER.exception("failed")
        LOGGER.info("%s", "ends")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all(map(LINE.fullmatch, lines)), lines
    about_it = [line for line in lines if "[m, τ = 0.8, STS12]" in line]
    assert about_it[0].endswith("] two")
    assert about_it[1].endswith("] lines")
    assert about_it[-1].endswith("] ValueError: 3")
    assert "INFO    [-] begins" in lines[0]
    assert lines[-1].endswith("[-] ends")


def test_control_characters_are_written_as_escapes(tmp_path: Path) -> None:
    with logged(tmp_path / "logs") as path, about("m\x1b[2J\nx, τ = 0.8"):
        LOGGER.warning("a\x1b]0;title\x07 b\u202e τ\x1b[31m\ttab")
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert line.endswith(r"[m\x1b[2J x, τ = 0.8] a\x1b]0;title\x07 b\u202e τ\x1b[31m" + "\ttab")


def test_warnings_of_libraries_are_in_it_and_only_while_it_is_open(tmp_path: Path) -> None:
    with logged(tmp_path) as path:
        logging.getLogger("some.library").warning("a library's")
        logging.getLogger("some.library").info("chatter")
        warnings.warn("Python's", stacklevel=1)
    logging.getLogger("some.library").error("later")
    text = path.read_text()
    assert "a library's" in text
    assert "Python's" in text
    assert "chatter" not in text
    assert "later" not in text


def test_a_log_is_added_to(tmp_path: Path) -> None:
    for word in ("one", "two"):
        with logged(tmp_path, "element-0003-17_3.log") as path:
            LOGGER.info(word)
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["one", "two"]


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with logged(tmp_path / "file") as path:
        LOGGER.info("lost")
    assert not path.exists()


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("of the user\n")
    (tmp_path / "a.log").symlink_to(tmp_path / "own.txt")
    with logged(tmp_path, "a.log"):
        LOGGER.info("lost")
    assert (tmp_path / "own.txt").read_text() == "of the user\n"


def test_threads_have_cells_of_their_own(tmp_path: Path) -> None:
    ready = threading.Barrier(4)

    def say(cell: str) -> None:
        with about(cell):
            ready.wait()
            for number in range(100):
                LOGGER.info("%s says %d", cell, number)

    with logged(tmp_path) as path:
        threads = [threading.Thread(target=say, args=(f"cell{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 400
    for line in lines:
        found = re.search(r"\[(cell\d)\] (cell\d) says \d+$", line)
        assert found, line
        assert found[1] == found[2]


def test_what_another_process_says_is_relayed_line_by_line(tmp_path: Path) -> None:
    here, there = Pipe(duplex=False)
    with logged(tmp_path) as path:
        relay = Relay(here, lambda: "m, τ = 1, STS13")
        os.write(there.fileno(), b"half a ")
        LOGGER.info("between")
        os.write(there.fileno(), b"line\nRuntimeWarning: \xff\nlast words without an end")
        there.close()
        words = relay.output_tail(5.0)
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.endswith("[m, τ = 1, STS13] half a line")]
    assert lines[-1].endswith("[m, τ = 1, STS13] last words without an end")
    assert words == "half a line\nRuntimeWarning: \ufffd\nlast words without an end"
