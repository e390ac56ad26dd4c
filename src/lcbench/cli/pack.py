"""`python -m lcbench pack`: packs results for mteb's results repository, or checks a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcbench.api.share import pack_asked
from lcbench.cli.console import complain, screen, warn
from lcbench.system.words import several

if TYPE_CHECKING:
    from omegaconf import DictConfig


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from rich.text import Text

    from lcbench.results.pack import SUMS
    from lcbench.settings.share import read_pack

    settings, console = read_pack(config), screen()
    packed = pack_asked(settings, warn)
    if settings.checks:
        for line in packed.wrong:
            complain(line)
        if not packed.wrong:
            console.print(Text(f"{settings.folder}: {several(packed.files, 'file')} as packed."))
        return 1 if packed.wrong else 0
    console.print(
        Text(
            f"{several(packed.cells, 'result')} in {settings.folder}, with digests in {SUMS}. "
            "mteb's results repository takes the folder results/ in it."
        ),
        soft_wrap=True,
    )
    for line in packed.remarks:
        console.print(Text(f"It does not take {line}."), soft_wrap=True)
    return 0
