"""Writes a model with a temperature built into its weights."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lcbench.errors import RequestError, StorageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lcbench.hub.models import LocatedModel, ModelSettings
    from lcbench.tempscale.policy import Policy

# Largest allowed difference between the embeddings of the exported and the injected model, relative
# to the largest component, in fp32. Measured: 4.6e-7 (MiniLM), 6.5e-7 (T5).
TOLERANCE = 1e-5

# Texts of several lengths on which the two models are compared.
_TEXTS = (
    "Attention temperature.",
    "The longer a text, the more attention averages its tokens. " * 4,
    "Return the least-squares solution to a linear matrix equation. " * 40,
)

_CARD = """---
library_name: sentence-transformers
tags:
- sentence-transformers
- tempscale
base_model: {name}
---

# {short} at attention temperature τ = {policy}

This is {name} (revision {revision}) with an attention temperature written into its weights
(TempScale, [arXiv:2410.24200](https://arxiv.org/abs/2410.24200)): every attention layer computes
softmax((scale · QKᵀ + bias) / τ) with τ = {policy}. Nothing was trained: the query projections
were divided by τ{bias}; everything else is unchanged.

Use it like any sentence-transformers model. Written by lcbench {version}, which compared it with
the original at that temperature: the embeddings differ by at most {error:.1e}, relative to their
largest component.
"""


def export(
    model: ModelSettings, policy: Policy, out: Path, *, offline: bool, mirror: Path | None = None
) -> float:
    """Write the model, compare it with the injected one, and return the largest difference.

    Args:
        model: the model to change.
        policy: the temperature, or temperatures by layer.
        out: folder to write.
        offline: whether the network must not be used.
        mirror: a folder that is searched for the model first, if any.

    Raises:
        RequestError: the policy cannot be expressed in weights, or `out` exists.
        StorageError: `out` cannot be written.
    """
    from lcbench.encode.load import load
    from lcbench.hub.models import locate
    from lcbench.system.quiet import quiet_libraries
    from lcbench.tempscale.fold import refuse_by_text

    if out.exists():
        raise RequestError(f"out={out} already exists; choose another folder.")
    located = locate(model, mirror=mirror, offline=offline)
    asked, policy = policy.canonical, policy.resolve(located.shape)
    if policy.is_baseline:
        raise RequestError(f"tau={asked} does not change {located.name}: nothing to write.")
    refuse_by_text(policy)
    quiet_libraries()

    from lcbench.tempscale.fold import fold
    from lcbench.tempscale.inject import Injection

    loaded = load(located, device="cpu", dtype="float32")
    with Injection(loaded, policy):
        expected: NDArray[np.float32] = loaded.encode(list(_TEXTS))
    fold(loaded, policy)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            written = Path(folder) / "model"
            loaded.save(str(written), create_model_card=False, safe_serialization=True)
            error = _compare(written, expected)
            card = _card(located, policy, error)
            (written / "README.md").write_text(card, encoding="utf-8")
            shutil.move(written, out)
    except OSError as problem:
        raise StorageError(f"out={out} could not be written: {problem}") from problem
    return error


def _compare(folder: Path, expected: NDArray[np.float32]) -> float:
    """Return the largest difference between the written and the injected model.

    Raises:
        RequestError: it is too large: the architecture is not what it was taken for.
    """
    import numpy as np
    from sentence_transformers import SentenceTransformer

    written = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    got = written.encode(list(_TEXTS))
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise RequestError(
            "The written weights do not reproduce the embeddings of the injected model "
            f"(they differ by {error:.1e}), so this architecture cannot be exported."
        )
    return error


def _card(located: LocatedModel, policy: Policy, error: float) -> str:
    from lcbench import __version__

    divided = located.shape.position_bias and not policy.keeps_bias
    return _CARD.format(
        name=located.name,
        short=located.name.rpartition("/")[2],
        revision=located.revision,
        policy=policy.canonical,
        bias=" and so was the position bias" if divided else "",
        version=__version__,
        error=error,
    )
