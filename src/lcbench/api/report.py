"""Reports on a folder of results or a request, for commands and as `lcbench.report`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.errors import NoResultsError, RequestError

if TYPE_CHECKING:
    import pandas as pd

    from lcbench.api.collapses import Collapses
    from lcbench.plan.manifest import Manifest
    from lcbench.reporting import publish
    from lcbench.reporting.publish import Step
    from lcbench.reporting.select import AskedCell, Request
    from lcbench.results.cell import Cell
    from lcbench.settings.schema import ReportSettings, Settings
    from lcbench.system.observer import Observer

# The default of `results_dir`, which says nothing of where a manifest is.
DEFAULT_RESULTS = Path("results/runs")


def find_report(
    settings: ReportSettings, warn: Callable[[str], None], step: Step | None = None
) -> publish.Report | None:
    """Work out the report of a folder of results or of a frozen sweep.

    Args:
        settings: of the report.
        warn: receives a line about each file that is left out.
        step: receives progress.

    Returns:
        The report, not yet written (`publish`); None if the sweep has no result.

    Raises:
        RequestError: there are no results, none of the requested models, or none in the second
            folder; or the report's folder cannot be written.
    """
    from lcbench.reporting.select import AskedCell, Extent, report_folder, report_run
    from lcbench.results.folder import Results
    from lcbench.settings.frozen import thaw
    from lcbench.settings.sources import shipped_sources

    # Any other name that is asked for stands for a table that is there.
    repairs = "repairs" in settings.show
    extent = Extent(settings.resamples, settings.seed, settings.models, settings.against, repairs)
    if settings.manifest is None:
        refuse_empty(settings.also)
        return report_folder(
            Results(settings.results_dir, settings.also),
            settings.tasks,
            settings.report_dir,
            warn,
            extent,
            step,
            sources=shipped_sources(),
        )
    if settings.tasks is not None:
        raise RequestError(
            f"manifest={settings.manifest} has its own tasks: omit tasks=, or report tasks "
            f"of the whole folder: results_dir={settings.results_dir}."
        )
    frozen = _frozen_of(settings, settings.manifest)
    folder = frozen.results_dir
    kept = thaw(frozen.settings, folder)
    cells = [
        AskedCell(line.model, line.policy, folder / line.folder / f"{line.task}.json")
        for line in frozen.lines
    ]
    if not any(cell.path.exists() for cell in cells):
        raise RequestError(f"manifest={frozen.folder}: none of its {len(cells)} cells is finished.")
    request = request_of(kept, cells)
    return report_run(request, Results(folder), settings.report_dir, warn, extent, step)


def find_collapse(settings: ReportSettings) -> tuple[Collapses | None, int]:
    """Return the measurements of collapse that a report shows besides scores.

    Of a folder these are the ones that can be compared with the last one, of a manifest its own and
    others of the same texts.

    Returns:
        The measurements, None without any; and how many others the folders have.

    Raises:
        RequestError: none of the manifest's is finished.
    """
    from lcbench.api.collapses import Collapses
    from lcbench.api.measured import comparable_in, finished_of

    others = 0
    if settings.manifest is None:
        found, others = comparable_in(settings.results_dir, *settings.also)
    elif settings.tasks is None:
        found = finished_of(_frozen_of(settings, settings.manifest))
    else:
        # `find_report` refuses them.
        return None, 0
    return (Collapses.of(found) if found else None), others


def _frozen_of(settings: ReportSettings, named: Path) -> Manifest:
    """Return the frozen sweep that a manifest names.

    Raises:
        RequestError: it cannot be read, or is in another results folder than the one asked for.
    """
    from lcbench.plan import manifest

    frozen = manifest.read(manifest.find(named, settings.results_dir))
    asked = settings.results_dir
    if asked != DEFAULT_RESULTS and asked.resolve() != frozen.results_dir.resolve():
        raise RequestError(
            f"results_dir={asked}: manifest={named} belongs to the results folder that contains "
            f"it, {frozen.results_dir}. Omit one of them."
        )
    return frozen


def collapse_folder(settings: ReportSettings) -> Path:
    """Return the folder of the report of measurements of collapse.

    Raises:
        RequestError: the settings name a manifest that cannot be read.
    """
    results_dir = settings.results_dir
    if settings.manifest is not None:
        results_dir = _frozen_of(settings, settings.manifest).results_dir
    return (settings.report_dir or results_dir / "report") / "collapse"


def refuse_empty(folders: Iterable[Path]) -> None:
    """Refuse further folders without results, which are probably misspelled.

    Raises:
        RequestError: naming the first.
    """
    for folder in folders:
        if not any(path for kind in ("results", "collapse") for path in folder.glob(f"*/{kind}")):
            raise RequestError(f"also={folder} has no results.")


def request_of(settings: Settings, cells: Sequence[AskedCell]) -> Request:
    """Return the report request for the cells of a run."""
    from lcbench.reporting.select import Request

    return Request(
        label=settings.label,
        cells=cells,
        tasks=[task.name for task in settings.tasks],
        suites=settings.suites,
        sources=settings.sources,
        splits=settings.protocol.splits,
        subsets=settings.protocol.subsets,
    )


def request_of_run(settings: Settings, cells: Iterable[Cell]) -> Request:
    """Return the report request for a run whose cells have ended."""
    from lcbench.reporting.select import AskedCell
    from lcbench.results.folder import Results

    results = Results(settings.results_dir)
    return request_of(
        settings,
        [
            AskedCell(cell.model, cell.repair.canonical, results.files(cell).result)
            for cell in cells
        ],
    )


@dataclass(frozen=True, repr=False)
class Report:
    """A written report: tables, figures and a page.

    Attributes:
        folder: folder of the report.
        files: names of its files, sorted.
        lines: findings, in sentences, those of collapse last.
        tables: its tables by the names that their files have: `tables["lengths"]`.
        scores: scores per model, task and τ; see `Results.scores`.
        table1: scores averaged by column, see `Results.table1`.
        collapse: measurements of collapse, with tables of their own; None: the folder has none.
            Their report is in `collapse` below the folder, or the only one.
    """

    folder: Path
    files: tuple[str, ...]
    lines: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    scores: pd.DataFrame
    table1: pd.DataFrame
    collapse: Collapses | None = None

    @property
    def page(self) -> Path:
        """The path of the page, a single file for a browser without network."""
        from lcbench.reporting.publish import PAGE

        return self.folder / PAGE

    def __repr__(self) -> str:
        return "\n".join([*self.lines, f"Page: {self.page}"])

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(line)}</p>" for line in self.lines)
        table = ""
        if not self.table1.empty:
            table = self.table1.to_html(float_format="{:.2f}".format, na_rep="–")
        return f"{said}{table}<p>Page: {escape(str(self.page))}</p>"


def write_report(found: publish.Report, observer: Observer) -> Report:
    """Write a report into its folder, and return it as data frames.

    Raises:
        StorageError: the folder cannot be written.
    """
    from lcbench.api.frames import frame_of_table, frame_of_tables, table1
    from lcbench.reporting.publish import publish

    files = publish(found)
    tables = [one.table for one in found.findings.score_tables]
    observer.say(f"Written to {found.folder}")
    return Report(
        folder=found.folder,
        files=tuple(files),
        lines=tuple(found.words),
        tables={one.name: frame_of_table(one) for one in found.findings.tables},
        scores=frame_of_tables(tables),
        table1=table1(tables),
    )


def report(
    results_dir: str | Path = "results/runs",
    *,
    report_dir: str | Path | None = None,
    tasks: Any = None,
    models: str | Sequence[str] | None = None,
    against: str | Path | None = None,
    also: str | Path | Sequence[str | Path] | None = None,
    config_dir: str | Path | None = None,
    progress: bool | Observer = True,
    **keys: Any,
) -> Report:
    """Write the tables, figures and page of all results in a folder; no model is loaded.

    Measurements of collapse have a page of their own. It does the same as
    `python -m lcbench report results_dir=…` and writes the same files.

    Args:
        results_dir: folder of results.
        report_dir: folder of the report; by default `report` in the folder of results.
        tasks: tasks to report: a name, a suite, or a list of these; by default all.
        models: models to report; two or more are also compared with each other. By default all.
        against: second folder of results to compare with.
        also: further folders of results, reported together with the first.
        config_dir: a folder of your own configs, as for `--config-dir`.
        progress: whether to print progress; or an `lcbench.system.observer.Observer`.
        keys: any other key of `python -m lcbench report`: `resamples`, `seed`, `manifest`.

    Returns:
        The findings in sentences (`.lines`), the tables as data frames, the measurements of
        collapse (`.collapse`), and the path of the page. A notebook shows it.

    Raises:
        RequestError: the request is invalid; the message is that of the command line.
        StorageError: the report cannot be written.

    Examples:
        >>> written = lcbench.report("results/runs")
        >>> written.lines[0]
        >>> written.page
    """
    import pandas as pd

    from lcbench.api.compose import composed
    from lcbench.api.frames import frame_of_tables
    from lcbench.api.keywords import words_of
    from lcbench.settings.read import read_report
    from lcbench.system.observer import observer_of

    observer = observer_of(progress)
    if "show" in keys:
        raise RequestError("show: for commands, not for Python; .tables has every table.")
    own = {
        "results_dir": results_dir,
        "report_dir": report_dir,
        "tasks": tasks,
        "models": models,
        "against": against,
        "also": also,
    }
    with composed("report", words_of("report", {**own, **keys}), config_dir) as config:
        settings = read_report(config)
    measured, _ = find_collapse(settings)
    alone: Report | None = None
    if measured is not None:
        written = measured.write(collapse_folder(settings))
        alone = Report(
            folder=written.folder,
            files=tuple(sorted(written.files)),
            lines=measured.headlines,
            tables=measured.tables,
            scores=frame_of_tables([]),
            table1=pd.DataFrame(),
            collapse=measured,
        )
        observer.say(f"Written to {written.folder}")
        if settings.manifest is not None:
            return alone
    try:
        with observer.doing("working out the report"):
            report = find_report(settings, observer.warn)
    except NoResultsError:
        # Of measurements alone nothing else can be said.
        if alone is None:
            raise
        return alone
    if report is None:
        raise RequestError(f"manifest={settings.manifest}: none of its cells has a result.")
    scored = write_report(report, observer)
    if alone is None:
        return scored
    return replace(scored, lines=(*scored.lines, *alone.lines), collapse=measured)
