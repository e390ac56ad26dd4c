"""Each cell is run by one process: claims, take-overs, stale views, and clocks that disagree."""

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lcbench.errors import StorageError
from lcbench.run import claims
from lcbench.run.claims import Attempt, Claims, Holder, attempts_in, here
from lcbench.system import process as machine


def dead() -> Holder:
    """A process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return replace(here(), token="dead", process=ended.pid, started="1")


def elsewhere(token: str = "elsewhere", **more: Any) -> Holder:
    """A process of another machine."""
    return replace(here(), token=token, host="node7", machine="another", **more)


def put(folder: Path, task: str, number: int, holder: Holder) -> Path:
    path = folder / f".{task}.attempt-{number}"
    path.symlink_to(json.dumps(asdict(holder)))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_claim_says_whose_it_is_and_goes_when_it_is_released(tmp_path: Path) -> None:
    with Claims() as mine:
        claim = mine.take(tmp_path / "cell", "STS12", over=0)
        assert claim is not None
        (found,) = attempts_in(tmp_path / "cell")
        assert (found.task, found.number) == ("STS12", 1)
        assert found.holder is not None
        assert found.holder.process == os.getpid()
        assert claims.is_alive_here(found.holder) is True
        assert mine.holds(claim)
        mine.release(claim)
    assert names(tmp_path / "cell") == []


def test_what_a_live_process_has_is_left_to_it(tmp_path: Path) -> None:
    with Claims() as one, Claims() as other:
        assert one.take(tmp_path, "STS12", over=0) is not None
        assert other.take(tmp_path, "STS12", over=0) is None
        claim_state = other.claim_state(tmp_path, "STS12", over=0)
        assert claim_state.holder is not None
        assert claim_state.holder.process == os.getpid()
        assert other.take(tmp_path, "STS1", over=0) is not None


def test_closing_releases_everything(tmp_path: Path) -> None:
    with Claims() as one:
        one.take(tmp_path, "STS12", over=0)
        one.take(tmp_path, "STS13", over=0)
    assert names(tmp_path) == []


def test_the_claim_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    put(tmp_path, "STS12", 1, dead())
    with Claims() as mine:
        claim = mine.take(tmp_path, "STS12", over=0)
        assert claim is not None
        assert claim.number == 2
        mine.release(claim)
    assert names(tmp_path) == []


def test_a_number_that_is_used_again_by_another_process_is_seen(tmp_path: Path) -> None:
    put(tmp_path, "STS12", 1, replace(here(), token="old", started="1"))
    with Claims() as mine:
        assert mine.take(tmp_path, "STS12", over=0) is not None


def test_a_job_that_slurm_has_restarted_takes_over_from_itself_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "STS12", 1, elsewhere(job="17_3", restart=0))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with Claims() as mine:
        assert mine.take(tmp_path, "STS12", over=0) is not None
    put(tmp_path, "STS12", 1, elsewhere(job="17_3", restart=0))
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    with Claims() as mine:
        assert mine.take(tmp_path, "STS12", over=0) is None


class Clock:
    """The process's own clock, which goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        stopped = SimpleNamespace(monotonic=lambda: self.seconds, sleep=time.sleep)
        monkeypatch.setattr(claims, "time", stopped)


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0])
def test_of_another_machine_only_changes_count_and_no_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    clock, path = Clock(monkeypatch), put(tmp_path, "STS12", 1, elsewhere())

    def beat() -> None:
        moment = int((time.time() + skew + clock.seconds) * 1e9)
        os.utime(path, ns=(moment, moment), follow_symlinks=False)

    beat()
    with Claims(lease_seconds=0.6) as mine:
        for _ in range(15):
            beat()
            assert mine.take(tmp_path, "STS12", over=0) is None
            clock.seconds += 0.1
        assert mine.claim_state(tmp_path, "STS12", over=0).is_fresh
        clock.seconds += 0.4
        assert mine.take(tmp_path, "STS12", over=0) is None
        clock.seconds += 0.4
        assert mine.take(tmp_path, "STS12", over=0) is not None


