"""Chunking in whole requests: scores, provenance, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos_program
import pytest
from observers import Recorded

import lcbench
from lcbench.errors import RequestError
from lcbench.repair.fit import fit
from lcbench.score import correct

SMALL = {"documents": 40, "documents_per_module": 8, "long_documents": 12}
CHUNKS = [None, {"mean": 24}, {"max": 24}]


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A request of a tiny model that reads 48 tokens."""
    work = tmp_path_factory.mktemp("chunks")
    return {**chaos_program.request_of(work, make_model("bert")), "docs": SMALL}


def test_chunks_are_scored_and_counted(asked: dict[str, Any]) -> None:
    recorded = Recorded()
    tasks = ["DocstringRetrieval", "DocstringReranking"]
    found = lcbench.evaluate(**asked, tasks=tasks, chunks=CHUNKS, progress=recorded)
    assert not found.failed
    assert set(found.scores["chunks"]) == {"", "mean=24", "max=24"}
    assert set(found.scores["tau"]) == {1.0}
    assert (found.scores.groupby("task")["score"].nunique() == 3).all()
    records = provenances(asked["results_dir"])
    base = records["1", tasks[0]]
    assert "encoded_chunks" not in base
    mean, largest = (records[f"chunks={one}=24", tasks[0]] for one in ("mean", "max"))
    # Queries and short documents are in the store.
    assert 0 < mean["encoded_texts"] < base["encoded_texts"]
    assert mean["encoded_chunks"] > 2 * mean["encoded_texts"]
    assert mean["encoded_tokens"] > base["encoded_tokens"]
    assert 2 < largest["vectors_per_document"] < 100
    assert f"{largest['vectors_per_document']:.1f} vectors per document" in recorded.text


def provenances(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for path in folder.rglob("*.provenance.jsonl"):
        one = json.loads(path.read_text(encoding="utf-8"))
        found[one["policy"], path.name.partition(".")[0]] = one
    return found


def test_only_searches_can_use_several_vectors(asked: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        lcbench.evaluate(**asked, tasks=["STS12", "DocstringRetrieval"], chunks={"max": 24})
    assert "which only retrieval and reranking can use; not STS12." in str(refused.value)


def test_a_correction_is_fitted_on_all_vectors(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def counted(correction: Any, embeddings: Any, lengths: Any = None) -> Any:
        rows.append(len(embeddings))
        return fit(correction, embeddings, lengths)

    monkeypatch.setattr(correct, "fit", counted)
    found = lcbench.evaluate(
        **asked,
        tasks="DocstringRetrieval",
        chunks={"max": 24},
        correct="centre",
        progress=Recorded(),
    )
    assert not found.failed
    (record,) = (
        one
        for (policy, _), one in provenances(asked["results_dir"]).items()
        if policy == "chunks=max=24 + correct=centre"
    )
    (correction,) = record["corrections"]
    assert correction["fitted_on"] == "the corpus"
    assert rows[0] > 2 * correction["texts"]


def test_chunks_longer_than_the_window_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="a chunk of 49 tokens is longer than the window of 48"):
        lcbench.evaluate(**asked, tasks="STS12", chunks={"mean": 49})
