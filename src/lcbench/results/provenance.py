"""Collects provenance: versions, code, hardware, and mteb's description of the model."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.system.hardware import cpu_name
from lcbench.system.versions import git_commit, versions

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from sentence_transformers import SentenceTransformer

    from lcbench.hub.models import LocatedModel
    from lcbench.repair.repair import Repair


@lru_cache(maxsize=4)
def environment(device: str) -> dict[str, Any]:
    """Return versions, git commit and hardware, for a provenance file."""
    return {"versions": versions(), "git": git_commit(), "hardware": _hardware(device)}


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a loaded model for mteb's description and the provenance.

    Attributes:
        name: `<organisation>/<model>`.
        revision: the commit, or a digest of its files.
        max_tokens: its window; None: not limited.
        dimensions: dimensions of an embedding.
        parameters: number of parameters.
        similarity: name of its similarity in sentence-transformers.
        digest: digest of its files.
        pooling: pooling mode; None: it has no pooling module.
        assumed_pooling: pooling mode if neither the model nor the request specifies it; else None.
        path: requested path of its folder, possibly relative; None: not a folder.
    """

    name: str
    revision: str
    max_tokens: int | None
    dimensions: int | None
    parameters: int
    similarity: str
    digest: str | None = None
    pooling: str | None = None
    assumed_pooling: str | None = None
    path: str | None = None


def model_facts(located: LocatedModel, loaded: SentenceTransformer) -> ModelFacts:
    """Return the facts about a loaded model."""
    from lcbench.hub.models import files_digest, source_of
    from lcbench.hub.windows import window_of

    mode: Any = next((one.pooling_mode for one in loaded if hasattr(one, "pooling_mode")), None)
    return ModelFacts(
        name=located.name,
        revision=located.revision,
        max_tokens=window_of(loaded),
        dimensions=loaded.get_embedding_dimension(),
        parameters=sum(weight.numel() for weight in loaded.parameters()),
        similarity=str(getattr(loaded.similarity_fn_name, "value", loaded.similarity_fn_name))
        if loaded.similarity_fn_name
        else "cosine",
        digest=files_digest(located),
        pooling=mode if mode is None or isinstance(mode, str) else "+".join(mode),
        assumed_pooling=located.assumed_pooling,
        path=located.settings.name if source_of(located.settings) == "folder" else None,
    )


def model_meta(facts: ModelFacts, repair: Repair) -> ModelMeta:
    """Return mteb's description of a model under a repair, made without asking the hub."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    return ModelMeta.create_empty(
        overwrites={
            "name": facts.name,
            "revision": facts.revision,
            "framework": ["Sentence Transformers", "PyTorch"],
            "max_tokens": repair.window(facts.max_tokens),
            "embed_dim": _dimensions(facts, repair),
            "n_parameters": facts.parameters,
            "similarity_fn_name": ScoringFunction(facts.similarity),
            "use_instructions": False,
            # A string: mteb hashes dictionaries, and differently after a round trip.
            "experiment_kwargs": dict(repair.parts) or None,
        }
    )


def _dimensions(facts: ModelFacts, repair: Repair) -> int | None:
    """Return the dimensions of an embedding under a repair."""
    correction = repair.correction
    if correction is not None and correction.kind == "whiten" and correction.number is not None:
        return correction.number
    return facts.dimensions


def _hardware(device: str) -> dict[str, Any]:
    import torch

    cuda = device.startswith("cuda")
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "driver": _driver() if cuda else None,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, or None if unknown."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return None if found is None else found[1]
