"""Submits a frozen sweep to Slurm as a job array, followed by a job that reports.

It uses Slurm's own commands (sbatch, squeue, scontrol) and shows their error messages. Submissions
are recorded in the sweep's folder:

    <folder>/preamble-<digest>.sh    shell lines that the jobs of a submission source first
    <folder>/slurm.jsonl             one line per submission
    <folder>/logs/                   one file per job

The jobs run `scripts/slurm_array.sbatch`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import LcbenchError, RequestError, StorageError
from lcbench.plan.manifest import ranges
from lcbench.system.files import without_links, write_atomically
from lcbench.system.programs import call
from lcbench.system.resources import shipped
from lcbench.system.slurm import JobOptions
from lcbench.system.words import clock, key_value, several

if TYPE_CHECKING:
    from lcbench.plan.manifest import Manifest

RECORDS = "slurm.jsonl"
_LOGS = "logs"
# The part of the time between the signal and a job's time limit that is left for dropping cells and
# writing. Slurm may be 30 s late with the signal (it checks time limits that often).
_WRITING_SECONDS = 45
# Memory of the job that reports: 1,400 cells with their items.
_REPORT_MEMORY = "4G"
# States of squeue in which an element waits or runs. A completing one has already ended.
_QUEUED = frozenset(
    {
        "PENDING",
        "CONFIGURING",
        "RUNNING",
        "SUSPENDED",
        "STOPPED",
        "SIGNALING",
        "RESIZING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
    }
)


@dataclass(frozen=True)
class Submission:
    """A submitted job array.

    Attributes:
        job: job id.
        cluster: cluster, where the site has several; "": the only one.
        elements: elements of the sweep that it runs.
        submitted: time of submission, in UTC (ISO 8601).
        command: command that submitted it.
    """

    job: int
    cluster: str
    elements: tuple[int, ...]
    submitted: str
    command: tuple[str, ...]


def array_script() -> Path:
    """Return the path of the script that jobs run."""
    return shipped("slurm_array.sbatch", "scripts/slurm_array.sbatch")


def array_command(
    manifest: Manifest,
    jobs: JobOptions,
    elements: Iterable[int],
    keys: Sequence[str] = (),
) -> list[str]:
    """Return the command that submits elements of a sweep.

    Args:
        manifest: manifest of the sweep.
        jobs: options of the jobs.
        elements: elements to submit, at least one.
        keys: further keys of `python -m lcbench` for each element, as `key=value`.
    """
    most = "" if jobs.max_running is None else f"%{jobs.max_running}"
    asked = {
        "gres": None if jobs.gpus is None or jobs.gpus == "0" else f"gpu:{jobs.gpus}",
        "cpus-per-task": jobs.cpus,
        "mem": jobs.memory,
        "time": jobs.time,
    }
    return [
        "sbatch",
        "--parsable",
        *_account(jobs),
        *(f"--{name}={value}" for name, value in asked.items() if value is not None),
        # The site's options may override those above, not those below.
        *jobs.options,
        f"--array={ranges(elements)}{most}",
        f"--job-name={_job_name(manifest)}",
        f"--output={_log(manifest, 'slurm-%A_%a')}",
        "--open-mode=append",
        "--requeue" if jobs.requeue else "--no-requeue",
        # B: the signal goes to Python, which informs its child processes.
        f"--signal=B:USR1@{jobs.signal_seconds}",
        f"--export=ALL,LCBENCH_GRACE={_grace_seconds(jobs)}",
        str(array_script()),
        _folder(manifest),
        sys.executable,
        "collapse" if manifest.measures else "run",
        _preamble(manifest, jobs),
        *keys,
    ]


def report_command(manifest: Manifest, jobs: JobOptions, array: Submission) -> list[str]:
    """Return the command that submits the report job, to run after an array has ended."""
    asked = {
        # A site that does not manage memory refuses this option.
        "mem": None if jobs.memory is None else _REPORT_MEMORY,
        "time": jobs.time,
        "clusters": array.cluster or None,
    }
    return [
        "sbatch",
        "--parsable",
        *_account(jobs),
        "--cpus-per-task=1",
        *(f"--{name}={value}" for name, value in asked.items() if value is not None),
        # Also after failed elements: the report shows what is missing.
        f"--dependency=afterany:{array.job}",
        f"--job-name={_job_name(manifest)}-report",
        f"--output={_log(manifest, 'report-%j')}",
        "--open-mode=append",
        "--export=ALL",
        str(array_script()),
        _folder(manifest),
        sys.executable,
        "report",
        _preamble(manifest, jobs),
    ]


def _account(jobs: JobOptions) -> list[str]:
    named = {"partition": jobs.partition, "account": jobs.account, "qos": jobs.qos}
    return [f"--{name}={value}" for name, value in named.items() if value is not None]


def _folder(manifest: Manifest) -> str:
    # A job may run in another folder (launch.options=[--chdir=…]).
    return str(manifest.folder.absolute())


def _preamble(manifest: Manifest, jobs: JobOptions) -> str:
    """Return the path of a submission's preamble; `-` if there is none.

    Each preamble has its own file, since elements of an earlier submission may still need theirs.
    The job compares the file with the digest in its name: others may be able to write there.
    """
    if not jobs.preamble.strip():
        return "-"
    digest = hashlib.sha256(_preamble_text(jobs).encode()).hexdigest()
    return f"{_folder(manifest)}/preamble-{digest}.sh"


def _preamble_text(jobs: JobOptions) -> str:
    # One newline at the end: a shell that reads it into a variable drops further ones.
    return jobs.preamble.rstrip("\n") + "\n"


def _job_name(manifest: Manifest) -> str:
    return f"lcbench-{manifest.folder.name}"


def _log(manifest: Manifest, name: str) -> str:
    # Slurm treats % in a file name as the beginning of a pattern.
    folder = _folder(manifest).replace("%", "%%")
    return f"{folder}/{_LOGS}/{name}.out"


def _grace_seconds(jobs: JobOptions) -> int:
    seconds = jobs.signal_seconds
    return max(seconds - _WRITING_SECONDS, (seconds + 1) // 2)


def launch(
    manifest: Manifest,
    jobs: JobOptions,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    keys: Sequence[str] = (),
) -> int:
    """Submit the elements of a sweep that are neither finished nor in Slurm's queue.

    Args:
        manifest: manifest of the sweep.
        jobs: options of the jobs.
        say: receives what was submitted.
        warn: receives Slurm's refusal of the report job.
        keys: further keys for each element.

    Returns:
        The exit status: 0.

    Raises:
        RequestError: Slurm refuses, or is not installed.
        LcbenchError: Slurm does not respond.
        StorageError: the sweep's folder cannot be written.
    """
    from lcbench.run.state import state_of, to_submit

    follow = "python -m lcbench status " + shlex.quote(key_value("manifest", _folder(manifest)))
    waiting = queued(manifest.folder)
    elements = tuple(to_submit(manifest, state_of(manifest), waiting))
    name = manifest.folder.name
    if not elements:
        where = f"; in Slurm's queue: {ranges(waiting)}" if waiting else ""
        say(f"{name}: all elements are finished or submitted{where}.")
        say(f"status: {follow}")
        return 0
    before = submissions(manifest.folder)
    job = submit(manifest, jobs, elements, warn, keys=keys, say=say)
    if before and (
        gone := _options(before[-1].command) - _options(array_command(manifest, jobs, elements))
    ):
        say(f"note: the last submission also had {' '.join(sorted(gone))}")
    submitted = f"{several(len(elements), 'element')} submitted as Slurm job {job}"
    say(f"{name}: {submitted}, {_lasting(manifest, elements)}")
    say(f"status: {follow}")
    say("run the same command again after the array ends to resubmit unfinished elements")
    return 0


def _options(command: Sequence[str]) -> set[str]:
    """Return the options of a submission that a user may want to repeat."""
    of_each = ("--array=", "--export=")
    return {one for one in command if one.startswith("--") and not one.startswith(of_each)}


def _lasting(manifest: Manifest, elements: Collection[int]) -> str:
    """Return the estimated time of elements in words."""
    seconds = dict.fromkeys(elements, 0.0)
    unknown = 0
    for line in manifest.lines:
        if line.element in seconds:
            seconds[line.element] += line.seconds or 0.0
            unknown += line.seconds is None
    least, most = min(seconds.values()), max(seconds.values())
    if not most:
        return "the time of each is unknown"
    span = clock(most) if clock(least) == clock(most) else f"{clock(least)} to {clock(most)}"
    without = f" ({unknown} of unknown cost left out)" if unknown else ""
    return f"estimated {span} each for a whole element{without}"


def submit(
    manifest: Manifest,
    jobs: JobOptions,
    elements: Collection[int],
    warn: Callable[[str], None],
    *,
    keys: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Submit elements of a sweep, and a report job that runs after them.

    Args:
        manifest: manifest of the sweep.
        jobs: options of the jobs.
        elements: elements to submit, at least one.
        warn: receives Slurm's refusal of the report job.
        keys: further keys for each element.
        say: receives a line about the report job.

    Returns:
        The job id of the array.

    Raises:
        RequestError: Slurm refuses the array, or is not installed.
        StorageError: the sweep's folder cannot be written.
    """
    folder = manifest.folder
    _write_preamble(manifest, jobs)
    command = array_command(manifest, jobs, elements, keys)
    job, cluster = _sbatch(command)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    array = Submission(job, cluster, tuple(sorted(set(elements))), now, tuple(command))
    _record(folder, array)
    if jobs.report:
        try:
            report, _ = _sbatch(report_command(manifest, jobs, array))
            say(f"Slurm job {report} writes the report after all elements have ended")
        except RequestError as error:
            # The array itself was submitted.
            sweep = shlex.quote(key_value("manifest", _folder(manifest)))
            warn(
                f"job {job} was submitted, but not the report job. {error}\nAfter it ends: "
                f"python -m lcbench report {sweep} (launch.report=false submits no report job)"
            )
    return job


