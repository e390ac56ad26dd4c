"""Holds the options of a Slurm job, and requeues this job."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from lcbench.system.programs import call


@dataclass(frozen=True)
class JobOptions:
    """The resources that a sweep's array tasks request from Slurm.

    Attributes:
        max_running: the most array tasks that run at the same time; None: no limit.
        partition: partition; like the following, left to the site's default if None.
        account: account that is charged.
        qos: quality of service.
        gpus: GPUs per array task: a number, or a kind and a number (`a100:1`).
        cpus: CPUs per array task.
        memory: memory per array task, as Slurm writes it (`32G`).
        time: time limit of an array task, as Slurm writes it (`4:00:00`).
        signal_seconds: seconds before the time limit at which a task is asked to finish.
        requeue: whether a task that was asked to stop is requeued.
        report: whether a job that depends on the array writes the report.
        options: further options of sbatch, one word each.
        preamble: shell lines that a job runs first: modules, conda.
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


def requeue(complain: Callable[[str], None], *, only_preempted: bool = False) -> bool:
    """Put the array task that this process runs back into Slurm's queue.

    Slurm then ends this process (with SIGTERM, which it ignores from here on), so this must be its
    last action. A task that was cancelled, or that Slurm is already requeuing, is left alone.

    Args:
        complain: receives Slurm's message if it refuses.
        only_preempted: only if the task was preempted by another job. Slurm requeues such a task
            itself if it lasts until the end of its grace time, but not if it ends earlier.

    Returns:
        Whether the task is being requeued.
    """
    job = os.environ.get("SLURM_ARRAY_JOB_ID")
    element = os.environ.get("SLURM_ARRAY_TASK_ID")
    # One task of an array has the array's job id, which to Slurm means all of them.
    name = f"{job}_{element}" if job and element else os.environ.get("SLURM_JOB_ID")
    if not name:
        return False
    handler = None
    with suppress(ValueError):
        # Slurm sends it in answer to the request; scontrol must survive it too, and inherits this.
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
    """Return scontrol's output, or None after passing its error to `complain`."""
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
