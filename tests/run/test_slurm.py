"""What Slurm is asked, and what is made of its answers."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lcbench.cli import run
from lcbench.cli.console import complain, warn
from lcbench.errors import LcbenchError, RequestError, StorageError
from lcbench.plan.manifest import Line, Manifest
from lcbench.run import slurm
from lcbench.system.signals import Stop
from lcbench.system.slurm import JobOptions, requeue
from lcbench.system.words import key_value

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm_array.sbatch"
JOBS = JobOptions(
    max_running=4,
    partition="gpu",
    account="nlp",
    qos="long",
    gpus="a100:1",
    cpus=8,
    memory="32G",
    time="4:00:00",
    signal_seconds=120,
    options=("--constraint=nvme", "--mail-type=END"),
)
REFUSAL = "sbatch: error: Batch job submission failed: Invalid partition name specified"

Fake = Callable[[str, str], None]


@pytest.fixture
def sweep(tmp_path: Path) -> Manifest:
    folder = tmp_path / "my runs" / "sweeps" / "demo-12345678"
    folder.mkdir(parents=True)
    return Manifest(folder, "", (), {}, {}, ())


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Return a maker of commands that take the place of Slurm's; there are no others.

    What a command was called with is in `calls` in its folder, a line of JSON a call.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def make(name: str, body: str) -> None:
        path = folder / name
        path.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            f"with open({str(folder / 'calls')!r}, 'a') as calls:\n"
            f"    print(json.dumps([{name!r}, *sys.argv[1:]]), file=calls)\n{body}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return make


def calls(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "bin" / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_array_is_submitted_with_what_the_config_says(sweep: Manifest) -> None:
    command = slurm.array_command(sweep, JOBS, [0, 1, 2, 7, 9, 10], ["engine.device=cuda"])
    assert command == [
        "sbatch",
        "--parsable",
        "--partition=gpu",
        "--account=nlp",
        "--qos=long",
        "--gres=gpu:a100:1",
        "--cpus-per-task=8",
        "--mem=32G",
        "--time=4:00:00",
        "--constraint=nvme",
        "--mail-type=END",
        "--array=0-2,7,9-10%4",
        "--job-name=lcbench-demo-12345678",
        f"--output={sweep.folder}/logs/slurm-%A_%a.out",
        "--open-mode=append",
        "--requeue",
        "--signal=B:USR1@120",
        "--export=ALL,LCBENCH_GRACE=75",
        str(SCRIPT),
        str(sweep.folder),
        sys.executable,
        "run",
        "-",
        "engine.device=cuda",
    ]


def test_what_the_config_leaves_open_is_left_to_the_site(sweep: Manifest) -> None:
    jobs = JobOptions(signal_seconds=60, requeue=False)
    assert slurm.array_command(sweep, jobs, [3]) == [
        "sbatch",
        "--parsable",
        "--array=3",
        "--job-name=lcbench-demo-12345678",
        f"--output={sweep.folder}/logs/slurm-%A_%a.out",
        "--open-mode=append",
        "--no-requeue",
        "--signal=B:USR1@60",
        "--export=ALL,LCBENCH_GRACE=30",
        str(SCRIPT),
        str(sweep.folder),
        sys.executable,
        "run",
        "-",
    ]


def test_no_gpu_is_asked_for_where_none_is_wanted(sweep: Manifest) -> None:
    command = slurm.array_command(sweep, replace(JOBS, gpus="0"), [0])
    assert not [word for word in command if "gpu:" in word]


def test_a_percent_sign_in_a_folder_is_no_pattern(sweep: Manifest) -> None:
    odd = replace(sweep, folder=Path("/data/50%A/sweeps/demo"))
    assert "--output=/data/50%%A/sweeps/demo/logs/slurm-%A_%a.out" in slurm.array_command(
        odd, JOBS, [0]
    )


def test_a_relative_folder_becomes_absolute(sweep: Manifest) -> None:
    command = slurm.array_command(replace(sweep, folder=Path("runs/sweeps/demo")), JOBS, [0])
    assert f"--output={Path.cwd()}/runs/sweeps/demo/logs/slurm-%A_%a.out" in command
    assert f"{Path.cwd()}/runs/sweeps/demo" in command


def test_the_report_waits_for_the_array_and_is_small(sweep: Manifest) -> None:
    array = slurm.Submission(17, "", (0,), "", ())
    assert slurm.report_command(sweep, JOBS, array) == [
        "sbatch",
        "--parsable",
        "--partition=gpu",
        "--account=nlp",
        "--qos=long",
        "--cpus-per-task=1",
        "--mem=4G",
        "--time=4:00:00",
        "--dependency=afterany:17",
        "--job-name=lcbench-demo-12345678-report",
        f"--output={sweep.folder}/logs/report-%j.out",
        "--open-mode=append",
        "--export=ALL",
        str(SCRIPT),
        str(sweep.folder),
        sys.executable,
        "report",
        "-",
    ]


def test_the_report_runs_on_the_cluster_of_the_array(sweep: Manifest) -> None:
    array = slurm.Submission(17, "west", (0,), "", ())
    command = slurm.report_command(sweep, JobOptions(), array)
    assert [word for word in command if word.startswith(("--clusters", "--mem", "--time"))] == [
        "--clusters=west"
    ]


def test_a_submission_is_recorded_and_followed_by_its_report(
    sweep: Manifest, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("sbatch", "print('18' if 'report' in sys.argv else '17')")
    jobs = replace(JOBS, preamble="module load cuda")
    assert slurm.submit(sweep, jobs, [2, 0], warn) == 17
    array, report = calls(tmp_path)
    assert array == slurm.array_command(sweep, jobs, [0, 2])
    assert "--dependency=afterany:17" in report
    assert array[-1] == report[-1]
    assert Path(array[-1]).read_text() == "module load cuda\n"
    assert (sweep.folder / "logs").is_dir()
    (record,) = slurm.submissions(sweep.folder)
    assert (record.job, record.cluster, record.elements) == (17, "", (0, 2))
    assert list(record.command) == array
    assert "Slurm job 18" in capsys.readouterr().out


def test_each_submission_has_the_preamble_that_it_was_submitted_with(
    sweep: Manifest, fake: Fake, tmp_path: Path
) -> None:
    fake("sbatch", "print('17')")
    jobs = replace(JOBS, report=False)
    for preamble in ("module load cuda\n", "module load rocm\n", ""):
        slurm.submit(sweep, replace(jobs, preamble=preamble), [0], warn)
    one, other, none = (command[-1] for command in calls(tmp_path))
    # The first may be waiting yet.
    assert Path(one).read_text() == "module load cuda\n"
    assert Path(other).read_text() == "module load rocm\n"
    assert none == "-"


def test_no_report_is_submitted_where_none_is_wanted(
    sweep: Manifest, fake: Fake, tmp_path: Path
) -> None:
    fake("sbatch", "print('17')")
    slurm.submit(sweep, replace(JOBS, report=False), [0], warn)
    assert len(calls(tmp_path)) == 1


@pytest.mark.parametrize(
    ("output", "job", "cluster"),
    [("17", 17, ""), ("17;west", 17, "west"), ("Welcome!\\n\\n17;west\\n", 17, "west")],
)
def test_the_number_is_found_in_what_sbatch_prints(
    output: str, job: int, cluster: str, sweep: Manifest, fake: Fake
) -> None:
    fake("sbatch", f"print('{output}')")
    assert slurm.submit(sweep, replace(JOBS, report=False), [0], warn) == job
    assert slurm.submissions(sweep.folder)[0].cluster == cluster


def test_an_answer_without_a_number_is_shown(sweep: Manifest, fake: Fake) -> None:
    fake("sbatch", "print('Thank you for 2 jobs.')")
    with pytest.raises(RequestError, match=r"Thank you for 2 jobs\."):
        slurm.submit(sweep, JOBS, [0], warn)
    assert slurm.submissions(sweep.folder) == []


def test_a_refusal_is_shown_in_slurms_words_with_the_command(sweep: Manifest, fake: Fake) -> None:
    fake("sbatch", f"sys.exit({REFUSAL!r})")
    with pytest.raises(RequestError) as error:
        slurm.submit(sweep, JOBS, [0], warn)
    assert REFUSAL in str(error.value)
    assert shlex.join(slurm.array_command(sweep, JOBS, [0])) in str(error.value)
    assert "launch.elements" not in str(error.value)
    assert slurm.submissions(sweep.folder) == []


def test_too_long_an_array_is_hinted_at(sweep: Manifest, fake: Fake) -> None:
    fake("sbatch", "sys.exit('sbatch: error: Invalid job array specification')")
    with pytest.raises(RequestError, match=r"MaxArraySize.*\n*.*launch\.elements="):
        slurm.submit(sweep, JOBS, range(5000), warn)


def test_a_machine_without_slurm_is_named(sweep: Manifest, fake: Fake) -> None:
    with pytest.raises(
        RequestError, match=r"sbatch is not installed on this machine.*launch=local"
    ):
        slurm.submit(sweep, JOBS, [0], warn)


def test_a_report_that_is_refused_does_not_lose_the_array(
    sweep: Manifest, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake("sbatch", "sys.exit('no CPU jobs here') if 'report' in sys.argv else print(17)")
    assert slurm.submit(sweep, JOBS, [0], warn) == 17
    assert [one.job for one in slurm.submissions(sweep.folder)] == [17]
    said = capsys.readouterr().err
    assert "no CPU jobs here" in said
    command = f"""python -m lcbench report 'manifest="{sweep.folder}"'"""
    assert command in said


def test_a_folder_that_cannot_be_written_is_named(sweep: Manifest, fake: Fake) -> None:
    (sweep.folder / "logs").write_text("in the way")
    with pytest.raises(StorageError, match="demo-12345678 cannot be written"):
        slurm.submit(sweep, JOBS, [0], warn)


def submitted(sweep: Manifest, *jobs: int, cluster: str = "") -> None:
    for job in jobs:
        slurm._record(sweep.folder, slurm.Submission(job, cluster, (0, 1), "", ()))


def test_a_record_that_is_a_link_is_not_written_through(sweep: Manifest, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("of the user\n")
    (sweep.folder / "slurm.jsonl").symlink_to(tmp_path / "own.txt")
    with pytest.raises(StorageError, match=r"job 17 was submitted, but .*slurm\.jsonl cannot be"):
        submitted(sweep, 17)
    assert (tmp_path / "own.txt").read_text() == "of the user\n"


def test_a_record_is_one_line_whatever_is_in_it(sweep: Manifest) -> None:
    command = ("sbatch", "a\u2028b\x85c")
    slurm._record(sweep.folder, slurm.Submission(17, "", (0, 1), "now", command))
    (found,) = slurm.submissions(sweep.folder)
    assert found.command == command


def test_a_line_that_was_cut_off_is_passed_over(sweep: Manifest) -> None:
    submitted(sweep, 17)
    with (sweep.folder / "slurm.jsonl").open("a") as file:
        file.write('{"job": 18, "clus\n[1]\n')
    submitted(sweep, 19)
    assert [one.job for one in slurm.submissions(sweep.folder)] == [17, 19]


def test_nothing_is_asked_where_nothing_was_submitted(
    sweep: Manifest, fake: Fake, tmp_path: Path
) -> None:
    fake("squeue", "")
    assert slurm.queued(sweep.folder) == frozenset()
    assert calls(tmp_path) == []


def test_what_waits_or_runs_is_queued_and_what_has_ended_is_not(
    sweep: Manifest, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    submitted(sweep, 17, 21)
    fake(
        "squeue",
        "assert 'SQUEUE_STATES' not in os.environ\n"
        "print('17 0 COMPLETED\\n17 1 RUNNING\\n17 2 PENDING \\n17 3 CANCELLED\\n17 4 SUSPENDED')\n"
        "print('17 5 REQUEUED\\n17 6 COMPLETING\\n17 7 REQUEUE_HOLD\\n21 8 CONFIGURING')\n"
        "print('99 9 RUNNING\\nCLUSTER: west\\n21 N/A PENDING\\n21 10 TIMEOUT')",
    )
    assert slurm.queued(sweep.folder) == {1, 2, 4, 5, 7, 8}
    assert calls(tmp_path) == [
        ["squeue", "--noheader", "--array", "--states=all", "--jobs=17,21", "--format=%F %K %T"]
    ]


def test_a_job_that_slurm_has_forgotten_is_not_queued(
    sweep: Manifest, fake: Fake, tmp_path: Path
) -> None:
    submitted(sweep, 17, 18, 19)
    fake(
        "squeue",
        "jobs = next(one for one in sys.argv if one.startswith('--jobs='))[7:].split(',')\n"
        "if {'17', '19'} & set(jobs):\n"
        "    sys.exit('slurm_load_jobs error: Invalid job id specified')\n"
        "print('18 4 PENDING')",
    )
    assert slurm.queued(sweep.folder) == {4}
    assert len(calls(tmp_path)) == 4


def test_another_clusters_queue_is_asked_for_its_own_jobs(
    sweep: Manifest, fake: Fake, tmp_path: Path
) -> None:
    submitted(sweep, 17, cluster="west")
    submitted(sweep, 18)
    fake("squeue", "print('17 1 RUNNING' if '--clusters=west' in sys.argv else '18 2 PENDING')")
    assert slurm.queued(sweep.folder) == {1, 2}
    assert [[one for one in call if "s=1" in one] for call in calls(tmp_path)] == [
        ["--jobs=17"],
        ["--jobs=18"],
    ]


def test_nothing_is_queued_where_there_is_no_squeue(sweep: Manifest, fake: Fake) -> None:
    submitted(sweep, 17)
    assert slurm.queued(sweep.folder) == frozenset()


def test_a_slurm_that_does_not_answer_is_quoted(sweep: Manifest, fake: Fake) -> None:
    submitted(sweep, 17)
    words = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    fake("squeue", f"sys.exit({words!r})")
    with pytest.raises(LcbenchError) as error:
        slurm.queued(sweep.folder)
    assert words in str(error.value)
    assert error.value.exit_status == 1


@pytest.fixture
def in_element(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Let this process be element 3 of job 17, whose last element has the number 17."""
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    before = signal.getsignal(signal.SIGTERM)
    yield fake
    signal.signal(signal.SIGTERM, before)


