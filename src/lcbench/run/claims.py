"""Claims make sure that each cell is run by one process, on any number of machines.

A process that begins a cell creates `.<Task>.attempt-<n>` in the folder of the cell's results, with
n one more than any attempt before, and removes it when the attempt is over. This relies only on a
file system creating a name exactly once (which holds for NFS, without lock daemons):

- A claim of a live process is never changed: a process that takes over from a dead one creates
  n + 1. That fails if another was quicker, even if this process's view of the folder is stale.
- Creating a name in a folder updates this process's view of the folder, so the work of others is
  checked afterwards: a result, a failure, another claim. If there is any, the new claim is dropped.
- Whether a process of this machine is alive is asked of the system. For another machine only
  changes count: a process touches its claims every few seconds, and it counts as dead when a claim
  has not changed for `LEASE_SECONDS` of this process's own clock. Clocks are never compared.
- A process that was taken for dead while it slept notices, and drops its result: it checks its own
  claim before each file that it writes, the result last. What remains is the moment between the
  check and the rename of a complete file: then the later of two results is kept.

A claim is a dangling symbolic link whose text names its owner, so that a claim always exists
together with its text. Where links do not exist or cannot be touched, it is a small file.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import socket
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from lcbench.errors import StorageError
from lcbench.system import process as machine
from lcbench.system.files import NO_LINKS
from lcbench.system.transient import with_retries

# How often a process touches its claims, and after which time without a change a process of another
# machine counts as dead. NFS shows others' changes within a minute (acregmax, acdirmax).
HEARTBEAT_SECONDS = 15.0
LEASE_SECONDS = 150.0
_NAME = re.compile(r"\.(?P<task>.+)\.attempt-(?P<number>\d+)")
# A process that loses a race for a cell tries again so often, after a delay.
_RACE_RETRIES = 5
_RACE_DELAY_SECONDS = 0.02


@dataclass(frozen=True)
class Holder:
    """A process that runs cells, as a claim describes it.

    Attributes:
        token: random identifier of the process.
        claim: random identifier of the claim.
        host: name of the machine.
        machine: identifier of the machine, its boot and process namespace; None: unknown.
        process: process id.
        started: start time as the system counts it, which reveals a reused process id.
        job: Slurm job with array element: `17_3`; None: not a Slurm job.
        restart: number of times that Slurm has restarted the job.
        began: time of the claim by the host's clock, in UTC (ISO 8601).
    """

    token: str
    claim: str
    host: str
    machine: str | None
    process: int
    started: str | None
    job: str | None
    restart: int
    began: str

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return f"{self.host}, process {self.process}{job}"


# The owner of a claim that does not name one.
_UNKNOWN = Holder("unknown", "", "unknown", None, 0, None, None, 0, "")


@dataclass(frozen=True)
class Attempt:
    """A claim found in a folder.

    Attributes:
        task: task of the cell.
        number: number of the attempt, from 1.
        path: path of the claim.
        holder: the owner; None: the claim does not name one.
        changed: time of the last touch, in nanoseconds of an unknown clock.
    """

    task: str
    number: int
    path: Path
    holder: Holder | None
    changed: int


def here() -> Holder:
    """Return the description of this process for a new claim."""
    environment = os.environ
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
    if job and (element := environment.get("SLURM_ARRAY_TASK_ID")):
        job = f"{job}_{element}"
    restart = environment.get("SLURM_RESTART_COUNT", "0")
    return Holder(
        token=secrets.token_hex(8),
        claim="",
        host=socket.gethostname(),
        machine=machine.machine(),
        process=os.getpid(),
        started=machine.start_time_of(os.getpid()),
        job=job or None,
        restart=int(restart) if restart.isdecimal() else 0,
        began=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def attempts_in(folder: Path, names: Iterable[str] | None = None) -> list[Attempt]:
    """Return the claims in a results folder, ordered by attempt.

    Args:
        folder: results folder of a model and repair.
        names: names of its entries, if the caller has listed it; None: it is listed here.
    """
    if names is None:
        try:
            names = with_retries(lambda: [path.name for path in folder.iterdir()])
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"{folder} cannot be read: {error.strerror}.") from error
    attempts = []
    for name in names:
        if (match := _NAME.fullmatch(name)) and (one := _read(folder / name, match)):
            attempts.append(one)
    return sorted(attempts, key=lambda one: (one.task, one.number))


def _read(path: Path, match: re.Match[str]) -> Attempt | None:
    try:
        about = path.lstat()
        changed = about.st_mtime_ns
        try:
            text = str(path.readlink())
        except OSError:
            # Opening a pipe would block.
            text = path.read_text(encoding="utf-8") if stat.S_ISREG(about.st_mode) else ""
    except (OSError, UnicodeDecodeError):
        # The attempt is over.
        return None
    holder = None
    with suppress(ValueError, TypeError, RecursionError):
        holder = _holder(**json.loads(text))
    return Attempt(match["task"], int(match["number"]), path, holder, changed)


def _holder(**said: Any) -> Holder:
    """Return the owner that a claim names.

    Raises:
        TypeError: the claim has another layout.
    """
    holder = Holder(**said)
    texts = (holder.token, holder.claim, holder.host, holder.began)
    maybe = (holder.machine, holder.started, holder.job)
    if not (
        all(isinstance(one, str) for one in texts)
        and all(isinstance(one, str | None) for one in maybe)
        and type(holder.process) is int
        and 0 < holder.process < 2**31
        and type(holder.restart) is int
    ):
        raise TypeError("no holder of a claim")
    return holder


def is_alive_here(holder: Holder) -> bool | None:
    """Return whether a process of this machine is alive; None if that is unknown."""
    if holder.machine is None or holder.machine != machine.machine():
        return None
    return machine.lives(holder.process, holder.started)


@dataclass
class Claim:
    """This process's claim on a cell.

    Attributes:
        task: task of the cell.
        folder: folder of the cell's files.
        number: number of the attempt.
        mark: random identifier, which distinguishes claims of the same number.
        is_lost: whether another process has taken the cell over or removed the claim.
    """

    task: str
    folder: Path
    number: int
    mark: str
    is_lost: bool = False

    @property
    def path(self) -> Path:
        """The path of the claim."""
        return _path(self.folder, self.task, self.number)


def _path(folder: Path, task: str, number: int) -> Path:
    return folder / f".{task}.attempt-{number}"


@dataclass
class _Seen:
    """A claim of another machine: its state, and since when, by this process's clock."""

    changed: int
    since: float
    is_fresh: bool = False


