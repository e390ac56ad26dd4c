"""Corrections that installed packages add by entry points (`lcbench.repairs`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcbench.errors import RequestError
from lcbench.system.plugins import plugins

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class AddedCorrection:
    """A correction of embeddings: x ↦ (x − mean) · matrix, scaled to length 1.

    Attributes:
        fit: function of embeddings, [texts, dimensions] in float64, and of the requested number
            or None; returns the mean, [dimensions], and the matrix, [dimensions, kept
            dimensions], or None for the identity. It must be deterministic.
        number: name of its number as an option; None: it takes none.
        least: smallest number allowed.
    """

    fit: Callable[
        [NDArray[np.float64], int | None], tuple[NDArray[np.float64], NDArray[np.float64] | None]
    ]
    number: str | None = None
    least: int = 1


def load(kind: str) -> AddedCorrection:
    """Import a correction of an installed package.

    Raises:
        RequestError: there is none of that name, or the object is none.
    """
    plugin = plugins("repairs").get(kind)
    if plugin is None:
        raise RequestError(f"correct={kind}: no installed package adds it (lcbench.repairs).")
    found = plugin.load()
    if not isinstance(found, AddedCorrection):
        raise RequestError(
            f"{kind} of the package {plugin.package}: {plugin.target} is not an "
            "lcbench.repair.added.AddedCorrection."
        )
    return found


def package_of(kind: str) -> str | None:
    """Return the package that adds a correction and its version, for a name in results.

    Returns:
        `name-1.2`; None if no installed package adds it.

    Raises:
        RequestError: its name cannot be part of a name in results.
    """
    plugin = plugins("repairs").get(kind)
    if plugin is not None and not re.fullmatch("[A-Za-z][A-Za-z0-9-]*", kind):
        raise RequestError(
            f"correct={kind} of the package {plugin.package}: a name has letters, digits and -."
        )
    return None if plugin is None else re.sub(r"[^\w.]+|_+", "-", plugin.package)
