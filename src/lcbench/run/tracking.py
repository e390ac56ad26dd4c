"""Sends a run's configuration, scores and tables to an experiment tracker.

The tracker is called from one thread of its own, so that one that fails or waits for its server
neither fails nor delays a run.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from lcbench.repair.repair import NO_REPAIR
from lcbench.reporting.score_table import relative_improvement
from lcbench.system.log import LOGGER
from lcbench.system.trackers import Tracker, tracker_of
from lcbench.system.words import reason_of

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.results.cell import Cell
    from lcbench.results.folder import Results
    from lcbench.system.observer import Observer

# At the end a run waits so long for a tracker to send what is left.
_END_SECONDS = 60.0


class Tracking:
    """A run's tracker; without a name it does nothing.

    Use it as a context, which ends the tracker's run.
    """

    def __init__(
        self, name: str | None, run: str, config: Mapping[str, Any], observer: Observer
    ) -> None:
        """Begin the tracker's run.

        Args:
            name: one of `trackers.TRACKERS`, or None.
            run: name of the run.
            config: its settings, as nested JSON types.
            observer: receives one warning if the tracker fails.
        """
        self._name = name
        self._observer = observer
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._scores: dict[Cell, float] = {}
        self._failed = False
        if name is not None:
            flat = dict(_flat(config))
            self._calls.put(lambda tracker: tracker.begin(run, flat))
            self._thread = threading.Thread(target=self._work, name=f"{name} tracks", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._name is None:
            return
        failed = kind is not None or self._failed
        self._calls.put(lambda tracker: tracker.end(failed=failed))
        self._calls.put(None)
        # An interrupted run does not wait.
        self._thread.join(0.0 if kind is not None else _END_SECONDS)
        if kind is None and self._thread.is_alive():
            self._observer.warn(
                f"track={self._name}: not all was sent within {_END_SECONDS:.0f} s."
            )

    def fail(self) -> None:
        """Mark the run as failed: some of its cells have no result."""
        self._failed = True

    def done(self, cell: Cell, results: Results) -> None:
        """Log the score of a finished cell, and improvements over its baseline once both are known.

        Args:
            cell: the cell.
            results: the folder that its result is in.
        """
        if self._name is None:
            return
        score = _score(results.files(cell).result)
        if score is None:
            return
        self._scores[cell] = score
        metrics = {_metric(cell, "score"): score}
        for other, its in self._scores.items():
            baseline = _baseline_of(other)
            if other == baseline or cell not in (other, baseline):
                continue
            gain = relative_improvement(its, self._scores.get(baseline))
            if gain is not None:
                metrics[_metric(other, "improvement")] = gain
        self._calls.put(lambda tracker: tracker.log(metrics))

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Log a table of the report."""
        if self._name is not None:
            self._calls.put(lambda tracker: tracker.table(name, frame))

    def _work(self) -> None:
        """Carry out calls until the last; none after one that failed."""
        tracker = tracker_of(str(self._name))
        broken = False
        while (call := self._calls.get()) is not None:
            if broken:
                continue
            # Whatever a tracker raises, the run goes on.
            try:
                call(tracker)
            except Exception as error:
                broken = True
                LOGGER.exception("the tracker %s fails", self._name)
                self._observer.warn(
                    f"track={self._name}: {reason_of(error)}. Nothing more is tracked; the run "
                    "goes on."
                )
            except BaseException as error:
                # Some trackers call sys.exit, for example without a login.
                broken = True
                self._observer.warn(f"track={self._name} ended: {reason_of(error)}.")


def _baseline_of(cell: Cell) -> Cell:
    return replace(cell, repair=NO_REPAIR)


def _score(path: Path) -> float | None:
    """Return a task's score × 100, the mean over splits of that of subsets; None if unreadable."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        scores = json.loads(path.read_bytes())["scores"]
        return 100 * fmean(fmean(one["main_score"] for one in some) for some in scores.values())
    return None


def _metric(cell: Cell, what: str) -> str:
    """Return the name of a number: kind, model, task and repair, as folders of a tracker's page."""
    return f"{what}/{cell.model.replace('/', '__')}/{cell.task}/{cell.repair.canonical}"


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Return the leaves of nested settings as text, by dotted key."""
    if isinstance(value, Mapping):
        items = [(str(name), one) for name, one in value.items()]
    elif isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
        items = [(str(number), one) for number, one in enumerate(value)]
    else:
        return [(key, value if isinstance(value, str) else json.dumps(value))]
    return [leaf for name, one in items for leaf in _flat(one, f"{key}.{name}" if key else name)]
