"""`--help`: a command's keys, with the comments of its config, and its config groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lcbench.api.commands import COMMANDS, spelled
from lcbench.settings.configs import config_folder

_FLAGS = """\
Options
  --help         this text
  --version      the version of lcbench
  --config-dir   a folder of your own configs, organised like conf/
  --cfg job      print the composed configuration
  -m             a separate run for each value: -m tau=0.9,0.8
"""
_KEY_BELOW = re.compile(r"^  (\w+):")
_GROUP = re.compile(r"^ *- (?:override )?(\w+): (\S+)$", flags=re.MULTILINE)


def help_of(name: str) -> str:
    """Return the text that `--help` prints for a command.

    Args:
        name: name of the command.
    """
    command = COMMANDS[name]
    title = f"python -m lcbench{'' if name == 'run' else f' {name}'}"
    parts = [f"{title} [KEY=VALUE]…: {command.summary}\n"]
    text = _read(command.config)
    head, keys = _split(text)
    # estimate and plan have the keys of a run; their summaries say what differs.
    if title == spelled(command.config):
        parts.append(head)
    if name == "run":
        width = max(map(len, COMMANDS))
        listed = "".join(f"  {one:{width}}  {its.summary}\n" for one, its in COMMANDS.items())
        parts.append(f"Commands (python -m lcbench COMMAND --help)\n{listed}")
    groups = dict(_GROUP.findall(text))
    # prefetch takes the keys of a run, and more.
    if "- config\n" in text:
        run = _read("config")
        groups |= dict(_GROUP.findall(run))
        for key, inherited in _split(run)[1].items():
            keys[key] = _with_values_of(keys.get(key, ()), inherited)
    if lines := "".join(_choices(group, chosen) for group, chosen in groups.items()):
        parts.append(
            f"Choices (GROUP=NAME, the default first; GROUP.KEY=VALUE for one key)\n{lines}"
        )
    parts.append("Keys (KEY=VALUE)\n" + _indented(keys))
    for group, chosen in groups.items():
        if group not in ("suite", "sweep"):
            parts += _keys_of_group(group, chosen)
    return "\n".join([*parts, _FLAGS])


def _with_values_of(own: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Return the lines of an inherited key, with the values that a command has of its own.

    Args:
        own: the command's lines of the key: all of it, or values below it that differ.
        lines: of the config that it inherits from.
    """
    values = {match[1]: line for line in own if (match := _KEY_BELOW.match(line))}
    if own and not values:
        return list(own)
    found = []
    for line in lines:
        match = _KEY_BELOW.match(line)
        value = values.get(match[1]) if match else None
        comment = line.partition("  #")[2]
        found.append(line if value is None else f"{value}  #{comment}" if comment else value)
    return found


def _read(name: str) -> str:
    return Path(config_folder(), f"{name}.yaml").read_text(encoding="utf-8")


def _split(text: str) -> tuple[str, dict[str, list[str]]]:
    """Return the comment at the top of a config, and the lines of each key.

    A key's lines include the comment above it; Hydra's own keys are left out.
    """
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    head = [line[2:] for line in lines[:end] if not line.startswith("# @package")]
    head = [f"  {line}" if line.startswith("python -m") else line for line in head]
    keys: dict[str, list[str]] = {}
    above: list[str] = []
    key = ""
    for line in lines[end:]:
        if not line or line.startswith("#"):
            above.append(line)
            continue
        if not line.startswith(" "):
            key = line.partition(":")[0]
            keys[key] = above
            above = []
        keys[key] += [*above, line]
        above = []
    for of_hydra in ("defaults", "hydra"):
        keys.pop(of_hydra, None)
    return "\n".join(head) + "\n", keys


def _keys_of_group(group: str, chosen: str) -> Iterator[str]:
    """Yield the keys of a group's default config, then further keys of its other configs."""
    shown: set[str] = set()
    for name in _names(group, chosen):
        keys = _split(_read(f"{group}/{name}"))[1]
        more = {key: lines for key, lines in keys.items() if key not in shown}
        if more:
            besides = ", besides" if shown else ""
            yield f"Keys of {group}={name}{besides} ({group}.KEY=VALUE)\n{_indented(more)}"
        shown |= set(more)


def _names(group: str, chosen: str) -> list[str]:
    """Return the names of a group's configs, the default first."""
    names = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
    return sorted(names, key=lambda name: name != chosen)


def _choices(group: str, chosen: str) -> str:
    names = _names(group, chosen)
    return f"  {group}={', '.join(names)}\n" if names else ""


def _indented(keys: Mapping[str, Sequence[str]]) -> str:
    lines = [line for one in keys.values() for line in one]
    return "".join(f"  {line}\n" if line else "\n" for line in lines).lstrip("\n")
