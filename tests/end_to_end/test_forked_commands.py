"""What the other tests rest on: a forked command does what one of its own interpreter does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_server import OF_THE_HUB, tell_libraries_again
from commands import Commands

# Every string and path of the hub's libraries that begins with what they are told.
WHAT_THEY_HOLD = f"""
import json, sys
from pathlib import Path
import datasets, huggingface_hub.constants, transformers.dynamic_module_utils
print(json.dumps({{
    f"{{name}}.{{key}}": [type(value).__name__, str(value)]
    for name, module in sorted(sys.modules.items()) if name.partition(".")[0] in {OF_THE_HUB}
    for key, value in sorted(vars(module).items())
    if isinstance(value, (str, Path)) and str(value).startswith(("/told", "http://told"))
}}))
"""


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


@pytest.mark.exhaustive
def test_processes_that_run_tests_share_what_forks(tmp_path: Path) -> None:
    first, second, third = (Commands(os.environ, tmp_path / "shared") for _ in range(3))
    said = [one.run(["--version"], tmp_path, os.environ).stdout for one in (first, second)]
    first.close()
    said.append(second.run(["--version"], tmp_path, os.environ).stdout)
    assert len(set(said)) == 1
    assert said[0].startswith("lcbench ")
    assert (first._server is None, second._server is None) == (False, True)
    second.close()
    assert first._server is not None
    first._server.wait(60)
    # Whoever comes later starts another.
    assert third.run(["--version"], tmp_path, os.environ).stdout == said[0]
    assert third._server is not None
    third.close()
    assert third._server.poll() == 0


def test_what_a_library_reads_as_it_is_imported_needs_a_fresh_one(commands: Commands) -> None:
    for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "PYTHONPATH", "LC_ALL"):
        assert not commands.can_fork({**os.environ, name: "other"}), name
    assert not commands.can_fork({})
    assert not commands.can_fork({**os.environ, "HF_HOME": ""})
    # What this process has imported itself changes nothing.
    import mteb  # noqa: F401
    import sentence_transformers  # noqa: F401

    assert commands.can_fork(os.environ)
    assert commands.can_fork({**os.environ, "LCBENCH_GRACE": "1"})


def test_the_hubs_libraries_can_be_told_again_where_the_hub_is() -> None:
    """Then they hold what they would have if they were imported now."""
    environment = {**os.environ, "HF_HOME": "/told/home", "HF_ENDPOINT": "http://told:80"}
    fresh = subprocess.run(
        [sys.executable, "-c", WHAT_THEY_HOLD],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    expected = json.loads(fresh.stdout)
    assert expected["huggingface_hub.constants.HF_HUB_CACHE"] == ["str", "/told/home/hub"]
    assert expected["datasets.config.HF_ENDPOINT"] == ["str", "http://told:80"]
    assert len(expected) > 20
    import datasets
    import huggingface_hub.constants as constants
    import transformers.dynamic_module_utils  # noqa: F401

    assert datasets.config.HF_ENDPOINT == constants.ENDPOINT
    told = [(constants.HF_HOME, "/told/home"), (constants.ENDPOINT, "http://told:80")]
    found = {}
    try:
        for was, now in told:
            tell_libraries_again(was, now)
        for one in expected:
            name, _, key = one.rpartition(".")
            value = getattr(sys.modules[name], key)
            found[one] = [type(value).__name__, str(value)]
    finally:
        for was, now in told:
            tell_libraries_again(now, was)
    assert found == expected


def test_each_has_its_own_folder_and_environment(commands: Commands, tmp_path: Path) -> None:
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        environment = {**os.environ, "ODD": f"runs-{name}"}
        done = commands.run(["report", "results_dir=${oc.env:ODD}"], folder, environment)
        assert done.returncode == 2
        assert f"results_dir=runs-{name} has no results" in done.stderr
