"""Writes a model with a repair built in: its weights and configuration changed, modules added."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lcbench.errors import RequestError, StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from lcbench.hub.models import LocatedModel, ModelSettings
    from lcbench.repair.correction import Correction
    from lcbench.repair.extension import Extension
    from lcbench.repair.fit import Fitted
    from lcbench.repair.repair import Repair

# Largest allowed difference between the embeddings of the exported and the repaired model, relative
# to the largest component, in fp32. Measured: 4.6e-7 (MiniLM), 6.5e-7 (T5).
TOLERANCE = 1e-5

# Texts of several lengths on which the two models are compared.
_TEXTS = (
    "Attention temperature.",
    "The longer a text, the more attention averages its tokens. " * 4,
    "Return the least-squares solution to a linear matrix equation. " * 40,
)

# Of the text that fills a longer window.
_WORD = "temperature"

_CARD = """---
library_name: sentence-transformers
tags:
- sentence-transformers
{tag}base_model: {name}
---

# {short} with {repair}

This is {name} (revision {revision}) with {repair}. Nothing was trained.

{parts}
Use it like any sentence-transformers model. Written by lcbench {version}, which compared it with
the original under that repair: the embeddings differ by at most {error:.1e}, relative to their
largest component.
"""
_TEMPERATURE = """An attention temperature is written into its weights
(TempScale, [arXiv:2410.24200](https://arxiv.org/abs/2410.24200)): every attention layer computes
softmax((scale · QKᵀ + bias) / τ) with {policy}. The query projections were divided by τ{bias}.
"""
_EXTENSION = """It reads {window} tokens of a text instead of {own} ({extension}; LongEmbed,
[arXiv:2404.12096](https://arxiv.org/abs/2404.12096)). {how}
"""
_TABLE = "Its table of positions was made longer from its own rows."
_ROPE = "The parameters of its rotary positions were changed (config.json)."
_OWN_POSITIONS = "It has as many positions."
_GAIN = """Gains are written into the weights of every layer: {gain}. `layernorm` multiplies the
weights of its LayerNorms, not their biases; `ffn` the output of its feed-forward network.
"""
_CORRECTION = """Its embeddings are corrected by an affine map, a dense layer, and scaled to length
1: {correction}, fitted on {texts:,} texts{shrunk}. If you had embedded texts with the
original, embed them again: embeddings with and without the correction cannot be compared.
"""


def export(
    model: ModelSettings, repair: Repair, out: Path, *, offline: bool, mirror: Path | None = None
) -> float:
    """Write the model, compare it with the repaired one, and return the largest difference.

    Args:
        model: the model to change.
        repair: temperatures, also by layer or head; a context extension; gains; a correction
            that is fitted on a set of texts; or several of them.
        out: folder to write.
        offline: whether the network must not be used.
        mirror: a folder that is searched for the model first, if any.

    Raises:
        RequestError: the repair cannot be expressed in a model, or `out` exists.
        StorageError: `out` cannot be written.
    """
    from safetensors import SafetensorError

    from lcbench.encode.load import load
    from lcbench.hub.models import locate
    from lcbench.hub.windows import set_window
    from lcbench.system.quiet import quiet_libraries
    from lcbench.tempscale.fold import refuse_by_text

    if out.exists():
        raise RequestError(f"out={out} already exists; choose another folder.")
    correction = repair.correction
    refuse_others(repair)
    located = locate(model, mirror=mirror, offline=offline)
    asked, repair = repair, repair.resolve(located.shape)
    policy, gain = repair.policy, repair.gain
    if repair.is_baseline:
        raise RequestError(f"{asked} does not change {located.name}: nothing to write.")
    refuse_by_text(policy)
    quiet_libraries()

    from lcbench.tempscale.fold import fold
    from lcbench.tempscale.inject import Injection

    loaded = load(located, device="cpu", dtype="float32")
    if (extension := repair.extension) is not None:
        extension.apply(loaded)
        set_window(loaded, extension.window)
    texts = _texts(repair)
    with ExitStack() as stack:
        if gain is not None:
            stack.callback(gain.apply(loaded).remove)
        if not policy.is_baseline:
            stack.enter_context(Injection(loaded, policy))
        expected: NDArray[np.float32] = loaded.encode(texts)
        fitted = None if correction is None else _fit(loaded, correction)
    if not policy.is_baseline:
        fold(loaded, policy)
    if gain is not None:
        gain.fold(loaded)
    if fitted is not None:
        expected = fitted.apply(expected)
        _append(loaded, fitted)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            written = Path(folder) / "model"
            loaded.save(str(written), create_model_card=False, safe_serialization=True)
            error = _compare(written, texts, expected)
            card = _card(located, repair, fitted, error)
            (written / "README.md").write_text(card, encoding="utf-8")
            shutil.move(written, out)
    # A full disk is an OSError, but of safetensors an error of its own.
    except (OSError, SafetensorError) as problem:
        raise StorageError(f"out={out} could not be written: {problem}") from problem
    return error


def refuse_others(repair: Repair) -> None:
    """Refuse repairs with parts that a model by itself cannot apply, whatever the model.

    Temperatures that depend on the text are refused once they are resolved for a model.

    Raises:
        RequestError: saying why.
    """
    for key in ("attend", "chunks"):
        if key in repair.others:
            raise RequestError(f"{key}={repair.others[key].canonical}: a model cannot store this.")
    if repair.correction is not None:
        _refuse_correction(repair.correction)
    if repair.extension is not None:
        _refuse_extension(repair.extension)


def _texts(repair: Repair) -> list[str]:
    """Return texts to compare two models on; under an extension, one that fills the window."""
    extension = repair.extension
    return [*_TEXTS, *([] if extension is None else [f"{_WORD} " * extension.window])]


def _refuse_extension(extension: Extension) -> None:
    """Refuse extensions that a model by itself cannot apply.

    Raises:
        RequestError: saying why.
    """
    written = f"extend={extension.canonical}"
    if extension.kept:
        raise RequestError(
            f"{written}: that short texts keep their positions depends on each text, and cannot be "
            f"stored in a model; extend={{pi: {extension.window}}} can."
        )
    if extension.step is not None:
        raise RequestError(
            f"{written}: that short texts have other positions depends on each text, and cannot be "
            f"stored in a model; extend={{window: {extension.window}}} can."
        )
    if extension.method == "selfextend":
        raise RequestError(
            f"{written}: no configuration of transformers has SelfExtend's attention; "
            f"extend={{ntk: {extension.window}}} and {{yarn: {extension.window}}} can be stored."
        )
    if extension.method == "longrope":
        raise RequestError(
            f"{written}: transformers takes the factors for long texts only in batches with one, "
            f"so that embeddings would depend on the batch; extend={{yarn: N}} can be stored."
        )


def _refuse_correction(correction: Correction) -> None:
    """Refuse corrections that a model by itself cannot apply.

    Raises:
        RequestError: saying why.
    """
    if correction.kind == "centre" and correction.number is not None:
        raise RequestError(
            f"correct={correction}: a mean for each length cannot be stored in a model; export one "
            "mean: 'correct={centre: {on: docstrings}}'."
        )
    if correction.on is None:
        raise RequestError(
            f"correct={correction}: a model has no task whose texts it could be fitted on. Name "
            f"the texts: {correction.example}."
        )


def _fit(loaded: SentenceTransformer, correction: Correction) -> Fitted:
    """Fit a correction on the set of texts that it names, embedded as documents."""
    from lcbench.repair.fit import fit

    texts = _reference_texts(correction)
    embeddings: NDArray[np.float32] = loaded.encode_document(texts, show_progress_bar=False)
    return fit(correction, embeddings)


def _reference_texts(correction: Correction) -> list[str]:
    """Return the texts that a correction on a set of texts is fitted on, as in a cell."""
    from lcbench.score.correct import distinct_texts
    from lcbench.tasks.reference import texts_of

    return [] if correction.on is None else distinct_texts(texts_of(correction.on))[0]


def _append(loaded: SentenceTransformer, fitted: Fitted) -> None:
    """Append a fitted correction to a model, as a dense layer and a normalisation."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    from lcbench.encode.load import cut_by_module

    cut_by_module(loaded)
    (mean,) = fitted.means
    matrix = np.eye(len(mean)) if fitted.matrix is None else fitted.matrix
    dense = Dense(
        in_features=len(mean),
        out_features=fitted.dimensions,
        activation_function=torch.nn.Identity(),
        init_weight=torch.tensor(matrix.T, dtype=torch.float32),
        init_bias=torch.tensor(-mean @ matrix, dtype=torch.float32),
    )
    for module in (dense, Normalize()):
        loaded.append(module)


def _compare(folder: Path, texts: list[str], expected: NDArray[np.float32]) -> float:
    """Return the largest difference between the written and the repaired model.

    Raises:
        RequestError: it is too large: the architecture is not what it was taken for.
    """
    from sentence_transformers import SentenceTransformer

    written = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    got = written.encode(texts)
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise RequestError(
            "The written model does not reproduce the embeddings of the repaired one (they differ "
            f"by {error:.1e}), so this architecture cannot be exported."
        )
    return error


def _card(located: LocatedModel, repair: Repair, fitted: Fitted | None, error: float) -> str:
    from lcbench import __version__

    policy, parts = repair.policy, []
    if not policy.is_baseline:
        divided = located.shape.position_bias and not policy.keeps_bias
        bias = " and so was the position bias" if divided else ""
        tau = f"τ = {policy.canonical}"
        if policy.by_head:
            tau = f"its own temperature for each head of each layer ({policy.canonical})"
        parts.append(_TEMPERATURE.format(policy=tau, bias=bias))
    if (extension := repair.extension) is not None:
        how = _TABLE if located.shape.position_kind == "absolute" else _ROPE
        parts.append(
            _EXTENSION.format(
                window=extension.window,
                own=located.shape.window,
                extension=extension.canonical,
                how=_OWN_POSITIONS if extension.method == "window" else how,
            )
        )
    if repair.gain is not None:
        parts.append(_GAIN.format(gain=repair.gain.canonical))
    if repair.correction is not None and fitted is not None:
        share = fitted.shrinkage
        parts.append(
            _CORRECTION.format(
                correction=repair.correction,
                texts=len(_reference_texts(repair.correction)),
                shrunk=f", with a shrinkage of {share:.2f}" if share else "",
            )
        )
    return _CARD.format(
        tag="" if policy.is_baseline else "- tempscale\n",
        name=located.name,
        short=located.name.rpartition("/")[2],
        repair=repair,
        revision=located.revision,
        parts="\n".join(parts),
        version=__version__,
        error=error,
    )
