"""Scoring: mteb's scores, and items that explain them, for every type of task that has any."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskMultilabelClassification,
    AbsTaskRetrieval,
)
from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.task_metadata import TaskMetadata

from engines import encoder_of
from lcbench.encode.encoder import Encoder
from lcbench.score import score


def metadata(name: str, kind: Any, main_score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="made by a test",
        dataset={"path": "made/here", "revision": "1"},
        type=kind,
        main_score=main_score,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=["text"],
        category="t2t" if kind == "Reranking" else "t2c",
    )


@pytest.fixture(scope="module")
def encoder(make_model: Any) -> Encoder:
    return encoder_of(make_model("bert"))


class Graded(AbsTaskRetrieval):
    metadata = metadata("Graded", "Reranking", "map_at_1000")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        texts = ["apples", "pears", "plums", "cars"]
        corpus = Dataset.from_dict({"id": ["a", "b", "c", "d"], "text": texts})
        queries = Dataset.from_dict({"id": ["q"], "text": ["fruit"]})
        grades = {"q": {"a": 2, "b": 0, "c": 1, "d": 0}}
        split = {"corpus": corpus, "queries": queries, "relevant_docs": grades}
        self.dataset = {"default": {"test": {**split, "top_ranked": {"q": ["a", "b", "c"]}}}}
        self.data_loaded = True


def test_only_relevant_documents_have_a_rank(encoder: Encoder) -> None:
    scored = score(Graded(), encoder)
    assert scored.items is not None
    (item,) = scored.items.to_pylist()
    ranks = {one["id"]: one["rank"] for one in item["relevant"]}
    assert {one["id"]: one["grade"] for one in item["relevant"]} == {"a": 2, "c": 1}
    # Among the three candidates: by the similarities that mteb ranked by.
    vectors = encoder.embed(["apples", "pears", "plums"])
    similarities = encoder.similarity(encoder.embed(["fruit"], "query"), vectors).numpy()[0]
    order = list(np.argsort(-similarities))
    assert ranks == {"a": order.index(0) + 1, "c": order.index(2) + 1}
    assert item["score"] == pytest.approx(scored.result.get_score(), abs=1e-5)


def test_counters_are_those_of_mtebs_own_requests(encoder: Encoder) -> None:
    encoder.embed(["fruit", "apples"], "document")
    provenance = score(Graded(), encoder).provenance()
    assert (provenance["texts"], provenance["unique_texts"]) == (5, 5)
    assert provenance["seconds"] >= provenance["seconds_encode"]


class Multilabel(AbsTaskMultilabelClassification):
    metadata = metadata("Multilabel", "MultilabelClassification", "accuracy")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        texts = [f"text {i}" for i in range(40)]
        rows = {"text": texts, "label": [[i % 2, 2 + i % 3] for i in range(40)]}
        data = Dataset.from_dict(rows)
        self.dataset = DatasetDict({"train": data, "test": data})
        self.data_loaded = True


def test_a_type_of_task_without_items_keeps_its_score(encoder: Encoder) -> None:
    scored = score(Multilabel(), encoder)
    assert scored.items is None
    assert scored.without_items == "none for MultilabelClassification"
    assert 0 <= scored.result.get_score() <= 1


class Odd(AbsTaskClassification):
    metadata = metadata("Odd", "Classification", "accuracy")
    samples_per_label = 4

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        rows = {"text": [f"text {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
        data = Dataset.from_dict(rows)
        self.dataset = DatasetDict({"train": data, "test": data})
        self.data_loaded = True


def test_a_fault_in_the_items_does_not_lose_the_score(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score(Odd(), encoder)
    assert expected.items is not None
    mean = np.mean([item["score"] for item in expected.items.to_pylist()])
    assert mean == pytest.approx(expected.result.get_score())
    monkeypatch.setattr(encoder, "lengths", lambda texts, prompt: [1])
    scored = score(Odd(), encoder)
    assert scored.items is None
    assert "ValueError" in str(scored.without_items)
    assert scored.result.get_score() == expected.result.get_score()


class Part(AbsTaskClassification):
    """A part of an aggregate: 'apple' or 'car' by their words."""

    metadata = metadata("First", "Classification", "accuracy")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        texts = ["apple tree", "car wheel"] * 20
        data = Dataset.from_dict({"text": texts, "label": [0, 1] * 20})
        self.dataset = DatasetDict({"train": data, "test": data.select(range(10))})
        self.data_loaded = True


class OtherPart(Part):
    metadata = metadata("Second", "Classification", "accuracy")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        # Labels that no text can tell: near a half.
        data = Dataset.from_dict({"text": ["same"] * 40, "label": [0, 1] * 20})
        self.dataset = DatasetDict({"train": data, "test": data.select(range(10))})
        self.data_loaded = True


class Whole(AbsTaskAggregate):
    metadata = AggregateTaskMetadata(
        name="Whole",
        description="made by a test",
        tasks=[Part(), OtherPart()],
        main_score="accuracy",
        type="Classification",
        eval_splits=["test"],
    )


def test_an_aggregate_is_the_mean_of_its_parts(encoder: Encoder) -> None:
    parts = [score(task, encoder) for task in (Part(), OtherPart())]
    whole = score(Whole(), encoder)
    means = [one.result.get_score() for one in parts]
    assert means[0] > means[1] + 0.2
    assert whole.result.task_name == "Whole"
    assert whole.result.get_score() == pytest.approx(sum(means) / 2)
    assert whole.items is not None
    assert whole.items["subset"].to_pylist() == ["First"] * 10 + ["Second"] * 10
    expected = [*parts[0].items["score"].to_pylist(), *parts[1].items["score"].to_pylist()]
    assert whole.items["score"].to_pylist() == expected
    assert whole.counters.texts == sum(one.counters.texts for one in parts)
    assert whole.without_items is None
