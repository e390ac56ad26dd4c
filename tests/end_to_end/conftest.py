"""Run commands as a user would."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def slurm() -> None:
    """A Slurm that answers; skips where there is none."""
    try:
        found = subprocess.run(["sinfo"], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        found = None
    if found is None or found.returncode:
        pytest.skip("no Slurm answers: sinfo has to work")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a runner of `python -m lcbench [command] <arguments>` in an empty folder."""

    def runner(
        *arguments: str, command: str | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "lcbench", *([command] if command else []), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
            # Long enough for a machine that does other things as well.
            timeout=900,
            check=False,
        )

    return runner
