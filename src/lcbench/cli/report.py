"""`python -m lcbench report`: the tables and figures of a folder of results."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lcbench.cli.app import run_command, screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main() -> None:
    """Run the command line and end the process with its exit status."""
    sys.exit(run_command("report", _job))


def _job(config: DictConfig) -> int:
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


if __name__ == "__main__":
    main()
