"""Data that cannot be scored, or is not what it is called, is named: where, and what it is."""

import bz2
import copy
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import mteb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from engines import encoder_of
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

from lcbench.encode.encoder import Encoder
from lcbench.hub.contents import DataError, load, refuse
from lcbench.hub.datasets import point_at
from lcbench.score.evaluate import score

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


def test_data_in_a_form_of_its_own_is_left_to_mteb() -> None:
    def load_data(task: Any) -> None:
        split = {"corpus": {"d": "a story"}, "queries": {"q": "who?"}, "relevant_docs": GRADES}
        task.dataset = {"default": {"test": split}}

    assert load(made("Retrieval", load_data)) == []


def test_what_loading_stumbled_over_is_reported() -> None:
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


def test_another_number_of_texts_is_reported(folder: Path) -> None:
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


def test_half_a_snapshot_of_which_no_tree_is_known_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the hub's commit half a dataset would be scored by the whole one's name."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "prepared")
    task = mteb.get_task("STS13")
    repository = tmp_path / "mirror" / "datasets--mteb--sts13-sts"
    snapshot = repository / "snapshots" / task.metadata.revision
    snapshot.mkdir(parents=True)
    fill(snapshot, 750)
    assert point_at(task, tmp_path / "mirror").origin == "hub"
    differs = load(task)
    assert [str(one) for one in differs] == [
        "STS13, split test, column sentence1: 750 texts, mteb counts 1,500",
        "STS13, split test, column sentence2: 750 texts, mteb counts 1,500",
    ]
    assert "lcbench prefetch" in str(refuse(differs))
    # Files that have been compared with the commit's tree are the dataset, whatever mteb counts.
    (repository / "trees").mkdir()
    sizes = {"test.jsonl": {"size": (snapshot / "test.jsonl").stat().st_size, "blob_id": "0" * 40}}
    (repository / "trees" / f"{task.metadata.revision}.json").write_text(
        json.dumps({"format_version": 1, "files": sizes})
    )
    again = mteb.get_task("STS13")
    assert point_at(again, tmp_path / "mirror").origin == "hub"
    assert load(again) == []


def test_a_null_of_a_plain_folder_is_reported_with_the_users_path(folder: Path) -> None:
    fill(folder, 9, sentence2=None)
    with pytest.raises(DataError) as no:
        load(pointed(folder))
    where = (
        "STS13, split test, column sentence2, row 8 (counted from 0): the value is missing (null)"
    )
    assert str(no.value) == f"{folder} cannot be scored: {where}"


def test_a_lone_surrogate_is_reported_with_the_users_path(folder: Path) -> None:
    (folder / "test.jsonl").write_text('{"sentence1": "\\ud83d", "sentence2": "a", "score": 1}\n')
    with pytest.raises(DataError) as no:
        load(pointed(folder))
    assert str(no.value).startswith(f"{folder} could not be loaded for STS13 (")
    assert "surrogate" in str(no.value)
    assert "cache" not in str(no.value)


def test_data_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    fill(folder, 1500)
    task = pointed(folder)
    fill(folder, 1500, sentence1="other")
    with pytest.raises(DataError, match="was changed while it was being read"):
        load(task)


ROWS = {
    "sentence1": ["a, b", "two\nlines", '"quoted"', " spaces ", "ünï 🍐", "a, b"],
    "sentence2": ["1", "NA", "null", "true", "-", "1"],
    "score": [0.0, 1.5, 2.0, 3.0, 5.0, 0.0],
}


def as_lines(rows: dict[str, list[Any]], ascii_only: bool = False) -> bytes:
    table = [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in table).encode()


def as_csv(separator: str = ",", **options: Any) -> bytes:
    frame = pd.DataFrame(ROWS)
    return frame.to_csv(index=False, sep=separator, quoting=csv.QUOTE_ALL, **options).encode()


