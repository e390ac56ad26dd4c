"""A sweep on several devices: which process gets which, and that signals reach all of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lcbench.encode.options import EngineSettings
from lcbench.errors import RequestError
from lcbench.run import devices as module
from lcbench.run.devices import Others, Share, engine_words, keep_to, shares_of
from lcbench.settings.values import devices_of
from lcbench.system.signals import Stop, Terminated


def asked(devices: Any, device: str = "auto", scoring: int | None = None) -> EngineSettings:
    return EngineSettings(device, None, scoring, False, None, devices)


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four GPUs and sixteen cores."""
    every = [f"cuda:{number}" for number in range(4)]
    monkeypatch.setattr(
        module, "devices_of", lambda device: every if device in ("auto", "cuda") else [device]
    )
    monkeypatch.setattr(module, "cores", lambda: 16)
    monkeypatch.setattr(module, "processes", lambda count, **_: count or 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def seen(shares: Sequence[Share]) -> list[tuple[str, str]]:
    return [(one.engine.device, one.environment["CUDA_VISIBLE_DEVICES"]) for one in shares]


def test_without_the_key_there_is_one_process(four: None) -> None:
    assert shares_of(asked(None)) == [Share(asked(None), {})]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("all", [("cuda:0", "0"), ("cuda:0", "1"), ("cuda:0", "2"), ("cuda:0", "3")]),
        (2, [("cuda:0", "0"), ("cuda:0", "1")]),
        # This process sees all of them; each of the others sees its own alone.
        ((3, 1), [("cuda:3", "3"), ("cuda:0", "1")]),
    ],
)
def test_each_process_has_a_gpu_and_its_share_of_the_cores(
    four: None, devices: Any, expected: list[tuple[str, str]]
) -> None:
    shares = shares_of(asked(devices))
    assert seen(shares) == expected
    assert {one.engine.devices for one in shares} == {None}
    assert {one.engine.scoring for one in shares} == {8 // len(expected)}
    threads = 16 // len(expected)
    assert {one.environment["OMP_NUM_THREADS"] for one in shares} == {str(threads)}
    left = threads - 8 // len(expected)
    assert {one.environment["RAYON_NUM_THREADS"] for one in shares} == {str(left)}
    assert {one.engine.scoring for one in shares_of(asked(devices, scoring=3))} == {3}


def test_this_process_keeps_to_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    share = Share(asked(None), dict(zip(names, "321", strict=True)))
    for name in names:
        # So that it is as before, after the test.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def seen() -> tuple[list[str | None], int]:
        return [os.environ.get(name) for name in names], torch.get_num_threads()

    with keep_to(share):
        assert seen() == (["3", "2", None], 3)
    # Another job of this process has all cores again.
    assert seen() == ([None, None, None], before)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with keep_to(share):
        assert seen() == (["5", "2", None], before)
    assert seen() == (["5", None, None], before)


def test_gpus_have_the_names_by_which_this_process_was_given_them(
    four: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,GPU-8a,7")
    assert [name for _, name in seen(shares_of(asked("all")))] == ["4", "6", "GPU-8a", "7"]
    assert seen(shares_of(asked((1, 2)))) == [("cuda:1", "6"), ("cuda:0", "GPU-8a")]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (asked(5), r"engine.devices=5: torch finds 4 GPUs here, numbered from 0"),
        (asked((0, 4)), r"engine.devices=\[0,4\]: torch finds 4 GPUs here"),
        (asked("all", "cpu"), r"engine.devices=all needs the GPUs .* engine.device=cpu means cpu"),
        (asked((0, 1), "cpu"), r"engine.devices=\[0,1\] needs the GPUs"),
        (asked(2, "cuda:1"), r"engine.devices=2 needs the GPUs .* engine.device=cuda:1 means"),
        (asked("all", "mps"), r"engine.devices=all needs the GPUs"),
    ],
)
def test_fewer_devices_than_asked_for_are_one_message(
    four: None, engine: EngineSettings, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        shares_of(engine)


@pytest.mark.parametrize("value", [0, -1, True, "some", [], [0, 0], [-1], [1.5], 2.0, {"a": 1}])
def test_the_key_has_few_values(value: Any) -> None:
    with pytest.raises(
        RequestError, match=r"engine.devices=.* is neither all or spread, nor a number"
    ):
        devices_of(value)
    assert [devices_of(one) for one in (None, "all", "spread", 4, [0, 2])] == [
        *(None, "all", "spread", 4, (0, 2))
    ]


def test_an_engine_is_written_as_keys() -> None:
    engine = EngineSettings(
        *("cuda:0", 512, 0, True, "eager"), fuse_qkv=True, graphs=True, fp32="fp16x3"
    )
    assert engine_words(engine) == [
        "engine.device=cuda:0",
        "engine.batch_tokens=512",
        "engine.scoring=0",
        "engine.compile=true",
        "engine.attention=eager",
        "engine.fuse_qkv=true",
        "engine.graphs=true",
        "engine.fp32=fp16x3",
    ]
    assert engine_words(EngineSettings("cpu", None, None, False))[1:] == [
        "engine.batch_tokens=auto",
        "engine.scoring=auto",
        "engine.compile=false",
        "engine.attention=auto",
        "engine.fuse_qkv=false",
        "engine.graphs=false",
        "engine.fp32=ieee",
    ]
    # The others are each for one device, and are asked for everything else.
    names = {word.partition("=")[0].removeprefix("engine.") for word in engine_words(engine)}
    assert names == {field.name for field in fields(EngineSettings)} - {"devices"}


PROGRAM = """#!/bin/sh
trap 'echo asked >> "$LOG.$CUDA_VISIBLE_DEVICES"' USR1
trap 'echo ended >> "$LOG.$CUDA_VISIBLE_DEVICES"; exit 143' TERM
echo "$LCBENCH_SHARES_SWEEP $@" > "$LOG.$CUDA_VISIBLE_DEVICES"
if [ -n "$STATUS" ]; then exit "$STATUS"; fi
while :; do sleep 0.05; done
"""


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What starts two processes that write down what they are told."""
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o700)
    monkeypatch.setattr(module.sys, "executable", str(program))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    (tmp_path / "logs").mkdir()
    shares = [Share(asked(None, "cuda:0"), {"CUDA_VISIBLE_DEVICES": str(i)}) for i in (1, 2)]
    warnings: list[str] = []

    def make(stop: Stop) -> Any:
        made: Any = Others(shares, ["element=3"], stop, warnings.append)
        made.warnings = warnings
        return made

    return make


def lines(folder: Path, count: int) -> list[list[str]]:
    """What both processes have written, once it is so many lines."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        paths = [folder / "log.1", folder / "log.2"]
        found = [one.read_text().splitlines() if one.exists() else [] for one in paths]
        if all(len(one) >= count for one in found):
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_signals_reach_all_processes_and_none_is_left(tmp_path: Path, others: Any) -> None:
    manifest: Any = SimpleNamespace(folder=tmp_path)
    stop = Stop()
    with stop, others(stop) as group:
        group.start(manifest)
        for (words,) in lines(tmp_path, 1):
            assert words == (
                f"{os.getpid()} -m lcbench manifest={tmp_path} element=3 engine.device=cuda:0 "
                "engine.batch_tokens=auto engine.scoring=auto engine.compile=false "
                "engine.attention=auto engine.fuse_qkv=false engine.graphs=false "
                "engine.fp32=ieee"
            )
        os.kill(os.getpid(), signal.SIGUSR1)
        assert [one[1] for one in lines(tmp_path, 2)] == ["asked", "asked"]
        processes = [process for process, _ in group._started]
        assert [one.poll() for one in processes] == [None, None]
    assert [one.returncode for one in processes] == [143, 143]
    assert [one[-1] for one in lines(tmp_path, 3)] == ["ended", "ended"]
    assert stop.followers == []


def in_a_moment(act: Any) -> None:
    timer = threading.Timer(0.5, act)
    timer.daemon = True
    timer.start()


def test_a_process_that_runs_cells_is_waited_for(
    tmp_path: Path, others: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a cell takes; one that does not end although none is left is ended."""
    monkeypatch.setattr(module, "_LAST_SECONDS", 0.1)
    manifest: Any = SimpleNamespace(folder=tmp_path)
    with others(Stop()) as group:
        group.start(manifest)
        lines(tmp_path, 1)
        assert group.wait(have_cells=False) == 0
        assert group.lost
        assert len(group.warnings) == 2
        processes = [process for process, _ in group._started]
        in_a_moment(lambda: [one.kill() for one in processes])
        assert group.wait(have_cells=True) == 0
        assert [one.returncode for one in processes] == [-signal.SIGKILL] * 2
        assert group.lost
    assert [len(one) for one in lines(tmp_path, 1)] == [1, 1]


def test_a_signal_while_others_run_cells_stops_this_process_too(
    tmp_path: Path, others: Any
) -> None:
    """The others end first: an element is sent back into the queue all the same."""
    manifest: Any = SimpleNamespace(folder=tmp_path)
    stop = Stop()
    with others(stop) as group:
        group.start(manifest)
        lines(tmp_path, 1)
        stop.is_asked = stop.is_gentle = True
        processes = [process for process, _ in group._started]
        in_a_moment(lambda: [one.terminate() for one in processes])
        with pytest.raises(Terminated):
            group.wait(have_cells=True)
        assert [one.returncode for one in processes] == [143, 143]
    assert group.warnings == []


@pytest.mark.parametrize(("status", "worst"), [(0, 0), (1, 1), (2, 2), (143, 0)])
def test_the_worst_status_counts_but_not_that_of_a_process_that_was_ended(
    tmp_path: Path, others: Any, monkeypatch: pytest.MonkeyPatch, status: int, worst: int
) -> None:
    monkeypatch.setenv("STATUS", str(status))
    manifest: Any = SimpleNamespace(folder=tmp_path)
    with others(Stop()) as group:
        group.start(manifest)
        assert group.wait(have_cells=False) == worst
        assert group.lost == (status == 143)
        assert len(group.warnings) == (2 if status == 143 else 0)


@pytest.mark.parametrize(("seconds", "status"), [(0.2, 0), (60, -signal.SIGTERM)])
def test_a_process_ends_by_itself_and_with_the_one_that_started_it(
    seconds: float, status: int
) -> None:
    program = (
        "import time; from lcbench.run.devices import end_with_parent; end_with_parent(); "
        f"time.sleep({seconds})"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as started:
        assert started.stdin is not None
        if status:
            started.stdin.close()
        assert started.wait(60) == status