def test_a_claim_is_touched_while_it_is_held(tmp_path: Path) -> None:
    with Claims(heartbeat_seconds=0.05) as mine:
        claim = mine.take(tmp_path, "STS12", over=0)
        assert claim is not None
        before = claim.path.lstat().st_mtime_ns
        until = time.monotonic() + 60
        while claim.path.lstat().st_mtime_ns == before and time.monotonic() < until:
            time.sleep(0.05)
        assert claim.path.lstat().st_mtime_ns > before


def test_one_that_was_taken_for_dead_sees_it(tmp_path: Path) -> None:
    with Claims() as sleeper:
        claim = sleeper.take(tmp_path, "STS12", over=0)
        assert claim is not None
        put(tmp_path, "STS12", 2, elsewhere())
        assert not sleeper.holds(claim)
        sleeper.release(claim)
        # What it was taken over with is not its own.
        assert names(tmp_path) == [".STS12.attempt-2"]


def test_a_claim_that_was_removed_is_lost(tmp_path: Path) -> None:
    with Claims() as mine:
        claim = mine.take(tmp_path, "STS12", over=0)
        assert claim is not None
        claim.path.unlink()
        assert not mine.holds(claim)


def stale(monkeypatch: pytest.MonkeyPatch, views: list[list[Attempt]]) -> None:
    """Let the next looks at a folder see it as it was, like a client of NFS."""
    real = claims.attempts_in
    monkeypatch.setattr(
        claims,
        "attempts_in",
        lambda folder, names=None: views.pop(0) if views else real(folder, names),
    )


def test_a_stale_view_takes_nothing_away_from_who_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "STS12", 1, dead())
    old = attempts_in(tmp_path)
    with Claims() as quick, Claims() as slow:
        assert quick.take(tmp_path, "STS12", over=0) is not None
        stale(monkeypatch, [old])
        assert slow.take(tmp_path, "STS12", over=0) is None
        assert names(tmp_path) == [".STS12.attempt-1", ".STS12.attempt-2"]


def test_a_view_so_stale_that_it_shows_no_claim_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "STS12", 1, dead())
    with Claims() as quick, Claims() as slow:
        assert quick.take(tmp_path, "STS12", over=0) is not None
        (tmp_path / ".STS12.attempt-1").unlink()
        stale(monkeypatch, [[]])
        # It creates the first attempt, sees the second, and drops its own.
        assert slow.take(tmp_path, "STS12", over=0) is None
        assert names(tmp_path) == [".STS12.attempt-2"]


def test_a_process_of_the_same_job_that_died_is_taken_over_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several tasks of one job on several nodes, one of which is gone."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    put(tmp_path, "STS12", 1, elsewhere(job="17", restart=0))
    with Claims(lease_seconds=0.2) as mine:
        assert mine.take(tmp_path, "STS12", over=0) is None
        time.sleep(0.3)
        assert mine.take(tmp_path, "STS12", over=0) is not None


def test_a_number_that_is_given_again_is_another_claim(tmp_path: Path) -> None:
    with Claims() as sleeper, Claims() as other, Claims() as third:
        asleep = sleeper.take(tmp_path, "STS12", over=0)
        assert asleep is not None
        # It was taken for dead, and who took over has given up: the first number is free again.
        asleep.path.unlink()
        new = other.take(tmp_path, "STS12", over=0)
        assert new is not None
        assert new.path == asleep.path
        assert not sleeper.holds(asleep)
        sleeper.release(asleep)
        assert other.holds(new)
        assert third.take(tmp_path, "STS12", over=0) is None


def test_where_links_cannot_be_touched_a_claim_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.utime

    def followed(path: Path, *given: object, follow_symlinks: bool = True, **more: object) -> None:
        # As sshfs does it.
        real(path, *given, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "utime", followed)
    with Claims() as mine:
        claim = mine.take(tmp_path, "STS12", over=0)
        assert claim is not None
        assert claim.path.is_file()
        assert mine.holds(claim)