def scontrol(state: str, preempted: str = "None", answer: str = "") -> str:
    return (
        "if sys.argv[1] == 'show':\n"
        f"    print('JobId=17 Account=(null) JobState={state} PreemptTime={preempted} Power=')\n"
        f"else:\n    {answer or 'pass'}"
    )


def test_outside_slurm_nothing_is_requeued(fake: Fake, tmp_path: Path) -> None:
    fake("scontrol", "")
    assert requeue(complain) is False
    assert calls(tmp_path) == []


def test_a_running_element_is_requeued_and_no_other(in_element: Fake, tmp_path: Path) -> None:
    # Slurm's answer to being asked reaches all processes of the job; scontrol must outlive it.
    in_element("scontrol", scontrol("RUNNING", answer="os.kill(os.getpid(), 15)"))
    assert requeue(complain) is True
    assert calls(tmp_path) == [
        ["scontrol", "show", "job", "--oneliner", "17_3"],
        ["scontrol", "requeue", "17_3"],
    ]
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "TIMEOUT", "PENDING"])
def test_an_element_that_is_ended_already_is_left_alone(
    state: str, in_element: Fake, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    in_element("scontrol", scontrol(state))
    assert requeue(complain) is False
    assert [call[1] for call in calls(tmp_path)] == ["show"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("preempted", "goes"), [("None", False), ("2026-11-21T18:18:47", True)])
def test_only_what_has_to_make_room(preempted: str, goes: bool, in_element: Fake) -> None:
    in_element("scontrol", scontrol("RUNNING", preempted))
    assert requeue(complain, only_preempted=True) is goes


def test_a_requeue_that_is_refused_is_shown(
    in_element: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    words = "17_3: Requested operation is presently disabled"
    in_element("scontrol", scontrol("RUNNING", answer=f"sys.exit({words!r})"))
    assert requeue(complain) is False
    assert words in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_missing_scontrol_is_shown(in_element: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert requeue(complain) is False
    assert "scontrol show job" in capsys.readouterr().err


def script(
    folder: Path, *arguments: str, python: str = sys.executable
) -> "subprocess.CompletedProcess[str]":
    """Run the sbatch file as Slurm does, with a Python that prints what it is called with."""
    return subprocess.run(
        ["bash", str(SCRIPT), str(folder), python, *arguments],
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "3"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """An executable that prints its arguments and the sweep's folder from the environment."""
    path = tmp_path / "a python"
    path.write_text(
        '#!/usr/bin/env bash\nprintf \'%s\\n\' "$@" "$LCBENCH_SWEEP" "$FROM_PREAMBLE"\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["demo", "a b=c,d", "${x}'\"é#\\", "-n"])
def test_a_job_runs_its_element_whatever_the_folder_is_called(
    name: str, tmp_path: Path, shown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    done = script(folder, "run", "-", "engine.device=cuda", python=str(shown))
    assert done.returncode == 0, done.stderr
    *command, sweep, _ = done.stdout.splitlines()
    assert command == [
        "-m",
        "lcbench",
        "manifest=${oc.env:LCBENCH_SWEEP}",
        "element=3",
        "engine.device=cuda",
    ]
    assert sweep == str(folder)
    # As Hydra reads it.
    one = OverridesParser.create().parse_override(command[2])
    monkeypatch.setenv("LCBENCH_SWEEP", sweep)
    assert OmegaConf.create({"manifest": one.value()}).manifest == str(folder)


def test_a_job_reports(tmp_path: Path, shown: Path) -> None:
    done = script(tmp_path, "report", "-", python=str(shown))
    assert done.stdout.splitlines()[:4] == [
        "-m",
        "lcbench",
        "report",
        "manifest=${oc.env:LCBENCH_SWEEP}",
    ]


def test_the_preamble_comes_first_and_sees_no_arguments(tmp_path: Path, shown: Path) -> None:
    (tmp_path / "preamble.sh").write_text('export FROM_PREAMBLE="loaded $#"\n')
    done = script(tmp_path, "run", str(tmp_path / "preamble.sh"), python=str(shown))
    assert done.stdout.splitlines()[-1] == "loaded 0"


@pytest.mark.parametrize("line", ["false\ntrue", "exit 7", "module load cuda\ntrue"])
def test_a_preamble_that_fails_ends_the_job(line: str, tmp_path: Path, shown: Path) -> None:
    (tmp_path / "preamble.sh").write_text(f"{line}\n")
    done = script(tmp_path, "run", str(tmp_path / "preamble.sh"), python=str(shown))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "the preamble failed with status" in done.stderr
    assert str(tmp_path / "preamble.sh") in done.stderr


def test_a_preamble_that_was_changed_is_not_run(
    sweep: Manifest, tmp_path: Path, shown: Path
) -> None:
    jobs = replace(JOBS, preamble="export FROM_PREAMBLE='a  b'\n\necho loaded\n\n")
    slurm._write_preamble(sweep, jobs)
    preamble = Path(slurm.array_command(sweep, jobs, [0])[-1])
    done = script(tmp_path, "run", str(preamble), python=str(shown))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "loaded"
    assert done.stdout.splitlines()[-1] == "a  b"
    preamble.write_text(f"{preamble.read_text()}echo changed\n")
    done = script(tmp_path, "run", str(preamble), python=str(shown))
    assert (done.returncode, done.stdout) == (1, "")
    assert "was changed after the job was submitted" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_an_element_is_not_ended_before_python_hears(
    number: signal.Signals, tmp_path: Path, shown: Path
) -> None:
    (tmp_path / "preamble.sh").write_text(f"kill -{number.name} $$\n")
    shown.write_text(f"{shown.read_text()}kill -{number.name} $$; echo alive\n")
    done = script(tmp_path, "run", str(tmp_path / "preamble.sh"), python=str(shown))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "alive"


def test_a_record_that_is_not_whole_takes_no_other_with_it(sweep: Manifest, fake: Fake) -> None:
    fake("sbatch", "print('17')")
    slurm.submit(sweep, replace(JOBS, report=False), [0], warn)
    with (sweep.folder / "slurm.jsonl").open("a") as file:
        file.write('{"job": 18, "clus')
    slurm.submit(sweep, replace(JOBS, report=False), [1], warn)
    assert [one.elements for one in slurm.submissions(sweep.folder)] == [(0,), (1,)]
    assert len((sweep.folder / "slurm.jsonl").read_text().splitlines()) == 3


def test_what_was_asked_for_the_last_time_and_is_not_now_is_reported(
    sweep: Manifest, fake: Fake
) -> None:
    fake("sbatch", "print('17')")
    fake("squeue", "")
    said: list[str] = []
    jobs = replace(JOBS, report=False)
    one = frozen(sweep, 1.0)
    slurm.launch(one, replace(jobs, partition="gpu", gpus="1"), said.append, warn)
    slurm.launch(one, replace(jobs, partition="gpu", gpus=None), said.append, warn)
    assert "note: the last submission also had --gres=gpu:1" in said


def test_a_script_that_is_called_by_hand_says_what_it_takes(tmp_path: Path) -> None:
    done = script(tmp_path, "walk", "-")
    assert done.returncode == 2
    assert "walk is neither run, collapse nor report" in done.stderr


def test_the_script_is_found_in_the_checkout() -> None:
    assert slurm.array_script() == SCRIPT


@pytest.mark.parametrize(
    "path",
    ["/a/b-1_2.x", "/a b", "/a=b", "/é", '/a"b', "/a\\", '/a\\"b', "/${x}", "/a'b,c", "~x", "/[a]"],
)
def test_a_path_survives_hydras_grammar(path: str) -> None:
    one = OverridesParser.create().parse_override(key_value("manifest", path))
    assert OmegaConf.create({"manifest": one.value()}).manifest == path


def test_a_plain_path_stays_plain() -> None:
    assert key_value("manifest", Path("/a/b-1.2")) == "manifest=/a/b-1.2"


@pytest.mark.parametrize(
    ("gentle", "progressed", "preempted", "goes", "complains"),
    [
        # Its time is over.
        (True, True, "None", True, False),
        (True, False, "None", False, True),
        # It has to make room, told by SIGUSR1 or, where a site sends no such, by SIGTERM.
        (True, False, "2026-11-21T18:18:47", True, False),
        (False, False, "2026-11-21T18:18:47", True, False),
        # Someone ended it by hand.
        (False, True, "None", False, False),
    ],
)
def test_which_elements_come_back(
    gentle: bool,
    progressed: bool,
    preempted: str,
    goes: bool,
    complains: bool,
    in_element: Fake,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    in_element("scontrol", scontrol("RUNNING", preempted))
    stop = Stop()
    stop.is_gentle, stop.progressed = gentle, progressed
    run.requeue_element(stop)
    assert (["scontrol", "requeue", "17_3"] in calls(tmp_path)) is goes
    assert ("nothing was finished" in capsys.readouterr().err) is complains


def frozen(sweep: Manifest, *seconds: float | None) -> Manifest:
    """Return a sweep of one cell an element, none of which is finished."""
    return replace(
        sweep,
        lines=tuple(
            Line(number, number, "a/model", "1", "1", f"Task{number}", "paper-1", "cells", one)
            for number, one in enumerate(seconds)
        ),
    )


def said_by_launch(sweep: Manifest) -> list[str]:
    said: list[str] = []
    assert slurm.launch(sweep, JOBS, said.append, warn) == 0
    return said


def test_what_is_missing_is_submitted_and_reported(
    sweep: Manifest, fake: Fake, tmp_path: Path
) -> None:
    fake("sbatch", "print('18' if 'report' in sys.argv else '17')")
    fake("squeue", "print('17 0 PENDING\\n17 1 RUNNING\\n17 2 COMPLETED')")
    planned = frozen(sweep, 60, 120, None)
    follow = f"""status: python -m lcbench status 'manifest="{sweep.folder}"'"""
    assert said_by_launch(planned) == [
        "Slurm job 18 writes the report after all elements have ended",
        "demo-12345678: 3 elements submitted as Slurm job 17, estimated 0:00 to 2:00 each for a "
        "whole element (1 of unknown cost left out)",
        follow,
        "run the same command again after the array ends to resubmit unfinished elements",
    ]
    assert any("1 element submitted" in line for line in said_by_launch(planned))
    assert [one.elements for one in slurm.submissions(sweep.folder)] == [(0, 1, 2), (2,)]
    fake("squeue", "print('17 0 PENDING\\n17 1 RUNNING\\n17 2 PENDING')")
    assert said_by_launch(planned) == [
        "demo-12345678: all elements are finished or submitted; in Slurm's queue: 0-2.",
        follow,
    ]