def zipped(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("test.jsonl", content)
    return made.getvalue()


def parquet(*types: pa.DataType, rows: slice = slice(None)) -> bytes:
    made = io.BytesIO()
    columns = {
        name: pa.array(values[rows]).cast(kind)
        for (name, values), kind in zip(ROWS.items(), types, strict=True)
    }
    pq.write_table(pa.table(columns), made)
    return made.getvalue()


TEXT, LARGE, CODED = pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())
ODD: dict[str, dict[str, bytes]] = {
    "lines": {"test.jsonl": as_lines(ROWS)},
    "escaped": {"test.jsonl": as_lines(ROWS, ascii_only=True)},
    "windows lines": {"test.jsonl": as_lines(ROWS).replace(b"\n", b"\r\n")},
    "no last newline": {"test.jsonl": as_lines(ROWS).rstrip()},
    "gzip": {"test.jsonl.gz": gzip.compress(as_lines(ROWS))},
    "xz": {"test.jsonl.xz": lzma.compress(as_lines(ROWS))},
    "bzip2": {"test.jsonl.bz2": bz2.compress(as_lines(ROWS))},
    "zip": {"test.zip": zipped(as_lines(ROWS))},
    "in a folder of its split": {"test/part.jsonl": as_lines(ROWS)},
    "parquet": {"test.parquet": parquet(TEXT, TEXT, pa.float32())},
    "large strings": {"test.parquet": parquet(LARGE, LARGE, pa.float64())},
    "coded strings": {"test.parquet": parquet(CODED, TEXT, pa.float64())},
    "shards": {
        f"data/test-0000{i}-of-00002.parquet": parquet(
            TEXT, TEXT, pa.float64(), rows=slice(3 * i, 3 * i + 3)
        )
        for i in range(2)
    },
    "other columns": {"test.jsonl": as_lines({**ROWS, "image": [None] * 6, "n": list(range(6))})},
    "another split is broken": {"test.jsonl": as_lines(ROWS), "train.jsonl": as_lines(ROWS)},
}
# As `datasets` reads CSV with pandas: "NA" and "null" are no texts, and are named as missing.
TABLES: dict[str, dict[str, bytes]] = {
    "csv": {"test.csv": as_csv()},
    "byte-order mark": {"test.csv": b"\xef\xbb\xbf" + as_csv()},
    "windows csv": {"test.csv": as_csv(lineterminator="\r\n")},
}


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_read_as_they_are(folder: Path, kind: str) -> None:
    put(folder, ODD[kind])
    task = pointed(folder)
    differs = load(task)
    assert {one.counted for one in differs} == {len(ROWS["score"])}
    for column, values in ROWS.items():
        assert list(task.dataset["test"][column]) == values


@pytest.mark.parametrize("kind", TABLES)
def test_what_csv_takes_for_missing_is_named(folder: Path, kind: str) -> None:
    put(folder, TABLES[kind])
    with pytest.raises(DataError, match=r"column sentence2, row 1 .*null"):
        load(pointed(folder))


