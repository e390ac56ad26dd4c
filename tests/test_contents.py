"""Data that cannot be scored, or is not what it is called, is named: where, and what it is."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import mteb
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskBitextMining,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskRegression,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.task_metadata import TaskMetadata

from engines import encoder_of
from lcbench.encode.encoder import Encoder
from lcbench.score import score
from lcbench.tasks.contents import DataError, load, refuse
from lcbench.tasks.mirror import point_at

NAN = float("nan")
TEXTS = ["an apple", "", "a pear 🍐", "a\0plum", "x" * 9000, "an apple"]
LABELS = [0, 1, 0, 1, 0, 1]
PAIRS = {"sentence1": TEXTS, "sentence2": TEXTS[::-1]}
# Of each of mteb's types: its class, main score, and rows that can be scored.
KINDS: dict[str, tuple[type, str, dict[str, list[Any]]]] = {
    "STS": (AbsTaskSTS, "cosine_spearman", {**PAIRS, "score": [1, 2, 3, 4, 5, 2]}),
    "PairClassification": (AbsTaskPairClassification, "max_ap", {**PAIRS, "labels": LABELS}),
    "Classification": (AbsTaskClassification, "accuracy", {"text": TEXTS, "label": LABELS}),
    "MultilabelClassification": (
        AbsTaskMultilabelClassification,
        "accuracy",
        {"text": TEXTS, "label": [[0, 1], [], [1], [2], [0], [2]]},
    ),
    "Regression": (AbsTaskRegression, "kendalltau", {"text": TEXTS, "value": [0.5] * 6}),
    "Clustering": (AbsTaskClustering, "v_measure", {"sentences": TEXTS, "labels": LABELS}),
    "Legacy": (
        AbsTaskClusteringLegacy,
        "v_measure",
        {"sentences": [TEXTS, TEXTS], "labels": [LABELS, LABELS]},
    ),
    "BitextMining": (AbsTaskBitextMining, "f1", PAIRS),
    "Summarization": (
        AbsTaskSummarization,
        "cosine_spearman",
        {
            "text": TEXTS,
            "human_summaries": [["a", "b"]] * 6,
            "machine_summaries": [["c", "d"]] * 6,
            "relevance": [[1.0, 2.0]] * 6,
        },
    ),
}
CORPUS = {"id": ["a", "b", "b"], "title": ["", "t", "t"], "text": ["an apple", "", "an apple"]}
QUERIES = {"id": ["q", "r"], "text": ["fruit", "fruit"]}
GRADES = {"q": {"a": 1, "absent": 1}, "r": {"b": 2}}


def made(kind: str, load_data: Callable[[Any], None], **changes: Any) -> Any:
    base, main_score = KINDS[kind][:2] if kind in KINDS else (AbsTaskRetrieval, "ndcg_at_10")
    types = {"Legacy": "Clustering"}

    class Made(base):  # type: ignore[misc,valid-type]
        metadata = TaskMetadata(
            name="Made",
            description="made by a test",
            dataset={"path": "made/here", "revision": "1"},
            type=types.get(kind, kind),
            main_score=main_score,
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            modalities=["text"],
            category="t2t",
        )

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            load_data(self)
            self.data_loaded = True

    for name, value in changes.items():
        setattr(Made, name, value)
    return Made()


def rows_of(kind: str, rows: dict[str, list[Any]], **splits: Any) -> Any:
    """Return a task of a type whose splits all have these rows."""

    def load_data(task: Any) -> None:
        data = Dataset.from_dict(rows)
        task.dataset = DatasetDict({"train": data, "test": data, **splits})

    return made(kind, load_data)


def retrieval(
    corpus: dict[str, list[Any]] = CORPUS, queries: Any = QUERIES, grades: Any = GRADES
) -> Any:
    def load_data(task: Any) -> None:
        split = {
            "corpus": Dataset.from_dict(corpus),
            "queries": Dataset.from_dict(queries),
            "relevant_docs": copy.deepcopy(grades),
            "top_ranked": None,
        }
        task.dataset = {"default": {"test": split}}

    return made("Retrieval", load_data)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_texts_are_scored(kind: str) -> None:
    assert load(rows_of(kind, KINDS[kind][2])) == []


def test_absent_documents_and_duplicates_are_scored() -> None:
    assert load(retrieval()) == []


TEXT_COLUMNS = [
    (kind, column)
    for kind, (_, _, rows) in KINDS.items()
    for column in rows
    if column not in {"score", "label", "labels", "value", "relevance"}
]
LABEL_COLUMNS = [
    (kind, column)
    for kind, (_, _, rows) in KINDS.items()
    for column in rows
    if column in {"score", "label", "labels", "value", "relevance"}
]


def replaced(kind: str, column: str, row: int, value: Any) -> dict[str, list[Any]]:
    """Return the rows of a type with another value in one of them, within its list if it has."""
    rows = copy.deepcopy(KINDS[kind][2])
    if isinstance(rows[column][row], list):
        rows[column][row] = [*rows[column][row], value]
    else:
        rows[column][row] = value
    return rows


@pytest.mark.parametrize(("kind", "column"), TEXT_COLUMNS + LABEL_COLUMNS)
def test_what_is_null_is_named(kind: str, column: str) -> None:
    with pytest.raises(DataError) as no:
        load(rows_of(kind, replaced(kind, column, 1, None)))
    assert f"made/here cannot be scored: Made, split test, column {column}, row 1" in str(no.value)


@pytest.mark.parametrize(("kind", "column"), LABEL_COLUMNS)
def test_labels_that_are_no_numbers_are_named(kind: str, column: str) -> None:
    with pytest.raises(DataError, match=rf"column {column}, row 1 .*NaN"):
        load(rows_of(kind, replaced(kind, column, 1, NAN)))


@pytest.mark.parametrize(("kind", "column"), TEXT_COLUMNS)
@pytest.mark.parametrize("value", [7, 0.5, {"path": "http://127.0.0.1/x.png"}])
def test_what_is_no_text_is_named(kind: str, column: str, value: Any) -> None:
    rows = copy.deepcopy(KINDS[kind][2])
    nested = isinstance(rows[column][0], list)
    rows[column] = [[value] * 2 if nested else value for _ in rows[column]]
    with pytest.raises(DataError, match=rf"split test, column {column} holds .*, not texts"):
        load(rows_of(kind, rows))


@pytest.mark.parametrize(("kind", "column"), [("STS", "score"), ("Summarization", "relevance")])
def test_what_is_no_number_is_named(kind: str, column: str) -> None:
    rows = copy.deepcopy(KINDS[kind][2])
    rows[column] = [["high"] if isinstance(one, list) else "high" for one in rows[column]]
    with pytest.raises(DataError, match=rf"column {column} holds string, not numbers"):
        load(rows_of(kind, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_split_is_named(kind: str) -> None:
    with pytest.raises(DataError, match=r"split test, column .* has no rows"):
        load(rows_of(kind, {column: [] for column in KINDS[kind][2]}))


@pytest.mark.parametrize(("kind", "column"), TEXT_COLUMNS + LABEL_COLUMNS)
def test_a_missing_column_is_named(kind: str, column: str) -> None:
    rows = {name: values for name, values in KINDS[kind][2].items() if name != column}
    with pytest.raises(DataError, match=rf"split test, column {column} is missing; there are: "):
        load(rows_of(kind, {**rows, "other": [0] * len(next(iter(KINDS[kind][2].values())))}))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_named(split: str) -> None:
    def load_data(task: Any) -> None:
        data = Dataset.from_dict(KINDS["Classification"][2])
        task.dataset = DatasetDict({one: data for one in ("train", "test") if one != split})

    with pytest.raises(DataError, match=f"Made, split {split} is missing; there are: t"):
        load(made("Classification", load_data))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": {**CORPUS, "text": ["a", None, "c"]}}, r"corpus, column text, row 1 .*null"),
        ({"corpus": {**CORPUS, "title": ["a", "b", None]}}, r"corpus, column title, row 2 .*null"),
        ({"corpus": {**CORPUS, "id": ["a", None, "c"]}}, r"corpus, column id, row 1 .*null"),
        ({"corpus": {**CORPUS, "text": [1, 2, 3]}}, "corpus, column text holds int64, not texts"),
        ({"corpus": {"id": [], "text": []}}, "corpus, column id has no rows"),
        ({"corpus": {"id": ["a"], "body": ["b"]}}, "corpus, column text is missing; .* id, body"),
        ({"queries": {**QUERIES, "text": [None, "b"]}}, r"queries, column text, row 0 .*null"),
        ({"queries": {**QUERIES, "text": [1, 2]}}, "queries, column text holds int64, not texts"),
        ({"grades": {}}, "no query has a relevant document"),
        ({"grades": {"q": {"a": None}}}, "grade of a for query q is None, not a number"),
        ({"grades": {"q": {"a": NAN}}}, "grade of a for query q is nan, not a number"),
    ],
)
def test_faults_of_a_retrieval_task_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"Made, split test.*{message}"):
        load(retrieval(**changes))


def test_queries_may_be_conversations() -> None:
    turns = [[{"role": "user", "content": "fruit?"}], [{"role": "user", "content": "fruit?"}]]
    assert load(retrieval(queries={**QUERIES, "text": turns})) == []


def test_texts_in_a_form_of_mtebs_first_version_are_looked_through() -> None:
    def load_data(task: Any) -> None:
        task.corpus = {"test": {"d": {"text": None}}}
        task.queries = {"test": {"q": "who?"}}
        task.relevant_docs = {"test": {"q": {"d": 1}}}

    with pytest.raises(DataError, match="corpus, column text, row 0"):
        load(made("Retrieval", load_data))


def test_languages_side_by_side_are_looked_through() -> None:
    def load_data(task: Any) -> None:
        task.dataset = DatasetDict({"test": Dataset.from_dict({"eng": ["a"], "deu": [None]})})

    task = made("BitextMining", load_data, parallel_subsets=True)
    task.metadata = task.metadata.model_copy(update={"eval_langs": {"eng-deu": ["eng-Latn"]}})
    task.hf_subsets = ["eng-deu"]
    with pytest.raises(DataError, match="subset eng-deu, column deu, row 0"):
        load(task)


def test_what_loading_stumbled_over_is_told() -> None:
    def load_data(task: Any) -> None:
        try:
            raise ValueError("row 7 is no UTF-8")
        except ValueError as error:
            raise RuntimeError("An error occurred") from error

    with pytest.raises(DataError, match=r"made/here could .* \(ValueError: row 7 is no UTF-8\)"):
        load(made("STS", load_data))


# What plain folders of a mirror hold.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of STS13 in a mirror, empty as yet."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    place = tmp_path / "mirror" / "mteb" / "sts13-sts"
    place.mkdir(parents=True)
    return place


def fill(folder: Path, count: int, **changes: Any) -> None:
    row = {"sentence1": "a b", "sentence2": "a c", "score": 1.0}
    lines = [json.dumps({**row, "score": i % 6}) for i in range(count - 1)]
    lines.append(json.dumps({**row, **changes}))
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n")


def pointed(folder: Path) -> Any:
    task = mteb.get_task("STS13")
    point_at(task, folder.parents[1])
    return task


def test_another_number_of_texts_is_told(folder: Path) -> None:
    fill(folder, 1500)
    assert load(pointed(folder)) == []
    # Cut at a line's end.
    lines = (folder / "test.jsonl").read_text().splitlines(keepends=True)
    (folder / "test.jsonl").write_text("".join(lines[:750]))
    differs = load(pointed(folder))
    assert [str(one) for one in differs] == [
        "STS13, split test, column sentence1: 750 texts, mteb counts 1,500",
        "STS13, split test, column sentence2: 750 texts, mteb counts 1,500",
    ]
    assert not any(one.is_tolerable for one in differs)
    assert "unverified_data=true" in str(refuse(differs))


def test_other_data_is_scored_only_if_it_is_said_to_be(
    folder: Path, make_model: Callable[[str], Path]
) -> None:
    encoder: Encoder = encoder_of(make_model("bert"))
    fill(folder, 12)
    with pytest.raises(DataError, match="column sentence1: 12 texts, mteb counts 1,500"):
        score(pointed(folder), encoder)
    assert encoder.counters.texts == 0
    scored = score(pointed(folder), encoder, unverified=True)
    assert scored.differs[0].endswith("column sentence1: 12 texts, mteb counts 1,500")
    assert scored.result.dataset_revision.startswith("sha256-")


def test_a_null_of_a_plain_folder_is_told_with_the_users_path(folder: Path) -> None:
    fill(folder, 9, sentence2=None)
    with pytest.raises(DataError) as no:
        load(pointed(folder))
    where = "STS13, split test, column sentence2, row 8 (counted from 0): nothing is there (null)"
    assert str(no.value) == f"{folder} cannot be scored: {where}"


def test_a_lone_surrogate_is_told_with_the_users_path(folder: Path) -> None:
    (folder / "test.jsonl").write_text('{"sentence1": "\\ud83d", "sentence2": "a", "score": 1}\n')
    with pytest.raises(DataError) as no:
        load(pointed(folder))
    assert str(no.value).startswith(f"{folder} could not be loaded as STS13 needs it (")
    assert "surrogate" in str(no.value)
    assert "cache" not in str(no.value)


def test_data_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    fill(folder, 1500)
    task = pointed(folder)
    fill(folder, 1500, sentence1="other")
    with pytest.raises(DataError, match="was changed while it was read"):
        load(task)


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("STSBenchmark", []),
        ("STS13", []),
        ("Banking77Classification", []),
        ("EmotionClassification", []),
        ("LEMBQMSumRetrieval", []),
        # Of the split that classifiers are trained on: no other dataset for that.
        (
            "MassiveIntentClassification",
            [
                "MassiveIntentClassification, split train, subset en, column text: 11,510 texts, "
                "mteb counts 11,514"
            ],
        ),
    ],
)
def test_public_data_is_what_it_is_called(mirror: Path, name: str, differs: list[str]) -> None:
    task = mteb.get_task(name)
    if task.metadata.is_multilingual:
        task = mteb.get_task(name, hf_subsets=["en"])
    point_at(task, mirror)
    found = load(task)
    assert [str(one) for one in found] == differs
    assert all(one.is_tolerable for one in found)
