"""What installed packages add to lcbench, by entry points of packages.

Only packages of the environment are asked. The current folder, where `python -m` looks for modules
first, is left out: anyone may have written there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any, Literal

from lcbench.errors import RequestError
from lcbench.system.words import reason_of

Kind = Literal["tasks", "measures", "repairs"]
KINDS: tuple[Kind, ...] = ("tasks", "measures", "repairs")
"""What can be added; the entry points' groups are `lcbench.<kind>`."""


@dataclass(frozen=True)
class Plugin:
    """An entry point of an installed package.

    Attributes:
        name: name of the entry point.
        target: module and object, `package.module:Name`.
        package: name of the package, and its version: `package 1.2`.
    """

    name: str
    target: str
    package: str

    def load(self) -> Any:
        """Import the object, which runs the package's code.

        Raises:
            RequestError: it cannot be imported; names the package.
        """
        try:
            return EntryPoint(self.name, self.target, "lcbench").load()
        except Exception as error:
            raise RequestError(
                f"{self.name} of the package {self.package}: {self.target} cannot be imported "
                f"({reason_of(error)}). Repair the package, or uninstall it."
            ) from error


def plugins(kind: Kind) -> Mapping[str, Plugin]:
    """Return what installed packages add of a kind, by name.

    Raises:
        RequestError: two packages add the same name.
    """
    return _found(kind, _folders())


def _folders() -> tuple[str, ...]:
    """Return the folders that packages are installed in."""
    here = str(Path.cwd())
    return tuple(one for one in sys.path if one and str(Path(one).absolute()) != here)


@lru_cache(maxsize=16)
def _found(kind: Kind, folders: tuple[str, ...]) -> Mapping[str, Plugin]:
    found: dict[str, Plugin] = {}
    seen: set[str] = set()
    for package in distributions(path=list(folders)):
        # A folder that comes later is not imported from.
        if package.name in seen:
            continue
        seen.add(package.name)
        for entry in package.entry_points.select(group=f"lcbench.{kind}"):
            plugin = Plugin(entry.name, entry.value, f"{package.name} {package.version}")
            other = found.setdefault(entry.name, plugin)
            if other != plugin:
                raise RequestError(
                    f"The packages {other.package} and {plugin.package} both add {entry.name} to "
                    f"lcbench.{kind}: uninstall one of them."
                )
    return found
