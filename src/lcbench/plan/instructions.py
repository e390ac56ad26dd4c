"""The prompts and instructions of mteb's registry that an estimate counts."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from lcbench.errors import RequestError

if TYPE_CHECKING:
    from lcbench.tempscale.policy import Role


@lru_cache(maxsize=4096)
def prompt_characters(model: str, task: str, role: Role | None) -> int:
    """Return the number of characters that mteb's registry puts before each text of a task.

    0, if neither the registry nor mteb has them: prompts of the model's own files, and tasks of
    others, are not known before these are loaded.

    Args:
        model: the model's name on the hub.
        task: name of the task.
        role: role of the texts; None: neither queries nor documents.
    """
    import mteb
    from mteb.models.abs_encoder import get_prompt
    from mteb.types import PromptType

    from lcbench.encode.registry import registered

    try:
        found, metadata = registered(model), mteb.get_task(task).metadata
    except (KeyError, RequestError):
        return 0
    kind = None if role is None else PromptType(role)
    if found is None:
        return 0
    if found.instructions is not None:
        return len(found.instructions(metadata, kind))
    return len(get_prompt(found.prompts, metadata, kind) or "")
