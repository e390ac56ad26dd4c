"""`python -m lcbench collapse`: measures length collapse, and says what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.collapse import measure_asked
from lcbench.cli.console import ConsoleObserver, complain, screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from rich.text import Text

    from lcbench.cli.tables import rendered
    from lcbench.settings.collapse import read_collapse
    from lcbench.system.signals import Stop

    settings, console = read_collapse(config), screen()
    with Stop():
        found = measure_asked(config, settings, ConsoleObserver(console))
    if found:
        from lcbench.reporting.collapse import report

        written = report(found.measurements, settings.report_dir, found.figures, found.inside)
        for table in written.shown:
            console.print(rendered(table))
        console.print()
        for line in written.headlines:
            console.print(Text(line))
        console.print(Text(f"Written to {written.folder}: {', '.join(written.files)}", "dim"))
    # What a model's texts lack they lack at every temperature.
    for reason in dict.fromkeys(found.failed.values()):
        names = "; ".join(name for name, why in found.failed.items() if why == reason)
        complain(f"{names} could not be measured: {reason}")
    for line in found.notes:
        warn(line)
    if found.failed:
        # A request that nothing could be made of was wrong.
        return 1 if found else 2
    return 1 if settings.fails_on_collapse and found.collapses else 0