CARD = "---\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"
BROKEN: dict[str, tuple[dict[str, bytes], str]] = {
    "a card alone": ({"README.md": b"---\nlicense: mit\n---\n"}, "any data files"),
    "named, and not there": (
        {"README.md": CARD.format("x.jsonl").encode(), "test.jsonl": as_lines(ROWS)},
        "x.jsonl",
    ),
    "no data's name": ({"test.xyz": b"a"}, "data files found"),
    "no pattern": (
        {"README.md": CARD.format("'**x**'").encode(), "test.jsonl": as_lines(ROWS)},
        "Invalid pattern",
    ),
    "two formats": ({"test.jsonl": as_lines(ROWS), "train.csv": b"a\n1\n"}, "format"),
    "latin-1": ({"test.csv": "sentence1\ncafé\n".encode("latin-1")}, "UTF-?8"),
    "cut": ({"test.parquet": parquet(TEXT, TEXT, pa.float64())[:200]}, "(?i)parquet"),
    "sizes that are none": (
        {"dataset_infos.json": b"{", "test.jsonl": as_lines(ROWS)},
        "JSONDecodeError",
    ),
    "sizes without end": (
        {"dataset_infos.json": b"[" * 100000, "test.jsonl": as_lines(ROWS)},
        "RecursionError",
    ),
    "the wrong split": ({"train.jsonl": as_lines(ROWS)}, "split test is missing.*train"),
    "an image at an address": (
        {
            "README.md": b"---\ndataset_info:\n  features:\n  - name: sentence1\n    dtype: image\n"
            b"  - name: sentence2\n    dtype: string\n  - name: score\n    dtype: float64\n---\n",
            "test.jsonl": as_lines({**ROWS, "sentence1": [{"path": "http://127.0.0.1:9/x"}] * 6}),
        },
        "sentence1 holds struct.*not texts",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_read_is_reported_by_name(folder: Path, kind: str) -> None:
    files, message = BROKEN[kind]
    put(folder, files)
    with pytest.raises(DataError, match=message) as no:
        load(pointed(folder))
    assert str(folder) in str(no.value)
    assert "\n" not in str(no.value)


QRELS = [{"query-id": "q", "corpus-id": "a", "score": 1}]


def beir(folder: Path, **changed: Any) -> Any:
    """Lay NFCorpus out as mteb has it, and return the task."""
    parts = {
        "corpus": [
            {"_id": "a", "title": "", "text": "an apple"},
            {"_id": "b", "title": "", "text": "b"},
        ],
        "queries": [{"_id": "q", "text": "fruit"}],
        "qrels": QRELS,
        **changed,
    }
    place = folder.parent / "nfcorpus"
    place.mkdir()
    card = ["---", "configs:"]
    for name, rows in parts.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config, split = ("default", "test") if name == "qrels" else (name, name)
        card += [f"- config_name: {config}", "  data_files:"]
        card += [f"  - split: {split}", f"    path: {name}.jsonl"]
    (place / "README.md").write_text("\n".join([*card, "---", ""]))
    task = mteb.get_task("NFCorpus")
    point_at(task, folder.parents[1])
    return task


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"queries": [{"_id": "q", "text": None}]}, "queries, column text, row 0 .*null"),
        ({"queries": [{"_id": "q", "body": "x"}]}, "text"),
        ({"corpus": [{"_id": "a", "title": "t", "text": None}]}, "corpus, column text, row 0"),
        ({"corpus": [{"_id": "a", "title": None, "text": "b"}]}, "corpus, column title"),
        ({"corpus": [{"_id": None, "title": "t", "text": "b"}]}, "corpus, column id, row 0"),
        ({"corpus": [{"_id": "a", "title": "t", "text": 7}]}, "corpus, column text holds int64"),
        ({"qrels": [{**QRELS[0], "score": None}]}, "nfcorpus"),
        ({"corpus": []}, "nfcorpus"),
    ],
)
def test_faults_of_a_corpus_are_named(folder: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as no:
        load(beir(folder, **changed))
    assert str(folder.parent / "nfcorpus") in str(no.value)


def test_a_corpus_with_absent_documents_and_duplicates_is_scored(
    folder: Path, make_model: Callable[[str], Path]
) -> None:
    documents = [
        {"_id": i, "title": "", "text": text} for i, text in zip("aab", "xxy", strict=True)
    ]
    queries = [{"_id": i, "text": "fruit"} for i in ("q", "r")]
    qrels = [*QRELS, {"query-id": "r", "corpus-id": "absent", "score": 1}]
    task = beir(folder, corpus=documents, queries=queries, qrels=qrels)
    scored = score(task, encoder_of(make_model("bert")), unverified=True)
    assert 0 <= scored.result.get_score() <= 1
    assert scored.differs == (
        "NFCorpus, split test, corpus, column text: 3 texts, mteb counts 3,633",
        "NFCorpus, split test, queries, column text: 2 texts, mteb counts 323",
    )


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


def test_what_a_task_opens_again_and_again_is_opened_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str, *, split: str | None = None) -> Any:
        opened.append((path, name, split))
        rows = Dataset.from_dict({"text": [f"{path} {name}"]})
        return DatasetDict({"test": rows}) if split is None else rows

    class Task:
        """Replaces a split of what it is given, as some of mteb's do."""

        metadata = mteb.get_task("STSBenchmark").metadata
        dataset = None

        def load_data(self) -> None:
            found = datasets.load_dataset("a", name="one")
            found["test"] = found["test"].rename_column("text", "other")
            self.again = datasets.load_dataset("a", name="one")
            self.other = datasets.load_dataset("a", name="two")
            self.split = datasets.load_dataset("a", name="one", split="test")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for times in (1, 2):
        task: Any = Task()
        load(task)
        assert task.again["test"][:] == task.split[:] == {"text": ["a one"]}
        assert task.other["test"][:] == {"text": ["a two"]}
        # The next load reads it anew: files may have changed.
        assert opened == times * [("a", "one", None), ("a", "two", None), ("a", "one", "test")]
        assert datasets.load_dataset is load_dataset
