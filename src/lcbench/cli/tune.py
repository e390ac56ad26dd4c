"""`python -m lcbench tune`: makes temperatures by layer, head and length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.tune import tune_asked
from lcbench.cli.console import ConsoleObserver, screen

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from rich.text import Text

    console = screen()
    for line in tune_asked(config, ConsoleObserver(console)).lines:
        console.print(Text(line))
    return 0
