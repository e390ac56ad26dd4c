"""Checks the arguments of a command line before Hydra reads them.

Hydra keeps only the last of a list given to a config group and accepts any key after a `+`; here
such arguments are refused with a message that shows the correct form.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lcbench.api.commands import COMMANDS, spelled
from lcbench.errors import RequestError, did_you_mean
from lcbench.hub import cache
from lcbench.hub.models import shipped_models
from lcbench.repair.repair import EXAMPLES, PARTS
from lcbench.settings.configs import config_folder, config_groups, keys_of, known_keys, model_keys
from lcbench.system import thirdparty
from lcbench.system.words import key_value

# Keys whose value is always text.
_TEXTS = frozenset(
    {
        "model.name",
        "model.revision",
        "model.label",
        "name",
        "mirror",
        "results_dir",
        "report_dir",
        "against",
        "out",
        "check",
        "embeddings",
        "lengths",
        "path",
        "manifest",
        "store.folder",
    }
)
# Keys whose value may be a list of texts, numbers and mappings.
_LISTS = (*PARTS, "repairs")
_LIST_EXAMPLES = {
    **{key: f"'{key}={example}'" for key, example in EXAMPLES.items()},
    "repairs": "'repairs=[{tau: 0.8}, {tau: 0.8, correct: centre}]'",
}
_FLAGS_WITH_VALUES = frozenset(
    {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p"}
    | {"--cfg", "-c", "--info", "-i", "--experimental-rerun"}
)
# Names of keys in other programs, and the corresponding keys here.
_OTHER_NAMES = {
    "temperature": "tau=0.8",
    "batch_size": "Use engine.batch_tokens=N, which counts tokens and does not change scores",
    "dtype": "Use protocol.dtype=float16, bfloat16 or tf32",
    "output_folder": "results_dir=PATH",
    "output_dir": "results_dir=PATH",
    "device": "engine.device=cpu",
    "max_seq_length": "model.window=N",
    "model_name": "model=NAME",
}


def read_words(words: Sequence[str], config_name: str) -> list[str]:
    """Return the command line for Hydra, where `model=` may name a model or a folder.

    Args:
        words: arguments, as the shell passes them.
        config_name: config of the command.

    Raises:
        RequestError: an argument is not a key, needs quotes, or is a key of another command; or
            several values are not given as a list.
    """
    read: list[str] = []
    folders = [config_folder()]
    several = any(one in ("-m", "--multirun") for one in words)
    for key in _LISTS:
        given = [word for word in words if word.startswith(f"{key}=")]
        if len(given) > 1:
            # Hydra silently keeps the last, and bash expands tau={0.9,0.8} to this.
            listed = ",".join(word.partition("=")[2] for word in given)
            raise RequestError(
                f"{' '.join(given)}: {key}= is given more than once. As one list: "
                f"{shlex.quote(f'{key}=[{listed}]')}. In a shell, braces need quotes."
            )
    flag = ""
    for number, word in enumerate(words):
        if any("\udc80" <= one <= "\udcff" for one in word):
            raise RequestError(
                f"{word} is not valid {sys.getfilesystemencoding()}. Rename the file, or set "
                "PYTHONUTF8=1 if the locale lacks these characters."
            )
        if flag or (word.startswith("-") and word != "-"):
            if (flag or word).startswith(("--config-dir", "-cd")):
                folders.append(Path(word.rpartition("=")[2]))
            if not flag and word.startswith("--") and not _is_option(word):
                raise RequestError(_no_option(word, words[number + 1 :], config_name))
            flag = "" if flag or "=" in word else word if word in _FLAGS_WITH_VALUES else ""
            read.append(word)
            continue
        key, _, value = word.lstrip("+").partition("=")
        if "=" not in word and not word.startswith("~"):
            raise RequestError(_no_key(word))
        if key == "model" and "model" in keys_of(config_name):
            read += _one_model(word, value, folders, several=several)
            continue
        read.append(_checked(word, words[number + 1 :], config_name, several=several))
    return read


def _one_model(word: str, value: str, folders: Sequence[Path], *, several: bool) -> list[str]:
    """Return the overrides for the argument `model=…`.

    Raises:
        RequestError: a list.
    """
    name = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    is_folder = Path(os.path.expanduser(name)).is_dir()  # noqa: PTH111
    if not is_folder and (name.startswith(("[", "{")) or ("," in name and "/" in name)):
        names = name.strip("[]{}")
        raise RequestError(
            f"{word}: model= takes one config. For several: -m model={names}, or, in one sweep "
            f"that may include hub names and folders: {shlex.quote(f'models=[{names}]')}"
        )
    if several and "," in name and not is_folder:
        return [word]
    overrides = model_keys(name, folders)
    return [word] if overrides == [f"model={name}"] else overrides


def _checked(word: str, rest: Sequence[str], config_name: str, *, several: bool) -> str:
    """Return an override, quoted if it is text that would be read as a number.

    Raises:
        RequestError: it needs quotes, or it is a key of another command.
    """
    key, _, value = word.lstrip("+").partition("=")
    if key in _OTHER_NAMES and key not in keys_of(config_name):
        raise RequestError(f"{key} is not a key. {_OTHER_NAMES[key]}.")
    if key in known_keys() and key not in keys_of(config_name):
        raise RequestError(_elsewhere(key, config_name))
    if key == "mirror":
        # Before Hydra sees it, which records the overrides of a multirun (-m).
        cache.refuse_credentials(key, value)
    try:
        one = OverridesParser.create().parse_override(word)
    except HydraException as error:
        problem = str(error).partition("\n")[0]
        raise RequestError(
            f"{word} cannot be read: {problem}. In a shell, quote it: {_quoted(word, rest)}"
        ) from error
    if one.is_sweep_override():
        if several:
            return word
        is_text = key in _TEXTS or (key == "tasks" and _exists(value))
        as_one = key_value(key, value) if is_text else f"{key}=[{value}]"
        raise RequestError(
            f"{word}: it has several values. As one{'' if is_text else ' list'}: "
            f"{_in_single_quotes(as_one)}; as separate runs: -m {word}"
        )
    if key in _LISTS and config_name != "export" and isinstance(one.value(), dict):
        # Hydra cannot put a mapping in the place of a sweep's list.
        return f"{word.partition('=')[0]}=[{value}]"
    if key in _TEXTS | config_groups() and not one.is_delete():
        read = one.value()
        if key in _TEXTS and isinstance(read, list | dict):
            raise RequestError(f"{word} is a list or a mapping. As text: {_quoted(word, ())}")
        # 1_000 is the name of a folder or a config, not 1000.
        if isinstance(read, bool | int | float) or (read is None and key not in _TEXTS):
            return f'{word.partition("=")[0]}="{value}"'
    return word


def _quoted(word: str, rest: Sequence[str]) -> str:
    """Return the correctly quoted form of an override that cannot be read."""
    key, _, value = word.partition("=")
    if value.startswith(("[", "{")) and key not in _TEXTS:
        # The shell has split it at its spaces.
        for count in range(1, len(rest) + 1):
            joined = " ".join([word, *rest[:count]])
            if _parses(joined):
                return _in_single_quotes(joined)
        if "{" in value and key == "tasks":
            return _in_single_quotes(f"{key}={_with_quoted_values(value)}")
        if not value.endswith("]"):
            return f"{_LIST_EXAMPLES.get(key, _LIST_EXAMPLES['tau'])}, for example"
        # Commas within (…) belong to a name: MTEB(eng, v2).
        names = re.split(r",\s*(?![^()]*\))", value[1:-1])
        listed = ",".join(key_value("x", one)[2:] for one in names)
        return _in_single_quotes(f"{key}=[{listed}]")
    return _in_single_quotes(key_value(key, value))


def _with_quoted_values(value: str) -> str:
    """Return mappings with quotes around what Hydra's grammar cannot read without."""

    def quote(match: re.Match[str]) -> str:
        return f"{match[1]}{key_value('x', match[2].strip())[2:]}"

    return re.sub(r"(\b\w+:\s*)([^{}\"]+?)(?=\s*(?:,\s*\w+:|\}))", quote, value)


