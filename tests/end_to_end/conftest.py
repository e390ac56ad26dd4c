"""Run commands as a user would."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import Commands, without_slow_steps
from end_to_end_support import SMALL_WITH_WORKERS, Finished
from filelock import FileLock
from hub_server import DeadHub
from huggingface_hub import constants

from lcbench.cli import app

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


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Finished:
    """A finished sweep, made once for all processes that run tests; whoever needs one copies it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, said = shared / "finished", shared / "finished.json"
    with FileLock(shared / "finished.lock"):
        if not said.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            words = ["tau=0.8", "results_dir=runs", *SMALL_WITH_WORKERS]
            done = commands.run(words, folder, {**os.environ, "FIGURES": "1"})
            assert (done.returncode, done.stderr) == (0, "")
            said.write_text(json.dumps(done.stdout))
    return Finished(folder / "runs", json.loads(said.read_text()))


@pytest.fixture
def dead_hub() -> Iterator[DeadHub]:
    """An address of a hub that hangs up, and counts how often it is called."""
    with DeadHub() as hub:
        yield hub


@pytest.fixture
def run(tmp_path: Path, commands: Commands) -> Run:
    """Return a runner of `python -m lcbench [command] <arguments>` in an empty folder.

    With `fresh=True`, or an environment that a library may read when it is imported, in an
    interpreter of its own.
    """

    def runner(
        *arguments: str, command: str | None = None, fresh: bool = False, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return commands.run(
            [*([command] if command else []), *arguments],
            tmp_path,
            {**os.environ, **environment},
            fresh=fresh,
        )

    return runner


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Return a runner like `run` that carries a command line out in the process of the test.

    For requests that are refused, listings and estimates: they leave this process as it was, and
    are done before another one has begun.
    """

    def runner(
        *arguments: str, command: str | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        words = [*([command] if command else []), *arguments]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["lcbench", *words])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if address := environment.get("HF_ENDPOINT"):
            monkeypatch.setattr(constants, "ENDPOINT", address)
        capsys.readouterr()
        status = app.run(words)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(words, status, out, without_slow_steps(err))

    return runner
