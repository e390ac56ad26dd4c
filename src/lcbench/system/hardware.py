"""What a run needs of its process: devices, and libraries that keep quiet."""

from __future__ import annotations

import io
import os
import warnings
from functools import partialmethod

from lcbench.errors import RequestError
from lcbench.results.provenance import cores
from lcbench.settings.read import EngineSettings
from lcbench.system.log import LOGGER

# Between two lines of a library's bar in the log.
_BAR_SECONDS = 30.0


class _Log(io.TextIOBase):
    """A file whose lines go to the log: for libraries that draw bars."""

    def write(self, text: str) -> int:
        if line := text.strip():
            LOGGER.info("%s", line)
        return len(text)


def quiet_libraries() -> None:
    """Keep the libraries' chatter off the screen: bars and notices that every run would repeat."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    _log_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # mteb says each of its warnings twice, once as a warning and once in its log.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*is superseded by.*")
    # Of mteb's precision for a label that was never predicted: it counts as 0, and no main score
    # of a classification task is made of it.
    warnings.filterwarnings("ignore", message=r".*is ill-defined and being set to 0\.0.*")


def _log_bars() -> None:
    """Let bars that libraries draw with tqdm go to the log: mteb's cannot be told to keep quiet."""
    from tqdm import tqdm

    keywords = getattr(vars(tqdm)["__init__"], "keywords", {})
    if not isinstance(keywords.get("file"), _Log):
        tqdm.__init__ = partialmethod(tqdm.__init__, file=_Log(), mininterval=_BAR_SECONDS)


def share_cores(scoring: int) -> None:
    """Leave the cores to the tokenizer's threads on which no other process scores.

    On a GPU texts have to be tokenised while others are encoded and others still are scored. Only
    what makes the library's threads first has a say in how many there are.

    Args:
        scoring: processes that score.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, cores() - scoring)))


def device_of(engine: EngineSettings) -> str:
    """Return the device that a run uses.

    Raises:
        RequestError: torch does not find it here.
    """
    return devices_of(engine)[0]


def devices_of(engine: EngineSettings) -> list[str]:
    """Return the devices that a run uses: every GPU, unless one is named.

    Raises:
        RequestError: torch does not find it here.
    """
    import torch

    cuda = torch.cuda.is_available()
    every = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if cuda else []
    if engine.device == "auto":
        return every or ["cpu"]
    if engine.device == "cuda" and cuda:
        return every
    if engine.device.startswith("cuda") and not cuda:
        raise RequestError(
            f"engine.device={engine.device}: torch finds no CUDA device here; "
            "use engine=auto or engine=cpu."
        )
    if engine.device.startswith("mps") and not torch.backends.mps.is_available():
        raise RequestError("engine.device=mps: torch finds no such device here.")
    return [engine.device]
