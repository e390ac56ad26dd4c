"""Reads the settings of task sources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from omegaconf import OmegaConf

from lcbench.errors import RequestError
from lcbench.settings.configs import config_folder
from lcbench.settings.schema import sources_of
from lcbench.settings.values import count_of, number_of
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


@lru_cache(maxsize=1)
def shipped_sources() -> tuple[Source, ...]:
    """Return the default sources of a request."""
    content: Any = OmegaConf.to_container(OmegaConf.load(config_folder() / "config.yaml"))
    return sources_of(read_docs(content["docs"]))
