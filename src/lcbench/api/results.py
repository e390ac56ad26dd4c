"""Gives access to results as data frames: of a folder of results, or of one request."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.system.words import several

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.api.report import Report
    from lcbench.reporting.select import Selected
    from lcbench.system.observer import Observer


class Results:
    """Scores, and the items that they are computed from, as data frames.

    `evaluate` and `load` return it, and a notebook shows its Table 1. Frames are read on first use.

    Attributes:
        folder: the folder of results.
        failed: cells without a result, with a reason in one line each.
    """

    def __init__(
        self,
        folder: Path,
        selected: Selected,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        """Hold what was selected from a folder.

        Args:
            folder: the folder of results.
            selected: tables, and the scores that they were built from.
            failed: see above.
        """
        self.folder = folder
        self.failed = dict(failed or {})
        self._selected = selected

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores × 100, a row per protocol, window, model, task and τ.

        Columns: protocol, window, model, revision, column (of Table 1), task, tau (a number, or
        text for other policies), correct (if there are corrections; "" is none), score, baseline
        (the score at τ = 1 under the same conditions), improvement (over the baseline, in %). A
        missing score is NaN.
        """
        from lcbench.api.frames import frame_of_tables

        return frame_of_tables(self._selected.tables)

    @cached_property
    def table1(self) -> pd.DataFrame:
        """Scores × 100 averaged by column, and their average, a row per model and τ."""
        from lcbench.api.frames import table1

        return table1(self._selected.tables)

    def items(self) -> pd.DataFrame:
        """Return the items of the scores, a row per model, τ, task and query, text or pair.

        Columns: protocol, window, model, task, tau, split, subset, id, tokens (number that the
            model reads), characters, score (as a fraction), gold, and others that only some tasks
            have.
        """
        from lcbench.api.frames import frame_of_items

        return frame_of_items(self._selected.tables, self._selected.scores)

    def by_length(self, *, resamples: int = 2_000, seed: int = 0) -> pd.DataFrame:
        """Return scores × 100 by length, a row per model, task, τ and range of tokens.

        Columns: protocol, model, column, task, by (whose length: document, query, text or pair),
        metric, shortest and longest (range of tokens; no longest if texts were truncated), count,
        tau, score, improvement (over the baseline, in %) and its 95 % interval, low to high.

        Args:
            resamples: number of bootstrap samples for intervals; 0: no intervals.
            seed: seed of the bootstrap.

        Raises:
            RequestError: too few resamples for an interval, or not a seed.
        """
        from lcbench.api.frames import frame_by_length
        from lcbench.settings.read import resamples_of
        from lcbench.settings.values import count_of

        resamples, seed = resamples_of(resamples), count_of("seed", seed, least=0)
        return frame_by_length(self._selected.tables, self._selected.scores, resamples, seed)

    def report(
        self,
        report_dir: str | Path | None = None,
        *,
        resamples: int = 10_000,
        seed: int = 0,
        progress: bool | Observer = True,
    ) -> Report:
        """Write the tables, figures and page of these results.

        Args:
            report_dir: folder of the report; by default `report` in the folder of results.
            resamples: number of bootstrap samples for intervals; 0: no intervals.
            seed: seed of the bootstrap.
            progress: whether to print progress.

        Raises:
            RequestError: an argument is invalid, or the folder cannot be written.
        """
        from lcbench.api.report import write_report
        from lcbench.reporting.select import Extent, find
        from lcbench.settings.read import resamples_of
        from lcbench.settings.values import count_of, path_of
        from lcbench.system.observer import observer_of

        observer = observer_of(progress)
        extent = Extent(resamples_of(resamples), count_of("seed", seed, least=0))
        given = os.fspath(report_dir) if isinstance(report_dir, os.PathLike) else report_dir
        folder = path_of("report_dir", given)
        selected = self._selected if folder is None else replace(self._selected, folder=folder)
        with observer.doing("working out the report"):
            found = find(selected, observer.warn, extent)
            return write_report(found, observer)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        cells = several(len(self.scores), "score")
        return f"<lcbench.Results of {self.folder}: {cells}{failed}>\n{self.table1}"

    def _repr_html_(self) -> str:
        table: Any = self.table1
        return str(table.to_html(float_format="{:.2f}".format, na_rep="–"))


def load(
    results_dir: str | Path = "results/runs",
    *,
    tasks: Any = None,
    models: str | Sequence[str] | None = None,
    also: str | Path | Sequence[str | Path] | None = None,
    config_dir: str | Path | None = None,
) -> Results:
    """Read a folder of results, written by a command, a cluster or `evaluate`.

    Args:
        results_dir: the folder.
        tasks: tasks to read: a name, a suite, or a list of these; by default all.
        models: models to read; by default all.
        also: further folders of results, read together with the first; a cell that is in two
            folders counts once.
        config_dir: a folder of your own configs, as for `--config-dir`.

    Raises:
        RequestError: there are no results of these tasks and models, or two folders have different
            scores of the same cell.

    Examples:
        >>> results = lcbench.load("results/runs")
        >>> results.scores.query("tau == 0.8").sort_values("improvement")
        >>> results.by_length()
    """
    from lcbench.api.compose import composed
    from lcbench.api.keywords import words_of
    from lcbench.api.report import refuse_empty
    from lcbench.reporting.select import select_folder
    from lcbench.results.folder import Results as ResultFiles
    from lcbench.settings.read import read_report
    from lcbench.settings.sources import shipped_sources
    from lcbench.system.observer import Observer

    keywords = {"results_dir": results_dir, "tasks": tasks, "models": models, "also": also}
    with composed("report", words_of("report", keywords), config_dir) as config:
        settings = read_report(config)
    refuse_empty(settings.also)
    selected = select_folder(
        ResultFiles(settings.results_dir, settings.also),
        settings.tasks,
        None,
        Observer().warn,
        settings.models,
        shipped_sources(),
    )
    return Results(settings.results_dir, selected)
