"""Claims: each cell is run by one process, of however many, on however many machines.

A process that begins a cell creates `.<Task>.attempt-<n>` in the folder of the cell's results, with
n one more than any attempt before; it removes it when the attempt is over. Nothing is relied on but
that a file system creates a name once, whoever asks (also NFS, without lock daemons):

- A claim of a live process is never touched: whoever takes over from a dead one creates n + 1. That
  fails if another was quicker, also where this process's view of the folder is stale.
- Creating a name in a folder brings this process's view of that folder up to date, so what others
  have done is looked for afterwards: a result, a failure, another claim. If there is any, the new
  claim is dropped.
- Whether a process lives is asked of the system where it is this machine's. Of another machine's
  only changes count: it touches its claims every some seconds, and one that has not changed for
  `LEASE_SECONDS` of this process's own clock is dead. No clock is compared with another's.
- One that was taken for dead while it slept sees that, and drops its result: it looks for its own
  claim again before each file that it writes, the result last. What is left is the moment between
  that look and the rename of a file that was written whole: the later of two results stands then.

A claim is a symbolic link that leads nowhere: its text says whose it is, and it is there with its
text or not at all. Where there are no such links, or they cannot be touched, it is a small file.
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

# A process touches its claims so often; one of another machine is dead when its claim has not
# changed for so long. NFS shows changes of others within a minute (acregmax, acdirmax).
HEARTBEAT_SECONDS = 15.0
LEASE_SECONDS = 150.0
_NAME = re.compile(r"\.(?P<task>.+)\.attempt-(?P<number>\d+)")
# Whoever loses a race for a cell looks again so often, and lets others go first.
_RACE_RETRIES = 5
_RACE_DELAY_SECONDS = 0.02


@dataclass(frozen=True)
class Holder:
    """A process that runs cells.

    Attributes:
        token: of this process alone.
        claim: of this claim alone.
        host: the machine's name.
        machine: the machine since it was started, with its process numbers; None: not known.
        process: its number.
        started: when, in the system's own terms, so that a number that is used again is seen.
        job: of Slurm, with the array element: `17_3`; None: it is none.
        restart: how often Slurm has restarted the job.
        began: when the claim was made, by the host's clock, in UTC (ISO 8601).
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


# Of a claim that does not say whose it is.
_UNKNOWN = Holder("unknown", "", "unknown", None, 0, None, None, 0, "")


@dataclass(frozen=True)
class Attempt:
    """A claim as it lies in a folder.

    Attributes:
        task: of the cell.
        number: of the attempt, from 1.
        path: of the claim.
        holder: whose it is; None: it does not say.
        changed: when it was last touched, in nanoseconds of whatever clock.
    """

    task: str
    number: int
    path: Path
    holder: Holder | None
    changed: int


def here() -> Holder:
    """Return what claims say of this process, as of now."""
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
    """Return the claims in a folder of results, the oldest attempt of a task first.

    Args:
        folder: of results.
        names: of what is in it, from a caller that has listed it; None: it is listed here.
    """
    if names is None:
        try:
            names = with_retries(lambda: [path.name for path in folder.iterdir()])
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StorageError(f"{folder} cannot be read: {error.strerror}.") from error
    found = []
    for name in names:
        if (match := _NAME.fullmatch(name)) and (one := _read(folder / name, match)):
            found.append(one)
    return sorted(found, key=lambda one: (one.task, one.number))


def _read(path: Path, match: re.Match[str]) -> Attempt | None:
    try:
        about = path.lstat()
        changed = about.st_mtime_ns
        try:
            text = str(path.readlink())
        except OSError:
            # A pipe would be waited for.
            text = path.read_text(encoding="utf-8") if stat.S_ISREG(about.st_mode) else ""
    except (OSError, UnicodeDecodeError):
        # It is over.
        return None
    holder = None
    with suppress(ValueError, TypeError, RecursionError):
        holder = _holder(**json.loads(text))
    return Attempt(match["task"], int(match["number"]), path, holder, changed)


def _holder(**said: Any) -> Holder:
    """Return what a claim says of its process.

    Raises:
        TypeError: it is of another kind than this version's.
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
    """Whether a process of this machine lives; None: another's, or the system does not say."""
    if holder.machine is None or holder.machine != machine.machine():
        return None
    return machine.lives(holder.process, holder.started)


@dataclass
class Claim:
    """A cell that this process runs.

    Attributes:
        task: of the cell.
        folder: of its files.
        number: of the attempt.
        mark: of this claim alone, so that it is not taken for another of the same number.
        is_lost: whether another process has taken the cell over, or removed the claim.
    """

    task: str
    folder: Path
    number: int
    mark: str
    is_lost: bool = False

    @property
    def path(self) -> Path:
        """Of the claim."""
        return _path(self.folder, self.task, self.number)


def _path(folder: Path, task: str, number: int) -> Path:
    return folder / f".{task}.attempt-{number}"


@dataclass
class _Seen:
    """A claim of another machine's: how it looked, and since when, by this process's clock."""

    changed: int
    since: float
    is_fresh: bool = False


