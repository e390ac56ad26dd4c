"""`python -m lcbench`: one model or a sweep, at temperatures, over tasks, against the baseline."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lcbench.command import (
    choices,
    complain,
    refuse_another_name,
    run_command,
    screen,
    warn,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from lcbench.settings import Settings


def main() -> None:
    """Run the command line and end the process with its exit status."""
    sys.exit(run_command("config", _job))


def _job(config: DictConfig) -> int:
    from lcbench.report.write import report_run
    from lcbench.results import Results
    from lcbench.sweep import run

    settings = compose_settings(config)
    console = screen()
    outcome = run(settings, console, warn)
    report_run(settings, Results(settings.results_dir), outcome, console, warn)
    for name, reason in outcome.refused.items():
        complain(f"{name} is refused: {reason}")
    for cell, reason in outcome.failed.items():
        complain(f"{cell} failed: {reason}")
    if outcome.refused:
        return 2
    return 1 if outcome.failed else 0


def compose_settings(config: DictConfig, config_name: str = "config") -> Settings:
    """Return the settings of a composed config; each model of a sweep is composed by itself.

    Args:
        config: composed by Hydra.
        config_name: of the file in `conf` that it was composed from.
    """
    from hydra import compose

    from lcbench import settings

    overrides, chosen = choices("model")
    refuse_another_name()
    names = settings.model_names(config)
    # A model named on the command line takes the place of the sweep's.
    if names is None or chosen:
        name = chosen[-1] if chosen else _default_model()
        return settings.read({name: config})
    return settings.read(
        {name: compose(config_name, overrides=[*overrides, f"model={name}"]) for name in names}
    )


def _default_model() -> str:
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices["model"])


if __name__ == "__main__":
    main()
