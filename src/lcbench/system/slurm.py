"""Slurm as a job knows it: what is asked for it, and how it goes back into the queue."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

# In which Slurm's own commands have answered, or will not.
ANSWER_SECONDS = 120


@dataclass(frozen=True)
class JobOptions:
    """What Slurm is asked for, for the elements of a sweep.

    Attributes:
        max_running: elements that run at the same time, at most; None: not limited.
        partition: of Slurm; it and the following are left to the site where they are None.
        account: that is charged.
        qos: quality of service.
        gpus: of an element: a number, or a kind and a number (`a100:1`).
        cpus: of an element.
        memory: of an element, as Slurm writes it (`32G`).
        time: of an element, as Slurm writes it (`4:00:00`).
        signal_seconds: before its time ends, an element is told to finish what it is doing.
        requeue: whether an element that was told to stop goes back into the queue.
        report: whether a job that waits for the array writes the report.
        options: further options of sbatch, each a word.
        preamble: lines of shell that a job runs first: modules, conda.
    """

    max_running: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    signal_seconds: int = 120
    requeue: bool = True
    report: bool = True
    options: tuple[str, ...] = ()
    preamble: str = ""


def call(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float | None = ANSWER_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run one of Slurm's commands, and return its status and output.

    Args:
        command: the command and its arguments.
        environment: of the command; None: this process's.
        timeout: in seconds; None: wait for as long as it takes.

    Raises:
        OSError: it cannot be run; FileNotFoundError if it is not installed.
        subprocess.TimeoutExpired: it did not end in time.
    """
    return subprocess.run(  # noqa: S603
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment,
        timeout=timeout,
    )


def requeue(complain: Callable[[str], None], *, only_preempted: bool = False) -> bool:
    """Send the array element that this process is back into Slurm's queue.

    Slurm then ends this process (SIGTERM, which it ignores from here on), so that it is the last
    thing to be done. An element that was cancelled, or that Slurm itself is requeuing already, is
    left alone.

    Args:
        complain: told what Slurm says if it refuses.
        only_preempted: only if it has to make room for another job. Slurm requeues such an element
            by itself if it lasts until the end of its grace time, and not if it ends before.

    Returns:
        Whether it is on its way back. If Slurm refuses, `complain` gets its words.
    """
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    element = os.environ.get("SLURM_ARRAY_TASK_ID")
    # One element of an array has the array's own number; to Slurm that is all of them.
    name = f"{job}_{element}" if job and element else os.environ.get("SLURM_JOB_ID")
    if not name:
        return False
    handler = None
    with suppress(ValueError):
        # It is Slurm's answer to being asked; scontrol is to outlive it too, and inherits this.
        handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    shown = _scontrol(complain, "show", "job", "--oneliner", name)
    facts = dict(re.findall(r"(\w+)=(\S*)", shown or ""))
    is_running = facts.get("JobState") == "RUNNING"
    has_to_go = facts.get("PreemptTime", "None") != "None"
    may_go = facts.get("Requeue") != "0" and (has_to_go or not only_preempted)
    if is_running and may_go and _scontrol(complain, "requeue", name) is not None:
        return True
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)
    return False


def _scontrol(complain: Callable[[str], None], *arguments: str) -> str | None:
    """Return what scontrol prints; None: it fails, and has been quoted."""
    try:
        done = call(["scontrol", *arguments])
    except (OSError, subprocess.TimeoutExpired) as error:
        complain(f"scontrol {shlex.join(arguments)}: {error}")
        return None
    if done.returncode:
        words = done.stderr.strip() or done.stdout.strip()
        complain(f"scontrol {shlex.join(arguments)}: {words}")
        return None
    return done.stdout
