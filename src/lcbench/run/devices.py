"""Runs a sweep on several devices: a process for each, which share its cells by their claims.

The user's process runs the sweep on the first device, and shows and reports all of it. It starts a
process for each other device, which runs the same frozen sweep and shows nothing. Signals are
passed on to these; if the user's process dies, they end too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from lcbench.encode.options import EngineSettings
from lcbench.errors import RequestError
from lcbench.plan.manifest import Manifest
from lcbench.run.engines import check_gpus, devices_of_process
from lcbench.score.pool import processes
from lcbench.system.hardware import cores, devices_of
from lcbench.system.signals import END_SECONDS, Stop, Terminated
from lcbench.system.words import key_value, several

# Set in the processes that are started here.
_VARIABLE = "LCBENCH_SHARES_SWEEP"
# Time that the others have to see that nothing is left to be done, and to end.
_LAST_SECONDS = 60.0


@dataclass(frozen=True)
class Share:
    """One of the processes that share a sweep.

    Attributes:
        engine: its settings, for one device.
        environment: its variables, besides those of this process.
    """

    engine: EngineSettings
    environment: dict[str, str]


def shares_of(engine: EngineSettings) -> list[Share]:
    """Return the processes that `engine.devices` asks for, this one first.

    Raises:
        RequestError: there are fewer devices, or `engine.device` names one.
    """
    if engine.devices is None:
        return [Share(engine, {})]
    if engine.is_spread:
        devices_of_process(engine)
        return [Share(engine, {})]
    every = devices_of(engine.device)
    asked = f"engine.devices={engine.devices_written}"
    alone = replace(engine, devices=None)
    if every == ["cpu"] and isinstance(engine.devices, int):
        numbers: list[int] = list(range(engine.devices))
        engines = [alone] * len(numbers)
        visible: list[dict[str, str]] = [{} for _ in numbers]
    else:
        check_gpus(engine, every)
        numbers = _numbers(engine.devices, len(every), asked)
        # As this process sees them they may have other numbers, or names.
        names = (os.environ.get("CUDA_VISIBLE_DEVICES") or "").split(",")
        names = names if len(names) >= len(every) else [str(i) for i in range(len(every))]
        engines = [replace(alone, device="cuda:0") for _ in numbers]
        # This process has already seen all of them.
        engines[0] = replace(alone, device=every[numbers[0]])
        visible = [{"CUDA_VISIBLE_DEVICES": names[number].strip()} for number in numbers]
    count = len(numbers)
    scoring = processes(engine.scoring, on_gpu=every[0].startswith("cuda"))
    each = scoring if engine.scoring is not None else max(1, scoring // count)
    threads = max(1, cores() // count)
    variables = {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(max(1, threads - each))}
    return [
        Share(replace(one, scoring=each), {**variables, **seen})
        for one, seen in zip(engines, visible, strict=True)
    ]


def _numbers(devices: str | int | tuple[int, ...], there: int, asked: str) -> list[int]:
    """Return which of so many GPUs are asked for."""
    if devices == "all":
        return list(range(there))
    numbers = list(range(devices)) if isinstance(devices, int) else [int(one) for one in devices]
    if max(numbers) >= there:
        raise RequestError(
            f"{asked}: torch finds {several(there, 'GPU')} here, numbered from 0; name those, or "
            "engine.devices=all."
        )
    return numbers


@contextmanager
def keep_to(share: Share) -> Iterator[None]:
    """Keep this process to its share of the cores, unless its environment says otherwise."""
    # It may see the GPUs of the others.
    left_out = {"CUDA_VISIBLE_DEVICES", *os.environ}
    added = {name: value for name, value in share.environment.items() if name not in left_out}
    threads = added.get("OMP_NUM_THREADS")
    os.environ.update(added)
    try:
        if threads is None:
            yield
            return
        import torch

        # It has been imported, and reads the environment no more.
        before = torch.get_num_threads()
        torch.set_num_threads(int(threads))
        try:
            yield
        finally:
            torch.set_num_threads(before)
    finally:
        for name in added:
            os.environ.pop(name, None)


def is_shared() -> bool:
    """Return whether another process has started this one to share its sweep."""
    return _VARIABLE in os.environ


def end_with_parent() -> None:
    """End this process, as SIGTERM does, when the one that has started it is gone."""

    def watch() -> None:
        # It writes nothing. Python's own reader has a lock, without which no process ends properly.
        with suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


class Others:
    """The processes on the other devices.

    Used as a context: at its end they have ended.

    Attributes:
        lost: whether one of them ended before its time, found by `wait`.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        words: Sequence[str],
        stop: Stop,
        warn: Callable[[str], None],
    ) -> None:
        """Prepare; they are started by `start`.

        Args:
            shares: theirs.
            words: keys of the command line besides those of the sweep and the engine.
            stop: passes signals on to them.
            warn: receives what became of those that ended early.
        """
        self._shares = shares
        self._words = list(words)
        self._stop = stop
        self._warn = warn
        self._started: list[tuple[subprocess.Popen[bytes], Path]] = []
        self.lost = False

    def start(self, manifest: Manifest) -> None:
        """Start them on a frozen sweep."""
        logs = manifest.folder / "logs"
        for number, share in enumerate(self._shares, start=1):
            output = logs / f"device-{number}.out"
            words = [key_value("manifest", manifest.folder), *self._words]
            with output.open("ab") as file:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-m", "lcbench", *words, *engine_words(share.engine)],
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **share.environment, _VARIABLE: str(os.getpid())},
                    # Ctrl-C reaches them through this process alone.
                    start_new_session=True,
                )
            self._started.append((process, output))
            self._stop.followers.append(process.send_signal)

    def wait(self, *, have_cells: bool) -> int:
        """Wait until they have ended, and return the worst status.

        One that a signal or a device has ended, or that does not end although no cell is left, is
        `lost`: its cells are the others', so that is no failure as long as all have results.

        Args:
            have_cells: whether they may be running cells, for which there is no limit; a gentle
                stop ends this process and with it the others.

        Raises:
            Terminated: a signal ended them before they were done.
        """
        worst = 0
        is_stopped = False
        for number, (process, output) in enumerate(self._started, start=1):
            try:
                status = process.wait(None if have_cells else _LAST_SECONDS)
            except subprocess.TimeoutExpired:
                self._warn(f"the process on device {number} does not end; it is ended ({output})")
                self.lost = True
                continue
            if status in (1, 2):
                worst = max(worst, status)
            elif status and self._stop.is_asked:
                is_stopped = True
            elif status:
                self.lost = True
                self._warn(
                    f"the process on device {number} ended with status {status}, and left its "
                    f"cells to the others ({output})"
                )
        if is_stopped and have_cells:
            raise Terminated("stopped by a signal")
        return worst

    def __enter__(self) -> Others:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, _ in self._started:
            if process.poll() is None:
                process.terminate()
        for process, _ in self._started:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._stop.followers.clear()


def engine_words(engine: EngineSettings) -> list[str]:
    """Return settings of an engine as keys of a command line."""
    return [
        f"engine.device={engine.device}",
        f"engine.batch_tokens={engine.batch_tokens or 'auto'}",
        f"engine.scoring={'auto' if engine.scoring is None else engine.scoring}",
        f"engine.compile={str(engine.compile).lower()}",
        f"engine.attention={engine.attention or 'auto'}",
        f"engine.fuse_qkv={str(engine.fuse_qkv).lower()}",
        f"engine.graphs={str(engine.graphs).lower()}",
        f"engine.fp32={engine.fp32}",
    ]
