"""Finds files that ship with lcbench, in the installed package or in the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped(name: str, in_checkout: str) -> Path:
    """Return the path of a file or folder that ships with lcbench.

    Args:
        name: its path in the installed package.
        in_checkout: its path in the checkout that an editable install runs from.
    """
    installed = _PACKAGE / name
    return installed if installed.exists() else _PACKAGE.parents[1] / in_checkout


def checkout() -> Path:
    """Return the folder of the checkout (with a `.git`) that lcbench runs from, if any."""
    return _PACKAGE.parents[1]
