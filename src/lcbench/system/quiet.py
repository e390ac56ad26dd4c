"""Libraries that print what no user asked for, made quiet."""

from __future__ import annotations

import os
import warnings

from lcbench.system.hardware import log_bars


def quiet_libraries() -> None:
    """Keep the libraries' chatter off the screen: bars and notices that every run would repeat."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    log_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # mteb says each of its warnings twice, once as a warning and once in its log.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*is superseded by.*")
    # Of mteb's precision for a label that was never predicted: it counts as 0, and no main score
    # of a classification task is made of it.
    warnings.filterwarnings("ignore", message=r".*is ill-defined and being set to 0\.0.*")
