"""Versions of lcbench and of the libraries that scores may depend on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from lcbench.system.resources import checkout

# Distributions that a score may depend on.
DISTRIBUTIONS = (
    "lcbench",
    "mteb",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "scipy",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of every library that a score may depend on."""
    installed = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def git_commit() -> str | None:
    """Return the commit of lcbench's checkout, with `-dirty` if it was changed."""
    root = checkout()
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # A fixed command; who controls PATH controls this process anyway.
        shown = subprocess.run(  # noqa: S603
            command, capture_output=True, encoding="utf-8", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return shown.stdout.strip()
