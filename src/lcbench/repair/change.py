"""What the parts of a repair have in common, and those that change a loaded model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from lcbench.tempscale.policy import ModelShape


class Part(Protocol):
    """A part of a repair besides the temperature; hashable, equal if it does the same."""

    @property
    def canonical(self) -> str:
        """The name in results, the same however it was written; no `:`, `/`, ` + ` or `__`."""
        ...

    def written(self) -> Any:
        """Return it as its key has it, so that parsing gives it back; JSON types only."""
        ...

    def resolve(self, shape: ModelShape) -> Self | None:
        """Return the part for a model, simplified if possible; None: it changes nothing there.

        Raises:
            RequestError: it does not suit the model.
        """
        ...


class Change(ABC):
    """A part that changes a loaded model, besides its temperature."""

    @property
    @abstractmethod
    def canonical(self) -> str:
        """The name in results; see `Part`."""

    def spares(self, window: int | None) -> int:
        """Return up to how many tokens a text has the embedding that it has without this part.

        Args:
            window: the most tokens that the model reads without it; None: no limit.
        """
        return 0

    @abstractmethod
    def apply(self, model: SentenceTransformer) -> Applied:
        """Change a model, and check that it computes what the part says.

        Raises:
            InjectionError: it does not, or cannot be applied to this architecture. The model is as
                before.
        """


class Applied(Protocol):
    """A change of a model that is in effect."""

    @property
    def proof(self) -> Mapping[str, Any]:
        """What was checked, as JSON types, for the provenance."""
        ...

    def remove(self) -> None:
        """Restore the model exactly."""
        ...


@contextmanager
def changed(model: SentenceTransformer, changes: Iterable[Change]) -> Iterator[None]:
    """Change a model for as long as the context lasts.

    Raises:
        InjectionError: as `Change.apply`; the model is as before.
    """
    with ExitStack() as stack:
        for change in changes:
            stack.callback(change.apply(model).remove)
        yield