def _exists(path: str) -> bool:
    return Path(os.path.expanduser(path)).exists()  # noqa: PTH111


def _parses(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _in_single_quotes(word: str) -> str:
    """Return an argument quoted for a shell, always in quotes."""
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _no_key(word: str) -> str:
    if word in COMMANDS:
        return f"{word} is a command and must come first: python -m lcbench {word} KEY=VALUE…"
    return f"{word} is not of the form key=value. `--help` lists the keys."


def _is_option(word: str) -> bool:
    """Return whether Hydra has an option of this name, which may be abbreviated."""
    name = word.partition("=")[0]
    return any(option.startswith(name) for option in thirdparty.hydra_options())


def _no_option(word: str, rest: Sequence[str], config_name: str) -> str:
    """Return a message for an unknown option, which may be the name of a key."""
    option, equals, value = word.partition("=")
    key = option[2:].replace("-", "_")
    if key in _OTHER_NAMES:
        return f"{option} is not an option. {_OTHER_NAMES[key]}."
    if key in keys_of(config_name):
        if not equals and rest and not rest[0].startswith("-"):
            value = rest[0]
        shown = f"{key}={value}" if _parses(f"{key}={value}") else key_value(key, value)
        shown = shlex.quote(shown) if value else f"{key}=…"
        return f"{option} is not an option. Keys have no dashes: {shown}"
    if key in known_keys():
        return f"{option} is not an option. {_elsewhere(key, config_name)}"
    near = did_you_mean(key, keys_of(config_name))
    return f"{option} is not an option.{near} Keys are given as key=value; `--help` lists them."


def _elsewhere(key: str, config_name: str) -> str:
    """Return a message for a key that only other commands have."""
    having = [
        spelled(name)
        for name in dict.fromkeys(command.config for command in COMMANDS.values())
        if key in keys_of(name)
    ]
    return f"{key} is a key of {' and '.join(having)}, not of {spelled(config_name)}."


def choices(group: str) -> tuple[list[str], list[str]]:
    """Return the command line's overrides without a group's, and the group's choices."""
    overrides = given_overrides()
    parsed = OverridesParser.create().parse_overrides(overrides)
    chosen = [str(one.value()) for one in parsed if one.key_or_group == group]
    others = [
        text for text, one in zip(overrides, parsed, strict=True) if one.key_or_group != group
    ]
    return others, chosen


def given_overrides() -> list[str]:
    """Return the command line's overrides as given."""
    # The value of a reference (${oc.env:SCRATCH}) need not be valid in Hydra's grammar.
    given: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return list(given)


def config_dirs() -> list[str]:
    """Return the folders of the user's own configs that the command line names."""
    sources = HydraConfig.get().runtime.config_sources
    return [str(one.path) for one in sources if one.provider == "command-line"]


def refuse_another_name() -> None:
    """Refuse another name for a shipped model, whose weights would still be loaded.

    Raises:
        RequestError: `model.name=` without `model=custom`.
    """
    runtime = HydraConfig.get()
    config = runtime.runtime.choices["model"]
    for one in OverridesParser.create().parse_overrides(given_overrides()):
        if one.key_or_group in ("model.name", "model.package") and config in shipped_models():
            raise RequestError(
                f"{one.input_line}: model={config} is always the same model. For another: "
                "model=custom model.name=<hub id or folder>"
            )
