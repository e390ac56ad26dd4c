"""What a section of the GPU check measures and requires, kept on disk at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NEEDS_CUDA = "skipped: needs CUDA"

Scalar = str | int | float | None


class Skipped(Exception):
    """The section cannot be run here at all; the message says why."""


@dataclass
class Check:
    """A section under way.

    Attributes:
        device: `cuda:0`, `cuda:1` … or `cpu`.
        quick: tiny models and few texts, to rehearse the section.
        mirror: a folder with the data of public tasks, or None.
        out: the folder of the whole check.
        folder: the section's own folder, below `out`.
        deadline: when the section has to be done, by `time.monotonic()`.
        measurements: numbers and words by name; a table is `{"heading": [...], "rows": [[...]]}`.
        failures: requirements that do not hold.
        cut: what was left out because time was short.
    """

    device: str
    quick: bool
    mirror: Path | None
    out: Path
    folder: Path
    deadline: float
    measurements: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic, repr=False)

    @property
    def cuda(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.startswith("cuda")

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - time.monotonic()

    def measure(self, name: str, value: Scalar) -> None:
        """Keep a number, or words."""
        self.measurements[name] = value
        self.say(f"{name}: {value:.6g}" if isinstance(value, float) else f"{name}: {value}")
        self.save()

    def add_row(self, name: str, heading: Sequence[str], row: Sequence[str]) -> None:
        """Add a row to a table, which the first row makes."""
        table = self.measurements.setdefault(name, {"heading": list(heading), "rows": []})
        table["rows"].append(list(row))
        self.say(f"{name}: {' | '.join(row)}")
        self.save()

    def require(self, holds: bool, otherwise: str) -> None:
        """Note a failure unless a requirement holds."""
        if not holds:
            self.failures.append(otherwise.partition("\n")[0])
            self.say(f"FAILED: {otherwise}")
            self.save()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Let an error end this part of the section only; it is a failure."""
        try:
            yield
        # The other parts are to be measured whatever a driver or a library raises here.
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            words = f"{type(error).__name__}: {first_line}"[:300]
            self.measurements[name] = f"error: {words}"
            self.require(False, f"{name}: {words}")

    def has_time(self, name: str, seconds: float) -> bool:
        """Return whether so many seconds are left for a part; if not, note that it is left out."""
        if self.seconds_left >= seconds:
            return True
        self.cut.append(name)
        self.say(f"left out, {self.seconds_left:.0f} s are left: {name}")
        self.save()
        return False

    def say(self, line: str) -> None:
        """Write a line to the section's log, after the seconds since the section began."""
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", flush=True)

    def save(self) -> None:
        """Write what is known so far: a section that is killed keeps it."""
        state = {"measurements": self.measurements, "failures": self.failures, "cut": self.cut}
        write_json(self.folder / "state.json", state)


def write_json(path: Path, value: Any) -> None:
    """Write JSON in the place of a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment for a child that imports this checkout's code."""
    paths = [str(ROOT / "src"), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    # Images set this for their own making. Here it would have each process compile all that it
    # imports: twice as long as the imports themselves.
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONUNBUFFERED": "1",
        # Bars would be what a log ends with.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **changes,
    }


class Command:
    """A command in the background whose output goes to a file.

    It belongs to the section's group of processes, which is ended with the section.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, environment_of: Mapping[str, str]
    ) -> None:
        """Start `python <arguments>` in the checkout's folder."""
        self.log = log
        self.began = time.monotonic()
        with log.open("wb") as output:
            # This interpreter, with arguments of our own.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment_of,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self, seconds: float) -> int | None:
        """Return the exit status; None if it had to be ended, since it took longer."""
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            # Twice, as lcbench ends at once the second time.
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(3.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
            return None

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def last_line(self) -> str:
        """The last line that it has printed, for a message."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1].strip() if lines else "no output"
