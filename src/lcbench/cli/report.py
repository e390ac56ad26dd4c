"""`python -m lcbench report`: the tables and figures of a folder of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.system.console import screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.errors import RequestError
    from lcbench.plan import manifest
    from lcbench.reporting.select import Extent, report_folder, report_sweep
    from lcbench.results.folder import Results
    from lcbench.settings.read import read_report

    settings = read_report(config)
    if settings.manifest is not None:
        if settings.tasks is not None:
            raise RequestError(
                f"manifest={settings.manifest} has tasks of its own: leave tasks= out, or report "
                f"those of the folder: results_dir={settings.results_dir}."
            )
        path = manifest.find(settings.manifest, settings.results_dir)
        extent = Extent(settings.resamples, settings.seed, settings.models, settings.against)
        report_sweep(path, settings.report_dir, screen(), warn, extent)
    else:
        report_folder(settings, Results(settings.results_dir), screen(), warn)
    return 0
