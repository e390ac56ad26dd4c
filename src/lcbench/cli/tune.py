"""`python -m lcbench tune`: recommends a repair, or makes temperatures by layer and head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.recommend import recommend_asked
from lcbench.api.tune import tune_asked
from lcbench.cli.console import ConsoleObserver, screen
from lcbench.settings.tune import ChooseSettings, read_tune

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from rich.text import Text

    from lcbench.system.signals import Stop

    console = screen()
    observer = ConsoleObserver(console)
    asked = read_tune(config)
    if not isinstance(asked, ChooseSettings):
        for line in tune_asked(config, asked, observer).lines:
            console.print(Text(line))
        return 0
    from lcbench.cli.tables import rendered

    # Signals are handled from here on, before the slow imports.
    with Stop() as stop:
        found = recommend_asked(config, asked, observer, stop)
    console.print()
    for line in found.lines:
        console.print(Text(line))
    for table in found.tables:
        console.print(rendered(table))
    console.print(Text(f"Written to {found.path}", "dim"), soft_wrap=True)
    return 0
