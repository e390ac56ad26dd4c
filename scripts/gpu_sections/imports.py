"""How long a process of lcbench takes to start: its imports, the first time and once more.

The first time compiles what no process has compiled before, so that other sections need not.
As a program it prints the seconds of each library.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

from gpu_sections.check import Check, Command, environment

# In the order in which lcbench comes to them.
_LIBRARIES = (
    *("torch", "transformers", "sentence_transformers", "datasets", "mteb"),
    "lcbench.run.runner",
)


def run(check: Check) -> None:
    """Import everything twice, in processes of their own."""
    check.measure("bytecode is written", str(not sys.dont_write_bytecode))
    for time_of in ("first", "second"):
        with check.part(f"{time_of} time"):
            log = check.folder / f"{time_of}.log"
            command = Command([str(Path(__file__))], log, environment())
            if command.wait(check.seconds_left) != 0:
                raise RuntimeError(command.last_line)
            seconds = json.loads(command.last_line)
            heading = ["seconds of imports", *_LIBRARIES, "all"]
            cells = [f"{seconds[name]:.1f}" for name in _LIBRARIES]
            row = [f"the {time_of} time", *cells, f"{sum(seconds.values()):.1f}"]
            check.add_row("imports", heading, row)


def seconds_of_imports() -> dict[str, float]:
    """Import each library, and return how long that took beyond those before it."""
    seconds = {}
    for name in _LIBRARIES:
        began = time.perf_counter()
        importlib.import_module(name)
        seconds[name] = time.perf_counter() - began
    return seconds


if __name__ == "__main__":
    print(json.dumps(seconds_of_imports()))
