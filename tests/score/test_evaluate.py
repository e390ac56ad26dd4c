"""Scoring: mteb's scores, and items that explain them, for every type of task that has any."""

from collections.abc import Callable
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from engines import encoder_of
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskMultilabelClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.similarity_functions import cos_sim
from scipy import stats
from sklearn.metrics import v_measure_score

from lcbench.encode.encoder import Encoder
from lcbench.hub.contents import documents_in, training_texts_in
from lcbench.repair.correction import Correction
from lcbench.repair.fit import FitError
from lcbench.score import correct
from lcbench.score.evaluate import score
from lcbench.system.quiet import quiet_libraries
from lcbench.tasks.reference import Reference


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


TEXTS = [
    f"{size} {fruit} {verb}"
    for size in ("small", "large")
    for fruit in ("apples", "pears", "plums", "cars")
    for verb in ("fall", "roll", "are sold")
]


def split_of(rows: dict[str, list[Any]], names: tuple[str, ...] = ("test",)) -> DatasetDict:
    return DatasetDict(dict.fromkeys(names, Dataset.from_dict(rows)))


def tiny(name: str, data: dict[str, Any]) -> AbsTask:
    """One of mteb's own tasks, with data made here."""
    task = mteb.get_task(name)
    if isinstance(task, AbsTaskRetrieval):
        # mteb changes a split as it scores it.
        task.dataset = {"default": {split: dict(data) for split in task.eval_splits}}
    elif task.metadata.is_multilingual:
        task.dataset = dict(data)
        task.hf_subsets = list(data)
    else:
        task.dataset = data["default"]
    task.data_loaded = True
    return task


def pairs(shift: int, count: int = 12) -> DatasetDict:
    return split_of(
        {
            "sentence1": TEXTS[:count],
            "sentence2": [TEXTS[(7 * i + shift) % len(TEXTS)] for i in range(count)],
            # Some ties, and grades that are no whole numbers.
            "score": [1 + (5 * i % 7) / 2 for i in range(count)],
        }
    )


