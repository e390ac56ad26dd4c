"""Reads the settings of task sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from lcbench.errors import RequestError
from lcbench.settings.configs import config_folder
from lcbench.settings.schema import sources_of
from lcbench.settings.values import count_of, number_of
from lcbench.tasks.corpus.classes import OwnClass
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.docs.selection import SHORTEST, DocsSizes, SyntheticSizes
from lcbench.tasks.source import Source


def read_docs(value: Mapping[str, Any]) -> DocsSizes:
    """Return the checked sizes of the docs suite.

    Raises:
        RequestError: an invalid value; the message names the key.
    """
    share = number_of("docs.clustering_share", value["clustering_share"], least=0.0)
    if not 0 < share <= 1:
        raise RequestError(f"docs.clustering_share={share} is not a share in (0, 1].")
    counts = {
        name: count_of(f"docs.{name}", value[name])
        for name in ("documents", "documents_per_module", "long_documents", "clustering_sets")
    }
    synthetic = SyntheticSizes(
        lengths=_lengths(value["synthetic_lengths"]),
        documents=count_of("docs.synthetic_documents", value["synthetic_documents"]),
    )
    return DocsSizes(**counts, clustering_share=share, synthetic=synthetic)


def _lengths(value: Any) -> tuple[int, ...] | None:
    """Return the lengths of synthetic documents, ascending; None if they depend on the window."""
    if value == "auto":
        return None
    key = "docs.synthetic_lengths"
    lengths = [value] if isinstance(value, int) else value
    if not isinstance(lengths, list) or not lengths:
        raise RequestError(f"{key}={value} is neither auto nor a list of lengths in tokens.")
    for length in lengths:
        if count_of(key, length) < SHORTEST:
            raise RequestError(
                f"{key}={value}: documents need at least {SHORTEST} tokens to contain a fact."
            )
    return tuple(sorted(set(lengths)))


def shipped_sources(
    own: Sequence[OwnTask] = (), own_classes: Sequence[OwnClass] = ()
) -> tuple[Source, ...]:
    """Return the default sources of a request, and those of a user's own texts."""
    return sources_of(_shipped_docs(), own, own_classes)


@lru_cache(maxsize=1)
def _shipped_docs() -> DocsSizes:
    content: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "config.yaml"))
    return read_docs(content["docs"])
