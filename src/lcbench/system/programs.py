"""Runs other programs, such as Slurm's commands and nvidia-smi."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

# The time limit, unless another is given: a busy Slurm answers slowly.
_ANSWER_SECONDS = 120


def call(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float | None = _ANSWER_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run a program, and return its status and output.

    Args:
        command: the program and its arguments.
        environment: of the program; None: this process's.
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
