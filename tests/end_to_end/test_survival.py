"""Runs that are told to end, that share a sweep, or that cannot write: as a user meets them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import chaos_program
import pytest
from commands import Commands, Started
from end_to_end_support import SMALL_WITH_WORKERS, Finished, json_results
from observers import Unwarned

from lcbench.plan.layout import grid_of
from lcbench.results.folder import Results
from lcbench.run.claims import Claims


def wait_for(folder: Path, count: int, started: Started) -> None:
    until = time.monotonic() + 300
    while len(json_results(folder)) < count:
        assert not started.has_ended(), started.wait(60)
        assert time.monotonic() < until
        time.sleep(0.02)


def leftovers(folder: Path) -> list[str]:
    """Claims, unfinished files, failures."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.name.startswith(".") or ".broken" in path.name or path.name.endswith(".txt")
    ]


INTERRUPTED = "interrupted. Finished cells are kept"
STOPPED = "stopped by a signal. Finished cells are kept"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "message", "fresh"),
    [
        (signal.SIGINT, 130, INTERRUPTED, False),
        (signal.SIGUSR1, 143, STOPPED, False),
        # In full: their processes that score are started by an interpreter of their own.
        pytest.param(signal.SIGINT, 130, INTERRUPTED, True, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGUSR1, 143, STOPPED, True, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGTERM, 143, INTERRUPTED, True, marks=pytest.mark.exhaustive),
    ],
)
def test_told_to_end_all_processes_of_a_run_end_and_it_goes_on_from_there(
    run,
    commands: Commands,
    tmp_path: Path,
    sts: list[str],
    make_model: Callable[[str], Path],
    number: signal.Signals,
    status: int,
    message: str,
    fresh: bool,
) -> None:
    request = [*sts, "results_dir=runs", "engine.scoring=2"]
    settings = chaos_program.settings_of(tmp_path, make_model("bert"), "runs", "0.7")
    last = grid_of(replace(settings, offline=False), Unwarned()).cells[-1]
    held = Results(tmp_path / "runs").files(last).folder
    with Claims() as claims:
        # However fast the others are done, it does not come to its end.
        assert claims.take(held, last.task, 0) is not None
        started = commands.start(request, tmp_path, os.environ, fresh=fresh)
        wait_for(tmp_path / "runs", 2, started)
        # To every process of the job: those that score ignore it, and end with the one they work
        # for.
        os.killpg(started.pid, number)
        ended = started.wait(300)
    assert ended.returncode == status, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert leftovers(tmp_path / "runs") == []
    assert 2 <= len(json_results(tmp_path / "runs")) < 16
    until = time.monotonic() + 60
    while _processes_of(started.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert _processes_of(started.pid) == []
    if number == signal.SIGINT:
        stamps = {path: path.stat().st_mtime_ns for path in json_results(tmp_path / "runs")}
        again = run(*request)
        assert again.returncode == 0, again.stderr
        assert len(json_results(tmp_path / "runs")) == 16
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def _processes_of(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX" and int(fields[3]) == session:
            found.append(int(folder.name))
    return found


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
    ]


@pytest.mark.parametrize("scoring", [0, pytest.param(2, marks=pytest.mark.exhaustive)])
@pytest.mark.slow
def test_two_commands_share_a_sweep(
    commands: Commands, tmp_path: Path, sts: list[str], scoring: int
) -> None:
    request = [*sts, "results_dir=runs", f"engine.scoring={scoring}"]
    both = [commands.start(request, tmp_path, os.environ, fresh=scoring > 0) for _ in range(2)]
    said = [one.wait(300) for one in both]
    assert [one.returncode for one in said] == [0, 0], said
    assert len(json_results(tmp_path / "runs")) == 16
    assert leftovers(tmp_path / "runs") == []
    outs = [one.stdout for one in said]
    here = [sum(" s (encoding " in line for line in out.splitlines()) for out in outs]
    assert sum(here) == 16
    tables = [out[out.index("Model ") : out.index("Written to")] for out in outs]
    assert tables[0] == tables[1]
    logs = list((tmp_path / "runs").glob("sweeps/*/logs/*.log"))
    assert len(logs) == 2
    begun = [line for log in logs for line in log.read_text().splitlines() if "] begins" in line]
    assert len(begun) == 16


@pytest.mark.slow
def test_nobody_needs_to_see_how_it_goes(
    commands: Commands, tmp_path: Path, sts: list[str]
) -> None:
    """Standard output on a full disk, as a job's own may be."""
    request = [*sts, "results_dir=runs", "engine.scoring=0"]
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = commands.start(request, tmp_path, os.environ, full).wait(300)
    assert "Traceback" not in done.stderr
    assert len(json_results(tmp_path / "runs")) == 16
    assert (tmp_path / "runs" / "report" / "table1.md").is_file()


@pytest.mark.slow
def test_a_sweep_is_planned_run_in_elements_and_reported(
    run, tmp_path: Path, sts: list[str]
) -> None:
    planned = run(*sts, "results_dir=runs", "launch.elements=3", command="plan")
    assert planned.returncode == 0, planned.stderr
    assert "16 cells in 3 elements" in planned.stdout
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    for element in (0, 2):
        done = run(f"manifest={folder}", f"element={element}")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"element {element}: " in done.stdout
        assert "Model " not in done.stdout
    status = run("--failed", "results_dir=runs", command="status")
    assert (status.returncode, status.stdout) == (0, "1\n"), status.stderr
    report = run(f"manifest={folder}", command="report")
    assert report.returncode == 0
    assert "missing" in report.stdout
    closed = run(f"manifest={folder}", "tau=0.5")
    assert closed.returncode == 2
    assert "tau: manifest=" in closed.stderr
    rest = run("manifest=latest", "results_dir=runs", "engine.scoring=0")
    assert (rest.returncode, rest.stderr) == (0, "")
    alone = run(*sts, "results_dir=alone")
    assert alone.returncode == 0
    texts = [(tmp_path / one / "report" / "table1.md").read_text() for one in ("runs", "alone")]
    assert texts[0] == texts[1]
    status = run("--failed", "results_dir=runs", command="status")
    assert (status.returncode, status.stdout) == (0, "")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_and_then_has_room(
    run, tmp_path: Path, sts: list[str], small_disk: Path
) -> None:
    request = [*sts, f"results_dir={small_disk}/runs"]
    (small_disk / "ballast").write_bytes(bytes(100 * 1024))
    full = run(*request)
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "finished cells are kept" in full.stderr
    assert "Traceback" not in full.stderr
    found = json_results(small_disk)
    assert 0 < len(found) < 16
    assert leftovers(small_disk) == []
    stamps = {path: path.stat().st_mtime_ns for path in found}
    (small_disk / "ballast").unlink()
    # The page alone takes five, and twice that when it is written anew.
    remount(small_disk, "size=32m")
    again = run(*request)
    assert (again.returncode, again.stderr) == (0, "")
    assert len(json_results(small_disk)) == 16
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.slow
def test_a_folder_of_results_that_can_only_be_read(
    run, finished: Finished, small_disk: Path
) -> None:
    remount(small_disk, "size=32m")
    request = ["tau=0.8", f"results_dir={small_disk}/runs", *SMALL_WITH_WORKERS]
    finished.copy_to(small_disk / "runs")
    remount(small_disk, "ro")
    # What is there can be told and reported; what is not is refused before anything is computed.
    status = run(f"results_dir={small_disk}/runs", command="status")
    assert status.returncode == 0, status.stderr
    assert "16" in status.stdout
    report = run(f"results_dir={small_disk}/runs", "report_dir=report", command="report")
    assert (report.returncode, report.stderr) == (0, "")
    more = run(*[one.replace("tau=0.8", "tau=0.6") for one in request])
    assert more.returncode == 2
    assert "results_dir=" in more.stderr
    assert "cannot be written: Read-only file system" in more.stderr
    planned = run(*[one.replace("tau=0.8", "tau=0.6") for one in request], command="plan")
    assert planned.returncode == 2
    remount(small_disk, "rw")


@pytest.mark.slow
def test_results_that_are_damaged_or_changed_are_set_aside_and_made_again(
    run, tmp_path: Path, finished: Finished
) -> None:
    request = ["tau=0.8", "results_dir=runs", *SMALL_WITH_WORKERS]
    finished.copy_to(tmp_path / "runs")
    (table,) = {run(*request).stdout.rpartition("Written")[0]}
    one, other, *rest = json_results(tmp_path / "runs")
    one.write_bytes(one.read_bytes()[:100])
    other.write_text(other.read_text().replace('"main_score": ', '"main_score": 0.5 , "was": '))
    stamps = {path: path.stat().st_mtime_ns for path in rest}
    again = run(*request)
    assert again.returncode == 0
    assert f"{one.name} cannot be read; it is kept as {one.name}.broken-" in again.stderr
    assert f"{other.name} was changed after it was written; it is kept as" in again.stderr
    assert again.stdout.endswith(run(*request).stdout)
    assert table in again.stdout
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(json_results(tmp_path / "runs")) == 16
