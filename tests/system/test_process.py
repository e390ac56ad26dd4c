"""Whose process numbers /proc has: only by its own numbers is a process taken for dead."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lcbench.run.claims import Claims, here, is_alive_here
from lcbench.system import process
from lcbench.system.files import remove_leftovers

DEAD = 2**22 - 1


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Forget what was found out of this machine, now and afterwards."""

    def now() -> None:
        process.machine.cache_clear()
        process._has_foreign_proc.cache_clear()

    now()
    yield now
    now()


def test_of_this_machines_processes_is_known_whether_they_live() -> None:
    started = process.start_time_of(os.getpid())
    assert process.machine() is not None
    assert started is not None
    assert process.lives(os.getpid(), started) is True
    assert process.lives(os.getpid(), "1") is False
    assert process.lives(DEAD, None) is False


def test_where_proc_has_others_numbers_nobody_is_dead_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    """As under `unshare --pid` without a /proc of its own."""
    before = here()
    assert before.process != 2
    monkeypatch.setattr(os, "getpid", lambda: 2)
    forget()
    assert process.machine() is None
    assert process.start_time_of(before.process) is None
    assert process.lives(before.process, before.started) is None
    assert process.lives(DEAD, None) is None
    me = here()
    assert (me.machine, me.process, me.started) == (None, 2, None)
    # Neither a claim from in here nor one of the machine that this is on.
    other = replace(me, token="another", process=DEAD)
    assert is_alive_here(other) is None
    assert is_alive_here(replace(before, process=DEAD)) is None
    (tmp_path / ".STS12.attempt-1").symlink_to(json.dumps(asdict(other)))
    leftover = tmp_path / f".a@{process.short_name()}~{DEAD}~.x.tmp"
    leftover.touch()
    with Claims() as mine:
        assert mine.take(tmp_path, "STS12", over=0) is None
    remove_leftovers(tmp_path)
    assert leftover.exists()
    # Elsewhere it is judged by its lease as well.
    monkeypatch.undo()
    forget()
    assert process.machine() is not None
    assert is_alive_here(other) is None


def test_in_a_namespace_without_a_proc_of_its_own() -> None:
    unshare = shutil.which("unshare")
    words = [str(unshare), "--user", "--map-root-user", "--pid", "--fork"]
    if unshare is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no namespaces of process numbers")
    program = (
        "import os; from lcbench.system import process as machine; "
        f"print(os.getpid(), machine.machine(), machine.lives(os.getpid(), None), "
        f"machine.lives({DEAD}, None))"
    )

    def said(*more: str) -> list[str]:
        got = subprocess.run(
            [*words, *more, sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
        return got.stdout.split()

    assert said() == ["1", "None", "None", "None"]
    # With a /proc of its own it has a name of its own, and deaths are seen.
    number, name, lives, dead = said("--mount-proc")
    assert (number, lives, dead) == ("1", "True", "False")
    assert name not in ("None", process.machine())
