"""Completion in a shell: Hydra's (`-sc`), with lcbench's commands and the keys of each.

Hydra's script for a shell asks the command itself for completions of the line so far, and knows one
config. Here the line's first word chooses the config.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

import hydra

from lcbench.api.commands import COMMANDS
from lcbench.cli.console import complain, emit
from lcbench.settings.configs import config_folder, keys_of

FLAGS = ("-sc", "--shell-completion")
"""Hydra's flags for completion."""
_SHELLS = ("bash", "zsh", "fish")
# The line that is to be completed; Hydra reads it there.
_LINE = "COMP_LINE"


def complete(words: Sequence[str]) -> int:
    """Carry out `-sc install=SHELL`, `-sc uninstall=SHELL` or `-sc query=SHELL`.

    Args:
        words: arguments of the command.

    Returns:
        The exit status.
    """
    action, _, shell = (words[1] if len(words) == 2 else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in _SHELLS:
        complain(
            f"{words[0]} takes one of install=, uninstall= and query= with one of "
            f'{", ".join(_SHELLS)}: eval "$(lcbench -sc install=bash)"'
        )
        return 2
    if action != "query":
        emit(_of_hydra("config", words))
        return 0
    typed = os.environ.get(_LINE, "").split(" ")
    # Words before the one that is completed, of which the first is the program.
    before = [word for word in typed[1:-1] if word]
    name = before[0] if before and before[0] in COMMANDS else "run"
    if before[:1] == [name]:
        before = before[1:]
    found = [one for one in COMMANDS if len(typed) == 2 and one.startswith(typed[-1])]
    os.environ[_LINE] = " ".join(["lcbench", *before, typed[-1]])
    config = COMMANDS[name].config
    # Hydra also lists its own keys, and the groups of other commands.
    own = {key.partition(".")[0] for key in keys_of(config)}
    keys = (one for one in _of_hydra(config, words).split() if _name(one) in own)
    emit(" ".join([*found, *keys]) + "\n")
    return 0


def _name(candidate: str) -> str:
    return re.split(r"[=./]", candidate.lstrip("+~"), maxsplit=1)[0]


def _of_hydra(config: str, words: Sequence[str]) -> str:
    """Return what Hydra prints for a flag of completion, about the keys of a config."""
    sys.argv[1:] = words
    decorate = hydra.main(config_path=str(config_folder()), config_name=config, version_base="1.3")
    with redirect_stdout(io.StringIO()) as printed:
        decorate(lambda _: None)()
    return printed.getvalue()
