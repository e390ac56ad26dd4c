"""Prefetch, then run with no network; a site's mirror of the hub; no network and nothing here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from end_to_end_support import json_results
from hub_server import DeadHub, Hub, Repository, serving

from lcbench.tasks.registry import registry

TASK, MODEL, COMMIT = "STS13", "tests/tiny", "a" * 40
KEYS = ("model=custom", f"model.name={MODEL}", f"tasks=[{TASK}]")
RUN = [sys.executable, "-m", "lcbench"]
PREFETCH = [sys.executable, "-m", "lcbench", "prefetch"]
# Nothing listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def hub(mirror: Path, make_model: Callable[[str], Path]) -> Iterator[Hub]:
    """A hub that serves a tiny model and a dataset of the mirror at the revision of mteb's."""
    entry = registry().tasks[TASK]
    folder = mirror / entry.dataset
    with serving(
        Repository.of_folder("model", MODEL, COMMIT, make_model("bert")),
        Repository.of_folder("dataset", entry.dataset, entry.revision, folder),
    ) as served:
        yield served


def scores(folder: Path) -> dict[str, float]:
    """Return the main score by the folder of its τ."""
    found = {}
    for path in json_results(folder):
        (entry,) = json.loads(path.read_text())["scores"]["test"]
        found[path.parent.name] = entry["main_score"]
    return found


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return every file and folder with its size and time of change."""
    paths = sorted([folder, *folder.rglob("*")])
    stats = [path.lstat() for path in paths]
    return [
        (str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True)
    ]


@pytest.mark.mirror
def test_fetched_and_run_without_a_network(run, tmp_path: Path, hub: Hub) -> None:
    """The one below also kills it, and compares with what the hub's dataset was made of."""
    fetched = run(*KEYS, "mirror=m", command="prefetch", HF_ENDPOINT=hub.address)
    assert fetched.returncode == 0, fetched.stderr
    before, asked = listing(tmp_path / "m"), len(hub.requests)
    done = run(*KEYS, "tau=0.8", "mirror=m", "offline=true", "results_dir=runs")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(scores(tmp_path / "runs")) == {COMMIT, "tau_0.8"}
    assert listing(tmp_path / "m") == before
    assert len(hub.requests) == asked


