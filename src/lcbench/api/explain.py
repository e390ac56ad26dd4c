"""Explains what is wrong with a request, for the command line and the Python API."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException

from lcbench.errors import RequestError, did_you_mean
from lcbench.settings.configs import config_groups, keys_of, known_keys

# Keys that do not affect what is fetched, or that prefetch does not have.
_NOT_FOR_PREFETCH = {
    "mirror",
    "offline",
    "verify",
    "out",
    "results_dir",
    "report_dir",
    "manifest",
    "element",
    "launch",
    "track",
}
# Former configs that differed from another in one key.
_REPLACED_CONFIGS = {
    "engine=cpu": "engine.device=cpu",
    "engine=gpu": "engine.device=cuda",
    "protocol=fp16": "protocol=paper protocol.dtype=float16",
    "protocol=bf16": "protocol=paper protocol.dtype=bfloat16",
    "protocol=tf32": "protocol=paper protocol.dtype=tf32",
}
_UNKNOWN_KEY = re.compile(r"Could not override '([^']+)'")


def explain(error: Exception, config_name: str = "config") -> str:
    """Return a message for one of Hydra's errors: the key, what is wrong, and the remedy."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        if not group:
            return f"--config-name {name}: there is no such config."
        if name in ("submitit_slurm", "submitit_local"):
            return f"{group}={name} needs a package: pip install 'lcbench[slurm]'"
        if instead := _REPLACED_CONFIGS.get(f"{group}={name}"):
            return f"{group}={name}: there is no such config; use {instead}"
        options = [option for option in error.options or [] if option != "custom"]
        custom = " (or custom, with model.name=…)" if group == "model" else ""
        return (
            f"{group}={name}: there is no such config.{did_you_mean(name, options)} "
            f"There are: {', '.join(options)}{custom}."
        )
    if unknown := _UNKNOWN_KEY.search(text):
        key = unknown.group(1)
        if key.startswith("launch.") and key in known_keys():
            return f"{key} is a key of launch=slurm; this is launch=local, the default."
        return (
            f"{key} is not a key.{did_you_mean(key, keys_of(config_name))} "
            "`python -m lcbench --help` lists them."
        )
    if isinstance(error, OverrideParseException):
        problem = error.message.partition("\n")[0]
        return (
            f"{error.override} cannot be read: {problem}. In a shell, quote what has braces, "
            "brackets or spaces: 'tau=[0.9,0.8]'."
        )
    if text.startswith("Ambiguous value"):
        return (
            f"{text.partition(chr(10))[0]}: it has several values. As one list: 'key=[a,b]'; "
            "as several runs, one after the other: -m key=a,b"
        )
    return text.partition("\n")[0]


def refuse_lists_of_configs(overrides: Sequence[str]) -> None:
    """Refuse several configs of one group, of which Hydra would keep the last.

    Raises:
        RequestError: naming the group.
    """
    groups = config_groups()
    for one in OverridesParser.create().parse_overrides(list(overrides)):
        if one.key_or_group in groups and isinstance(one.value(), list | dict):
            key, given = one.key_or_group, one.input_line
            value = one.value()
            several = ",".join(map(str, value)) if isinstance(value, list) else "a,b"
            raise RequestError(f"{given}: {key}= takes one config. For several: -m {key}={several}")


def prefetch_command(
    overrides: Sequence[str], folders: Sequence[str] = (), request: Sequence[str] | None = None
) -> str:
    """Return the shell command that fetches everything a request needs.

    Args:
        overrides: overrides of the request.
        folders: folders of the user's own configs.
        request: arguments of the request's command; None: the present command's.
    """
    words = ["python", "-m", "lcbench", "prefetch"]
    for folder in folders:
        words += ["--config-dir", folder]
    mirror = "mirror"
    # The keys of `collapse` alone say nothing of what it needs.
    taken = {key.partition(".")[0] for key in keys_of("prefetch")} - _NOT_FOR_PREFETCH
    overrides = list(overrides)
    if request is not None:
        overrides = [one for one in request if "=" in one and not one.startswith("-")] + overrides
    for one in OverridesParser.create().parse_overrides(overrides):
        if one.key_or_group == "mirror" and not str(one.value()).startswith(
            ("http://", "https://")
        ):
            mirror = str(one.value())
        elif str(one.key_or_group).partition(".")[0] in taken:
            words.append(str(one.input_line))
    return shlex.join([*words, f"mirror={mirror}"])
