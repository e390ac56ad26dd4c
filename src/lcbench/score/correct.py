"""Fits a correction of embeddings to a task, before it is scored."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lcbench.encode.multivector import MultiVectors
from lcbench.encode.store.segments import digests
from lcbench.hub.contents import documents_in, training_texts_in
from lcbench.repair.correction import MOST_TEXTS
from lcbench.repair.fit import Fitted, fit
from lcbench.tasks.reference import texts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mteb.abstasks.abstask import AbsTask

    from lcbench.encode.encoder import Encoder
    from lcbench.repair.correction import Correction
    from lcbench.tempscale.policy import Role


def fit_to(
    task: AbsTask, encoder: Encoder, correction: Correction
) -> tuple[Fitted, dict[str, Any]]:
    """Fit a correction on texts of a loaded task, or on the set of texts that it names.

    A retrieval or reranking task has its corpus, a classification its training split, and any other
    task its own texts; labels are not used. All subsets of a task have one correction. Texts are
    embedded as the task's documents are.

    Args:
        task: loaded task.
        encoder: encoder without a correction; the work is added to its counters.
        correction: which.

    Returns:
        The correction, and its record for the provenance.

    Raises:
        FitError: there are too few texts.
        RequestError: the set of texts that it names has changed.
    """
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.types import PromptType

    is_search = isinstance(task, AbsTaskRetrieval)
    what, texts = _texts(task, correction, is_search=is_search)
    chosen, count = distinct_texts(texts)
    kind = PromptType.document if is_search else None
    role: Role | None = "document" if is_search else None
    prompt = encoder.prompt_of(task.metadata, kind)
    before = replace(encoder.counters)
    embedded = encoder.vectors(chosen, role, prompt)
    # With a vector for each chunk, all of these are corrected alike.
    embeddings = embedded.rows if isinstance(embedded, MultiVectors) else embedded
    lengths = encoder.lengths(chosen, prompt, role) if correction.by_length else None
    # They are not texts that the task asked for.
    for name in ("texts", "unique_texts", "seen", "vectors", "vectors_of"):
        setattr(encoder.counters, name, getattr(before, name))
    fitted = fit(correction, embeddings, lengths)
    return fitted, record_of_fit(correction, fitted, what, chosen, count)


def record_of_fit(
    correction: Correction,
    fitted: Fitted,
    what: str,
    texts: Sequence[str],
    of_texts: int | None = None,
) -> dict[str, Any]:
    """Return what a correction was fitted on, for the provenance.

    Args:
        correction: which.
        fitted: the same, fitted.
        what: name of the texts.
        texts: distinct texts.
        of_texts: how many these were drawn from; None: they are all.
    """
    keys = np.unique(digests(texts))
    return {
        "correction": correction.canonical,
        "fitted_on": what,
        "texts": len(texts),
        "of_texts": len(texts) if of_texts is None else of_texts,
        "digest": hashlib.sha256(keys.tobytes()).hexdigest()[:16],
        "shrinkage": fitted.shrinkage,
        **({"own_files": list(on.files)} if (on := correction.on) and on.files else {}),
    }


def distinct_texts(texts: Sequence[str]) -> tuple[list[str], int]:
    """Return the distinct texts that a correction is fitted on, and of how many they were drawn.

    Of more than `MOST_TEXTS`, those of the smallest digests are taken: the same in any order, and
    as good as drawn at random.
    """
    _, first = np.unique(digests(texts), return_index=True)
    return [texts[place] for place in first[:MOST_TEXTS]], len(first)


def _texts(task: AbsTask, correction: Correction, *, is_search: bool) -> tuple[str, Sequence[str]]:
    """Return the texts that a correction is fitted on, and what they are."""
    if correction.on is not None:
        return correction.on.name, texts_of(correction.on)
    if is_search:
        return "the corpus", documents_in(task)
    if training := training_texts_in(task):
        return "the training split", training
    return "the task's texts", documents_in(task)
