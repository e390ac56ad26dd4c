"""Records the cost of a run for later estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcbench.hub.models import Dimensions
from lcbench.plan.fresh import operations
from lcbench.plan.predict import (
    CellCost,
    Prediction,
    encoding_key,
    overlap_key,
    scored,
    work_seconds,
)
from lcbench.plan.rates import Rates, add, is_amount, read_rates, sum_up, write_rates
from lcbench.results.cell import Cell

# The amount of work after which an earlier measurement counts 1/e: seconds of encoding, cells of a
# task, runs.
_MEMORY_SECONDS = 600.0
_MEMORY_CELLS = 8.0
_MEMORY_RUNS = 4.0
# Seconds of work below which a run does not show how encoding and scoring overlap.
_LEAST_WORK = 10.0


class Recorder:
    """Adds the measurements of a run's cells to the rates in the cache folder."""

    def __init__(self, prediction: Prediction) -> None:
        """Begin with the prediction for the run."""
        self._prediction = prediction
        self._measured = Rates()
        self._cells: list[tuple[float, float]] = []

    def record(self, cell: Cell, provenance: Mapping[str, Any]) -> None:
        """Record a finished cell; incomplete provenance is ignored.

        Args:
            cell: finished cell.
            provenance: its record: encoded_texts, encoded_tokens, seconds_encode, seconds_load,
                seconds_score, seconds_items. None of the seconds includes waiting.
        """
        seconds = ("seconds_encode", "seconds_load", "seconds_score", "seconds_items")
        names = ("encoded_texts", "encoded_tokens", *seconds)
        cost = self._prediction.cells.get(cell)
        if cost is None or not all(is_amount(provenance.get(name)) for name in names):
            return
        texts, tokens, encode, load, score, items = (float(provenance[name]) for name in names)
        self._cells.append((encode, load + score + items))
        width = 0 if cost.known is None else cost.known.hidden
        key = f"{scored(cell)}|{width}"
        sum_up(self._measured.scoring, key, (1.0, load, score, items))
        if texts and tokens and cost.known is not None:
            key = encoding_key(self._prediction.machine, cost.known)
            done = self._operations(texts, tokens, cost, cost.known)
            sum_up(self._measured.encoding, key, (encode, done))

    def _operations(self, texts: float, tokens: float, cost: CellCost, known: Dimensions) -> float:
        """Return the operations of a cell's encoding, and compare its texts with the estimate."""
        on_gpu = self._prediction.machine.is_gpu
        estimated_texts = sum(one.texts for one in cost.fresh)
        estimated_tokens = sum(one.tokens for one in cost.fresh)
        # Most were already in a store; it is unknown which.
        if not estimated_tokens or 2 * texts < estimated_texts:
            if not cost.fresh:
                return operations(texts, tokens, known, on_gpu=on_gpu)
            return cost.fresh[0].operations(texts, tokens, known, on_gpu=on_gpu)
        done = 0.0
        for one in cost.fresh:
            of_texts = one.texts * texts / estimated_texts
            of_tokens = one.tokens * tokens / estimated_tokens
            measured = (one.tokens, one.texts, of_texts, of_tokens)
            sum_up(self._measured.texts, one.key, measured)
            done += one.operations(of_texts, of_tokens, known, on_gpu=on_gpu)
        return done

    def save(self, wall_seconds: float | None = None, start_seconds: float | None = None) -> None:
        """Add the measurements to the file, if it can be written.

        Args:
            wall_seconds: seconds from the prediction to the end; None: interrupted. They count only
                if all predicted cells have been recorded.
            start_seconds: the part of these before the first cell.
        """
        rates, now = read_rates(), self._measured
        machine, processes = self._prediction.machine, self._prediction.processes
        for key, entry in now.encoding.items():
            add(rates.encoding, key, entry, _MEMORY_SECONDS)
        for key, entry in now.texts.items():
            # The same texts have the same tokens, so there is nothing to average.
            add(rates.texts, key, entry, 0.0)
        for key, entry in now.scoring.items():
            add(rates.scoring, key, entry, _MEMORY_CELLS)
        if start_seconds is not None:
            add(rates.starts, machine.key, (1.0, start_seconds), _MEMORY_RUNS)
        work = work_seconds(self._cells, machine, processes)
        whole = len(self._cells) == len(self._prediction.cells) and work >= _LEAST_WORK
        if whole and wall_seconds is not None and start_seconds is not None:
            took = (work, wall_seconds - start_seconds)
            add(rates.overlaps, overlap_key(machine, processes), took, _MEMORY_SECONDS)
        write_rates(rates)
        self._measured, self._cells = Rates(), []
