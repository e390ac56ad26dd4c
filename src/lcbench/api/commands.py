"""The commands by name: `python -m lcbench NAME key=value …`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        module: in `lcbench.cli`; its function `job` carries the command out.
        config: file in `conf` whose keys it takes.
        summary: what it does, in a line.
    """

    module: str
    config: str
    summary: str


COMMANDS = {
    "run": Command("run", "config", "run a model or a sweep against its baseline (the default)"),
    "report": Command("report", "report", "tables, figures and page of a folder of results"),
    "status": Command("status", "status", "what of a sweep is done, running, failed or missing"),
    "tasks": Command(
        "tasks", "tasks", "suites and tasks, their sizes, and whether their data is here"
    ),
    "estimate": Command("estimate", "config", "cells, tokens and hours of a run, before it is run"),
    "prefetch": Command("prefetch", "prefetch", "fetch all that a run needs from the hub"),
    "plan": Command("plan", "config", "freeze a sweep and divide it into array tasks"),
    "export": Command("export", "export", "write a model whose weights carry a temperature"),
    "import": Command(
        "import_results", "import_results", "take public results of mteb as baselines"
    ),
}


def spelled(config: str) -> str:
    """Return how the command is typed that takes the keys of a config."""
    for name, command in COMMANDS.items():
        if command.config == config:
            return "python -m lcbench" if name == "run" else f"python -m lcbench {name}"
    raise KeyError(config)
