"""Sweeps and measurements of collapse on a real Slurm: requeued, killed, cancelled, preempted."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end_support import SMALL, SMALL_WITH_WORKERS, Finished, json_results

from lcbench.run.claims import Holder, attempts_in

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.usefixtures("slurm")]

CELLS = 32
ELEMENTS = 6


def slurm(*command: str) -> str:
    """Run one of Slurm's commands."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        queue = slurm("squeue", "--noheader", "--array", "--format=%i %T %r %j")
        # It may have come true, and the queue be empty for that.
        assert (queue and time.monotonic() < end) or condition(), f"waited for: {what}\n{queue}"
        time.sleep(0.3)


def jobs_of(folder: Path) -> list[int]:
    records = (folder / "slurm.jsonl").read_text().splitlines()
    return [json.loads(record)["job"] for record in records]


def holders(results: Path, job: str) -> list[Holder]:
    """Return who is in the middle of a cell for an array element."""
    folders = {path.parent for path in results.rglob(".*.attempt-*")}
    found = [claim.holder for folder in folders for claim in attempts_in(folder)]
    return [one for one in found if one is not None and one.job == job]


def is_at_work(results: Path, job: str) -> bool:
    """Whether an array element is in the middle of a cell."""
    return bool(holders(results, job))


def is_loading(folder: Path, job: str) -> bool:
    """Whether an array element has begun, and none of its cells has."""
    logs = (folder / "logs").glob(f"element-*-{job}.log")
    return any(log.read_text(encoding="utf-8").count(" begins") == 1 for log in logs)


def ended(folder: Path) -> bool:
    """Whether all jobs of a sweep have left the queue, with the one that reports."""
    names = f"--name=lcbench-{folder.name},lcbench-{folder.name}-report"
    return not slurm("squeue", "--noheader", names)


def restarts(job: str) -> int:
    shown = slurm("scontrol", "show", "job", "--oneliner", job)
    return int(shown.partition("Restarts=")[2].split()[0])


def state(job: str) -> str:
    shown = slurm("scontrol", "show", "job", "--oneliner", job)
    return shown.partition("JobState=")[2].split()[0]


def scores(folder: Path) -> dict[str, float]:
    """Return the main score of every split and subset below a folder of results."""
    found = {}
    for path in json_results(folder):
        if "sweeps" in path.parts or "report" in path.parts:
            continue
        for split, entries in json.loads(path.read_text())["scores"].items():
            for entry in entries:
                key = f"{path.relative_to(folder)} {split} {entry['hf_subset']}"
                found[key] = entry["main_score"]
    return found


def test_an_element_that_is_killed_is_submitted_again(
    run, tmp_path: Path, finished: Finished
) -> None:
    """The one below has all that can become of an element, with processes that score."""
    small = ("tau=0.8", "results_dir=runs", *SMALL)
    job_keys = ("launch=slurm", "launch.memory=1G", "launch.time=20")
    # That the report of an array waits for it, whatever becomes of it, is seen below.
    asked = run(*job_keys, "launch.elements=2", "launch.report=false", *small)
    assert asked.returncode == 0, asked.stderr
    assert "2 elements submitted as Slurm job" in asked.stdout
    results = tmp_path / "runs"
    (folder,) = (results / "sweeps").iterdir()
    (job,) = jobs_of(folder)
    killed: list[Holder] = []
    wait_until(lambda: bool(killed.extend(holders(results, f"{job}_1")) or killed), "element 1")
    os.kill(killed[0].process, signal.SIGKILL)
    wait_until(lambda: ended(folder), "the array has ended", 900)
    assert state(f"{job}_1") == "FAILED"
    before = {path: path.stat().st_mtime_ns for path in json_results(results)}
    assert 16 > len(before) > 0

    again = run(*job_keys, "results_dir=runs", "manifest=latest")
    assert again.returncode == 0, again.stderr
    _, job = jobs_of(folder)
    assert json.loads((folder / "slurm.jsonl").read_text().splitlines()[1])["elements"] == [1]
    wait_until(lambda: ended(folder), "the second array and its report have ended", 900)
    after = {path: path.stat().st_mtime_ns for path in json_results(results)}
    assert len(after) == 16
    assert {path: after[path] for path in before} == before
    assert not list(results.rglob(".*.attempt-*"))

    expected = (finished.folder / "report" / "table1.md").read_text()
    assert (results / "report" / "table1.md").read_text() == expected
    assert scores(results) == pytest.approx(scores(finished.folder), abs=1e-4)


