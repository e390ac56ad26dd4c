"""The table of commands: `python -m lcbench NAME key=value …`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        module: module in `lcbench.cli` whose function `job` runs the command.
        config: file in `conf` with the command's keys.
        summary: description in one line.
    """

    module: str
    config: str
    summary: str


COMMANDS = {
    "run": Command("run", "config", "run a model or a sweep against its baseline (the default)"),
    "collapse": Command(
        "collapse", "collapse", "measure whether long texts' embeddings crowd together, and why"
    ),
    "report": Command("report", "report", "tables, figures and page of a folder of results"),
    "status": Command(
        "status", "status", "cells of a sweep that are done, running, failed or missing"
    ),
    "tasks": Command(
        "tasks", "tasks", "suites and tasks, their sizes, and whether their data is cached"
    ),
    "estimate": Command(
        "estimate", "config", "cells, tokens and hours of a run, before running it"
    ),
    "prefetch": Command("prefetch", "prefetch", "fetch everything that a run needs from the hub"),
    "plan": Command("plan", "config", "freeze a sweep and divide it into array tasks"),
    "export": Command("export", "export", "write a model with a repair built in"),
    "tune": Command(
        "tune", "tune", "recommend the repair to ship with a model, or none; make temperatures"
    ),
    "card": Command("card", "card", "write a model's scores and gains as a section of its card"),
    "pack": Command("pack", "pack", "copy results into the layout of mteb's results repository"),
    "import": Command(
        "import_results", "import_results", "import public mteb results as baselines"
    ),
    "doctor": Command(
        "doctor", "doctor", "check versions, devices, caches, network and optional packages"
    ),
}


def spelled(config: str) -> str:
    """Return the command line of the command with a config's keys."""
    for name, command in COMMANDS.items():
        if command.config == config:
            return "python -m lcbench" if name == "run" else f"python -m lcbench {name}"
    raise KeyError(config)
