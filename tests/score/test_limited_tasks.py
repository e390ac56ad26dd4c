"""Of every type of task mteb scores what a limit leaves of its data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines import encoder_of
from odd_tasks import TASKS, Candidates, Hierarchy

from lcbench.encode.encoder import Encoder
from lcbench.score.evaluate import score

LIMIT = 5


@pytest.fixture(scope="module")
def encoder(make_model: Callable[[str], Path]) -> Encoder:
    return encoder_of(make_model("bert"))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_what_is_left_is_scored(task: Any, encoder: Encoder) -> None:
    made = task()
    before = made.metadata
    scored = score(made, encoder, limit=LIMIT)
    assert scored.result.dataset_revision == f"1-limit{LIMIT}"
    entries = [one for entries in scored.result.scores.values() for one in entries]
    assert all(-1 <= entry["main_score"] <= 1 for entry in entries)
    # Of sets the texts of each are counted, and documents graded alike are no items.
    if scored.items is not None and task.__name__ not in ("Sets", "Summaries"):
        assert len(scored.items) == LIMIT * len(entries)
    # The whole of it can be scored by the same object.
    assert made.metadata == before
    whole = score(task(), encoder)
    assert whole.result.dataset_revision == "1"
    assert whole.counters.texts > scored.counters.texts


def test_a_clustering_is_given_back_its_share(encoder: Encoder) -> None:
    task = Hierarchy()
    score(task, encoder, limit=LIMIT)
    assert task.max_document_to_embed == 60


def test_a_limit_above_all_leaves_the_scores_as_they_are(encoder: Encoder) -> None:
    whole, limited = score(Candidates(), encoder), score(Candidates(), encoder, limit=10_000)
    assert limited.result.scores == whole.result.scores
