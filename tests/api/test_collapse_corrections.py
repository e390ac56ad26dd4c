"""Collapse of corrected embeddings: fitted on what is said, paired with the baseline, reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lcbench
from lcbench.api.collapses import Collapses
from lcbench.errors import RequestError
from lcbench.measures import files
from lcbench.measures.collapse import prepare
from lcbench.repair.correction import Correction
from lcbench.repair.fit import Fitted, fit
from lcbench.run.reader import counter_of
from lcbench.tasks import reference

SMALL: dict[str, Any] = {
    "passages": 30,
    "sentences": [2],
    "whole_texts": 60,
    "bins": 2,
    "resamples": 1_000,
}
TEXTS = [
    " ".join(f"Sentence {i} of text {k} is{' so' * (k % 7)} here." for i in range(2 + k % 5))
    for k in range(90)
]


@pytest.fixture(scope="module")
def model(make_model: Callable[[str], Path]) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(make_model("bert")), device="cpu")


@pytest.fixture(scope="module")
def found(model: Any) -> Collapses:
    keys = {"tau": [1.0, 0.5], "correct": [None, "centre", {"whiten": 16}]}
    return lcbench.collapse(model, texts=TEXTS, progress=False, **keys, **SMALL)


def test_every_combination_is_measured_against_the_baseline(found: Collapses) -> None:
    corrections = ["", "correct=centre", "correct=whiten=16"]
    names = [" + ".join(filter(None, (tau, one))) for tau in ("", "0.5") for one in corrections]
    assert [one.policy for one in found.measurements] == ["1", *names[1:]]
    for one in found.measurements[1:]:
        assert one.collapse.change is not None
        assert one.collapse.by_length is not None
    assert "τ = 0.5 + centre" in set(found.tables["collapse"]["Repair"])


def test_a_correction_is_fitted_on_the_whole_texts_and_applied_to_all(
    found: Collapses, model: Any
) -> None:
    """Recomputed with sentence-transformers and numpy alone."""
    one = next(one for one in found.measurements if one.policy == "correct=centre")
    assert one.record["correction"]["fitted_on"] == "the measured whole texts"
    prepared = prepare(TEXTS, counter_of(model), 46, one.options)
    whole = model.encode(list(prepared.documents)).astype(np.float64)
    assert one.record["correction"]["texts"] == len(whole) == 60
    rows = model.encode(list(prepared.passages.joined["sequential"][2])) - whole.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    expected = (cosines.sum() - np.trace(cosines)) / (len(rows) * (len(rows) - 1))
    assert one.collapse.crowding is not None
    assert one.collapse.crowding.verdict.joined.value == pytest.approx(expected, abs=1e-5)
    # Centring takes the common direction away.
    baseline = found.measurements[0].collapse.crowding
    assert baseline is not None
    assert one.collapse.crowding.verdict.single.value < baseline.verdict.single.value - 0.1


def test_it_is_fitted_on_a_named_set_of_texts_of_a_task_and_by_length(
    make_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any
) -> None:
    docstrings = tuple(TEXTS[:50])
    monkeypatch.setattr(reference, "_docstrings", lambda: docstrings)
    monkeypatch.setattr(reference, "_digest", lambda: "12345678")
    fitted: list[list[int] | None] = []

    def recorded(correction: Correction, rows: Any, lengths: Any = None) -> Fitted:
        fitted.append(lengths)
        return fit(correction, rows, lengths)

    monkeypatch.setattr("lcbench.repair.fit.fit", recorded)
    asked = {
        "model": make_model("bert"),
        "docs": {"documents": 100},
        "queries": 30,
        "corpus": 40,
        "offline": True,
        "store": "none",
        "results_dir": tmp_path,
        "correct": [{"centre": {"bins": 2, "on": "docstrings"}}, "centre"],
        **SMALL,
    }
    found = lcbench.collapse(**asked, progress=False)
    name = "centre_bins=2,on=docstrings-12345678"
    assert [one.policy for one in found.measurements] == ["1", f"correct={name}", "correct=centre"]
    named, own = (one.record["correction"] for one in found.measurements[1:])
    assert (named["fitted_on"], named["texts"]) == ("docstrings-12345678", 50)
    # Those that are searched are among them.
    assert own["texts"] >= 40
    folders = sorted(path.parent.name for path in files.everything(tmp_path))
    assert folders == ["baseline", "correct_centre", f"correct_{name}"]
    # Retrieval is that of corrected queries and documents.
    before, *after = (one.collapse.retrieval for one in found.measurements)
    assert before is not None
    assert all(one is not None and one.overall.score != before.overall.score for one in after)
    # Bins go by the tokens that the model reads.
    ids = model.tokenizer(list(docstrings), truncation=True, max_length=48)["input_ids"]
    by_length, plain = fitted
    assert by_length is not None
    assert sorted(by_length) == sorted(map(len, ids))
    assert plain is None


def test_chunks_that_have_one_embedding_a_text_are_measured(model: Any) -> None:
    keys = {**SMALL, "measures": ["embeddings", "attention"], "traced_texts": 30}
    found = lcbench.collapse(
        model,
        texts=TEXTS,
        repairs=[{"chunks": {"mean": 16}}],
        traced_lengths=[16],
        progress=False,
        **keys,
    )
    before, after = (one.collapse.crowding for one in found.measurements)
    assert before is not None
    assert after is not None
    # Single sentences fit into a chunk, longer texts do not.
    assert after.verdict.single.value == pytest.approx(before.verdict.single.value, abs=1e-6)
    assert abs(after.verdict.joined.value - before.verdict.joined.value) > 1e-3
    # Nothing of the model is changed.
    assert [one.policy for one in found.inside] == ["1"]
    with pytest.raises(RequestError, match=r"chunks=max.*each chunk of a text has an embedding"):
        lcbench.collapse(model, texts=TEXTS, chunks="max", progress=False, **SMALL)


def test_a_repair_that_cannot_be_looked_into_is_no_obstacle_to_others(
    model: Any, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """AttnScale changes weights after the softmax: what softmax returned is not what is used."""
    asked = {
        "repairs": [{"attend": {"attnscale": 2}}, {"tau": 0.5}, {"extend": {"pi": 96}}],
        "traced_texts": 30,
        "traced_lengths": [16],
        "resamples": 1_000,
        "progress": False,
        "measures": ["attention"],
    }
    before = model.encode(TEXTS[:3])
    docs = {"docs": {"documents": 100}, "offline": True, "store": "none", "results_dir": tmp_path}
    for found in (
        lcbench.collapse(model, texts=TEXTS, **asked),
        lcbench.collapse(make_model("bert"), **docs, **asked),
    ):
        assert [one.policy for one in found.inside] == ["1", "0.5", "extend=pi=96"]
        ((name, why),) = found.failed.items()
        assert "attnscale=2" in name
        assert "which changes it otherwise than by a temperature" in why
    assert (model.encode(TEXTS[:3]) == before).all()


def test_what_happens_inside_and_figures_are_of_encodings_alone(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """A correction changes nothing there, so that nothing is measured twice."""
    found = lcbench.collapse(
        make_model("bert"),
        repairs=[{"tau": 0.5, "correct": "centre"}, {"correct": {"abtt": 2}}],
        measures=["attention"],
        figures="12",
        traced_texts=30,
        traced_lengths=[16],
        docs={"documents": 100},
        offline=True,
        store="none",
        results_dir=tmp_path,
        progress=False,
        resamples=1_000,
    )
    assert not found.failed
    assert [one.policy for one in found.inside] == ["1", "0.5"]
    assert [line.name for line in found.figures[0].panels[0].lines] == ["τ = 1", "τ = 0.5"]
