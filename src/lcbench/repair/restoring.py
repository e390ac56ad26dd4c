"""Changes to the attributes of a loaded model that can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from lcbench.tempscale.transformer import READS


class Restoring:
    """Changes of a model, with what was checked of them; see `change.Applied`.

    Attributes:
        proof: what was checked, as JSON types.
    """

    def __init__(self) -> None:
        self.proof: Mapping[str, Any] = {}
        self._undo: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute that exists: a parameter, a buffer or any other."""
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._undo.append(lambda: setattr(owner, name, before))

    def shadow(self, owner: nn.Module, name: str, value: Any) -> None:
        """Set an attribute of this module that hides one of its class, such as `forward`."""
        before = owner.__dict__.get(name)
        owner.__dict__[name] = value

        def restore() -> None:
            owner.__dict__.pop(name, None)
            if before is not None:
                owner.__dict__[name] = before

        self._undo.append(restore)

    def read(self, transformer: nn.Module, window: int) -> None:
        """Note how many tokens of a text the model is to read: policies by length go by it."""
        self.shadow(transformer, READS, window)

    def add(self, undo: Callable[[], None]) -> None:
        """Add a function that takes a change back."""
        self._undo.append(undo)

    def remove(self) -> None:
        """Take all changes back, the last first; a second time nothing happens."""
        while self._undo:
            self._undo.pop()()
