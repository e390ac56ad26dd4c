"""mteb's own datasets, written out as a user's files, get mteb's own scores."""

import csv
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import mteb
import pyarrow.parquet as pq
import pytest
from engines import encoder_of

from lcbench.encode.encoder import Encoder
from lcbench.hub.contents import load
from lcbench.hub.datasets import point_at
from lcbench.score.evaluate import score
from lcbench.tasks.corpus.build import make_task
from lcbench.tasks.corpus.layout import tasks_of
from lcbench.tasks.corpus.plan import OwnTask
from lcbench.tasks.corpus.spec import read_spec


@pytest.fixture(scope="module")
def encoder(make_model: Callable[[str], Path]) -> Encoder:
    return encoder_of(make_model("bert"))


def own(path: Path, kind: str) -> OwnTask:
    (task,) = (one for one in tasks_of(read_spec(str(path))) if one.kind == kind)
    return task


def write_jsonl(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def stsbenchmark(mirror: Path, folder: Path, count: int | None = None) -> Path:
    """Write STSBenchmark's test split as CSV."""
    rows = pq.read_table(mirror / "mteb" / "stsbenchmark-sts" / "data" / "test.parquet").to_pylist()
    path = folder / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "score"])
        for row in rows[:count]:
            writer.writerow([row["sentence1"], row["sentence2"], row["score"]])
    return path


def banking(mirror: Path, folder: Path, labels: int = 77) -> Path:
    """Write Banking77's train and test splits as JSONL, of its first labels."""
    for part in ("train", "test"):
        file = mirror / "mteb" / "banking77" / "data" / f"{part}.parquet"
        rows = pq.read_table(file).to_pylist()
        write_jsonl(
            folder / f"{part}.jsonl",
            ({"text": row["text"], "label": row["label"]} for row in rows if row["label"] < labels),
        )
    return folder


def qmsum(mirror: Path, folder: Path) -> Path:
    """Write QMSum, as LongEmbed has it, as a BEIR folder."""
    read = {
        name: pq.read_table(
            mirror / "dwzhu" / "LongEmbed" / "qmsum" / f"{name}.parquet"
        ).to_pylist()
        for name in ("corpus", "queries", "qrels")
    }
    write_jsonl(
        folder / "corpus.jsonl",
        ({"_id": row["doc_id"], "title": "", "text": row["text"]} for row in read["corpus"]),
    )
    write_jsonl(
        folder / "queries.jsonl",
        ({"_id": row["qid"], "text": row["text"]} for row in read["queries"]),
    )
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [f"{row['qid']}\t{row['doc_id']}\t1" for row in read["qrels"]]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def of_mteb(name: str, mirror: Path) -> Any:
    task = mteb.get_task(name)
    point_at(task, mirror)
    return task


def test_pairs_of_a_csv(mirror: Path, tmp_path: Path, encoder: Encoder) -> None:
    task = of_mteb("STSBenchmark", mirror)
    task.load_data()
    task.dataset["test"] = task.dataset["test"].select(range(100))
    task.data_loaded = True
    theirs = score(task, encoder, unverified=True).result.get_score()
    ours = make_task(own(stsbenchmark(mirror, tmp_path, 100), "sts"))
    scored = score(ours, encoder)
    assert scored.result.get_score() == pytest.approx(theirs, abs=1e-6)
    assert scored.items is not None
    assert len(scored.items) == 100


def test_labelled_texts_of_jsonl(mirror: Path, tmp_path: Path, encoder: Encoder) -> None:
    """Of the first four labels of Banking77 mteb draws its own samples."""
    path = banking(mirror, tmp_path, 4)
    task = of_mteb("Banking77Classification", mirror)
    task.load_data()
    for part in ("train", "test"):
        rows = task.dataset[part]
        kept = [place for place, label in enumerate(rows["label"]) if label < 4]
        task.dataset[part] = rows.select(kept)
    theirs = score(task, encoder, unverified=True).result.get_score()
    scored = score(make_task(own(path, "classification")), encoder)
    assert scored.result.get_score() == pytest.approx(theirs, abs=1e-6)
    # The same texts, clustered: those of the test part.
    clustered = score(make_task(own(path, "clustering")), encoder)
    assert 0 < clustered.result.get_score() < 1
    assert clustered.counters.texts == 160


def test_a_beir_folder_has_what_mteb_loads(mirror: Path, tmp_path: Path) -> None:
    theirs = of_mteb("LEMBQMSumRetrieval", mirror)
    load(theirs)
    ours = make_task(own(qmsum(mirror, tmp_path), "retrieval"))
    ours.load_data()
    split, expected = ours.dataset["default"]["test"], theirs.dataset["default"]["test"]
    for part in ("corpus", "queries"):
        assert dict(zip(split[part]["id"], split[part]["text"], strict=True)) == dict(
            zip(expected[part]["id"], expected[part]["text"], strict=True)
        )
    assert split["relevant_docs"] == expected["relevant_docs"]


@pytest.mark.exhaustive
def test_qmsum_as_a_beir_folder(mirror: Path, tmp_path: Path, minilm_folder: Path) -> None:
    task = make_task(own(qmsum(mirror, tmp_path), "retrieval"))
    scored = score(task, encoder_of(minilm_folder))
    assert scored.result.get_score() == pytest.approx(0.16294, abs=5e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "kind", "written"),
    [
        ("STSBenchmark", "sts", stsbenchmark),
        ("Banking77Classification", "classification", banking),
    ],
)
def test_whole_datasets_get_mtebs_scores(
    name: str,
    kind: str,
    written: Callable[[Path, Path], Path],
    mirror: Path,
    tmp_path: Path,
    encoder: Encoder,
) -> None:
    theirs = score(of_mteb(name, mirror), encoder).result.get_score()
    ours = score(make_task(own(written(mirror, tmp_path), kind)), encoder).result.get_score()
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_docstrings_find_their_summaries(tmp_path: Path, encoder: Encoder) -> None:
    """Known-item retrieval of an installed package's texts: by title, and by the first sentence."""
    import scipy.stats

    docs = [
        (name, str(getattr(scipy.stats, name).__doc__))
        for name in islice(scipy.stats.__all__, 60)
        if getattr(scipy.stats, name).__doc__
    ]
    titled = write_jsonl(tmp_path / "titled.jsonl", ({"title": n, "text": t} for n, t in docs))
    plain = write_jsonl(tmp_path / "plain.jsonl", ({"text": text} for _, text in docs))
    for path, query in ((titled, docs[0][0]), (plain, None)):
        task = make_task(own(path, "retrieval"))
        scored = score(task, encoder)
        assert 0 < scored.result.get_score() <= 1
        assert scored.items is not None
        task = make_task(own(path, "retrieval"))
        task.load_data()
        data: Any = task.dataset["default"]["test"]
        assert len(data["queries"]) == len(scored.items)
        if query is not None:
            assert data["queries"]["text"][0] == query
            assert data["corpus"]["text"][0] == docs[0][1]
        else:
            text = f"{data['queries']['text'][0]} {data['corpus']['text'][0]}"
            assert text.split() == docs[0][1].split()