@dataclass(frozen=True)
class ClaimState:
    """The state of a cell that is not finished, as far as its claims show it.

    Attributes:
        number: number of the last attempt, running or over; 0: there was none.
        holder: live process that runs the cell; None: no process does.
        is_fresh: whether that process has shown signs of life.
    """

    number: int
    holder: Holder | None
    is_fresh: bool = True


class Claims:
    """The claims of this process, touched regularly until they are released."""

    def __init__(
        self, *, heartbeat_seconds: float = HEARTBEAT_SECONDS, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        """Begin.

        Args:
            heartbeat_seconds: time between two touches of a claim.
            lease_seconds: time without a touch after which another machine's claim is dead.
        """
        self._me = here()
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._held: list[Claim] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, _Seen] = {}

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release all claims, so that other processes can take the cells."""
        self._ended.set()
        for claim in list(self._held):
            with suppress(StorageError):
                self.release(claim)

    def claim_state(self, folder: Path, task: str, over: int) -> ClaimState:
        """Return the state of an unfinished cell, without claiming it.

        Args:
            folder: folder of the cell's files.
            task: task of the cell.
            over: number of the last attempt that failed; 0: none has.
        """
        attempts = [one for one in attempts_in(folder) if one.task == task]
        last = max((one.number for one in attempts), default=0)
        for one in attempts:
            if one.number > over and self.is_alive(one):
                key = self._key(one)
                is_fresh = is_alive_here(one.holder) is True if one.holder else False
                is_fresh = is_fresh or (key in self._seen and self._seen[key].is_fresh)
                return ClaimState(max(last, over), one.holder or _UNKNOWN, is_fresh)
        return ClaimState(max(last, over), None)

    def take(self, folder: Path, task: str, over: int) -> Claim | None:
        """Claim a cell; return None if another process has it or was quicker.

        The caller then checks whether the cell has been finished or has failed in the meantime.

        Raises:
            StorageError: the folder cannot be written.
        """
        for _ in range(_RACE_RETRIES):
            claim_state = self.claim_state(folder, task, over)
            if claim_state.holder is not None:
                return None
            claim = Claim(task, folder, claim_state.number + 1, secrets.token_hex(4))
            if self._create(claim):
                # Attempts that were not visible before, because of a stale view or a race.
                others = [one for one in attempts_in(folder) if one.task == task]
                if not any(
                    one.number != claim.number and one.number > over and self.is_alive(one)
                    for one in others
                ) and claim.number == max((one.number for one in others), default=0):
                    with self._lock:
                        self._held.append(claim)
                    self._heartbeat_loop()
                    return claim
                self._remove_own(claim)
            time.sleep(random.uniform(0.0, _RACE_DELAY_SECONDS))  # noqa: S311
        return None

    def holds(self, claim: Claim) -> bool:
        """Return whether a claim is still valid; this process may have been taken for dead."""
        if not claim.is_lost:
            attempts = [one for one in attempts_in(claim.folder) if one.task == claim.task]
            claim.is_lost = not attempts or not _is(attempts[-1], claim)
        return not claim.is_lost

    def release(self, claim: Claim) -> None:
        """Remove a claim, and earlier claims of dead processes.

        Raises:
            StorageError: it cannot be removed.
        """
        with self._lock:
            if claim in self._held:
                self._held.remove(claim)
        attempts = [one for one in attempts_in(claim.folder) if one.task == claim.task]
        for one in attempts:
            if _is(one, claim):
                remove(one.path)
            elif one.number < claim.number and not self.is_alive(one):
                # Another user's claim in a sticky folder stays: it is dead, so it blocks nothing.
                with suppress(StorageError):
                    remove(one.path)

    def _remove_own(self, claim: Claim) -> None:
        attempts = attempts_in(claim.folder, [claim.path.name])
        if attempts and _is(attempts[0], claim):
            remove(claim.path)

    def _create(self, claim: Claim) -> bool:
        """Create a claim; return False if its number is taken."""
        path = claim.path
        now = datetime.now(UTC).isoformat(timespec="seconds")
        me = replace(self._me, claim=claim.mark, began=now)
        text = json.dumps(asdict(me), separators=(",", ":"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not _create_link(path, text):
                return False
            if path.is_symlink() and not _can_be_touched(path):
                path.unlink()
                return _create_file(path, text)
            return True
        except OSError as error:
            raise StorageError(
                f"{path} could not be written: {error.strerror}. Free some space or "
                "fix the permissions, then run the same command again: finished cells are kept."
            ) from error

    def is_alive(self, attempt: Attempt) -> bool:
        """Return whether the process that made a claim may be alive, as far as observed."""
        holder = attempt.holder
        if holder is not None:
            if holder.token == self._me.token:
                # A claim of this process is alive until it is released.
                return any(_is(attempt, claim) for claim in self._held)
            lives = is_alive_here(holder)
            if lives is not None:
                return lives
            is_mine = holder.job is not None and holder.job == self._me.job
            if is_mine and holder.restart < self._me.restart:
                # Slurm has restarted the job, so the process before has ended.
                return False
        now, key = time.monotonic(), self._key(attempt)
        seen = self._seen.get(key)
        if seen is None or seen.changed != attempt.changed:
            self._seen[key] = _Seen(attempt.changed, now, is_fresh=seen is not None)
            return True
        return now - seen.since <= self._lease_seconds

    def _key(self, attempt: Attempt) -> str:
        return f"{attempt.path}/{attempt.holder.token if attempt.holder else ''}"

    def _heartbeat_loop(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._heartbeat, name="claims", daemon=True)
            self._thread.start()

    def _heartbeat(self) -> None:
        while not self._ended.wait(self._heartbeat_seconds):
            with self._lock:
                held = list(self._held)
            for claim in held:
                try:
                    _touch(claim.path)
                except OSError:
                    # The file system is unreachable for a moment; the lease is longer than that.
                    continue


def _is(attempt: Attempt, claim: Claim) -> bool:
    """Return whether a claim in a folder is this one, not another of the same number."""
    return attempt.holder is not None and attempt.holder.claim == claim.mark


def _touch(path: Path) -> None:
    """Change a claim's time of modification, to the file server's clock."""
    os.utime(path, follow_symlinks=False)


def _can_be_touched(link: Path) -> bool:
    """Return whether symbolic links themselves can be touched in a folder."""
    try:
        os.utime(link, (1, 1), follow_symlinks=False)
        touched = link.lstat().st_mtime == 1
        _touch(link)
    except (OSError, NotImplementedError):
        return False
    return touched


def _create_link(path: Path, text: str) -> bool:
    """Create a claim as a symbolic link, or as a file if links are not supported."""
    try:
        path.symlink_to(text)
    except FileExistsError:
        # It may be this process's own, if the answer to the first request was lost.
        with suppress(OSError):
            return str(path.readlink()) == text
        return False
    except (NotImplementedError, PermissionError):
        return _create_file(path, text)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_file(path, text)
    return True


def remove(path: Path) -> None:
    """Remove a claim.

    Raises:
        StorageError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}.") from error


def _create_file(path: Path, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True
