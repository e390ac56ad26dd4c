"""What the other tests rest on: a forked command does what one of its own interpreter does."""

import os
from pathlib import Path

import pytest
from commands import Commands


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["tau=0"], ["report", "results_dir=nothing"], ["tasks", "suite=docs"]],
    ids=" ".join,
)
def test_it_says_the_same_as_a_fresh_one(
    commands: Commands, tmp_path: Path, arguments: list[str]
) -> None:
    assert commands.can_fork(os.environ)
    forked = commands.run(arguments, tmp_path, os.environ)
    fresh = commands.run(arguments, tmp_path, os.environ, fresh=True)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        fresh.returncode,
        fresh.stdout,
        fresh.stderr,
    )


def test_what_a_library_reads_as_it_is_imported_needs_a_fresh_one(commands: Commands) -> None:
    for name in ("HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "PYTHONPATH", "LC_ALL"):
        assert not commands.can_fork({**os.environ, name: "other"}), name
    assert not commands.can_fork({})
    # What this process has imported itself changes nothing.
    import mteb  # noqa: F401
    import sentence_transformers  # noqa: F401

    assert commands.can_fork(os.environ)
    assert commands.can_fork({**os.environ, "LCBENCH_GRACE": "1"})


def test_each_has_its_own_folder_and_environment(commands: Commands, tmp_path: Path) -> None:
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        environment = {**os.environ, "ODD": f"runs-{name}"}
        done = commands.run(["report", "results_dir=${oc.env:ODD}"], folder, environment)
        assert done.returncode == 2
        assert f"results_dir=runs-{name} has no results" in done.stderr
