"""What a result says of how it came about: versions, code, hardware, the model as mteb has it."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from sentence_transformers import SentenceTransformer

    from lcbench.models import LocatedModel
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


def model_meta(located: LocatedModel, loaded: SentenceTransformer, policy: Policy) -> ModelMeta:
    """Return mteb's description of a model at a policy, made without asking the hub."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    return ModelMeta.create_empty(
        overwrites={
            "name": located.name,
            "revision": located.revision,
            "framework": ["Sentence Transformers", "PyTorch"],
            "max_tokens": loaded.max_seq_length,
            "embed_dim": loaded.get_embedding_dimension(),
            "n_parameters": sum(weight.numel() for weight in loaded.parameters()),
            "similarity_fn_name": ScoringFunction(loaded.similarity_fn_name or "cosine"),
            "use_instructions": False,
            # A string: mteb hashes dictionaries, and differently after a round trip.
            "experiment_kwargs": None if policy.is_baseline else {"tau": policy.canonical},
        }
    )


def _git_commit() -> str | None:
    """Return the commit of the checkout that lcbench runs from, `-dirty` if it was changed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        # A fixed command; whoever owns the PATH owns this process.
        shown = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip()


def _hardware(device: str) -> dict[str, Any]:
    import torch

    cuda = device.startswith("cuda")
    return {
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """Return what the processor calls itself; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
