"""What a result says of texts that are not the hub's, without the request that it came from."""

from __future__ import annotations

from lcbench.tasks.docs.names import SYNTHETIC_TASKS
from lcbench.tasks.docs.source import DocsSource


def depend_on_window(task: str) -> bool:
    """Return whether the texts of a task depend on the model's window."""
    return task in SYNTHETIC_TASKS


def heading_of(dataset: str | None) -> str:
    """Return what texts that are not the hub's are called in a heading.

    Args:
        dataset: as provenance has it (`Origin.dataset`); None: a result that does not say it, which
            is of a version that knew docstrings alone.
    """
    return "docs" if dataset in (None, DocsSource.origin.dataset) else dataset
