"""Importing the libraries that do the work, which is most of a short command's time."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def import_libraries(*names: str) -> None:
    """Import modules while Python's garbage collector rests, and keep it off what they have made.

    They make 700,000 objects that stay to the end. The collector, which finds nothing among them,
    goes through all of them again and again: a fifth of the time that importing takes, and of each
    later collection most. Processes forked from this one share that memory as long as none of them
    touches it.

    Args:
        names: of the modules.
    """
    missing = [name for name in names if name not in sys.modules]
    # Else what is frozen would be whatever else there is: models that could not be freed any more.
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
