"""`python -m lcbench export`: writes a model with a repair built in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.export import export_asked
from lcbench.cli.console import screen

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    out, error = export_asked(config)
    screen().print(
        f"Exported to {out}. Largest relative difference from the repaired model: {error:.1e}."
    )
    return 0
