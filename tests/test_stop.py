"""Signals: Ctrl-C and SIGTERM end a run, but not what is shielded; SIGUSR1 does so gently."""

import os
import signal
import time

import pytest

from lcbench.stop import Stop, Terminated, grace_seconds

pytestmark = pytest.mark.alone


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    # Handlers run between two instructions of the main thread.
    time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
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
    monkeypatch.setenv("LCBENCH_GRACE", "0.3")
    began = time.monotonic()
    stop = Stop()

    def work() -> None:
        with stop:
            send(signal.SIGUSR1)
            assert time.monotonic() - began < 0.3
            send(signal.SIGUSR1)
            time.sleep(5)

    with pytest.raises(Terminated):
        work()
    assert stop.is_asked
    assert stop.is_gentle
    assert 0.3 <= time.monotonic() - began < 3


def test_whoever_finishes_in_time_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCBENCH_GRACE", "0.2")
    with Stop() as stop:
        send(signal.SIGUSR1)
        assert stop.is_gentle
    time.sleep(0.4)


@pytest.mark.parametrize(("value", "seconds"), [("7.5", 7.5), ("", 60.0), ("x", 60.0), ("-3", 0.0)])
def test_grace(monkeypatch: pytest.MonkeyPatch, value: str, seconds: float) -> None:
    monkeypatch.setenv("LCBENCH_GRACE", value)
    assert grace_seconds() == seconds
