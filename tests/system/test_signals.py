"""Signals: Ctrl-C and SIGTERM end a run, but not what is shielded; SIGUSR1 does so gently."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcbench.system.signals import Stop, Terminated, grace_seconds


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    # Handlers run between two instructions of the main thread.
    time.sleep(0.01)


@pytest.fixture(autouse=True)
def _hears_of_a_closed_terminal() -> Iterator[None]:
    """Tests that are run under nohup would hand on that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, Terminated),
        (signal.SIGHUP, Terminated),
    ],
)
def test_it_ends_at_once(number: signal.Signals, error: type[BaseException]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(error) as raised, Stop() as stop:
        send(number)
    assert raised.type is error
    assert stop.is_asked
    assert not stop.is_gentle
    assert signal.getsignal(number) is before


def test_what_is_shielded_comes_to_its_end() -> None:
    steps = []

    def work() -> None:
        with Stop() as stop:
            with stop.shield():
                with stop.shield():
                    send(signal.SIGTERM)
                    steps.append("inner")
                steps.append("outer")
            steps.append("after")

    with pytest.raises(Terminated):
        work()
    assert steps == ["inner", "outer"]


def test_gently_first_and_then_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCBENCH_GRACE", "1")
    began = time.monotonic()
    stop = Stop()

    def work() -> None:
        with stop:
            send(signal.SIGUSR1)
            send(signal.SIGUSR1)
            time.sleep(60)

    with pytest.raises(Terminated):
        work()
    assert stop.is_asked
    assert stop.is_gentle
    assert 1 <= time.monotonic() - began < 30


def test_whoever_finishes_in_time_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCBENCH_GRACE", "1")
    with Stop() as stop:
        send(signal.SIGUSR1)
        assert stop.is_gentle
    time.sleep(1.2)


@pytest.mark.parametrize(("value", "seconds"), [("7.5", 7.5), ("", 60.0), ("x", 60.0), ("-3", 0.0)])
def test_grace(monkeypatch: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    monkeypatch.setenv("LCBENCH_GRACE", value)
    assert grace_seconds() == seconds


# A run whose threads do not come back, as a tokenizer's that reads without end.
_RETRY_STATUSES = """
import signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from lcbench.system import signals as stop

stop.END_SECONDS = float(sys.argv[1])
where = sys.argv[2]

def busy():
    while True:
        time.sleep(0.01)

def run():
    with stop.Stop() as one:
        pool = ThreadPoolExecutor(1)
        future = pool.submit(busy)
        if where == "shield":
            with one.shield():
                print("begun", flush=True)
                future.result()
        try:
            print("begun", flush=True)
            future.result()
        finally:
            print("ending", flush=True)
            if where == "close":
                pool.shutdown(wait=True)

try:
    run()
except KeyboardInterrupt as error:
    stop.leave(stop.TERMINATED if isinstance(error, stop.Terminated) else stop.INTERRUPTED)
"""


class Busy:
    """A process that runs it."""

    def __init__(self, folder: Path, seconds: float, where: str, *before: str) -> None:
        script = folder / "busy.py"
        script.write_text(_RETRY_STATUSES)
        self.process = subprocess.Popen(
            [*before, sys.executable, str(script), str(seconds), where],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.says() == "begun"
        self.began = time.monotonic()

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ended(self) -> tuple[int, str]:
        try:
            _, err = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
        return self.process.returncode, err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
# While threads are waited for, in the middle of writing, when Python itself waits for threads.
@pytest.mark.parametrize("where", ["close", "shield", "exit"])
def test_a_run_ends_although_a_thread_does_not(
    tmp_path: Path, number: signal.Signals, status: int, where: str
) -> None:
    busy = Busy(tmp_path, 0.5, where)
    busy.process.send_signal(number)
    returned, err = busy.ended()
    assert returned == status
    assert "Traceback" not in err
    if where != "exit":
        assert err == (
            "lcbench: this did not end within 0.5 seconds. Finished cells are kept; the same "
            "command resumes from there.\n"
        )
    assert 0.5 <= time.monotonic() - busy.began < 30


def test_what_is_done_ends_although_a_thread_does_not(tmp_path: Path) -> None:
    """As where Python waits for a process of its own whose end nobody reports."""
    script = tmp_path / "done.py"
    script.write_text(
        "import sys, threading, time\n"
        "from lcbench.system import signals as stop\n"
        "stop.END_SECONDS = 0.5\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('said')\n"
        "stop.leave(1)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "said\n", "")


@pytest.mark.parametrize("where", ["close", "exit"])
def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path, where: str) -> None:
    busy = Busy(tmp_path, 600, where)
    busy.process.send_signal(signal.SIGINT)
    assert busy.says() == "ending"
    time.sleep(1)
    assert busy.process.poll() is None
    busy.process.send_signal(signal.SIGINT)
    returned, err = busy.ended()
    # In the second case Python is ending already, and a shell says 130 of this as well.
    assert returned == (130 if where == "close" else -signal.SIGINT)
    assert "Traceback" not in err


def test_one_ctrl_c_that_arrives_twice_is_one(tmp_path: Path) -> None:
    busy = Busy(tmp_path, 1.5, "shield")
    busy.process.send_signal(signal.SIGINT)
    busy.process.send_signal(signal.SIGINT)
    assert busy.ended()[0] == 130
    assert time.monotonic() - busy.began >= 1.5


def test_under_nohup_a_closed_terminal_is_no_reason_to_end(tmp_path: Path) -> None:
    busy = Busy(tmp_path, 0.2, "close", "nohup")
    busy.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert busy.process.poll() is None
    busy.process.send_signal(signal.SIGTERM)
    assert busy.ended()[0] == 143


def test_whoever_ends_in_time_is_not_ended_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcbench.system.signals.END_SECONDS", 1.0)
    with pytest.raises(Terminated), Stop():
        send(signal.SIGTERM)
    time.sleep(1.3)
