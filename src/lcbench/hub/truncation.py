"""Embeddings cut to their first dimensions (Matryoshka), which a model was trained for or not.

An embedding is cut and not scaled again, as `SentenceTransformer(truncate_dim=…)` and mteb do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcbench.errors import RequestError
from lcbench.hub.model_files import read_object


@dataclass(frozen=True)
class Trained:
    """The numbers of dimensions that a model was trained for, besides its full number.

    Attributes:
        sizes: each of them; empty with `least`, or if there is none.
        least: any number from this one on; None: only `sizes`.
    """

    sizes: tuple[int, ...] = ()
    least: int | None = None

    def includes(self, dimensions: int) -> bool:
        """Return whether a number of dimensions is among them."""
        return dimensions in self.sizes or (self.least is not None and dimensions >= self.least)

    def described(self, full: int | None) -> str:
        """Return them in words.

        Args:
            full: the full number; None: unknown.
        """
        if self.least is not None:
            return f"any number from {self.least} on"
        all_ = sorted({*self.sizes, *([] if full is None else [full])}, reverse=True)
        return ", ".join(map(str, all_)) or "its full number alone"


@dataclass(frozen=True)
class Cut:
    """How a model's embeddings are cut.

    Attributes:
        requested: number of dimensions, where it is not the model's own; None: the model's own.
        own: number of dimensions of the model as its files have it; None: they do not say.
        is_known: whether the model is known to be trained for this number.
    """

    requested: int | None
    own: int | None
    is_known: bool


def cut_of(
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    full: int | None,
    requested: int | None,
    trained: Trained | None,
) -> Cut:
    """Return how a model's embeddings are cut.

    Args:
        name: name of the model, for messages.
        folder: folder of the model.
        config: configuration of its transformer, which may state what it was trained for.
        full: dimensions of an embedding before it is cut; None: unknown.
        requested: requested number of dimensions; None: the model's own.
        trained: what it was trained for, by its config; None: as its files say.

    Raises:
        RequestError: the model has fewer dimensions, or is known not to be trained for the number.
    """
    stated = read_object(folder / "config_sentence_transformers.json").get("truncate_dim")
    own = min((n for n in (stated, full) if isinstance(n, int)), default=None)
    if requested is None or requested == own:
        return Cut(None, own, is_known=True)
    if full is not None and requested > full:
        raise RequestError(
            f"model.dimensions={requested}: an embedding of {name} has {full} dimensions."
        )
    known = trained if trained is not None else _stated(config)
    if known is None:
        return Cut(requested, own, is_known=False)
    if requested != full and not known.includes(requested):
        raise RequestError(
            f"model.dimensions={requested}: {name} was trained for {known.described(full)}. Its "
            "first dimensions alone are no embedding otherwise."
        )
    return Cut(requested, own, is_known=True)


def _stated(config: Mapping[str, Any]) -> Trained | None:
    """Return what a transformer's configuration says that the model was trained for.

    The keys are those that vLLM reads.
    """
    sizes = config.get("matryoshka_dimensions")
    if isinstance(sizes, list) and sizes and all(type(one) is int for one in sizes):
        return Trained(tuple(sizes))
    return Trained(least=1) if config.get("is_matryoshka") is True else None
