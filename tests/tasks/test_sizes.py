"""Sizes of tasks: mteb's statistics, read as it encodes; and the docs suite's own texts."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs_tasks import SIZES

from lcbench.settings.schema import sources_of
from lcbench.tasks.docs.names import DOCS_TYPES, SYNTHETIC_TASKS
from lcbench.tasks.docs.selection import SyntheticSizes
from lcbench.tasks.registry import TaskChoice, registry
from lcbench.tasks.sizes import rounded
from lcbench.tasks.source import Part, Texts
from lcbench.tasks.suites import resolve, shipped_suites


def texts_of(part: Part) -> tuple[Texts, ...] | None:
    return part.source.texts(part)


def size_of(task: str, subsets: tuple[str, ...] | None = None) -> tuple[Texts, ...]:
    texts = texts_of(resolve(TaskChoice(task), "test", subsets, sources_of(SIZES)))
    assert texts is not None
    return texts


def total(texts: tuple[Texts, ...], train: bool) -> tuple[int, int]:
    """Return how many texts there are, and how many different ones, of what is scored or drawn."""
    chosen = [one for one in texts if ("/train" in one.origin) is train]
    return sum(one.count for one in chosen), sum(one.unique for one in chosen)


@pytest.mark.parametrize(
    ("task", "count", "unique"),
    [
        # mteb's samples are texts in these, and pairs of texts in STS.
        ("Banking77Classification", 3080, 3080),
        ("ImdbClassification", 25000, 24801),
        ("MassiveIntentClassification", 151674, 148972),
        ("ArxivClusteringP2P", 732723, 628409),
        ("TwentyNewsgroupsClustering", 59545, 5242),
        ("STS17", 2 * 5346, 9370),
        ("STSBenchmark", 2 * 1379, 2593),
        ("NFCorpus", 3956, 3916),
        ("MindSmallReranking", 2367791, 42439),
        ("LEMBSummScreenFDRetrieval", 672, 672),
        # 1,100 human and 1,600 machine summaries; the 100 texts are not encoded.
        ("SummEval", 2700, 2648),
    ],
)
def test_what_is_scored(task: str, count: int, unique: int) -> None:
    assert total(size_of(task), train=False) == (count, unique)


def test_all_of_the_papers_tasks_have_a_size() -> None:
    suite = next(suite for suite in shipped_suites() if suite.name == "paper")
    for task in suite.tasks:
        assert all(one.characters > one.count > 0 for one in size_of(task)), task


def test_characters() -> None:
    assert [(one.origin, one.characters) for one in size_of("STSBenchmark")] == [
        ("STSBenchmark/test/text1", 74107),
        ("STSBenchmark/test/text2", 73779),
    ]


def test_queries_are_distinguished_from_documents() -> None:
    assert [(one.count, one.role) for one in size_of("NFCorpus")] == [
        (3633, "document"),
        (323, "query"),
    ]
    assert [one.role for one in size_of("DocstringRetrieval")] == ["query", "document"]
    # As in mteb, what is clustered has no role of its own, and counts as documents.
    assert [one.role for one in size_of("DocstringModuleClusteringS2S")] == ["document"]
    assert {one.role for one in size_of("STSBenchmark")} == {"document"}


def test_what_is_drawn_says_how_much_work_that_is() -> None:
    # 16,000 rows and 6 labels, ten times.
    _, drawn = size_of("EmotionClassification")
    assert (drawn.drawn_rows, drawn.fitted_labels) == (160_000, 60)


def test_subsets_are_those_that_were_asked_for() -> None:
    assert total(size_of("MassiveIntentClassification", ("en",)), train=False) == (2974, 2970)
    assert [one.count for one in size_of("STS17", ("en",))] == [250, 250]


def test_two_labels_are_drawn_ten_times_eight_texts_each() -> None:
    # 25,000 texts: hardly any is drawn twice.
    assert total(size_of("ImdbClassification"), train=True) == (160, 160)
    scored = len(registry().tasks["MassiveIntentClassification"].subsets)
    assert len(size_of("MassiveIntentClassification")) == 1 + scored


@pytest.mark.mirror
@pytest.mark.parametrize("task", ["Banking77Classification", "EmotionClassification"])
def test_what_is_drawn_is_near_what_mteb_draws(task: str, mirror: Path) -> None:
    import pyarrow.parquet as pq

    entry = registry().tasks[task]
    column = pq.read_table(mirror / entry.dataset / "data" / "train.parquet").column("label")
    labels, order, drawn = column.to_pylist(), list(range(len(column))), set()
    # As mteb's AbsTaskClassification._undersample_data.
    for _ in range(entry.drawing.draws):
        np.random.RandomState(42).shuffle(order)
        counts: dict[int, int] = defaultdict(int)
        for i in order:
            if counts[labels[i]] < entry.drawing.per_label:
                drawn.add(i)
            counts[labels[i]] += 1
    assert total(size_of(task), train=True)[0] == pytest.approx(len(drawn), rel=0.01)


def test_what_mteb_takes_a_part_of() -> None:
    # 4 % of 2,048 titles; and all of them where the task takes that limit off.
    assert [one.count for one in size_of("ArXivHierarchicalClusteringS2S")] == [81]
    assert [one.count for one in size_of("StackExchangeClustering.v2")] == [2048]


def test_an_aggregate_is_its_parts() -> None:
    parts = registry().tasks["CQADupstackRetrieval"].parts
    assert len(parts) == 12
    texts = [one for part in parts for one in size_of(part)]
    assert list(size_of("CQADupstackRetrieval")) == texts


def test_what_is_not_stated_is_unknown() -> None:
    part = resolve(TaskChoice("SynPerTextToneClassification"), "test", None, sources_of(SIZES))
    assert texts_of(part) is None
    part = resolve(
        TaskChoice("STSBenchmark", splits=("no such split",)), "test", None, sources_of(SIZES)
    )
    assert texts_of(part) is None


@pytest.mark.parametrize("name", sorted(DOCS_TYPES))
def test_the_docs_suites_sizes_are_those_of_its_data(name: str) -> None:
    part = resolve(TaskChoice(name), "test", None, sources_of(SIZES))
    task = part.source.make(part)
    task.load_data()
    assert task.metadata.type == DOCS_TYPES[name]
    data: Any = task.dataset
    texts: list[str]
    if DOCS_TYPES[name] == "Classification":
        texts = [text for split in data.values() for text in split["text"]]
    elif DOCS_TYPES[name] == "Clustering":
        texts = [text for one in data["test"]["sentences"] for text in one]
    else:
        texts = [
            text
            for split in data["default"].values()
            for text in (*split["queries"]["text"], *split["corpus"]["text"])
        ]
    sizes = size_of(name)
    assert sum(one.count for one in sizes) == len(texts)
    assert sum(one.unique for one in sizes) == len(set(texts))
    assert sum(one.characters for one in sizes) == sum(map(len, texts))


def test_synthetic_sizes_are_unknown_before_the_window_is() -> None:
    sizes = replace(SIZES, synthetic=SyntheticSizes(lengths=None, documents=4))
    for name in SYNTHETIC_TASKS:
        part = resolve(TaskChoice(name), "test", None, sources_of(sizes))
        assert texts_of(part) is None
        # 4 documents at each of three lengths, and the same 4 queries.
        known = texts_of(part.at(512))
        assert known is not None
        assert sum(one.unique for one in known) == 3 * 4 + 4


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (9999, "9,999"), (10_000, "10 k"), (84_321, "84.3 k"), (2_367_791, "2.37 M")],
)
def test_numbers_in_three_digits(number: int, words: str) -> None:
    assert rounded(number) == words