def test_measurements_of_collapse_are_made_by_an_array(
    run, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of embeddings and of attention inside the model, with a job that reports both."""
    asked = run(
        "launch=slurm",
        "launch.elements=2",
        "launch.memory=1G",
        "launch.time=20",
        f"model={make_model('bert')}",
        "tau=[0.5,0.7]",
        "measures=[embeddings,attention]",
        *("traced_texts=30", "traced_lengths=[16]"),
        *("passages=30", "sentences=[2]", "whole_texts=60", "bins=2", "queries=30", "corpus=30"),
        *("docs.documents=100", "resamples=1000", "results_dir=runs"),
        command="collapse",
    )
    assert asked.returncode == 0, asked.stderr
    assert "2 elements submitted as Slurm job" in asked.stdout
    results = tmp_path / "runs"
    (folder,) = (results / "sweeps").iterdir()
    (job,) = jobs_of(folder)
    wait_until(lambda: ended(folder), "the array and its report have ended")
    logs = {path.name: path.read_text() for path in (folder / "logs").glob("*.out")}
    assert [state(f"{job}_{element}") for element in (0, 1)] == ["COMPLETED"] * 2, logs
    shown = run(f"manifest={folder}", command="status")
    assert "6 done" in shown.stdout
    assert "All cells are done." in shown.stdout
    page = json.loads((results / "report" / "collapse" / "collapse.json").read_text())
    policies = ["1", "0.5", "0.7"]
    assert [one["policy"] for one in page["measurements"]] == policies
    assert [one["policy"] for one in page["inside"]] == policies
    assert (results / "report" / "collapse" / "index.html").exists()
    again = run("launch=slurm", "manifest=latest", "results_dir=runs", command="collapse")
    assert again.returncode == 0, again.stderr
    assert "all elements are finished or submitted." in again.stdout


@pytest.mark.exhaustive
def test_whatever_becomes_of_its_elements_a_sweep_ends_as_one_process_would(
    run, tmp_path: Path
) -> None:
    results = tmp_path / "an array=1"
    folder_key = f'results_dir="{results}"'
    asked = run(
        "launch=slurm",
        "sweep=demo",
        folder_key,
        f"launch.elements={ELEMENTS}",
        "launch.max_running=2",
        "launch.time=20",
        "launch.memory=1G",
        "launch.signal_seconds=60",
        'launch.preamble="export MARK=seen; echo the preamble"',
        *SMALL_WITH_WORKERS,
    )
    assert asked.returncode == 0, asked.stderr
    assert f"{ELEMENTS} elements submitted as Slurm job" in asked.stdout
    (folder,) = (results / "sweeps").iterdir()
    (job,) = jobs_of(folder)

    # Nothing is submitted twice: what waits and runs comes to its cells by itself.
    again = run("launch=slurm", f'manifest="{folder}"')
    assert again.returncode == 0, again.stderr
    assert "all elements are finished or submitted; in Slurm's queue: 0-5" in again.stdout
    assert jobs_of(folder) == [job]

    wait_until(lambda: is_at_work(results, f"{job}_0"), "element 0 is at work")
    slurm("scontrol", "requeue", f"{job}_0")
    # scancel --signal=KILL would send SIGTERM first.
    killed: list[Holder] = []
    wait_until(lambda: bool(killed.extend(holders(results, f"{job}_1")) or killed), "element 1")
    os.kill(killed[0].process, signal.SIGKILL)
    wait_until(lambda: is_at_work(results, f"{job}_2"), "element 2 is at work")
    slurm("scancel", f"{job}_2")
    # One that has just begun: loading takes seconds, and its cells a second in all.
    wait_until(
        lambda: any(is_loading(folder, f"{job}_{one}") for one in (4, 5)),
        "another element loads its model",
    )
    earlier = {one: restarts(f"{job}_{one}") for one in range(ELEMENTS)}
    slurm(
        "sbatch", "--partition=high", "--ntasks=2", "--mem=1G", "--output=/dev/null", "--wrap=true"
    )
    wait_until(lambda: ended(folder), "the array and its report have ended", 900)
    assert restarts(f"{job}_0") >= 1
    # Which have to make room is Slurm's choice.
    assert any(restarts(f"{job}_{one}") > times for one, times in earlier.items())
    assert state(f"{job}_1") == "FAILED"
    assert state(f"{job}_2") == "CANCELLED"
    logs = folder / "logs"
    assert all("the preamble" in path.read_text() for path in logs.glob("slurm-*.out"))
    (report,) = logs.glob("report-*.out")
    assert f"Written to {results}/report" in " ".join(report.read_text().split())
    before = {path: path.stat().st_mtime_ns for path in json_results(results)}
    assert CELLS > len(before) > 0

    # What was killed and cancelled is missing, and only that is submitted again.
    again = run("launch=slurm", f'manifest="{folder}"', "launch.memory=1G", "launch.time=20")
    assert again.returncode == 0, again.stderr
    _, job = jobs_of(folder)
    assert set(json.loads((folder / "slurm.jsonl").read_text().splitlines()[1])["elements"]) <= {
        1,
        2,
    }
    wait_until(lambda: ended(folder), "the second array and its report have ended", 900)
    after = {path: path.stat().st_mtime_ns for path in json_results(results)}
    assert len(after) == CELLS
    assert {path: after[path] for path in before} == before
    assert not list(results.rglob(".*.attempt-*"))

    once_more = run("launch=slurm", f'manifest="{folder}"')
    assert "all elements are finished or submitted." in once_more.stdout
    assert len(jobs_of(folder)) == 2

    # The dependent job's report, one that is asked for, and that of a single process are one.
    single = run("sweep=demo", "results_dir=single", *SMALL_WITH_WORKERS)
    assert single.returncode == 0, single.stderr
    expected = (tmp_path / "single" / "report" / "table1.md").read_text()
    assert (results / "report" / "table1.md").read_text() == expected
    done = run(f'manifest="{folder}"', "report_dir=apart", command="report")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "apart" / "table1.md").read_text() == expected
    alone, array = scores(tmp_path / "single"), scores(results)
    assert len(alone) >= CELLS
    assert array == pytest.approx(alone, abs=1e-4)


@pytest.mark.exhaustive
def test_an_element_that_has_to_end_soon_comes_back_by_itself(run, tmp_path: Path) -> None:
    """USR1 as Slurm sends it before a job's time is over."""
    asked = run(
        "launch=slurm",
        "tau=[0.9,0.8,0.7]",
        "results_dir=runs",
        "launch.elements=1",
        "launch.memory=1G",
        "launch.signal_seconds=60",
        "launch.report=false",
        *SMALL_WITH_WORKERS,
    )
    assert asked.returncode == 0, asked.stderr
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    (job,) = jobs_of(folder)
    wait_until(lambda: len(json_results(tmp_path / "runs")) >= 2, "cells are finished")
    assert len(json_results(tmp_path / "runs")) < CELLS
    slurm("scancel", "--signal=USR1", "--batch", f"{job}_0")
    wait_until(lambda: restarts(f"{job}_0") == 1, "it is requeued")
    before = {path: path.stat().st_mtime_ns for path in json_results(tmp_path / "runs")}
    assert not list((tmp_path / "runs").rglob(".*.attempt-*")), "no cell is left half done"
    wait_until(lambda: ended(folder), "it has ended")
    after = {path: path.stat().st_mtime_ns for path in json_results(tmp_path / "runs")}
    assert len(after) == CELLS
    assert {path: after[path] for path in before} == before


def test_what_slurm_refuses_is_shown_in_its_words(run, tmp_path: Path) -> None:
    refused = run(
        "launch=slurm", "launch.partition=nowhere", "results_dir=runs", *SMALL_WITH_WORKERS
    )
    assert refused.returncode == 2
    assert "Invalid partition name specified" in refused.stderr
    assert "--partition=nowhere" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list((tmp_path / "runs").rglob("slurm.jsonl"))
    # Nor is it in the way of a submission that is not refused.
    refused = run("launch=slurm", "launch.memory=9999G", "manifest=latest", "results_dir=runs")
    assert refused.returncode == 2
    assert "Memory specification can not be satisfied" in refused.stderr


# That a job runs there, and says here how it ended, is seen below.
@pytest.mark.exhaustive
def test_hydras_own_launcher(run, make_model: Callable[[str], Path], tmp_path: Path) -> None:
    """It copies what is to be done into its jobs: that depends on where it was defined."""
    done = run(
        "-m",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.timeout_min=15",
        "hydra.launcher.mem_gb=1",
        "tau=0.9,0.8",
        f"model={make_model('bert')}",
        "tasks=[DocstringReranking]",
        "results_dir=runs",
        *SMALL,
        fresh=True,
    )
    assert done.returncode == 0, done.stderr
    found = [path.parent.name for path in json_results(tmp_path / "runs")]
    assert len(found) == 3
    assert {"tau_0.9", "tau_0.8"} < set(found)


def test_a_job_of_hydras_launcher_that_fails_is_reported_here(run) -> None:
    wrong = run(
        "-m",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.timeout_min=15",
        "hydra.launcher.mem_gb=1",
        "tau=0",
        "results_dir=runs",
        fresh=True,
    )
    assert wrong.returncode == 2
    assert "tau=0 is not a temperature" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_what_slurm_refuses_hydras_launcher_is_shown(run) -> None:
    refused = run(
        "-m",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=nowhere",
        "tau=0.9",
        fresh=True,
    )
    assert refused.returncode == 2
    assert "Invalid partition name specified" in refused.stderr
    assert "Traceback" not in refused.stderr
