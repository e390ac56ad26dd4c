"""Imports large libraries, which takes most of a short command's time."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def import_libraries(*names: str) -> None:
    """Import modules without garbage collection, and exclude their objects from it.

    They create 700,000 permanent objects, which the collector would scan again and again: a fifth
    of the import time, and most of each later collection. Forked processes share this memory as
    long as it is not touched.

    Args:
        names: names of the modules.
    """
    missing = [name for name in names if name not in sys.modules]
    # Otherwise other objects, such as models, would be frozen too, and could not be freed any more.
    if not missing:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in missing:
            import_module(name)
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
