"""Names of tasks made of a user's texts: safe as file names, and never those of other tasks."""

from __future__ import annotations

import re
import unicodedata

OWN = "own-"
"""What their names begin with: no task of mteb's or of the docstrings does."""
_LONGEST = 60


def safe_name(text: str) -> str:
    """Return a text as a part of a file name: letters, digits, `.`, `_` and `-` of ASCII."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^\w.]+", "-", plain, flags=re.ASCII).strip("-._")[:_LONGEST].strip("-._")
    return name or "texts"


def task_name(stem: str, kind: str) -> str:
    """Return the name of a task: `own-letters-retrieval`."""
    return f"{OWN}{safe_name(stem)}-{kind}"


def is_own(task: str) -> bool:
    """Return whether a task is of a user's own texts, by its name."""
    return task.startswith(OWN)
