"""`python -m lcbench estimate`: how many cells, texts, tokens and hours a request comes to.

The estimate is made before anything is fetched or loaded, from mteb's statistics of its tasks, the
models' shapes, and measurements on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.cli.console import ConsoleObserver, screen, warn
from lcbench.plan.estimate import describe

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.api.compose import compose_settings
    from lcbench.settings.read import read_run

    launch = read_run(config).launch
    settings = compose_settings(config)
    for task in settings.left_out:
        warn(f"left out: {task}.")
    console = screen()
    with ConsoleObserver(console).doing("estimating"):
        described = describe(settings, launch=launch)
    console.print(described, soft_wrap=True, markup=False)
    return 0
