"""`python -m lcbench export`: a sentence-transformers model whose weights carry a temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.cli.console import screen
from lcbench.cli.overrides import refuse_another_name
from lcbench.hub import cache
from lcbench.run.export import export

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.read import read_export

    refuse_another_name()
    asked = read_export(config)
    if asked.hub is not None:
        cache.use(asked.hub)
    offline, mirror = asked.offline, asked.mirror
    error = export(asked.model, asked.policy, asked.out, offline=offline, mirror=mirror)
    screen().print(f"{asked.out}: written; its embeddings differ by {error:.1e} at most.")
    return 0
