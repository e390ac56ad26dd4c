"""`python -m lcbench export`: a sentence-transformers model whose weights carry a temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.cli.overrides import refuse_another_name
from lcbench.run.export import export
from lcbench.system.console import screen

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.read import read_export

    refuse_another_name()
    settings = read_export(config)
    error = export(settings)
    screen().print(f"{settings.out}: written; its embeddings differ by {error:.1e} at most.")
    return 0
