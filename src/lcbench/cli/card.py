"""`python -m lcbench card`: writes a model's results as a section of its model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.share import card_asked
from lcbench.cli.console import emit, screen, warn

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.share import read_card

    settings = read_card(config)
    text = card_asked(settings, warn)
    if settings.out is None:
        emit(text)
        return 0
    screen().print(f"Written to {settings.out}", soft_wrap=True, markup=False)
    return 0
