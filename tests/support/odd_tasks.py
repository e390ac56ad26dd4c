"""Tasks of mteb with unusual but valid data, made in memory: one of each kind and several traps."""

import random
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskClusteringLegacy,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.task_metadata import TaskMetadata

_WORDS = [
    "apple",
    "pear",
    "plum",
    "car",
    "road",
    "Tree",
    "house",
    "river",
    "stone",
    "Book",
    "paper",
    "light",
    "water",
    "wind",
    "fire",
    "cloud",
    "Paris",
    "blue",
    "green",
    "run",
    "jump",
    "sleep",
]
_DRAWS = random.Random(0)
# More words than the models' window of 48 tokens, in every fourth.
TEXTS = [" ".join(_DRAWS.choices(_WORDS, k=(3, 8, 30, 70)[i % 4])) for i in range(60)]
QUERIES = [" ".join(_DRAWS.sample(text.split(), 3)) for text in TEXTS[:25]]


def metadata(name: str, kind: Any, main_score: str, languages: Any = None) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="made by a test",
        dataset={"path": "made/here", "revision": "1"},
        type=kind,
        main_score=main_score,
        eval_splits=["test"],
        eval_langs=languages or ["eng-Latn"],
        modalities=["text"],
        category="t2t",
    )


def _retrieval(
    corpus: dict[str, list[Any]], queries: list[str], relevant: Any, candidates: Any = None
) -> Any:
    split = {
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict(
            {"id": [f"q{i}" for i in range(len(queries))], "text": queries}
        ),
        "relevant_docs": relevant,
        "top_ranked": candidates,
    }
    return {"default": {"test": split}}


class Documents(AbsTaskRetrieval):
    """Queries made of words of their documents."""

    metadata = metadata("Documents", "Retrieval", "ndcg_at_10")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        corpus = {"id": [f"d{i}" for i in range(60)], "text": TEXTS}
        self.dataset = _retrieval(corpus, QUERIES, {f"q{i}": {f"d{i}": 1} for i in range(25)})
        self.data_loaded = True


class TitlesAndDuplicates(AbsTaskRetrieval):
    """Some documents without a title or a text, equal ones, and one that is judged and absent."""

    metadata = metadata("TitlesAndDuplicates", "Retrieval", "ndcg_at_10")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        texts = [*TEXTS[:40], *TEXTS[:3], ""]
        titles = [("" if i % 3 else f"About {_WORDS[i % 20]}") for i in range(len(texts))]
        ids = [f"d{i}" for i in range(len(texts))]
        relevant = {f"q{i}": {f"d{i}": 2, f"d{i + 1}": 1, "absent": 1} for i in range(25)}
        self.dataset = _retrieval({"id": ids, "title": titles, "text": texts}, QUERIES, relevant)
        self.data_loaded = True


class EqualQueries(AbsTaskRetrieval):
    """Queries that are equal, are documents themselves, or have nothing relevant."""

    metadata = metadata("EqualQueries", "Retrieval", "ndcg_at_10")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        queries = [QUERIES[0]] * 3 + TEXTS[3:8]
        relevant = {f"q{i}": {f"d{i}": 1} for i in range(7)}
        corpus = {"id": [f"d{i}" for i in range(60)], "text": TEXTS}
        self.dataset = _retrieval(corpus, queries, relevant)
        self.data_loaded = True


class Candidates(AbsTaskRetrieval):
    """Reranking in which some queries have one candidate and some have no relevant one."""

    metadata = metadata("Candidates", "Reranking", "map_at_1000")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        ids = [f"d{i}" for i in range(60)]
        relevant = {f"q{i}": {f"d{i}": 1} for i in range(10)}
        candidates = {f"q{i}": ids[i : i + 1 + 3 * (i % 4)] for i in range(9)}
        candidates["q9"] = ids[20:30]
        self.dataset = _retrieval({"id": ids, "text": TEXTS}, QUERIES[:10], relevant, candidates)
        self.data_loaded = True