@dataclass(frozen=True)
class ClaimState:
    """What a folder says of a cell that is not finished.

    Attributes:
        number: of the last attempt, whether it is over or not; 0: there was none.
        holder: of the live process that runs it; None: nobody does.
        is_fresh: whether that process was seen to live.
    """

    number: int
    holder: Holder | None
    is_fresh: bool = True


class Claims:
    """The claims of this process, which it touches until they are released."""

    def __init__(
        self, *, heartbeat_seconds: float = HEARTBEAT_SECONDS, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        """Begin.

        Args:
            heartbeat_seconds: between two touches of a claim.
            lease_seconds: after which one of another machine that was not touched is dead.
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
        """Release what is held: the cells are free for others."""
        self._ended.set()
        for claim in list(self._held):
            with suppress(StorageError):
                self.release(claim)

    def standing(self, folder: Path, task: str, over: int) -> ClaimState:
        """Return how a cell that is not finished stands, without claiming it.

        Args:
            folder: of its files.
            task: of the cell.
            over: the last attempt that ended in failure; 0: none did.
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
        """Claim a cell; None: another process has it, or was quicker.

        The caller looks afterwards whether the cell was finished or has failed meanwhile.

        Raises:
            StorageError: the folder cannot be written.
        """
        for _ in range(_RACE_RETRIES):
            standing = self.standing(folder, task, over)
            if standing.holder is not None:
                return None
            claim = Claim(task, folder, standing.number + 1, secrets.token_hex(4))
            if self._create(claim):
                # What was not seen before, for a stale view of the folder or for a race.
                others = [one for one in attempts_in(folder) if one.task == task]
                if not any(
                    one.number != claim.number and one.number > over and self.is_alive(one)
                    for one in others
                ) and claim.number == max((one.number for one in others), default=0):
                    with self._lock:
                        self._held.append(claim)
                    self._keep_alive()
                    return claim
                self._remove_own(claim)
            time.sleep(random.uniform(0.0, _RACE_DELAY_SECONDS))  # noqa: S311
        return None

    def holds(self, claim: Claim) -> bool:
        """Whether a cell is still this process's; it may have been taken for dead while asleep."""
        if not claim.is_lost:
            attempts = [one for one in attempts_in(claim.folder) if one.task == claim.task]
            claim.is_lost = not attempts or not _is(attempts[-1], claim)
        return not claim.is_lost

    def release(self, claim: Claim) -> None:
        """Remove a claim, and those of dead processes before it.

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
                # Of another user, in a sticky folder, it stays: it is dead, and stops nobody.
                with suppress(StorageError):
                    remove(one.path)

    def _remove_own(self, claim: Claim) -> None:
        attempts = attempts_in(claim.folder, [claim.path.name])
        if attempts and _is(attempts[0], claim):
            remove(claim.path)

    def _create(self, claim: Claim) -> bool:
        """Create a claim; False: there is one of that number."""
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
                f"{path} could not be written: {error.strerror}. Make room or mend the "
                "permissions, then run the same command again: what is finished is kept."
            ) from error

    def is_alive(self, attempt: Attempt) -> bool:
        """Whether the process that has made a claim may live, for all that was seen of it."""
        holder = attempt.holder
        if holder is not None:
            if holder.token == self._me.token:
                # Of this process: alive as long as it says so.
                return any(_is(attempt, claim) for claim in self._held)
            lives = is_alive_here(holder)
            if lives is not None:
                return lives
            is_mine = holder.job is not None and holder.job == self._me.job
            if is_mine and holder.restart < self._me.restart:
                # Slurm has restarted the job, so what it was before has ended.
                return False
        now, key = time.monotonic(), self._key(attempt)
        seen = self._seen.get(key)
        if seen is None or seen.changed != attempt.changed:
            self._seen[key] = _Seen(attempt.changed, now, is_fresh=seen is not None)
            return True
        return now - seen.since <= self._lease_seconds

    def _key(self, attempt: Attempt) -> str:
        return f"{attempt.path}/{attempt.holder.token if attempt.holder else ''}"

    def _keep_alive(self) -> None:
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
                    # A file system that is away for a moment: the lease is longer than that.
                    continue


def _is(attempt: Attempt, claim: Claim) -> bool:
    """Whether what lies in a folder is that claim, and not another of its number."""
    return attempt.holder is not None and attempt.holder.claim == claim.mark


def _touch(path: Path) -> None:
    """Let a claim look changed; by the clock of whoever keeps the file, for people."""
    os.utime(path, follow_symlinks=False)


def _can_be_touched(link: Path) -> bool:
    """Whether a symbolic link can be touched here; not where it is followed, or is not touched."""
    try:
        os.utime(link, (1, 1), follow_symlinks=False)
        touched = link.lstat().st_mtime == 1
        _touch(link)
    except (OSError, NotImplementedError):
        return False
    return touched


def _create_link(path: Path, text: str) -> bool:
    """Create a claim as a symbolic link, or as a file where there are none."""
    try:
        path.symlink_to(text)
    except FileExistsError:
        # An answer that was lost on the way may have said that it is ours.
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