def _write_preamble(manifest: Manifest, jobs: JobOptions) -> None:
    """Write the preamble of a submission, and make the folder for logs.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        (manifest.folder / _LOGS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{manifest.folder} cannot be written: {error.strerror}.") from error
    if (path := _preamble(manifest, jobs)) != "-":
        write_atomically(Path(path), _preamble_text(jobs))


def _sbatch(command: Sequence[str]) -> tuple[int, str]:
    """Submit a job; return its id and cluster."""
    try:
        done = call(command, timeout=None)
    except FileNotFoundError:
        raise RequestError(
            "launch=slurm: sbatch is not installed on this machine. Run this on a login node of "
            "the cluster, or run the sweep here: launch=local"
        ) from None
    except OSError as error:
        raise RequestError(f"launch=slurm: sbatch cannot be run: {error.strerror}.") from error
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip() or "(no reason given)"
        hint = ""
        if "Invalid job array specification" in words:
            hint = (
                "\nThe site limits array indices (scontrol show config | grep MaxArraySize): "
                "launch.elements=N makes fewer, larger elements."
            )
        raise RequestError(
            f"Slurm refuses the job (status {done.returncode}):\n{words}\n"
            f"The command was:\n{shlex.join(command)}{hint}"
        )
    # A site's wrapper may print more than the id.
    for line in reversed(done.stdout.split("\n")):
        if match := re.fullmatch(r"\s*(\d+)(?:;(\S+))?\s*", line):
            return int(match[1]), match[2] or ""
    raise RequestError(
        f"sbatch did not print a job id, but:\n{done.stdout}{done.stderr}\n"
        f"The command was:\n{shlex.join(command)}"
    )


def _record(folder: Path, submission: Submission) -> None:
    line = json.dumps(asdict(submission), ensure_ascii=False) + "\n"
    path = folder / RECORDS
    try:
        # A line whose writer was killed is incomplete; start a new line.
        whole = not path.exists() or path.read_bytes().endswith(b"\n")
        with open(path, "a", encoding="utf-8", opener=without_links) as file:
            file.write(line if whole else f"\n{line}")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"job {submission.job} was submitted, but {folder / RECORDS} cannot be written: "
            f"{error.strerror}. To cancel it: scancel {submission.job}"
        ) from error


def submissions(folder: Path) -> list[Submission]:
    """Return the submissions recorded in a sweep's folder, in order.

    Incomplete lines (of a killed writer, or on a full disk) are ignored: claims prevent a cell that
    is submitted twice from running twice at once.
    """
    try:
        text = (folder / RECORDS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{folder / RECORDS} cannot be read: {error.strerror}.") from error
    recorded = []
    for line in text.split("\n"):
        with suppress(ValueError, TypeError, KeyError):
            value = json.loads(line)
            recorded.append(
                Submission(
                    job=int(value["job"]),
                    cluster=str(value["cluster"]),
                    elements=tuple(map(int, value["elements"])),
                    submitted=str(value["submitted"]),
                    command=tuple(value["command"]),
                )
            )
    return recorded


def queued(folder: Path) -> frozenset[int]:
    """Return the elements of a sweep that wait or run in Slurm.

    Raises:
        LcbenchError: Slurm does not respond.
        StorageError: the record of submissions cannot be read.
    """
    jobs_of: dict[str, set[int]] = {}
    for one in submissions(folder):
        jobs_of.setdefault(one.cluster, set()).add(one.job)
    found: set[int] = set()
    for cluster, jobs in jobs_of.items():
        listed = _squeue(sorted(jobs), cluster)
        if listed is None:
            return frozenset()
        for line in listed.split("\n"):
            # The format below; for another cluster there is also a line with its name.
            if match := re.fullmatch(r"(\d+) (\d+) ([A-Z_]+) *", line.strip()):
                job, element, state = int(match[1]), int(match[2]), match[3]
                if job in jobs and state in _QUEUED:
                    found.add(element)
    return frozenset(found)


def _squeue(jobs: Sequence[int], cluster: str) -> str | None:
    """Return a line `<job> <element> <state>` for each element; None if squeue is not installed.

    For a single unknown job squeue fails; among several it skips unknown ones.
    """
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--jobs={','.join(map(str, jobs))}",
        "--format=%F %K %T",
    ]
    if cluster:
        command.insert(1, f"--clusters={cluster}")
    # Ignore a user's own settings for squeue (SQUEUE_USERS …).
    environment = {key: value for key, value in os.environ.items() if key[:7] != "SQUEUE_"}
    try:
        done = call(command, environment)
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LcbenchError(f"Slurm does not respond: {error}") from error
    if done.returncode == 0:
        return done.stdout
    if "Invalid job id" not in done.stderr:
        raise LcbenchError(
            f"Slurm does not respond (status {done.returncode} of squeue):\n"
            f"{done.stderr.strip() or done.stdout.strip()}"
        )
    if len(jobs) == 1:
        return ""
    return "".join(_squeue([job], cluster) or "" for job in jobs)