class TiedPairs(AbsTaskSTS):
    """Equal grades, equal sentences, an empty one, and other scripts."""

    metadata = metadata("TiedPairs", "STS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        # Rounding orders pairs that are equally similar, so only one pair has the similarity 1.
        left = [*TEXTS[:20], "", "naïve café, 5 €", "a\x00b plum", "🙂 pear 你好", "שלום car"]
        right = [*TEXTS[20:39], TEXTS[19], "x", "naive cafes cost", "a b plums", "pears", "cars"]
        grades = [float(i % 3) for i in range(len(left))]
        rows = {"sentence1": left, "sentence2": right, "score": grades}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


class RareLabels(AbsTaskClassification):
    """Labels as words, one of them with two examples and never tested."""

    metadata = metadata("RareLabels", "Classification", "accuracy")
    samples_per_label = 4

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        labels = [("red", "green", "blue")[i % 3] for i in range(38)] + ["rare", "rare"]
        train = Dataset.from_dict({"text": TEXTS[:40], "label": labels})
        test = Dataset.from_dict(
            {"text": TEXTS[20:], "label": [("red", "green", "blue")[i % 3] for i in range(40)]}
        )
        self.dataset = DatasetDict({"train": train, "test": test})
        self.data_loaded = True


class SeveralLabels(AbsTaskMultilabelClassification):
    """Texts with two labels, one, or none."""

    metadata = metadata("SeveralLabels", "MultilabelClassification", "accuracy")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        labels = [[], [0], [0, 1], [2]]
        rows = {"text": TEXTS, "label": [labels[i % 4] for i in range(60)]}
        data = Dataset.from_dict(rows)
        self.dataset = DatasetDict({"train": data, "test": data})
        self.data_loaded = True


class Pairs(AbsTaskPairClassification):
    """Pairs that are mostly of one class."""

    metadata = metadata("Pairs", "PairClassification", "max_ap")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        rows = {
            "sentence1": TEXTS[:30],
            "sentence2": [*TEXTS[:3], *TEXTS[33:]],
            "labels": [int(i < 3 or i == 17) for i in range(30)],
        }
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


class Hierarchy(AbsTaskClustering):
    """Labels of two levels, with texts that stand there twice."""

    metadata = metadata("Hierarchy", "Clustering", "v_measure")
    max_document_to_embed = 60
    # Of each clustering: 16,384 by default, drawn again and again from these few.
    max_documents_per_cluster = 200
    max_fraction_of_documents_to_embed = None

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        rows = {
            "sentences": [*TEXTS[:40], *TEXTS[:10]],
            "labels": [[str(i % 2), str(i % 4)] for i in range(50)],
        }
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


class Sets(AbsTaskClusteringLegacy):
    """Sets of different sizes, one with a single cluster."""

    metadata = metadata("Sets", "Clustering", "v_measure")

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        sentences = [TEXTS[:30], TEXTS[20:32], TEXTS[40:50]]
        labels = [[i % 3 for i in range(30)], [i % 2 for i in range(12)], [0] * 10]
        rows = {"sentences": sentences, "labels": labels}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


class Languages(AbsTaskBitextMining):
    """Two language pairs, with sentences that have several equal translations."""

    metadata = metadata(
        "Languages",
        "BitextMining",
        "f1",
        {"de-en": ["deu-Latn", "eng-Latn"], "fr-en": ["fra-Latn", "eng-Latn"]},
    )

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        self.dataset = {
            pair: DatasetDict(
                {"test": Dataset.from_dict({"sentence1": first, "sentence2": second})}
            )
            for pair, first, second in (
                ("de-en", TEXTS[:20], [*TEXTS[1:20], TEXTS[1]]),
                ("fr-en", [*QUERIES[:10], QUERIES[0]], TEXTS[:11]),
            )
        }
        self.data_loaded = True


class Summaries(AbsTaskSummarization):
    """Documents with summaries that are all graded alike, and some that are not."""

    metadata = metadata("Summaries", "Summarization", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        machine = [TEXTS[i : i + 5] for i in range(0, 30, 5)]
        human = [QUERIES[i : i + 2] for i in range(6)]
        grades = [[float((i * j) % 4) for j in range(5)] for i in range(1, 7)]
        grades[2] = [3.0] * 5
        rows = {
            "text": TEXTS[50:56],
            "machine_summaries": machine,
            "human_summaries": human,
            "relevance": grades,
        }
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


TASKS = (
    TitlesAndDuplicates,
    EqualQueries,
    Candidates,
    TiedPairs,
    RareLabels,
    SeveralLabels,
    Pairs,
    Hierarchy,
    Sets,
    Languages,
    Summaries,
)
