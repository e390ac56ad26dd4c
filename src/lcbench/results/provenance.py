"""What a result says of how it came about: versions, code, hardware, the model as mteb has it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcbench.system.resources import checkout

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from sentence_transformers import SentenceTransformer

    from lcbench.hub.models import LocatedModel
    from lcbench.tempscale.policy import Policy

# Distributions that a score may depend on.
DISTRIBUTIONS = (
    "lcbench",
    "mteb",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "scipy",
    "scikit-learn",
)


@lru_cache(maxsize=4)
def environment(device: str) -> dict[str, Any]:
    """Return versions, git commit and hardware, for a provenance file."""
    return {"versions": versions(), "git": _git_commit(), "hardware": _hardware(device)}


def versions() -> dict[str, str]:
    """Return the versions of Python and of every library that a score may depend on."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class ModelFacts:
    """What mteb is told of a model.

    Attributes:
        name: `<organisation>/<model>`.
        revision: the commit, or a digest of its files.
        max_tokens: its window; None: not limited.
        dimensions: of an embedding.
        parameters: how many.
        similarity: the name of its similarity in sentence-transformers.
        digest: of its files.
        pooling: how one embedding is made of a text's tokens; None: it has no pooling module.
        assumed_pooling: the same, where neither the model nor the request says it; else None.
        path: of its folder as it was asked for, which need not be absolute; None: no folder.
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
    """Return what mteb is told of a model that is loaded."""
    from lcbench.hub.models import files_digest, source_of, window_of

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


def model_meta(facts: ModelFacts, policy: Policy) -> ModelMeta:
    """Return mteb's description of a model at a policy, made without asking the hub."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    return ModelMeta.create_empty(
        overwrites={
            "name": facts.name,
            "revision": facts.revision,
            "framework": ["Sentence Transformers", "PyTorch"],
            "max_tokens": facts.max_tokens,
            "embed_dim": facts.dimensions,
            "n_parameters": facts.parameters,
            "similarity_fn_name": ScoringFunction(facts.similarity),
            "use_instructions": False,
            # A string: mteb hashes dictionaries, and differently after a round trip.
            "experiment_kwargs": None if policy.is_baseline else {"tau": policy.canonical},
        }
    )


def _git_commit() -> str | None:
    """Return the commit of the checkout that lcbench runs from, `-dirty` if it was changed."""
    root = checkout()
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # A fixed command; whoever owns the PATH owns this process.
        shown = subprocess.run(  # noqa: S603
            command, capture_output=True, encoding="utf-8", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return shown.stdout.strip()


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
    """Return the version of NVIDIA's driver, as its kernel module says it; None: it does not."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return None if found is None else found[1]


def cpu_name() -> str:
    """Return what the processor calls itself; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
