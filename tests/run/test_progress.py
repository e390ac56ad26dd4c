"""What a person is told while a run goes on."""

from typing import Any

import pytest
from observers import Recorded

from lcbench.repair.repair import Repair
from lcbench.results.cell import Cell, Protocol
from lcbench.run import progress as progress_module
from lcbench.run.progress import Progress
from lcbench.tempscale.policy import parse

PROTOCOL = Protocol("paper", "none", "float32", "test", None, None, None)
CELLS = [Cell("a/model", "1", Repair(parse(tau)), "STS13", PROTOCOL) for tau in (1.0, 0.8)]
RECORD = {"seconds": 9.0, "seconds_wait": 4.0, "seconds_encode": 3.0}


class Predicted:
    """A prediction of twelve seconds a cell."""

    def left(self, done: Any, elapsed: float, since: float) -> float:
        self.asked = (list(done), elapsed, since)
        return 12.0 * (2 - len(done))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_finished_cell_with_its_own_cost_and_what_is_left(clock: list[float]) -> None:
    observer, predicted = Recorded(), Predicted()
    prediction: Any = predicted
    with Progress(observer, 2, 3, prediction) as progress:
        assert progress.began is None
        clock[0] = 101.0
        progress.start(CELLS[0])
        progress.start(CELLS[1])
        assert progress.began == 101.0
        clock[0] = 110.0
        progress.finish(CELLS[1], "done", RECORD)
        assert predicted.asked == ([CELLS[1]], 10.0, 0.0)
        progress.finish(CELLS[0], "FAILED", {})
    lines = observer.said
    # Waiting for other cells is not this one's cost; the last line has nothing left.
    assert " ".join(lines[0].split()) == (
        "2/3 model, τ = 0.8, STS13 done 5.0 s (encoding 3.0 s), 0:12 left"
    )
    assert " ".join(lines[1].split()) == "3/3 model, τ = 1, STS13 FAILED"


def test_the_line_that_keeps_up_names_all_that_is_under_way(clock: list[float]) -> None:
    prediction: Any = Predicted()
    progress = Progress(Recorded(), 2, 3, prediction)
    progress.doing("loading a model …")
    assert progress._line() == "loading a model …"
    progress.start(CELLS[0])
    progress.start(CELLS[1])
    progress.encoded(3, 4000)
    clock[0] = 108.0
    progress.encoded(3, 6000)
    assert progress._line() == (
        "1/3 · 0:24 left · 1,000 tokens/s · model, τ = 1, STS13 · model, τ = 0.8, STS13"
    )
    # Of the last ten seconds alone.
    clock[0] = 115.0
    assert "600 tokens/s" in progress._line()
