"""`engine.devices`: a process for each device, as a user meets it; here each is the CPU."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import chaos_program
import pytest
from commands import Commands
from end_to_end_support import json_results
from observers import Unwarned

from lcbench.plan.layout import grid_of
from lcbench.results.folder import Results
from lcbench.run.claims import Claims
from lcbench.system.process import descendants


@pytest.fixture
def sts(tmp_path: Path, make_model: Callable[[str], Path]) -> list[str]:
    """A request of 16 small cells."""
    chaos_program.make_data(tmp_path / "mirror")
    return [
        "model=custom",
        f"model.name={make_model('bert')}",
        "tau=0.7",
        f"tasks=[{','.join(chaos_program.DATASETS)}]",
        "mirror=mirror",
        "unverified_data=true",
        "offline=true",
        "engine.device=cpu",
        "engine.scoring=0",
        "store=none",
    ]


def scores(folder: Path) -> dict[str, float]:
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())["scores"]["test"][0][
            "main_score"
        ]
        for path in json_results(folder)
    }


@pytest.mark.slow
@pytest.mark.exhaustive
def test_four_devices_share_a_sweep_and_each_cell_is_run_once(
    run,
    commands: Commands,
    tmp_path: Path,
    sts: list[str],
    make_model: Callable[[str], Path],
) -> None:
    request = [*sts, "results_dir=shared", "engine.devices=4"]
    settings = chaos_program.settings_of(tmp_path, make_model("bert"), "shared", "0.7")
    cells = grid_of(replace(settings, offline=False), Unwarned()).cells
    with Claims() as claims:
        # The first to be there must not be done before the last has begun.
        for cell in cells[4:]:
            held = Results(tmp_path / "shared").files(cell).folder
            assert claims.take(held, cell.task, 0) is not None
        started = commands.start(request, tmp_path, os.environ, fresh=True)
        until = time.monotonic() + 300
        while len(logs := sorted((tmp_path / "shared").glob("sweeps/*/logs/*.log"))) < 4:
            assert not started.has_ended(), started.wait(60)
            assert time.monotonic() < until
            time.sleep(0.05)
    done = started.wait(600)
    assert done.returncode == 0, done.stderr
    assert len(logs) == 4
    begun = [line for log in logs for line in log.read_text().splitlines() if "] begins" in line]
    times = Counter(line.partition("[")[2].partition("]")[0] for line in begun)
    assert len(times) == len(cells) == 16
    assert set(times.values()) == {1}
    # One display, of all of them, and one table.
    assert "16/16" in done.stdout
    assert done.stdout.count("Model ") == 1
    alone = run(*sts, "results_dir=alone")
    assert alone.returncode == 0, alone.stderr
    here, there = scores(tmp_path / "shared"), scores(tmp_path / "alone")
    assert here.keys() == there.keys()
    assert all(abs(here[name] - there[name]) <= 1e-6 for name in there)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_processes_of_all_devices(
    commands: Commands, tmp_path: Path, sts: list[str], number: signal.Signals, status: int
) -> None:
    request = [*sts, "results_dir=shared", "engine.devices=3"]
    started = commands.start(request, tmp_path, os.environ, fresh=True)
    until = time.monotonic() + 300
    while not json_results(tmp_path / "shared") and time.monotonic() < until:
        time.sleep(0.02)
    others = descendants(started.pid)
    assert len(others) >= 2
    # To the user's process alone.
    os.kill(started.pid, number)
    ended = started.wait(120)
    assert ended.returncode == status, ended.stderr
    until = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in others) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)


def test_more_devices_than_there_are_is_one_message(run, sts: list[str]) -> None:
    done = run(*sts, "results_dir=runs", "engine.devices=all")
    assert done.returncode == 2
    assert "engine.devices=all needs the GPUs of this machine" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