def labelled(labels: tuple[Any, ...]) -> DatasetDict:
    # Each text has two labels: no classifier is right about all.
    rows = {"text": TEXTS * 2, "label": [labels[(i + i // 24) % 3] for i in range(48)]}
    return split_of(rows, ("train", "test", "validation"))


SUMMARIES = {
    "text": ["one", "two", "three", "four"],
    "human_summaries": [TEXTS[0:2], TEXTS[2:4], TEXTS[4:6], TEXTS[6:8]],
    "machine_summaries": [TEXTS[8:13], TEXTS[9:14], [TEXTS[10]] * 5, [*TEXTS[11:15], "x " * 40]],
    # mteb leaves out the second, whose grades are equal, and the third, whose summaries are.
    "relevance": [[1.0, 2.5, 2.5, 4.0, 5.0], [2.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0], [3, 1, 4, 1, 5]],
}


def searched() -> dict[str, Any]:
    """Queries and documents, of which some are relevant by grades."""
    corpus = Dataset.from_dict({"id": [f"d{i}" for i in range(len(TEXTS))], "text": TEXTS})
    asked = ["apples", "large cars", "what rolls", "plums for sale", "nothing at all"]
    queries = Dataset.from_dict({"id": [f"q{i}" for i in range(5)], "text": asked})
    grades = {f"q{i}": {f"d{(i * j + 3) % 24}": j % 3 for j in range(1, 6)} for i in range(1, 5)}
    relevant = {"q0": {"d1": 1}, **grades}
    return {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}


def reranked() -> dict[str, Any]:
    candidates = {f"q{i}": [f"d{j}" for j in range(24) if (i + j) % 4] for i in range(5)}
    return {**searched(), "top_ranked": candidates}


# Clicks on news, each asked for by several titles that were read before: `impression_title`.
MIND_QUERIES = {
    "1_0": "apples",
    "1_1": "large cars",
    "2_0": "plums roll",
    "3_a_0": "x",
    "3_a_1": "",
}
MIND_GRADES = {"1": {"d0": 1, "d1": 0, "d2": 0, "d9": 1}, "2": {"d5": 1}, "3_a": {"d7": 1, "d8": 0}}


def read_before() -> dict[str, Any]:
    found = searched()
    groups = {query: query.rpartition("_")[0] for query in MIND_QUERIES}
    queries = {"id": list(MIND_QUERIES), "text": list(MIND_QUERIES.values())}
    found["queries"] = Dataset.from_dict(queries)
    found["relevant_docs"] = {query: dict(MIND_GRADES[own]) for query, own in groups.items()}
    others = ["d3", "d4", "d11", "d12"]
    found["top_ranked"] = {query: [*MIND_GRADES[own], *others] for query, own in groups.items()}
    return found


def mean_of_items(rows: list[dict[str, Any]]) -> float:
    return float(np.mean([row["score"] for row in rows]))


def correlation(rows: list[dict[str, Any]]) -> float:
    gold = [float(row["gold"]) for row in rows]
    return float(stats.spearmanr(gold, [row["score"] for row in rows]).statistic)


def mean_of_sets(rows: list[dict[str, Any]]) -> float:
    sets: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sets.setdefault(row["id"].split("/")[0], []).append(row)
    measures = [
        v_measure_score([row["gold"] for row in one], [row["predictions"][0] for row in one])
        for one in sets.values()
    ]
    return float(np.mean(measures))


# One task for each way in which those of the paper, of LongEmbed and of the docs suite are scored.
KINDS: dict[str, tuple[dict[str, Any], Callable[[list[dict[str, Any]]], float]]] = {
    "Banking77Classification": ({"default": labelled((0, 1, 2))}, mean_of_items),
    "MassiveIntentClassification": (
        {"en": labelled(("buy", "sell", "ask")), "de": labelled(("call", "wait", "ask"))},
        mean_of_items,
    ),
    "TwentyNewsgroupsClustering": (
        {
            "default": split_of(
                {
                    "sentences": [TEXTS[:14], TEXTS[10:]],
                    "labels": [[i % 3 for i in range(14)], [i % 2 for i in range(14)]],
                }
            )
        },
        mean_of_sets,
    ),
    "BIOSSES": ({"default": pairs(3)}, correlation),
    "STS17": ({"en-en": pairs(1), "en-de": pairs(5, 20)}, correlation),
    "STS22": ({"en": pairs(1), "de-en": pairs(5, 20)}, correlation),
    "NFCorpus": (searched(), mean_of_items),
    "LEMBPasskeyRetrieval": (searched(), mean_of_items),
    "AskUbuntuDupQuestions": (reranked(), mean_of_items),
    "MindSmallReranking": (read_before(), mean_of_items),
    "SummEval": ({"default": split_of(SUMMARIES)}, mean_of_items),
    "SummEvalSummarization.v2": ({"default": split_of(SUMMARIES)}, mean_of_items),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_items_of_each_split_and_subset_give_its_main_score(
    encoder: Encoder, name: str
) -> None:
    data, score_of = KINDS[name]
    task = tiny(name, data)
    scored = score(task, encoder)
    assert scored.items is not None, scored.without_items
    rows = scored.items.to_pylist()
    parts = {
        (split, entry["hf_subset"]): entry["main_score"]
        for split, entries in scored.result.scores.items()
        for entry in entries
    }
    assert len(parts) == len(task.eval_splits) * len(task.hf_subsets)
    assert {(row["split"], row["subset"]) for row in rows} == parts.keys()
    # mteb rounds the means of metrics of queries to five decimals.
    tolerance = 6e-6 if isinstance(task, AbsTaskRetrieval) else 1e-6
    for part, main_score in parts.items():
        own = [row for row in rows if (row["split"], row["subset"]) == part]
        assert len({row["id"] for row in own}) == len(own) > 1
        assert score_of(own) == pytest.approx(main_score, abs=tolerance)
        # No score that any items would give.
        assert main_score not in (0, 1)


@pytest.mark.parametrize("name", ["SummEval", "SummEvalSummarization.v2"])
def test_a_document_is_reported_by_its_place_and_its_longest_machine_summary(
    encoder: Encoder, name: str
) -> None:
    items = score(tiny(name, {"default": split_of(SUMMARIES)}), encoder).items
    assert items is not None
    assert items["id"].to_pylist() == ["0", "3"]
    summaries = SUMMARIES["machine_summaries"]
    assert items["tokens"].to_pylist() == [max(encoder.lengths(summaries[i], "")) for i in (0, 3)]
    assert items["tokens"][1].as_py() > items["tokens"][0].as_py()
    assert items["gold"].null_count == items["tokens_2"].null_count == 2
    expected = []
    for i in (0, 3):
        human = encoder.embed(SUMMARIES["human_summaries"][i])
        cosines = cos_sim(encoder.embed(summaries[i]), human).max(dim=1).values
        found = stats.spearmanr(SUMMARIES["relevance"][i], cosines)
        # The first version averages ρ and its p-value (mteb's issue 1156).
        expected.append(np.mean(found) if name == "SummEval" else found.statistic)
    assert items["score"].to_pylist() == pytest.approx(expected, abs=1e-6)


LONG = "apples and pears " * 100
"""More than the model's window."""


def with_a_long_text(name: str) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Return the data of a kind, one of its texts long, and the items' characters as they must be.

    Those of the first text (of a document with summaries its longest machine summary), and of a
    pair's second text.
    """
    if name == "BIOSSES":
        texts = [LONG, *TEXTS[1:12]], [*TEXTS[12:23], LONG]
        rows = {"sentence1": texts[0], "sentence2": texts[1], "score": [1.0, 2.0, 3.0] * 4}
        return split_of(rows), list(map(len, texts[0])), list(map(len, texts[1]))
    if name == "SummEval":
        own = [[*SUMMARIES["machine_summaries"][0][:4], LONG], *SUMMARIES["machine_summaries"][1:]]
        longest = [max(map(len, own[place])) for place in (0, 3)]
        return split_of({**SUMMARIES, "machine_summaries": own}), longest, [None] * 2
    texts = [LONG, *TEXTS[1:]]
    if name == "TwentyNewsgroupsClustering":
        rows = {"sentences": [texts], "labels": [[i % 3 for i in range(24)]]}
        return split_of(rows), list(map(len, texts)), [None] * 24
    rows = {"text": texts, "label": [i % 2 for i in range(24)]}
    return split_of(rows, ("train", "test")), list(map(len, texts)), [None] * 24


@pytest.mark.parametrize(
    "name", ["BIOSSES", "SummEval", "TwentyNewsgroupsClustering", "Banking77Classification"]
)
def test_an_item_has_the_characters_of_its_whole_text(encoder: Encoder, name: str) -> None:
    data, first, second = with_a_long_text(name)
    items = score(tiny(name, {"default": data}), encoder).items
    assert items is not None
    assert items["characters"].to_pylist() == first
    assert items["characters_2"].to_pylist() == second
    # The tokens are those of what the window leaves of it.
    assert len(LONG) == 1700
    assert max(items["tokens"].to_pylist()) < len(LONG.split())


@pytest.mark.parametrize("name", ["NFCorpus", "AskUbuntuDupQuestions", "MindSmallReranking"])
def test_queries_and_relevant_documents_have_the_characters_of_their_whole_texts(
    encoder: Encoder, name: str
) -> None:
    data = KINDS[name][0]
    texts = [f"{text} {LONG}" if place == 1 else text for place, text in enumerate(TEXTS)]
    corpus = {"id": data["corpus"]["id"], "title": [f"T{i}" for i in range(24)], "text": texts}
    task = tiny(name, {**data, "corpus": Dataset.from_dict(corpus)})
    items = score(task, encoder).items
    assert items is not None
    queries = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
    for item in items.to_pylist():
        # Of sub-queries the longest.
        own = [text for id_, text in queries.items() if item["id"] in (id_, id_.rpartition("_")[0])]
        assert item["characters"] == max(map(len, own))
        for document in item["relevant"]:
            place = int(document["id"].removeprefix("d"))
            # mteb puts a space between title and text, and strips both ends.
            assert document["characters"] == len(f"T{place} {texts[place]}".strip())


def test_sub_queries_are_the_same_items_however_their_judgments_are_ordered(
    encoder: Encoder,
) -> None:
    # mteb reads them in another order each time.
    data = read_before()
    reversed_ = {**data, "relevant_docs": dict(reversed(data["relevant_docs"].items()))}
    first, second = (score(tiny("MindSmallReranking", one), encoder) for one in (data, reversed_))
    assert first.items is not None
    assert second.items is not None
    assert second.items["id"].to_pylist() == ["1", "2", "3_a"]
    assert second.items_of_data == first.items_of_data


def test_sub_queries_are_one_item(encoder: Encoder) -> None:
    scored = score(tiny("MindSmallReranking", read_before()), encoder)
    assert scored.items is not None
    rows = {row["id"]: row for row in scored.items.to_pylist()}
    assert list(rows) == ["1", "2", "3_a"]
    data = read_before()
    texts = dict(zip(data["corpus"]["id"], data["corpus"]["text"], strict=True))
    for group, row in rows.items():
        asked = [query for query in MIND_QUERIES if query.rpartition("_")[0] == group]
        words = [MIND_QUERIES[query] for query in asked]
        assert row["tokens"] == max(encoder.lengths(words, ""))
        candidates = data["top_ranked"][asked[0]]
        documents = encoder.embed([texts[one] for one in candidates])
        best = encoder.similarity(encoder.embed(words, "query"), documents).numpy().max(axis=0)
        order = [candidates[i] for i in np.argsort(-best)]
        relevant = sorted(one for one, grade in MIND_GRADES[group].items() if grade)
        ranks = {one: order.index(one) + 1 for one in relevant}
        assert {one["id"]: one["rank"] for one in row["relevant"]} == ranks
        assert {one["grade"] for one in row["relevant"]} == {1}
        # Average precision: of the k-th relevant document, k over its rank.
        precisions = [(k + 1) / rank for k, rank in enumerate(sorted(ranks.values()))]
        assert row["score"] == pytest.approx(np.mean(precisions), abs=1e-9)
    # What sub-queries score each by itself is another number.
    entry = scored.result.scores["test"][0]
    assert abs(entry["map_at_1000"] - entry["main_score"]) > 1e-3


class Pairs(AbsTaskSTS):
    metadata = metadata("Pairs", "STS", "cosine_spearman")
    golds = (1.0, 2.0, 3.0, 4.0)

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        texts = ["apples", "pears", "plums", "cars"]
        rows = {"sentence1": texts, "sentence2": texts[::-1], "score": list(self.golds)}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


@pytest.mark.parametrize("kind", [Pairs, Graded, Odd])
def test_what_the_items_are_goes_by_the_data_alone(kind: Any, make_model: Any) -> None:
    digests = set()
    for model in ("bert", "roberta"):
        provenance = score(kind(), encoder_of(make_model(model))).provenance()
        digests.add(provenance["items_of_data"])
    assert len(digests) == 1
    assert digests != {None}


def test_other_labels_are_other_items(encoder: Encoder) -> None:
    class Others(Pairs):
        golds = (1.0, 2.0, 4.0, 3.0)

    first, second = (score(task(), encoder).items_of_data for task in (Pairs, Others))
    assert first != second


class Translations(AbsTaskBitextMining):
    metadata = metadata("Translations", "BitextMining", "f1")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        rows = {"sentence1": ["apples", "pears"], "sentence2": ["Äpfel", "Birnen"]}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


def with_main_score(score_: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let mteb give another main score than the one that it computed."""
    evaluate = mteb.evaluate

    def wrong(*arguments: Any, **options: Any) -> Any:
        outcome = evaluate(*arguments, **options)
        outcome.task_results[0].scores["test"][0]["main_score"] = score_
        return outcome

    monkeypatch.setattr(mteb, "evaluate", wrong)


@pytest.mark.parametrize("score_", [1.5, 75.3, -1.5, float("inf"), "0.5", True])
def test_a_main_score_that_is_none_fails_the_cell(
    score_: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_main_score(score_, monkeypatch)
    with pytest.raises(
        ValueError, match=r"split test, subset default: a main score of .* is impossible"
    ):
        score(Pairs(), encoder)


@pytest.mark.parametrize("kind", [Graded, Odd, Pairs])
def test_only_a_correlation_may_be_below_zero(
    kind: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_main_score(-0.5, monkeypatch)
    if kind is Pairs:
        assert score(kind(), encoder).result.get_score() == -0.5
        return
    metric = kind.metadata.main_score
    with pytest.raises(ValueError, match=rf"of -0\.5 is impossible: {metric} is between 0 and 1"):
        score(kind(), encoder)


def test_bars_of_mteb_go_to_the_log(
    encoder: Encoder, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where this process scores, as with engine.scoring=0."""
    quiet_libraries()
    with caplog.at_level("INFO", logger="lcbench"):
        score(Translations(), encoder)
    assert capsys.readouterr().err == ""
    assert any("Matching sentences" in record.getMessage() for record in caplog.records)


def shares_of(task: AbsTask, encoder: Encoder) -> dict[str, list[str]]:
    items = score(task, encoder).items
    assert items is not None
    return dict(zip(items["id"].to_pylist(), items["shares"].to_pylist(), strict=True))


def searching(
    queries: dict[str, str], corpus: dict[str, str], relevant: dict[str, dict[str, int]]
) -> AbsTask:
    columns = {
        name: Dataset.from_dict({"id": list(texts), "text": list(texts.values())})
        for name, texts in (("queries", queries), ("corpus", corpus))
    }
    return tiny("NFCorpus", {**columns, "relevant_docs": relevant, "top_ranked": None})


def test_queries_share_their_relevant_documents_together_and_a_text_that_is_theirs_alone(
    encoder: Encoder,
) -> None:
    shares = shares_of(
        searching(
            {"a": "apples", "b": "pears", "c": "plums", "d": "cars", "e": "cars", "f": "figs"},
            {"1": "one", "2": "two", "3": "three", "4": "one "},
            {
                "a": {"1": 1, "2": 1, "3": 0},
                "b": {"2": 1, "1": 1},
                "c": {"1": 1},
                "d": {"2": 1, "1": 0},
                "e": {"3": 2},
                "f": {"4": 1},
            },
        ),
        encoder,
    )
    # Of a and b all relevant documents are the same; with c they have one of two in common.
    assert shares["a"][1] == shares["b"][1]
    assert len({shares[query][1] for query in "abc"}) == 2
    # The document of f has another id than that of c, and the same text.
    assert shares["f"][1] == shares["c"][1]
    assert len({shares[query][0] for query in "abcf"}) == 4
    # d and e ask the same: this links nothing.
    assert [len(shares[query]) for query in "de"] == [1, 1]
    assert shares["d"] != shares["e"]
    assert all(len(one) == 16 for several in shares.values() for one in several)
    # The same texts under other ids, and in another task.
    again = shares_of(
        searching(
            {"x": "pears", "y": "other"},
            {"8": "three", "9": "one", "10": "two"},
            {"x": {"8": 1}, "y": {"9": 1, "10": 3}},
        ),
        encoder,
    )
    assert again["x"] == [shares["b"][0], shares["e"][0]]
    assert again["y"][1] == shares["a"][1]


def test_texts_share_with_the_queries_of_which_they_are_the_document(encoder: Encoder) -> None:
    data = labelled((0, 1, 2))
    texts = shares_of(tiny("Banking77Classification", {"default": data}), encoder)
    # Each text is there twice, with two labels.
    assert texts["0"] == texts["24"] != texts["1"]
    queries = shares_of(searching({"a": "x"}, {"1": f" {TEXTS[1]}"}, {"a": {"1": 1}}), encoder)
    assert queries["a"][1:] == texts["1"]


def test_pairs_share_both_texts_sets_all_and_summaries_their_document(encoder: Encoder) -> None:
    rows = {
        "sentence1": ["apples", "pears", "apples", "plums"],
        "sentence2": ["pears", "apples", "cars", "figs"],
        "score": [1.0, 2.0, 3.0, 4.0],
    }
    shares = shares_of(tiny("BIOSSES", {"default": split_of(rows)}), encoder)
    assert shares["0"] == shares["1"]
    assert len({one for (one,) in shares.values()}) == 3
    sets = {
        "sentences": [TEXTS[:9], TEXTS[9:18], TEXTS[8::-1]],
        "labels": [[i % 3 for i in range(9)]] * 3,
    }
    clusters = shares_of(tiny("TwentyNewsgroupsClustering", {"default": split_of(sets)}), encoder)
    of_set = [{tuple(clusters[f"{one}/{i}"]) for i in range(9)} for one in range(3)]
    assert of_set[0] == of_set[2] != of_set[1]
    assert len(of_set[1]) == 1
    of_documents = shares_of(tiny("SummEval", {"default": split_of(SUMMARIES)}), encoder)
    asked = searching(
        {"a": "x", "b": "y"}, {"1": "one", "4": "four"}, {"a": {"1": 1}, "b": {"4": 1}}
    )
    queries = shares_of(asked, encoder)
    assert of_documents == {"0": queries["a"][1:], "3": queries["b"][1:]}


def test_sub_queries_share_what_all_of_them_ask(encoder: Encoder) -> None:
    shares = shares_of(tiny("MindSmallReranking", read_before()), encoder)
    # "1" has two relevant documents, "2" and "3_a" one each.
    assert [len(shares[query]) for query in ("1", "2", "3_a")] == [2, 2, 2]
    assert len({one for several in shares.values() for one in several}) == 6


def test_the_experiments_that_are_right_about_a_text_are_bits(encoder: Encoder) -> None:
    items = score(Odd(), encoder).items
    assert items is not None
    for row in items.to_pylist():
        right = [prediction == row["gold"] for prediction in row["predictions"]]
        assert [bool(row["right"] >> place & 1) for place in range(len(right))] == right
        assert row["right"].bit_count() / len(right) == row["score"]


class Sentences(AbsTaskSTS):
    metadata = metadata("Sentences", "STS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        left, right = ([f"{side} {i % 9} {'word ' * i}" for i in range(12)] for side in "ab")
        rows = {"sentence1": left, "sentence2": right, "score": [i % 5 for i in range(12)]}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


@pytest.mark.parametrize(
    ("task", "what", "texts"),
    [
        (Graded, "the corpus", 4),
        (Odd, "the training split", 20),
        (Sentences, "the task's texts", 24),
    ],
)
def test_a_correction_is_fitted_on_the_texts_of_the_task(
    encoder: Encoder, task: Any, what: str, texts: int
) -> None:
    plain = score(task(), encoder)
    scored = score(task(), encoder, correction=Correction("centre"))
    (record,) = scored.corrections
    assert (record["correction"], record["fitted_on"]) == ("centre", what)
    assert (record["texts"], record["of_texts"]) == (texts, texts)
    assert scored.provenance()["corrections"] == [record]
    assert "corrections" not in plain.provenance()
    # It is the mean of these texts, and of none that are only scored, like the query.
    assert encoder.correction is not None
    made = task()
    made.load_data()
    fitted_on = training_texts_in(made) or documents_in(made)
    encoder.correction = None
    role = "document" if task is Graded else None
    mean = encoder.embed(list(dict.fromkeys(fitted_on)), role).mean(axis=0)
    score(task(), encoder, correction=Correction("centre"))
    np.testing.assert_allclose(encoder.correction.means[0], mean, atol=1e-6)
    # The pass before scoring is not counted as what the task asks for.
    for name in ("texts", "unique_texts"):
        assert scored.provenance()[name] == plain.provenance()[name]
    # The same items, with scores of the corrected embeddings.
    assert scored.items_of_data == plain.items_of_data


def test_scores_are_those_of_corrected_embeddings(encoder: Encoder) -> None:
    scored = score(Sentences(), encoder, correction=Correction("whiten", 4))
    fitted = encoder.correction
    assert fitted is not None
    encoder.correction = None
    task = Sentences()
    task.load_data()
    rows = task.dataset["test"]
    left, right = (fitted.apply(encoder.embed(list(rows[one]))) for one in task.column_names)
    expected = stats.spearmanr(np.sum(left * right, axis=1), rows["score"]).statistic
    assert scored.result.get_score() == pytest.approx(expected, abs=1e-6)


def test_means_by_length_go_by_the_tokens_of_each_text(encoder: Encoder) -> None:
    score(Sentences(), encoder, correction=Correction("centre", 3))
    fitted = encoder.correction
    assert fitted is not None
    assert fitted.by_length
    texts = ["one", "word " * 11]
    found = encoder.embed(texts)
    encoder.correction = None
    raw, lengths = encoder.embed(texts), encoder.lengths(texts)
    np.testing.assert_array_equal(found, fitted.apply(raw, lengths))
    bins = np.searchsorted(fitted.begins, lengths, side="right")
    assert list(bins) == [0, len(fitted.means) - 1]


def test_a_named_set_of_texts_is_the_same_for_all_tasks(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correct, "texts_of", lambda on: ["x", "y", "z", "x"])
    means = []
    for task in (Graded, Sentences):
        scored = score(task(), encoder, correction=Correction("centre", on=Reference("some-1")))
        assert encoder.correction is not None
        means.append(encoder.correction.means)
        (record,) = scored.corrections
        assert (record["fitted_on"], record["texts"]) == ("some-1", 3)
    np.testing.assert_allclose(*means, atol=1e-6)


def test_a_correction_that_needs_more_texts_fails_with_what_would_do(encoder: Encoder) -> None:
    with pytest.raises(FitError, match=r"fitted on 4 distinct texts and needs at least 6"):
        score(Graded(), encoder, correction=Correction("abtt", 4))
    # The next task begins without it.
    assert score(Graded(), encoder).corrections == ()