@pytest.mark.exhaustive
@pytest.mark.mirror
@pytest.mark.slow
def test_killed_resumed_and_run_without_a_network(
    run, tmp_path: Path, hub: Hub, mirror: Path
) -> None:
    """Also by two jobs at once, which only read the folder."""
    online = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_TELEMETRY": "1"}
    hub.seconds_a_chunk = 0.02
    command = subprocess.Popen(
        [*PREFETCH, *KEYS, "mirror=m"], cwd=tmp_path, env=online, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while hub.sent.get("model.safetensors", 0) < 100_000:
        assert command.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    command.send_signal(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    small = {path: sent for path, sent in hub.sent.items() if path != "model.safetensors"}
    assert "tokenizer.json" in small

    # Half of it is no model, and no data: all of that is said.
    half = run(*KEYS, "mirror=m", "offline=true", HF_ENDPOINT=NOWHERE)
    assert half.returncode == 2
    assert f"model=custom: {MODEL}" in half.stderr
    assert f"mteb/sts13-sts (for {TASK})" in half.stderr
    assert f"prefetch {KEYS[0]} {KEYS[1]} '{KEYS[2]}' mirror=m\n" in half.stderr

    hub.seconds_a_chunk = 0.0
    hub.sent.clear()
    again = run(*KEYS, "mirror=m", command="prefetch", HF_ENDPOINT=hub.address)
    assert again.returncode == 0, again.stderr
    # What was whole is not fetched again.
    assert not set(small) & set(hub.sent) - {"README.md"}
    size = len(hub.repositories[0].files["model.safetensors"])
    assert hub.sent["model.safetensors"] == size
    record = json.loads((tmp_path / "m" / "lcbench-manifest.json").read_text())
    assert {one["name"]: one["revision"] for one in record["repositories"]} == {
        MODEL: COMMIT,
        "mteb/sts13-sts": registry().tasks[TASK].revision,
    }

    before = listing(tmp_path / "m")
    asked = len(hub.requests)
    jobs = [
        subprocess.Popen(
            [*RUN, *KEYS, f"tau={tau}", "mirror=m", "offline=true", f"results_dir=job-{tau}"],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": NOWHERE},
            stdout=subprocess.DEVNULL,
        )
        for tau in (0.8, 0.7)
    ]
    assert [job.wait(timeout=300) for job in jobs] == [0, 0]
    assert listing(tmp_path / "m") == before
    assert len(hub.requests) == asked
    first, second = (scores(tmp_path / f"job-{tau}") for tau in (0.8, 0.7))
    assert set(first) == {COMMIT, "tau_0.8"}
    assert first[COMMIT] == second[COMMIT]

    # With all of it here the network is not needed, whether or not the request says so.
    plain = run(*KEYS, "tau=1.0", "mirror=m", "results_dir=plain", HF_ENDPOINT=NOWHERE)
    assert plain.returncode == 0, plain.stderr
    assert scores(tmp_path / "plain") == {COMMIT: first[COMMIT]}
    # The same score as from the folder that the hub's dataset was made of.
    direct = run(
        "model=custom",
        f"model.name={next((tmp_path / 'm').glob('models--*/snapshots/*'))}",
        KEYS[2],
        "tau=1.0",
        f"mirror={mirror}",
        "results_dir=direct",
    )
    assert direct.returncode == 0, direct.stderr
    assert list(scores(tmp_path / "direct").values()) == [first[COMMIT]]


@pytest.mark.mirror
@pytest.mark.slow
def test_a_sites_mirror_of_the_hub(run, tmp_path: Path, hub: Hub) -> None:
    """All cells are of the same data, whether `datasets` fetched it or found it."""
    caches = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": NOWHERE}
    request = [*KEYS, "results_dir=runs", "engine.scoring=0"]
    done = run(*request, "tau=0.8", f"mirror={hub.address}", **caches)
    assert done.returncode == 0, done.stderr
    assert any(one.startswith("GET /large/dataset/mteb/sts13-sts") for one in hub.requests)
    found = scores(tmp_path / "runs")
    assert set(found) == {COMMIT, "tau_0.8"}
    # Neither cell was refused as being of other data than its baseline.
    assert "refused" not in done.stdout
    assert f"ours, τ = 0.8 {100 * found['tau_0.8']:.2f}" in " ".join(done.stdout.split())
    # What it left in the hub's cache is enough from then on.
    hub.requests.clear()
    again = run(*request, "tau=0.7", "offline=true", **caches)
    assert again.returncode == 0, again.stderr
    assert hub.requests == []
    assert set(scores(tmp_path / "runs")) == {COMMIT, "tau_0.8", "tau_0.7"}


@pytest.mark.parametrize("offline", ["true", "false"])
def test_no_network_and_nothing_here(
    typed, dead_hub: DeadHub, tmp_path: Path, offline: str
) -> None:
    done = typed("model=bge", "tau=0.8", f"offline={offline}", HF_ENDPOINT=dead_hub.address)
    # Whoever asks a hub again and again takes minutes.
    assert dead_hub.calls == (offline == "false")
    assert done.returncode == 2
    why = (
        "offline=true forbids fetching it"
        if offline == "true"
        else f"({dead_hub.address}) does not respond"
    )
    assert why in done.stderr
    assert "model=bge: BAAI/bge-base-en-v1.5 (revision a5beb1e3" in done.stderr
    assert "  python -m lcbench prefetch model=bge tau=0.8 mirror=mirror\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_all_of_a_sweep_is_named_at_once(typed, dead_hub: DeadHub) -> None:
    done = typed("sweep=paper", "offline=true", HF_ENDPOINT=dead_hub.address)
    # One dataset after the other would take minutes.
    assert dead_hub.calls == 0
    assert done.returncode == 2
    # Five models, and 37 datasets for 40 tasks.
    assert sum(line.startswith("  model=") for line in done.stderr.splitlines()) == 5
    assert sum(" (for " in line for line in done.stderr.splitlines()) == 37
    assert "  python -m lcbench prefetch sweep=paper mirror=mirror\n" in done.stderr


def test_the_command_that_helps_can_be_typed(typed, tmp_path: Path) -> None:
    """What prefetch does not take is left out, what the shell would read is quoted."""
    (tmp_path / "m m").mkdir()
    done = typed(
        "model=bge",
        "tau={query: 0.8, document: 1.0}",
        "mirror=m m",
        "offline=true",
        "out=x",
        command="export",
    )
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1].strip()
    assert line == (
        "python -m lcbench prefetch model=bge 'tau={query: 0.8, document: 1.0}' 'mirror=m m'"
    )
    command = line.replace("python", sys.executable, 1)
    typed = subprocess.run(
        ["bash", "-c", f"{command} offline=true"], cwd=tmp_path, capture_output=True, text=True
    )
    assert typed.returncode == 2
    assert "model BAAI/bge-base-en-v1.5 (revision a5beb1e3" in typed.stderr


def test_a_mirror_that_is_not_there(typed) -> None:
    done = typed("mirror=nowhere")
    assert done.returncode == 2
    assert "`python -m lcbench prefetch KEYS mirror=nowhere` fills" in done.stderr
