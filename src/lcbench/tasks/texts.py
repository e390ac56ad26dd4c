"""What a result says of texts that are not the hub's, without the request that it came from."""

from __future__ import annotations

from lcbench.tasks.docs.names import SYNTHETIC_TASKS
from lcbench.tasks.docs.source import DocsSource


def go_by_window(task: str) -> bool:
    """Return whether a task of one request may have other texts for each model's window."""
    return task in SYNTHETIC_TASKS


def name_of(dataset: str | None) -> str:
    """Return the name of texts in a heading.

    Args:
        dataset: as provenance has it (`Origin.dataset`); None: a result that does not say it, which
            is one of docstrings.
    """
    return "docs" if dataset in (None, DocsSource.origin.dataset) else dataset
