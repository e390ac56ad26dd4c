"""Silences notices and progress bars of libraries."""

from __future__ import annotations

import os
import warnings

from lcbench.system.hardware import log_bars
from lcbench.system.imports import import_libraries


def quiet_libraries() -> None:
    """Turn off progress bars and notices that libraries would print on every run."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import_libraries("datasets", "transformers")
    import datasets
    import transformers

    datasets.disable_progress_bars()
    log_bars()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    # mteb issues each warning twice, as a warning and in its log.
    logging.getLogger("mteb").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=r".*is superseded by.*")
    # Precision of a label that was never predicted: it counts as 0 in mteb, and no main score of a
    # classification task depends on it.
    warnings.filterwarnings("ignore", message=r".*is ill-defined and being set to 0\.0.*")
