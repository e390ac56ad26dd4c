"""Descriptions of texts that are not on the hub, read from results without their request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcbench.tasks.corpus.names import is_own
from lcbench.tasks.corpus.plan import MTEB_KINDS
from lcbench.tasks.docs.names import SYNTHETIC_TASKS
from lcbench.tasks.docs.source import DocsSource

# In provenance: whether the task's texts depend on the window (`Source`).
DEPENDS_ON_WINDOW = "depends_on_window"


def depend_on_window(provenance: Mapping[str, Any], task: str) -> bool:
    """Return whether a result's texts depend on the window, as recorded by their source.

    Older results lack this record; their only such tasks are the synthetic ones of the docs suite.
    """
    return provenance.get(DEPENDS_ON_WINDOW, task in SYNTHETIC_TASKS) is True


def heading_of(dataset: str | None) -> str:
    """Return the name of a source's texts in a heading.

    Args:
        dataset: `Origin.dataset` in provenance; None for results from before it was recorded.
    """
    return "docs" if dataset in (None, DocsSource.origin.dataset) else dataset


def kind_of_own(task: str) -> str | None:
    """Return the type in mteb of a task of a user's own texts, by its name; None: of another."""
    return MTEB_KINDS.get(task.rpartition("-")[2]) if is_own(task) else None
