"""`python -m lcbench import PATH`: imports public mteb results as baselines.

They are stored in lcbench's layout under a separate protocol: the conditions of an imported score
are only partly known, so it never replaces a measured baseline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import track
from rich.text import Text

from lcbench.cli.console import screen, warn
from lcbench.errors import RequestError
from lcbench.results.imported import Imported, import_results
from lcbench.settings.configs import known_keys
from lcbench.system.words import several

if TYPE_CHECKING:
    from omegaconf import DictConfig


# Hydra's flags whose value is a separate argument.
_FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--info", "-i", "--experimental-rerun"),
)


def job(config: DictConfig) -> int:
    """Carry out the command of a composed config; return its exit status."""
    from lcbench.settings.read import read_import

    console = screen()
    watch = partial(
        track,
        description="importing",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    done = import_results(read_import(config), warn, watch)
    for line in _summary(done):
        console.print(Text(line), soft_wrap=True)
    return 1 if done.refused else 0


def prepare(arguments: Sequence[str]) -> list[str]:
    """Return the command line in Hydra's grammar: a bare path becomes path=…

    An argument is a path if it has no `=`, begins like a path (`/`, `./`, `../`, `~/`), or names a
    folder and not a key.

    Raises:
        RequestError: there are two paths.
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    flags_value = {place + 1 for place, text in enumerate(arguments) if text in _FLAGS_WITH_VALUE}
    paths = [
        place
        for place, text in enumerate(arguments)
        if place not in flags_value and not text.startswith("-") and _is_path(text)
    ]
    if len(paths) > 1:
        both = " and ".join(arguments[place] for place in paths)
        raise RequestError(f"one PATH at a time, not {both}.")
    named = list(arguments)
    for place in paths:
        # Within quotes only `${` is special: OmegaConf takes it literally after a backslash.
        literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", named[place])
        named[place] = f"path={QuotedString(literal, Quote.single).with_quotes()}"
    return named


def _is_path(text: str) -> bool:
    key, equals, _ = text.partition("=")
    if not equals or text.startswith(("/", "./", "../", "~/")):
        return True
    key = key.lstrip("+~")
    return key not in known_keys() and not key.startswith("hydra") and Path(text).exists()


def _summary(done: Imported) -> list[str]:
    lines = [f"{_results(done.taken)} imported into {done.folder}"]
    if done.known:
        lines.append(f"{_results(done.known)} imported before and unchanged")
    if done.unused:
        lines.append(f"{_results(done.unused)} left out: no scores on the splits used here")
    if done.experiments:
        lines.append(f"{_results(done.experiments)} of experiments left out: not baselines")
    if done.refused:
        lines.append(f"{_results(done.refused)} refused, see above")
    if done.taken or done.known:
        lines.append("`python -m lcbench report` shows them in a separate table.")
    return lines


def _results(number: int) -> str:
    return several(number, "result")