def test_another_users_process_that_cannot_be_seen_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc mounted with hidepid."""

    def forbidden(process: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(machine, "_stat", lambda process: None)
    monkeypatch.setattr(os, "kill", forbidden)
    put(tmp_path, "STS12", 1, replace(here(), token="other", process=1))
    with Claims(lease_seconds=0.2) as mine:
        assert mine.take(tmp_path, "STS12", over=0) is None
        time.sleep(0.3)
        assert mine.take(tmp_path, "STS12", over=0) is not None


def test_a_file_system_that_is_away_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Path.iterdir, 0

    def stale(self: Path) -> object:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(self)

    monkeypatch.setattr(Path, "iterdir", stale)
    monkeypatch.setattr("lcbench.system.transient._BACKOFF_SECONDS", (0.0, 0.0, 0.0))
    assert attempts_in(tmp_path) == []
    assert calls == 3


def test_attempts_that_failed_are_over_whoever_made_them(tmp_path: Path) -> None:
    put(tmp_path, "STS12", 2, elsewhere())
    with Claims() as mine:
        assert mine.take(tmp_path, "STS12", over=1) is None
        claim = mine.take(tmp_path, "STS12", over=2)
        assert claim is not None
        assert claim.number == 3


def test_where_there_are_no_symbolic_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with Claims() as one, Claims() as other:
        claim = one.take(tmp_path, "STS12", over=0)
        assert claim is not None
        assert claim.path.is_file()
        (found,) = attempts_in(tmp_path)
        assert found.holder is not None
        assert found.holder.process == os.getpid()
        assert other.take(tmp_path, "STS12", over=0) is None


def test_a_claim_that_says_nothing_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    (tmp_path / ".STS12.attempt-1").write_text("")
    with Claims(lease_seconds=0.2) as mine:
        assert mine.take(tmp_path, "STS12", over=0) is None
        clock.seconds += 0.3
        assert mine.take(tmp_path, "STS12", over=0) is not None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Claims() as mine, pytest.raises(StorageError, match="could not be written"):
        mine.take(tmp_path / "file", "STS12", over=0)


def _race(folder: Path, tasks: int, order: int, out: Any) -> None:
    taken = []
    with Claims() as mine:
        for number in sorted(range(tasks), key=lambda one: (one * 7919 * order) % tasks):
            done = folder / f"{number}.json"
            claim = None if done.exists() else mine.take(folder, f"T{number}", over=0)
            if claim is None:
                continue
            if not done.exists():
                taken.append(number)
                done.write_text("{}")
            mine.release(claim)
    out.put(taken)


def test_sixteen_processes_race_and_no_task_is_taken_twice(tmp_path: Path) -> None:
    context = get_context("fork")
    out, tasks = context.Queue(), 150
    racers = [
        context.Process(target=_race, args=(tmp_path, tasks, order, out)) for order in range(1, 17)
    ]
    began = time.monotonic()
    for racer in racers:
        racer.start()
    taken = Counter(number for _ in racers for number in out.get(timeout=120))
    for racer in racers:
        racer.join(30)
    assert set(taken.values()) == {1}
    # Whoever lost a race goes on to another task, and comes back to it in a later round.
    assert len(taken) >= 0.9 * tasks
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert time.monotonic() - began < 120


@pytest.mark.parametrize(
    "change", [{"process": [1]}, {"process": 10**30}, {"host": 3}, {"restart": "x"}]
)
def test_a_claim_of_odd_content_stops_nobody(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / ".T.attempt-1"
    path.symlink_to(json.dumps({**asdict(here()), **change}))
    (attempt,) = attempts_in(tmp_path)
    assert attempt.holder is None
    with Claims() as claims:
        assert claims.claim_state(tmp_path, "T", 0).number == 1
