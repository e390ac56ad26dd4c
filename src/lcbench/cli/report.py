"""`python -m lcbench report`: the tables and figures of a folder of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcbench.system.console import screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.reporting.select import AskedCell, Request
    from lcbench.settings.schema import Settings


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.errors import RequestError
    from lcbench.plan import manifest
    from lcbench.reporting.select import AskedCell, Extent, report_folder, report_run
    from lcbench.results.folder import Results
    from lcbench.settings.frozen import thaw
    from lcbench.settings.read import read_report
    from lcbench.settings.sources import shipped_sources

    settings = read_report(config)
    extent = Extent(settings.resamples, settings.seed, settings.models, settings.against)
    if settings.manifest is not None:
        if settings.tasks is not None:
            raise RequestError(
                f"manifest={settings.manifest} has tasks of its own: leave tasks= out, or report "
                f"those of the folder: results_dir={settings.results_dir}."
            )
        path = manifest.find(settings.manifest, settings.results_dir)
        frozen = manifest.read(path)
        folder = frozen.results_dir
        kept = thaw(frozen.settings, folder)
        cells = [
            AskedCell(line.model, line.policy, folder / line.folder / f"{line.task}.json")
            for line in frozen.lines
        ]
        if not any(cell.path.exists() for cell in cells):
            raise RequestError(f"manifest={path}: none of its {len(cells)} cells is finished.")
        request = request_of(kept, cells)
        report_run(request, Results(folder), settings.report_dir, screen(), warn, extent)
    else:
        results = Results(settings.results_dir)
        report_folder(
            results,
            settings.tasks,
            settings.report_dir,
            screen(),
            warn,
            extent,
            shipped_sources(),
        )
    return 0


def request_of(settings: Settings, cells: Sequence[AskedCell]) -> Request:
    """Return what a report needs to know of a request that asks for some cells."""
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
