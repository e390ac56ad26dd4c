"""`python -m lcbench plan`: freezes a sweep into a manifest, divided into array elements.

It takes the keys of `python -m lcbench`. `python -m lcbench manifest=PATH` then runs the sweep as a
whole or element by element, here, on several machines at once, or as a Slurm array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.cli.console import ConsoleObserver, screen
from lcbench.plan.freeze import describe, freeze_sweep

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.api.compose import compose_settings
    from lcbench.errors import RequestError
    from lcbench.settings.read import read_run

    asked = read_run(config)
    if asked.manifest is not None:
        raise RequestError(f"manifest={asked.manifest} is already planned.")
    observer = ConsoleObserver(screen())
    frozen = freeze_sweep(compose_settings(config), asked.launch, observer)
    observer.say(describe(frozen))
    return 0
